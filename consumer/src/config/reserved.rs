//! Parameters of the authorization request that belong to the protocol. Neither the configuration nor a hook can set them.

/// Parameters of the authorization request that belong to the protocol (RFC 6749, 7636, 8707, 9126, 9207, 9449; OpenID
/// Connect).
pub(crate) const RESERVED: [&str; 12] = [
    "response_type",
    "client_id",
    "redirect_uri",
    "scope",
    "state",
    "code_challenge",
    "code_challenge_method",
    "nonce",
    "request",
    "request_uri",
    "response_mode",
    "dpop_jkt",
];

/// Whether OAuth 2.0 and OpenID Connect define this parameter.
pub(crate) fn is_reserved(parameter: &str) -> bool {
    RESERVED.contains(&parameter)
}

/// Whether this parameter belongs to the protocol that a provider uses.
pub(crate) fn reserves(is_oauth1: bool, parameter: &str) -> bool {
    if is_oauth1 { parameter.starts_with("oauth_") } else { is_reserved(parameter) }
}
