//! Parses the body of a response: JSON, even if it is invalid as some servers write it, or a form.
//!
//! A member that cannot be parsed becomes null, so that the other members are still usable.

use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE};
use http::{HeaderMap, header};
use serde_json::{Map, Value};
use url::form_urlencoded;

use super::text::bare_name;

/// Prefixes that some APIs put before JSON, so that no script can include it.
const GUARDS: [&str; 5] = [")]}',", ")]}'", "while(1);", "for(;;);", "throw 1;"];
/// The fields that distinguish a form from other text, in any spelling.
const FORM_FIELDS: [&str; 6] = ["accesstoken", "refreshtoken", "error", "oauthtoken", "oauthproblem", "devicecode"];
/// A longer name is not a function around JSON.
const MAX_FUNCTION: usize = 64;
/// How many positions in a text are tried as the beginning of an object.
const MAX_BEGINNINGS: usize = 16;

/// A parsed response body.
#[derive(Debug)]
pub(crate) struct Document {
    /// An object, a list of objects, or the text itself if it is neither.
    pub(crate) value: Value,
    /// Whether the body is complete.
    pub(crate) is_whole: bool,
}

impl Document {
    /// Parses a body. `is_cut` means that its end is missing.
    pub(crate) fn read(headers: &HeaderMap, body: &[u8], is_cut: bool) -> Self {
        let text = text(headers, body);
        Self::of(&text, is_cut, true)
    }

    /// Parses the content of a string.
    pub(crate) fn of_text(text: &str) -> Self {
        Self::of(text, false, true)
    }

    fn of(text: &str, is_cut: bool, may_be_quoted: bool) -> Self {
        let text = without_guards(text);
        let (value, is_whole) = match text.as_bytes().first() {
            Some(b'{') => {
                let Object { members, rest } = object(text);
                (members.into(), rest.is_some())
            }
            Some(b'[') => match serde_json::Deserializer::from_str(text).into_iter::<Value>().next() {
                Some(Ok(list)) => (list, true),
                _ => (text.into(), !is_cut),
            },
            Some(b'"') if may_be_quoted => match serde_json::from_str::<String>(text) {
                Ok(inside) => return Self::of(&inside, is_cut, false),
                Err(_) => (text.into(), !is_cut),
            },
            _ => (form(text, is_cut).map_or_else(|| text.into(), Value::from), !is_cut),
        };
        Self { value, is_whole }
    }

    /// Its members: those of the object, or of the only object in the list.
    pub(crate) fn members(&self) -> Option<&Map<String, Value>> {
        match &self.value {
            Value::Array(items) if items.len() == 1 => items[0].as_object(),
            value => value.as_object(),
        }
    }

    /// The same if the body ends with an object after other output, such as a warning of the server.
    pub(crate) fn behind_noise(headers: &HeaderMap, body: &[u8]) -> Option<Self> {
        let text = text(headers, body);
        let may_be = !text.trim_start().starts_with('{') && text.trim_end().ends_with('}');
        let text = if may_be { text } else { String::new() };
        let beginnings = text.match_indices('{').take(MAX_BEGINNINGS);
        beginnings.map(|(at, _)| object(&text[at..])).find_map(|Object { members, rest }| {
            let is_at_the_end = rest.is_some_and(|rest| rest.trim().is_empty());
            (is_at_the_end && !members.is_empty()).then(|| Self { value: members.into(), is_whole: true })
        })
    }
}

/// The body as text. A byte order mark or zero bytes take precedence over the label; other bytes are decoded as UTF-8 with
/// replacements.
fn text(headers: &HeaderMap, body: &[u8]) -> String {
    let is_utf16 = matches!(body, [0, b'{', ..] | [b'{', 0, ..]);
    if let (false, Ok(text)) = (is_utf16, std::str::from_utf8(body)) {
        return text.to_owned();
    }
    let of_utf16 = match body {
        [0, b'{', ..] => Some(UTF_16BE),
        [b'{', 0, ..] => Some(UTF_16LE),
        _ => None,
    };
    let encoding = match Encoding::for_bom(body) {
        Some((encoding, _)) => encoding,
        None if of_utf16.is_some() => of_utf16.unwrap_or(UTF_8),
        None => labelled(headers).unwrap_or(UTF_8),
    };
    encoding.decode_with_bom_removal(body).0.into_owned()
}

/// The character set that the content type names.
fn labelled(headers: &HeaderMap) -> Option<&'static Encoding> {
    let content_type = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let parameters = content_type.split(';').skip(1).filter_map(|parameter| parameter.split_once('='));
    let (_, charset) = parameters.into_iter().find(|(name, _)| name.trim().eq_ignore_ascii_case("charset"))?;
    Encoding::for_label(charset.trim().trim_matches('"').as_bytes())
}

