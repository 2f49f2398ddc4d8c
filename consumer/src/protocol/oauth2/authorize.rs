//! The authorization request (RFC 6749 section 4.1.1 with RFC 7636 section 4.3).

use std::collections::BTreeMap;

use oauth2::basic::BasicClient;
use oauth2::{AuthUrl, ClientId, CsrfToken, PkceCodeChallenge, RedirectUrl, Scope};
use url::Url;

use crate::config::endpoint::without_parameters;
use crate::protocol::registered::Registered;

/// The authorization request (RFC 6749 section 4.1.1 with RFC 7636 section 4.3): the endpoint with what its own query keeps,
/// and the parameters.
pub(crate) fn authorization_request(
    registered: &Registered,
    state: &str,
    challenge: PkceCodeChallenge,
    scopes: &[String],
    params: impl IntoIterator<Item = (String, String)>,
) -> (Url, Vec<(String, String)>) {
    let params: BTreeMap<String, String> = params.into_iter().collect();
    let endpoint = without_parameters(registered.authorization_endpoint(), |name| params.contains_key(name));
    let client = BasicClient::new(ClientId::new(registered.client_id.clone()))
        .set_auth_uri(AuthUrl::from_url(without_parameters(&endpoint, |_| true)))
        .set_redirect_uri(RedirectUrl::from_url(registered.endpoints.redirect.clone()));
    let mut request = client.authorize_url(|| CsrfToken::new(state.to_owned()));
    if !registered.declared.quirks.without_pkce {
        request = request.set_pkce_challenge(challenge);
    }
    if !scopes.is_empty() {
        let scopes = scopes.join(&registered.declared.scope_separator.to_string());
        request = match &registered.declared.quirks.scope_parameter {
            None => request.add_scope(Scope::new(scopes)),
            Some(parameter) => request.add_extra_param(parameter, scopes),
        };
    }
    for (name, value) in params {
        request = request.add_extra_param(name, value);
    }
    (endpoint, request.url().0.query_pairs().into_owned().collect())
}

#[cfg(test)]
mod tests {
    use crate::config::provider::Provider;

    use super::*;

    /// The challenge of the verifier in RFC 7636 appendix B, in the request of RFC 6749 section 4.1.1.
    #[test]
    fn the_request_carries_everything_once() {
        let provider = Provider::new("p", "https://p.example/auth?tenant=a&state=x", "https://p.example/token")
            .with_scopes(["a&b=c", "d"]);
        let registered = Registered::check(provider.client("id", "s"), "https://app.example/callback").unwrap();
        let verifier = oauth2::PkceCodeVerifier::new("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk".to_owned());
        let challenge = PkceCodeChallenge::from_code_verifier_sha256(&verifier);
        let params = [("prompt".to_owned(), "select account".to_owned())];
        let (mut url, params) =
            authorization_request(&registered, "STATE", challenge, &registered.declared.scopes, params);
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
