//! The model: a storage that is a simple map, and the calls of the processes.

/// A call of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Get,
    List,
    /// A write on the condition that the first version is stored.
    Change,
    Create,
    Login,
    Logout,
    /// A deletion of the first version.
    Remove,
    Move,
}

/// The configuration of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Config {
    Old,
    Prepare,
    New,
}

/// Where the record is before the calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    Nowhere,
    Old,
    Marked,
    MarkedWithPlaceholder,
    /// The marked record was written, but not yet removed.
    Both,
    New,
    PlaceholderOnly,
}

pub(super) const CALLS: [Call; 8] =
    [Call::Get, Call::List, Call::Change, Call::Create, Call::Login, Call::Logout, Call::Remove, Call::Move];
pub(super) const STARTS: [Start; 7] = [
    Start::Nowhere,
    Start::Old,
    Start::Marked,
    Start::MarkedWithPlaceholder,
    Start::Both,
    Start::New,
    Start::PlaceholderOnly,
];

/// Applies a call to a storage that is a simple map, and returns its result.
pub(super) fn model(state: &mut String, call: Call, name: &str) -> String {
    let before = state.clone();
    let applies = match call {
        Call::Get | Call::Move | Call::List => false,
        Call::Change | Call::Remove => before == "first",
        Call::Create => before == "nothing",
        Call::Login => true,
        Call::Logout => before != "nothing",
    };
    if applies {
        *state = if matches!(call, Call::Logout | Call::Remove) { "nothing" } else { name }.to_owned();
    }
    match call {
        Call::Get => before,
        Call::List => u8::from(before != "nothing").to_string(),
        Call::Move => String::new(),
        Call::Logout | Call::Remove => applies.to_string(),
        _ => if applies { "written" } else { "conflict" }.to_owned(),
    }
}

/// The results and the final state of two calls in this order, according to the model.
pub(super) fn expected(start: Start, order: [(Call, &str); 2]) -> ([String; 2], String) {
    let is_empty = matches!(start, Start::Nowhere | Start::PlaceholderOnly);
    let mut state = if is_empty { "nothing" } else { "first" }.to_owned();
    let results = order.map(|(call, name)| model(&mut state, call, name));
    (results, state)
}

/// Whether the results are those of the two calls in one of their orders.
pub(super) fn is_linearizable(start: Start, calls: [Call; 2], results: &[String; 2], stored: &str) -> bool {
    let [one, two] = calls;
    let ([first, second], state) = expected(start, [(one, "one"), (two, "two")]);
    let forward = ([first, second], state);
    let ([second, first], state) = expected(start, [(two, "two"), (one, "one")]);
    let backward = ([first, second], state);
    [forward, backward].iter().any(|(wanted, state)| wanted == results && state == stored)
}

/// Whether the results are one of the exceptions that the page of [`Migrating`](super::super::Migrating) documents.
pub(super) fn is_documented(configs: [Config; 2], calls: [Call; 2], start: Start, results: &[String; 2]) -> bool {
    let has_moved = calls.contains(&Call::Move)
        && calls.iter().zip(results).any(|(call, result)| match call {
            Call::Change => result == "conflict",
            Call::Remove => result == "false",
            _ => false,
        });
    let two_creations = calls == [Call::Create; 2]
        && configs[0] != configs[1]
        && matches!(start, Start::Nowhere | Start::PlaceholderOnly);
    has_moved || two_creations
}