fn without_guards(text: &str) -> &str {
    let is_noise = |c: char| c.is_whitespace() || matches!(c, '\u{feff}' | '\0');
    let text = text.trim_matches(is_noise);
    let unguarded = GUARDS.iter().find_map(|guard| text.strip_prefix(guard)).or_else(|| in_function(text));
    unguarded.unwrap_or(text).trim_start_matches(is_noise)
}

/// The argument of a function call, as in JSONP.
fn in_function(text: &str) -> Option<&str> {
    let (name, inside) = text.split_once('(').filter(|(name, _)| name.len() <= MAX_FUNCTION)?;
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '$' | '.');
    let is_call = !name.trim().is_empty() && name.trim().chars().all(is_name) && inside.trim_start().starts_with('{');
    is_call.then_some(inside)
}

/// The fields of a form. The last one may be truncated.
fn form(text: &str, is_cut: bool) -> Option<Map<String, Value>> {
    if text.starts_with('<') {
        return None;
    }
    let text = text.trim_start_matches(['?', '#', '&']);
    let whole = if is_cut { text.rsplit_once('&').map_or("", |(whole, _)| whole) } else { text };
    let mut fields = Map::new();
    for (name, value) in form_urlencoded::parse(whole.as_bytes()) {
        insert(&mut fields, name.into_owned(), value.into_owned().into());
    }
    fields.keys().any(|name| FORM_FIELDS.contains(&bare_name(name).as_str())).then_some(fields)
}

struct Object<'a> {
    members: Map<String, Value>,
    /// The text after the object, if it ends.
    rest: Option<&'a str>,
}

/// Splits the object at the beginning of the text into members, as far as possible.
fn object(text: &str) -> Object<'_> {
    let mut members = Map::new();
    let mut rest = text.strip_prefix('{').unwrap_or(text);
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == ',');
        if let Some(behind) = rest.strip_prefix('}') {
            return Object { members, rest: Some(behind) };
        }
        let (piece, behind) = rest.split_at(end_of_member(rest));
        let is_cut = behind.is_empty();
        if let Some((name, value)) = member(piece)
            && (!is_cut || value.is_string())
        {
            insert(&mut members, name, value);
        }
        if is_cut {
            return Object { members, rest: None };
        }
        rest = behind;
    }
}

/// The position of the comma or brace that ends a member.
fn end_of_member(text: &str) -> usize {
    let (mut at, mut depth) = (0, 0_usize);
    while let Some(found) = text[at..].find(['"', '{', '[', '}', ']', ',']) {
        at += found;
        match text.as_bytes()[at] {
            b'"' => {
                at += end_of_string(&text[at..]);
                continue;
            }
            b'{' | b'[' => depth += 1,
            b',' | b'}' if depth == 0 => return at,
            b',' => {}
            _ => depth = depth.saturating_sub(1),
        }
        at += 1;
    }
    text.len()
}

/// The length of the string at the beginning of the text, including both quotes; the whole text if it does not end.
fn end_of_string(text: &str) -> usize {
    let mut at = 1;
    while let Some(found) = text[at..].find('"') {
        at += found + 1;
        let before = &text[1..at - 1];
        let backslashes = before.len() - before.trim_end_matches('\\').len();
        if backslashes.is_multiple_of(2) {
            return at;
        }
    }
    text.len()
}

fn member(piece: &str) -> Option<(String, Value)> {
    let mut name = serde_json::Deserializer::from_str(piece).into_iter::<String>();
    let found = name.next()?.ok()?;
    let value = piece[name.byte_offset()..].trim_start().strip_prefix(':')?;
    let value = serde_json::from_str(value).or_else(|_| serde_json::from_str(&without_controls(value)));
    Some((found, value.unwrap_or(Value::Null)))
}

/// Replaces characters that JSON does not allow in a string (RFC 8259 section 7) with a character that no token contains.
fn without_controls(text: &str) -> String {
    let (mut in_string, mut is_escaped) = (false, false);
    let clean = |c: char| {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' if in_string => is_escaped = true,
            '"' => in_string = !in_string,
            _ => {}
        }
        if in_string && c.is_control() { char::REPLACEMENT_CHARACTER } else { c }
    };
    text.chars().map(clean).collect()
}

/// Of several members with one name, the last one is used, unless it is empty.
fn insert(members: &mut Map<String, Value>, name: String, value: Value) {
    let says_nothing = value.is_null() || value.as_str().is_some_and(str::is_empty);
    if !says_nothing || !members.contains_key(&name) {
        members.insert(name, value);
    }
}
