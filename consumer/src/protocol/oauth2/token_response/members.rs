//! Where the token is in an answer, whatever its members are called and whatever they are wrapped in.

use oauth_dance_core::Secret;
use serde_json::{Map, Value};

use super::Asked;
use crate::error::TokenEndpointError;
use crate::protocol::http::document::Document;
use crate::protocol::http::text::is_spelling;

/// How deep inside an answer a token is looked for.
const MAX_DEPTH: usize = 5;
/// An answer with more tokens than this is not searched to its end.
const MAX_HOLDERS: usize = 32;
/// What a token response says of a token (RFC 6749 section 5.1, OpenID Connect Core section 3.1.3.3).
const TOKEN_MEMBERS: [&str; 6] = ["access_token", "token_type", "refresh_token", "id_token", "scope", "expires_in"];
/// The value of a token that is an object. Beside a refresh token they are an access token too.
const BARE: [&str; 2] = ["value", "token"];

/// A token response taken apart: what it says of the user's token, and the rest.
#[derive(Default)]
pub(super) struct Members {
    pub(super) token: Map<String, Value>,
    /// What is left of the object that held the token, if that is not the whole answer.
    pub(super) beside: Map<String, Value>,
    pub(super) extra: Map<String, Value>,
}

/// What the search for a token found.
pub(super) enum Found {
    One(Members),
    /// Several tokens, and nothing that says which one is meant.
    Several,
    /// No access token that can be used. Other members of a token may be there.
    None(Members),
}

impl Found {
    /// Takes the token from the object that the provider has for it, or else from the outermost object that holds an
    /// access token. The refresh token and the ID token may stand elsewhere.
    pub(super) fn within(asked: &Asked<'_>, answer: &Value) -> Self {
        if !answer.is_object() && !answer.is_array() {
            return Self::None(Members::default());
        }
        let mut answer = unfolded(answer, 0);
        let own = asked.quirks.token_member.as_deref().map(|name| pointer(&[Step::Name(name)]));
        let path = match best(&holders(&answer), own.as_deref()) {
            Best::Several => return Self::Several,
            Best::One(path) => Some(path),
            Best::None => None,
        };
        let place = match &path {
            Some(path) => answer.pointer_mut(path),
            None => alone(&mut answer),
        };
        let (mut token, beside) = match place.and_then(Value::as_object_mut) {
            Some(members) => (take_whole_token(members), members.clone()),
            None => Default::default(),
        };
        for name in ["refresh_token", "id_token"] {
            if token.get(name).and_then(text_of).is_none()
                && let Some(found) = take_elsewhere(&mut answer, name, asked.sent)
            {
                token.insert(name.to_owned(), found);
            }
        }
        let extra = match alone(&mut answer) {
            Some(Value::Object(members)) => std::mem::take(members),
            _ => Map::new(),
        };
        let members = Members { token, beside, extra };
        if path.is_some() { Self::One(members) } else { Self::None(members) }
    }
}

impl Members {
    pub(super) fn access_token(&self) -> Result<Secret, TokenEndpointError> {
        let unusable = |problem| Err(TokenEndpointError::Answer(problem));
        match self.token.get("access_token") {
            Some(Value::Null) | None => unusable("there is no access token in it"),
            Some(Value::String(token)) if token.trim().is_empty() => unusable("the access token is empty"),
            Some(value) => match text_of(value) {
                Some(token) if is_printable(&token) => Ok(Secret::new(token)),
                Some(_) => unusable("the access token has characters no header can carry"),
                None => unusable("the access token is neither a string nor a number"),
            },
        }
    }

    /// What kind of token it is; `None` if that is not said, or not in a word.
    pub(super) fn token_type(&self) -> Option<&str> {
        self.token.get("token_type")?.as_str().map(str::trim).filter(|token_type| !token_type.is_empty())
    }
}

/// A token that was read without gaps; anything else counts as missing.
pub(super) fn secret(value: Option<&Value>) -> Option<Secret> {
    let value = value?;
    // A string counts to the last space.
    let text = value.as_str().map(str::to_owned).or_else(|| text_of(value))?;
    let is_usable = !text.trim().is_empty() && !text.contains([char::REPLACEMENT_CHARACTER, '\0']);
    is_usable.then(|| text.into())
}

