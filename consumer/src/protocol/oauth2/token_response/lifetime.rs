//! The lifetime of an access token, from any member that contains it.
//!
//! A lifetime that is too short costs a refresh, and one that is too long costs a rejected call, which leads to a refresh. A
//! negative, extreme or invalid value therefore counts as missing, and is never a reason to reject a token.

use std::time::Duration;

use oauth_dance_core::Timestamp;
use serde_json::{Map, Value};
use time::format_description::well_known::{Iso8601, Rfc3339};
use time::{OffsetDateTime, PrimitiveDateTime};

use super::members::spelled;

/// The assumed lifetime of an access token that can be refreshed, if the response has none. Short enough that a missing
/// lifetime costs little, and long enough to avoid constant refreshes.
pub(crate) const DEFAULT_LIFETIME: Duration = Duration::from_secs(3600);
/// A shorter lifetime of a token without a refresh token is ignored: a login with a token that has already expired would
/// cause the next login at once.
const SHORTEST_LIFETIME: Duration = Duration::from_secs(60);
/// Alternatives to the `expires_in` of RFC 6749: an instant, or for the last name an instant or a duration.
const OTHER_MEMBERS: [&str; 3] = ["expires_at", "expires_on", "expires"];
/// Larger numbers are instants since 1970, because no token lasts that long: 30 years.
const FIRST_INSTANT: f64 = 946_684_800.0;
/// Larger numbers are in milliseconds.
const FIRST_IN_MILLISECONDS: f64 = 1e11;

/// When a token expires that was received at `now`; `None` if its response contains no lifetime. `own` is the provider's own
/// member for it, which takes precedence.
pub(super) fn expiry(
    own: Option<&str>,
    members: [&Map<String, Value>; 3],
    can_be_refreshed: bool,
    now: Timestamp,
) -> Option<Timestamp> {
    let find = |name: &str| members.into_iter().find_map(|members| spelled(members, name));
    let own = own.and_then(find).and_then(|value| lifetime(value, now));
    let standard = || expires_in(find("expires_in")?, now).filter(|left| !left.is_zero());
    let other = || OTHER_MEMBERS.iter().find_map(|name| lifetime(find(name)?, now));
    let stated = own.or_else(standard).or_else(other);
    let lifetime = match stated {
        said if can_be_refreshed => Some(said.unwrap_or(DEFAULT_LIFETIME)),
        said => said.filter(|lifetime| *lifetime >= SHORTEST_LIFETIME),
    };
    lifetime.map(|lifetime| now.saturating_add(lifetime))
}

/// A lifetime by the standard's member. A number that can only be an instant is treated as one.
fn expires_in(value: &Value, now: Timestamp) -> Option<Duration> {
    match number(value) {
        Some(number) if (FIRST_INSTANT..FIRST_IN_MILLISECONDS).contains(&number) => lifetime(value, now),
        _ => seconds(value).map(Duration::from_secs),
    }
}

/// A lifetime in whole seconds: a number, or a number in a string. A negative, extreme or invalid one counts as missing.
pub(in crate::protocol::oauth2) fn seconds(value: &Value) -> Option<u64> {
    let seconds = number(value)?;
    // The cast saturates, and `Timestamp` is bounded.
    (seconds >= 0.0).then_some(seconds as u64)
}

fn number(value: &Value) -> Option<f64> {
    let number = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    number.is_finite().then_some(number)
}

/// The time until an instant, or a number of seconds. An instant in the past counts as missing, because clocks differ.
fn lifetime(value: &Value, now: Timestamp) -> Option<Duration> {
    let now = Duration::from_secs(now.as_unix_seconds());
    let instant = match number(value) {
        Some(number) if number >= FIRST_IN_MILLISECONDS => Duration::try_from_secs_f64(number / 1000.0).ok()?,
        Some(number) if number >= FIRST_INSTANT => Duration::try_from_secs_f64(number).ok()?,
        Some(number) if number >= 1.0 => return Some(Duration::from_secs(number as u64)),
        Some(_) => return None,
        None => date(value.as_str()?.trim())?,
    };
    instant.checked_sub(now).filter(|left| left.as_secs() > 0).map(|left| Duration::from_secs(left.as_secs()))
}

/// A date of RFC 3339, of ISO 8601 without an offset, or of HTTP.
fn date(text: &str) -> Option<Duration> {
    let with_t = text.replacen(' ', "T", 1);
    let parsed = OffsetDateTime::parse(&with_t, &Rfc3339)
        .or_else(|_| OffsetDateTime::parse(&with_t, &Iso8601::PARSING))
        .or_else(|_| PrimitiveDateTime::parse(&with_t, &Iso8601::PARSING).map(PrimitiveDateTime::assume_utc));
    match parsed {
        Ok(date) => u64::try_from(date.unix_timestamp()).ok().map(Duration::from_secs),
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(std::time::UNIX_EPOCH).ok(),
    }
}
