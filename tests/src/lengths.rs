//! Keys whose encodings are equal if the lengths of their parts are encoded carelessly.

use oauth_dance_core::TokenKey;

use crate::outcome::PropertyResult;

/// A key with that many `x` in two of its parts. The other parts are as short as possible.
pub(crate) fn two_parts(one: usize, length: usize, other: usize, other_length: usize) -> PropertyResult<TokenKey> {
    let mut parts = ["", "x", "x", ""].map(str::to_owned);
    parts[one] = "x".repeat(length);
    parts[other] = "x".repeat(other_length);
    let [tenant, user, provider, account] = parts;
    Ok(TokenKey::from_parts(tenant, user, provider, account)?)
}

/// Two keys whose encodings are equal if each part follows its length in digits of this base, without a separator.
pub(crate) fn spelled(one: usize, other: usize, base: usize) -> PropertyResult<[TokenKey; 2]> {
    // As in 1 1 19 aaaaaaaaa9xxxxxxxxx and 11 19aaaaaaaaa 9 xxxxxxxxx, for the base 10.
    let (filler, rest) = ("a".repeat(base - 1), "x".repeat(9));
    let with = |first: &str, second: &str| {
        let mut parts = ["", "x", "x", ""];
        (parts[one], parts[other]) = (first, second);
        PropertyResult::Ok(TokenKey::from_parts(parts[0], parts[1], parts[2], parts[3])?)
    };
    Ok([with("1", &format!("{filler}9{rest}"))?, with(&format!("19{filler}"), &rest)?])
}