/// A member by its name, in any spelling; the standard's own counts first.
pub(super) fn spelled<'a>(members: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    members.get(&key_of(members, name, |_| true)?)
}

/// An object that holds an access token.
struct Holder {
    path: String,
    depth: usize,
    /// How far the name of its access token is from the standard's.
    rank: usize,
    access_token: String,
    has_refresh_token: bool,
}

enum Best {
    One(String),
    Several,
    None,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Name(&'a str),
    Item(usize),
}

/// The provider's own place, or the outermost token. Of several at one depth the one with a refresh token counts.
fn best(holders: &[Holder], own: Option<&str>) -> Best {
    if let Some(own) = holders.iter().find(|holder| Some(holder.path.as_str()) == own) {
        return Best::One(own.path.clone());
    }
    let order = |holder: &Holder| (holder.rank == 2, holder.depth, holder.rank);
    let Some(first) = holders.iter().map(order).min() else { return Best::None };
    let equal = || holders.iter().filter(|holder| order(holder) == first);
    let with_refresh: Vec<&Holder> = equal().filter(|holder| holder.has_refresh_token).collect();
    match (with_refresh.as_slice(), equal().collect::<Vec<_>>().as_slice()) {
        ([holder], _) | (_, [holder]) => Best::One(holder.path.clone()),
        (_, [holder, others @ ..]) if others.iter().all(|other| other.access_token == holder.access_token) => {
            Best::One(holder.path.clone())
        }
        _ => Best::Several,
    }
}

fn holders(answer: &Value) -> Vec<Holder> {
    let mut found = Vec::new();
    visit(answer, &mut Vec::new(), &mut |members, path| {
        if found.len() >= MAX_HOLDERS {
            return;
        }
        let Some((rank, access_token)) = access_token_of(members) else { return };
        let has_refresh_token = usable(members, "refresh_token").is_some();
        found.push(Holder { path: pointer(path), depth: path.len(), rank, access_token, has_refresh_token });
    });
    found
}

/// The access token in an object, and how far its name is from the standard's.
fn access_token_of(members: &Map<String, Value>) -> Option<(usize, String)> {
    let named = |name: &str| text_of(&members[&usable(members, name)?]).filter(|token| is_printable(token));
    let standard = members.get("access_token").and_then(text_of).filter(|token| is_printable(token));
    let bare = || BARE.iter().find_map(|name| named(name)).filter(|_| usable(members, "refresh_token").is_some());
    let standard = standard.map(|token| (0, token));
    standard.or_else(|| Some((1, named("access_token")?))).or_else(|| Some((2, bare()?)))
}

/// Takes the token, also what an access token that is an object says of itself.
fn take_whole_token(members: &mut Map<String, Value>) -> Map<String, Value> {
    let mut token = take_token(members);
    if let Some(Value::Object(inside)) = token.get("access_token") {
        for (name, value) in take_token(&mut inside.clone()) {
            token.entry(name).or_insert(value);
        }
    }
    token
}

/// Takes what the standards have.
fn take_token(members: &mut Map<String, Value>) -> Map<String, Value> {
    if access_token_of(members).is_some_and(|(rank, _)| rank == 2)
        && let Some(key) = BARE.iter().find_map(|name| usable(members, name))
        && let Some(token) = members.remove(&key)
    {
        members.insert("access_token".to_owned(), token);
    }
    let mut take = |name: &str| {
        let key = match name {
            "scope" | "expires_in" | "token_type" => key_of(members, name, |value| !value.is_null()),
            _ => usable(members, name),
        };
        members.remove(key.as_deref().unwrap_or(name))
    };
    TOKEN_MEMBERS.iter().filter_map(|name| Some(((*name).to_owned(), take(name)?))).collect()
}

/// Takes a token of this name that belongs to no other access token, if there is only one that was not `sent`.
fn take_elsewhere(answer: &mut Value, name: &str, sent: &[&str]) -> Option<Value> {
    let mut found: Vec<(String, String, String)> = Vec::new();
    visit(answer, &mut Vec::new(), &mut |members, path| {
        if found.len() < MAX_HOLDERS
            && let Some(key) = usable(members, name)
            && access_token_of(members).is_none()
            && let Some(text) = text_of(&members[&key]).filter(|text| !sent.contains(&text.as_str()))
        {
            found.push((pointer(path), key, text));
        }
    });
    let (path, key, text) = found.first()?;
    let is_clear = found.iter().all(|(_, _, other)| other == text);
    answer.pointer_mut(path).filter(|_| is_clear)?.as_object_mut()?.remove(key)
}

/// The object that an answer is, or the only one in the list that it is.
fn alone(answer: &mut Value) -> Option<&mut Value> {
    let is_alone = answer.as_array().is_some_and(|items| items.len() == 1);
    match answer {
        Value::Array(items) => items.first_mut().filter(|_| is_alone),
        answer => Some(answer),
    }
}

/// The key of a member that holds a token of this name, in any spelling.
fn usable(members: &Map<String, Value>, name: &str) -> Option<String> {
    key_of(members, name, |value| text_of(value).is_some())
}

fn key_of(members: &Map<String, Value>, name: &str, counts: impl Fn(&Value) -> bool) -> Option<String> {
    if members.get(name).is_some_and(&counts) {
        return Some(name.to_owned());
    }
    members.iter().find(|(key, value)| is_spelling(key, name) && counts(value)).map(|(key, _)| key.clone())
}

/// A token as text: a string, a number, or an object or a list around one.
pub(super) fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.trim().to_owned()).filter(|text| !text.is_empty()),
        Value::Number(number) => number.as_u64().filter(|number| *number > 0).map(|number| number.to_string()),
        Value::Array(items) if items.len() == 1 => text_of(&items[0]),
        Value::Object(members) => BARE.iter().find_map(|name| match spelled(members, name)? {
            value @ (Value::String(_) | Value::Number(_)) => text_of(value),
            _ => None,
        }),
        _ => None,
    }
}

