//! Classifies the codes and descriptions of a refusal.
//!
//! Providers that do not use the codes of RFC 6749 often describe the error in a sentence. Three questions matter: is the
//! grant dead, is the client at fault, or is it temporary? A sentence means that the grant is dead only if it says that the
//! refresh token is invalid, and nothing else: a mistake here disconnects a user. After an unknown error, the refresh is
//! retried.

/// A longer text is not a description of this kind.
pub(super) const MAX_SENTENCE: usize = 200;
/// Terms for the client. Providers also call it an app.
const CLIENT: [&str; 12] = [
    "client",
    "clients",
    "clientid",
    "clientsecret",
    "application",
    "app",
    "appid",
    "appkey",
    "appsecret",
    "consumer",
    "secret",
    "secrets",
];
/// Terms for the grant and its owner.
const GRANT: [&str; 12] = [
    "token",
    "tokens",
    "refreshtoken",
    "refresh",
    "grant",
    "session",
    "user",
    "account",
    "consent",
    "revoked",
    "expired",
    "deauthorized",
];
/// States of a token after which no request succeeds.
const OVER: [&str; 2] = ["expired", "revoked"];
/// Sentences that contain a term for the client but concern the request.
const NOT_OF_CLIENT: [&str; 4] = ["client error", "bad client request", "application error", "client request"];
/// Errors of the client without a term for it (RFC 6749 section 5.2, RFC 9449 section 5).
const OF_CLIENT: [&str; 8] = [
    "unsupported grant type",
    "unauthorized grant type",
    "invalid dpop proof",
    "invalid redirect uri",
    "redirect uri mismatch",
    "invalid credentials",
    "bad credentials",
    "incorrect credentials",
];

/// Whether a text is or contains `invalid_grant`. An invalid grant type is something else.
pub(super) fn says_invalid_grant(text: &str) -> bool {
    let is_name = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    let small = text.to_ascii_lowercase();
    let is_word = |word: &str| {
        small.match_indices(word).any(|(at, _)| {
            let (before, after) = (&small[..at], &small[at + word.len()..]);
            !before.ends_with(is_name) && !after.starts_with(is_name) && !after.trim_start().starts_with("type")
        })
    };
    ["invalid_grant", "invalid-grant", "invalidgrant"].into_iter().any(is_word) || {
        let rest = plain(text).strip_prefix("invalid grant").map(str::to_owned);
        rest.is_some_and(|rest| !rest.starts_with([' ', 's']) && !rest.starts_with(char::is_alphanumeric))
    }
}

/// Whether a text says that the grant belongs to another client, and does not name that as one of several possible causes.
pub(super) fn is_of_another_client(text: &str) -> bool {
    const PHRASES: [&str; 12] = [
        "match",
        "another client",
        "another application",
        "other client",
        "different client",
        "different application",
        "wrong client",
        "not issued to",
        "not issued for",
        "not linked to",
        "not associated with",
        "belong",
    ];
    /// Ory Hydra appends it to its sentence about all meanings of `invalid_grant`.
    const CERTAIN: &str = "client id from this request does not match";
    let text = plain(text);
    text.contains(CERTAIN)
        || !names_another_cause(&text) && has_any(&text, &CLIENT) && PHRASES.iter().any(|phrase| text.contains(phrase))
}

/// Whether a text names a cause in the refresh token itself. The sentence in RFC 6749 section 5.2 about all meanings of
/// `invalid_grant` does, and many servers repeat it. EBay responds that the token "is invalid or was issued to another client".
fn names_another_cause(plain: &str) -> bool {
    const CAUSES: [&str; 4] = ["invalid", "not valid", "not found", "unknown"];
    let is_of_token = |(before, _): (&str, &str)| {
        has_any(before, &GRANT) && !has_any(before, &CLIENT) && CAUSES.iter().any(|cause| before.contains(cause))
    };
    OVER.iter().any(|state| plain.contains(state)) || plain.split_once(" or ").is_some_and(is_of_token)
}

