//! The two requests of the OAuth 1.0a dance from server to server, and the browser's redirect between them.

use http::{Method, header};
use oauth_dance_core::{OAuth1Token, Secret, Timestamp};
use url::Url;

use super::client::{Client, Credentials};
use super::response;
use crate::config::endpoint::without_parameters;
use crate::error::TokenEndpointError;
use crate::protocol::http::HttpClients;
use crate::protocol::http::endpoint::send;

/// Requests temporary credentials (section 2.1), which the provider must bind to the callback.
pub(crate) async fn temporary_credentials(
    http: &HttpClients,
    client: &Client,
    redirect_uri: &str,
    now: Timestamp,
) -> Result<OAuth1Token, TokenEndpointError> {
    let callback = [("oauth_callback", redirect_uri)];
    let response = client.post(http, &client.temporary_credentials_endpoint, None, &callback, now).await?;
    response.temporary_credentials()
}

/// The URL at which the user approves the request (section 2.2).
pub(crate) fn authorization_url(
    endpoint: &Url,
    temporary: &Secret,
    params: impl IntoIterator<Item = (String, String)>,
) -> Url {
    let params: Vec<(String, String)> = params.into_iter().collect();
    let is_set = |name: &str| params.iter().any(|(set, _)| set == name);
    let mut url = without_parameters(endpoint, is_set);
    url.query_pairs_mut().extend_pairs(&params).append_pair("oauth_token", temporary.expose());
    url
}

/// Redeems temporary credentials that the user has approved (section 2.3). It is never retried, because they work once.
pub(crate) async fn token_credentials(
    http: &HttpClients,
    client: &Client,
    endpoint: &Url,
    temporary: Credentials<'_>,
    verifier: &str,
    now: Timestamp,
) -> Result<OAuth1Token, TokenEndpointError> {
    let verifier = [("oauth_verifier", verifier)];
    let response = client.post(http, endpoint, Some(temporary), &verifier, now).await?;
    response.token_credentials()
}

impl Client {
    async fn post(
        &self,
        http: &HttpClients,
        url: &Url,
        token: Option<Credentials<'_>>,
        more: &[(&'static str, &str)],
        now: Timestamp,
    ) -> Result<response::ResponseForm, TokenEndpointError> {
        let signed = self.authorization(&Method::POST, url, b"", token, more, now);
        let authorization = signed.map_err(|error| TokenEndpointError::Unreachable(error.into()))?;
        let request = http.token_endpoint.configured().post(url.clone()).header(header::AUTHORIZATION, authorization);
        let received = send(http, request, None).await?;
        let more = more.iter().map(|(_, value)| *value);
        let token = token.into_iter().flat_map(|credentials| [credentials.token, credentials.secret]);
        let sent: Vec<&str> = more.chain(token).chain([self.signer.shared_secret()]).collect();
        response::read(received.status, &received.headers, &received.plain(), &sent, now)
    }
}
