//! One reply of a storage is lost, at each call of a process, while another process changes the record.

use super::*;

/// An error that reports that nothing has changed has to be true. Only a write may be ambiguous.
#[test]
fn lost_reply_is_reported_as_unchanged_or_ambiguous() {
    let mut lost = 0;
    for (config, start) in [Config::Prepare, Config::New].iter().flat_map(|config| STARTS.map(|start| (*config, start)))
    {
        for calls in CALLS.iter().flat_map(|one| CALLS.map(|two| [*one, two])) {
            for steps in 0..20 {
                for replies in 0..20 {
                    let world = World::new(start);
                    let Some(result) = interrupt(&world, [(calls[0], config), (calls[1], Config::New)], steps, replies)
                    else {
                        break;
                    };
                    lost += 1;
                    let stored = world.stored();
                    let is_right = match &result {
                        StorageError::Unavailable { .. } => is_possible(start, &calls[1..], &stored),
                        StorageError::Ambiguous { .. } => {
                            !matches!(calls[0], Call::Get | Call::List)
                                && (is_possible(start, &calls[1..], &stored) || is_possible(start, &calls, &stored))
                        }
                        _ => false,
                    };
                    assert!(
                        is_right,
                        "{config:?} {calls:?} from {start:?}, reply {replies} lost, the other call after {steps} steps: \
                         {result:?}, and {stored} is stored"
                    );
                }
            }
        }
    }
    assert!(lost > 5_000, "{lost}");
}

/// Runs the second call after this number of steps of the first call. The first call loses one reply after a number of
/// replies. Returns the error of the first call, or `None` if no reply was lost.
fn interrupt(world: &World, calls: [(Call, Config); 2], steps: usize, replies: usize) -> Option<StorageError> {
    let [one, two] = calls;
    let mut first = Box::pin(world.call_until(replies, one.0, one.1, "one"));
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..steps {
        if let Poll::Ready(result) = first.as_mut().poll(&mut context) {
            now(world.call(two.0, two.1, "two"));
            return result.err();
        }
    }
    now(world.call(two.0, two.1, "two"));
    now(first).err()
}

/// Whether the calls can leave this record in one of their orders. A record that has moved has another version, so a
/// conditional call may have had no effect.
fn is_possible(start: Start, calls: &[Call], stored: &str) -> bool {
    let names = ["one", "two"];
    let named: Vec<_> = calls.iter().copied().zip(&names[2 - calls.len()..]).collect();
    let orders = [named.clone(), named.into_iter().rev().collect()];
    orders.into_iter().any(|order| {
        let is_empty = matches!(start, Start::Nowhere | Start::PlaceholderOnly);
        let mut states = vec![if is_empty { "nothing" } else { "first" }.to_owned()];
        for (call, name) in order {
            let missed = matches!(call, Call::Change | Call::Remove).then(|| states.clone());
            for state in &mut states {
                model(state, call, name);
            }
            states.extend(missed.unwrap_or_default());
        }
        states.iter().any(|state| state == stored)
    })
}
