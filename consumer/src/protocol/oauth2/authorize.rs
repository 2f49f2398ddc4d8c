//! The authorization request (RFC 6749 section 4.1.1 with RFC 7636 section 4.3).
//!
//! Each parameter occurs once, as section 3.1 requires. The endpoint's own query may contain parameters, and those that the
//! request sets are removed from it. Neither the configuration nor a hook can set one of the protocol's own.

use std::collections::BTreeMap;

use oauth2::PkceCodeChallenge;
use url::Url;

use crate::config::endpoint::without_parameters;
use crate::protocol::registered::Registered;

/// The endpoint with the rest of its own query, and the parameters of the request.
pub(crate) fn authorization_request(
    registered: &Registered,
    redirect_uri: &str,
    state: &str,
    challenge: &PkceCodeChallenge,
    scopes: &[String],
    more: BTreeMap<String, String>,
) -> (Url, Vec<(String, String)>) {
    let endpoint = without_parameters(registered.authorization_endpoint(), |name| more.contains_key(name));
    let quirks = &registered.declared.quirks;
    let scope = scopes.join(&registered.declared.scope_separator.to_string());
    let mut params = vec![
        ("response_type", "code"),
        ("client_id", &registered.client_id),
        ("state", state),
        ("redirect_uri", redirect_uri),
    ];
    if !quirks.without_pkce {
        params.extend([("code_challenge", challenge.as_str()), ("code_challenge_method", challenge.method().as_str())]);
    }
    if !scopes.is_empty() {
        params.push((quirks.scope_parameter.as_deref().unwrap_or("scope"), &scope));
    }
    let params = params.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
    (endpoint, params.chain(more).collect())
}

#[cfg(test)]
mod tests {
    use crate::config::provider::Provider;

    use super::*;

    /// The challenge for the verifier of RFC 7636 appendix B, in the request of RFC 6749 section 4.1.1.
    #[test]
    fn the_request_has_each_parameter_once() {
        let provider = Provider::new("p", "https://p.example/auth?tenant=a&state=x", "https://p.example/token")
            .with_scopes(["a&b=c", "d"]);
        let registered = Registered::check(provider.client("id", "s")).unwrap();
        let verifier = oauth2::PkceCodeVerifier::new("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk".to_owned());
        let challenge = PkceCodeChallenge::from_code_verifier_sha256(&verifier);
        let more = BTreeMap::from([("prompt".to_owned(), "select account".to_owned())]);
        let (mut url, params) = authorization_request(
            &registered,
            "https://app.example/callback",
            "STATE",
            &challenge,
            &registered.declared.scopes,
            more,
        );
        assert_eq!(url.as_str(), "https://p.example/auth?tenant=a");
        url.query_pairs_mut().extend_pairs(params);

        let mut pairs: Vec<_> = url.query_pairs().map(|(n, v)| format!("{n}={v}")).collect();
        pairs.sort();
        assert_eq!(
            pairs,
            [
                "client_id=id",
                "code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
                "code_challenge_method=S256",
                "prompt=select account",
                "redirect_uri=https://app.example/callback",
                "response_type=code",
                "scope=a&b=c d",
                "state=STATE",
                "tenant=a",
            ]
        );
    }
}