fn is_printable(token: &str) -> bool {
    token.bytes().all(|byte| matches!(byte, 0x20..=0x7e))
}

/// The same with an object in place of each text that is one: some gateways put the whole answer into a string.
fn unfolded(value: &Value, depth: usize) -> Value {
    match value {
        _ if depth > MAX_DEPTH => value.clone(),
        Value::String(text) => match inside(text) {
            Some(inside) => unfolded(&inside, depth + 1),
            None => value.clone(),
        },
        Value::Array(items) => items.iter().map(|item| unfolded(item, depth + 1)).collect(),
        Value::Object(members) => {
            members.iter().map(|(name, value)| (name.clone(), unfolded(value, depth + 1))).collect()
        }
        _ => value.clone(),
    }
}

/// The token response in a text.
fn inside(text: &str) -> Option<Value> {
    let is_json = text.trim_start().starts_with(['{', '[', '"']);
    let small = text.to_ascii_lowercase();
    if !(is_json && small.contains("token") || small.contains("access_token=")) {
        return None;
    }
    let document = Document::of_text(text);
    (document.is_whole && !document.value.is_string()).then_some(document.value)
}

/// Shows each object, with the way to it.
fn visit<'a>(value: &'a Value, path: &mut Vec<Step<'a>>, see: &mut impl FnMut(&'a Map<String, Value>, &[Step<'a>])) {
    let mut step = |value: &'a Value, step: Step<'a>| {
        if (value.is_object() || value.is_array()) && path.len() < MAX_DEPTH {
            path.push(step);
            visit(value, path, see);
            path.pop();
        }
    };
    match value {
        Value::Object(members) => {
            members.iter().for_each(|(name, value)| step(value, Step::Name(name)));
            see(members, path);
        }
        Value::Array(items) => items.iter().enumerate().for_each(|(at, item)| step(item, Step::Item(at))),
        _ => {}
    }
}

/// The way to a value (RFC 6901).
fn pointer(path: &[Step<'_>]) -> String {
    let escaped = |step: &Step<'_>| match step {
        Step::Name(name) => format!("/{}", name.replace('~', "~0").replace('/', "~1")),
        Step::Item(at) => format!("/{at}"),
    };
    path.iter().map(escaped).collect()
}
