//! Finds the token in a response, whatever the names of its members and whatever they are nested in.
//!
//! The response is one of an endpoint that the application configured, so the question is not whether to trust it but where
//! the token is. If there are several tokens and no indication which one is meant, none is taken: with the wrong one, the
//! application would act as someone else, such as the bot of a workspace.

use oauth_dance_core::{Secret, is_nested_at_most};
use serde_json::{Map, Value};

use super::Expectations;
use crate::error::TokenEndpointError;
use crate::protocol::http::document::Document;
use crate::protocol::http::text::is_spelling;

/// How deep inside a response a token is searched.
const MAX_DEPTH: usize = 5;
/// How deep a member around the token may be nested. A token with a deeper one could not be stored.
const MAX_NESTING: usize = 100;
/// A response with more tokens than this is not searched completely.
const MAX_HOLDERS: usize = 32;
/// The members of a token response that describe the token (RFC 6749 section 5.1, OpenID Connect Core section 3.1.3.3).
const TOKEN_MEMBERS: [&str; 6] = ["access_token", "token_type", "refresh_token", "id_token", "scope", "expires_in"];
/// The value of a token that is an object. Beside a refresh token, these names stand for an access token too.
const BARE: [&str; 2] = ["value", "token"];
/// What some servers write in place of a token that they do not have.
const PLACEHOLDERS: [&str; 5] = ["null", "(null)", "undefined", "none", "nil"];

/// The parts of a token response: the members of the user's token, and the rest.
#[derive(Default)]
pub(super) struct Members {
    pub(super) token: Map<String, Value>,
    /// The rest of the object that contained the token, if that is not the whole response.
    pub(super) beside: Map<String, Value>,
    pub(super) extra: Map<String, Value>,
}

/// The result of the search for a token.
pub(super) enum Found {
    One(Members),
    /// Several tokens, and no indication which one is meant.
    Several,
    /// No usable access token. Other members of a token may be present.
    None(Members),
}

impl Found {
    /// Takes the token from the provider's own member for it, or else from the outermost object with an access token. The
    /// refresh token and the ID token may be elsewhere.
    pub(super) fn within(expected: &Expectations<'_>, response: &Value) -> Self {
        if !response.is_object() && !response.is_array() {
            return Self::None(Members::default());
        }
        let mut response = unfolded(response, 0);
        let own = expected.quirks.token_member.as_deref().map(|name| pointer(&[Step::Name(name)]));
        let path = match best(&holders(&response), own.as_deref()) {
            Best::Several => return Self::Several,
            Best::One(path) => Some(path),
            Best::None => None,
        };
        let place = match &path {
            Some(path) => response.pointer_mut(path),
            None => alone(&mut response),
        };
        let (mut token, beside) = match place.and_then(Value::as_object_mut) {
            Some(members) => (take_whole_token(members), members.clone()),
            None => Default::default(),
        };
        for name in ["refresh_token", "id_token"] {
            if token.get(name).and_then(text_of).is_none()
                && let Some(found) = take_elsewhere(&mut response, name, expected.sent)
            {
                token.insert(name.to_owned(), found);
            }
        }
        let mut extra = match alone(&mut response) {
            Some(Value::Object(members)) => std::mem::take(members),
            _ => Map::new(),
        };
        extra.retain(|_, value| is_nested_at_most(MAX_NESTING, value));
        let members = Members { token, beside, extra };
        if path.is_some() { Self::One(members) } else { Self::None(members) }
    }
}

impl Members {
    pub(super) fn access_token(&self) -> Result<Secret, TokenEndpointError> {
        let unusable = |problem| Err(TokenEndpointError::InvalidResponse(problem));
        match self.token.get("access_token") {
            Some(Value::Null) | None => unusable("it contains no access token"),
            Some(Value::String(token)) if is_blank(token) => unusable("the access token is empty"),
            Some(value) => match text_of(value) {
                Some(token) if is_printable(&token) => Ok(Secret::new(token)),
                Some(_) => unusable("the access token has characters that are not valid in a header"),
                None => unusable("the access token is neither a string nor a number"),
            },
        }
    }

    /// The token type; `None` if it is missing or not a string.
    pub(super) fn token_type(&self) -> Option<&str> {
        self.token.get("token_type")?.as_str().map(str::trim).filter(|token_type| !token_type.is_empty())
    }
}

/// A token that was decoded without replacements; anything else counts as missing.
pub(super) fn secret(value: Option<&Value>) -> Option<Secret> {
    let value = value?;
    // A string is used exactly, including trailing spaces.
    let text = value.as_str().map(str::to_owned).or_else(|| text_of(value))?;
    let is_usable = !is_blank(&text) && !text.contains([char::REPLACEMENT_CHARACTER, '\0']);
    is_usable.then(|| text.into())
}

/// A member by its name, in any spelling; the standard spelling takes precedence.
pub(super) fn spelled<'a>(members: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    members.get(&key_of(members, name, |_| true)?)
}