/// Whether a text concerns the client, and not the grant.
pub(super) fn is_of_client(text: &str) -> bool {
    let text = plain(text);
    OF_CLIENT.iter().any(|code| text.starts_with(code))
        || has_any(&text, &CLIENT) && !has_any(&text, &GRANT) && !NOT_OF_CLIENT.iter().any(|other| text.contains(other))
}

/// Whether a text concerns the grant, one of its tokens, or its owner.
pub(super) fn is_of_grant(text: &str) -> bool {
    has_any(&plain(text), &GRANT)
}

/// Whether a text describes a temporary condition (RFC 6749 section 4.1.2.1, RFC 8628 section 3.5, RFC 9449 section 8).
pub(super) fn is_temporary(text: &str) -> bool {
    const PHRASES: [&str; 8] = [
        "temporarily",
        "slow down",
        "use dpop nonce",
        "too many requests",
        "rate limit",
        "ratelimit",
        "throttl",
        "quota exceeded",
    ];
    let text = plain(text);
    PHRASES.iter().any(|phrase| text.contains(phrase))
}

/// Whether one of these texts says that the same request may succeed later, and none that a token has expired or was revoked.
pub(super) fn may_succeed_later(texts: &[String]) -> bool {
    const PHRASES: [&str; 5] =
        ["being processed", "in progress", "try again later", "retry later", "retry your request"];
    let texts: Vec<String> = texts.iter().map(|text| plain(text)).collect();
    let any = |phrases: &[&str]| texts.iter().any(|text| phrases.iter().any(|phrase| text.contains(phrase)));
    (any(&PHRASES) || texts.iter().any(|text| is_temporary(text))) && !any(&OVER)
}

/// Whether the error concerns the client or the server, and mentions a refresh token for another reason.
pub(super) fn is_of_something_else(code: &str) -> bool {
    let code = plain(code);
    ["client", "grant type", "scope", "server", "unavailable", "slow down", "dpop", "rate", "limit"]
        .into_iter()
        .any(|other| code.contains(other))
}

/// Whether a text says that the refresh token is invalid, and nothing else.
pub(super) fn means_invalid_token(text: &str) -> bool {
    const SUBJECTS: [&str; 7] = ["", "the ", "this ", "your ", "the provided ", "the specified ", "the given "];
    const STATES: [&str; 9] = [
        "invalid",
        "illegal",
        "expired",
        "revoked",
        "not valid",
        "no longer valid",
        "not found",
        "unknown",
        "already used",
    ];
    const VERBS: [&str; 6] = [" ", " is ", " was ", " has ", " has been ", " has already been "];
    /// The beginnings of an explanation.
    const ENDS: [&str; 6] = [". ", ": ", "; ", " (", " [", " hint"];
    if text.len() > MAX_SENTENCE {
        return false;
    }
    let text = plain(text);
    let end = ENDS.iter().filter_map(|end| text.find(end)).min().unwrap_or(text.len());
    let first = text[..end].trim_end_matches('.');
    let is_state = |text: &str| text.split(" or ").all(|state| STATES.contains(&state.trim_start_matches("has been ")));
    let before = first.strip_suffix(" refresh token").is_some_and(is_state);
    let after = SUBJECTS.iter().any(|subject| {
        let rest = first.strip_prefix(subject).and_then(|rest| rest.strip_prefix("refresh token"));
        rest.is_some_and(|rest| VERBS.iter().any(|verb| rest.strip_prefix(verb).is_some_and(is_state)))
    });
    before || after || first == "bad refresh token"
}

/// In lower case, with spaces in place of all separators of words.
pub(super) fn plain(text: &str) -> String {
    let mut words = String::with_capacity(text.len());
    let mut was_small = false;
    for c in text.trim().trim_end_matches(['!', ';', ':']).chars() {
        if was_small && c.is_ascii_uppercase() {
            words.push(' ');
        }
        was_small = c.is_ascii_lowercase();
        words.push(if matches!(c, '_' | '-') { ' ' } else { c.to_ascii_lowercase() });
    }
    words.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn has_any(plain: &str, words: &[&str]) -> bool {
    plain.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| words.contains(&word))
}