/// An object that contains an access token.
struct Holder {
    path: String,
    depth: usize,
    /// How far the name of its access token is from the standard name.
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

/// The provider's own member, or the outermost token. Of several at one depth, one with a refresh token is preferred.
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

fn holders(response: &Value) -> Vec<Holder> {
    let mut found = Vec::new();
    visit(response, &mut Vec::new(), &mut |members, path| {
        if found.len() >= MAX_HOLDERS {
            return;
        }
        let Some((rank, access_token)) = access_token_of(members) else { return };
        let has_refresh_token = usable(members, "refresh_token").is_some();
        found.push(Holder { path: pointer(path), depth: path.len(), rank, access_token, has_refresh_token });
    });
    found
}

/// The access token in an object, and how far its name is from the standard name.
fn access_token_of(members: &Map<String, Value>) -> Option<(usize, String)> {
    let named = |name: &str| text_of(&members[&usable(members, name)?]).filter(|token| is_printable(token));
    let standard = members.get("access_token").and_then(text_of).filter(|token| is_printable(token));
    let bare = || BARE.iter().find_map(|name| named(name)).filter(|_| usable(members, "refresh_token").is_some());
    let standard = standard.map(|token| (0, token));
    standard.or_else(|| Some((1, named("access_token")?))).or_else(|| Some((2, bare()?)))
}

/// Takes the token, including the members inside an access token that is an object.
fn take_whole_token(members: &mut Map<String, Value>) -> Map<String, Value> {
    let mut token = take_token(members);
    if let Some(Value::Object(inside)) = token.get("access_token") {
        for (name, value) in take_token(&mut inside.clone()) {
            token.entry(name).or_insert(value);
        }
    }
    token
}

/// Takes the standard members.
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

/// Takes a token with this name that belongs to no other access token, if exactly one was not `sent`.
fn take_elsewhere(response: &mut Value, name: &str, sent: &[&str]) -> Option<Value> {
    let mut found: Vec<(String, String, String)> = Vec::new();
    visit(response, &mut Vec::new(), &mut |members, path| {
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
    response.pointer_mut(path).filter(|_| is_clear)?.as_object_mut()?.remove(key)
}

/// The response if it is an object, or the only object if it is a list.
fn alone(response: &mut Value) -> Option<&mut Value> {
    let is_alone = response.as_array().is_some_and(|items| items.len() == 1);
    match response {
        Value::Array(items) => items.first_mut().filter(|_| is_alone),
        response => Some(response),
    }
}

/// The key of a member with a token of this name, in any spelling.
fn usable(members: &Map<String, Value>, name: &str) -> Option<String> {
    key_of(members, name, |value| text_of(value).is_some())
}

fn key_of(members: &Map<String, Value>, name: &str, counts: impl Fn(&Value) -> bool) -> Option<String> {
    if members.get(name).is_some_and(&counts) {
        return Some(name.to_owned());
    }
    members.iter().find(|(key, value)| is_spelling(key, name) && counts(value)).map(|(key, _)| key.clone())
}

/// A token as text: a string, a number, or an object or list that contains one.
pub(super) fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.trim().to_owned()).filter(|text| !is_blank(text)),
        Value::Number(number) => number.as_u64().filter(|number| *number > 0).map(|number| number.to_string()),
        Value::Array(items) if items.len() == 1 => text_of(&items[0]),
        Value::Object(members) => BARE.iter().find_map(|name| match spelled(members, name)? {
            value @ (Value::String(_) | Value::Number(_)) => text_of(value),
            _ => None,
        }),
        _ => None,
    }
}

/// Whether a text contains nothing, or stands for nothing.
fn is_blank(text: &str) -> bool {
    let text = text.trim();
    text.is_empty() || PLACEHOLDERS.iter().any(|placeholder| text.eq_ignore_ascii_case(placeholder))
}

fn is_printable(token: &str) -> bool {
    token.bytes().all(|byte| matches!(byte, 0x20..=0x7e))
}

/// Replaces each string that contains an object by that object: some gateways put the whole response into a string.
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

/// The token response in a string.
fn inside(text: &str) -> Option<Value> {
    let is_json = text.trim_start().starts_with(['{', '[', '"']);
    let small = text.to_ascii_lowercase();
    if !(is_json && small.contains("token") || small.contains("access_token=")) {
        return None;
    }
    let document = Document::of_text(text);
    (document.is_whole && !document.value.is_string()).then_some(document.value)
}

/// Visits each object, with the path to it.
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

/// The path to a value (RFC 6901).
fn pointer(path: &[Step<'_>]) -> String {
    let escaped = |step: &Step<'_>| match step {
        Step::Name(name) => format!("/{}", name.replace('~', "~0").replace('/', "~1")),
        Step::Item(at) => format!("/{at}"),
    };
    path.iter().map(escaped).collect()
}
