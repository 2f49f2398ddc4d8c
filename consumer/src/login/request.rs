//! The start of a login: the attempt, and the URL to which the browser goes.

use std::collections::BTreeMap;

use oauth_dance_core::{OAuth1Token, Secret};
use oauth2::PkceCodeChallenge;
use url::Url;

use super::attempt::Attempt;
use crate::error::{LoginError, TokenEndpointError};
use crate::protocol::http::HttpClients;
use crate::protocol::oauth2::authorize::authorization_request;
use crate::protocol::oauth2::pushed_request;
use crate::protocol::registered::Registered;
use crate::protocol::{dpop, oauth1};

/// An authorization request that is about to be built.
#[derive(Clone, Copy)]
pub(crate) struct Request<'a> {
    pub(crate) http: &'a HttpClients,
    pub(crate) registered: &'a Registered,
    pub(crate) redirect_uri: &'a str,
    pub(crate) scopes: &'a [String],
}

impl Request<'_> {
    /// Completes the attempt, and returns the URL to redirect the browser to.
    pub(crate) async fn begin(
        self,
        attempt: Attempt,
        params: BTreeMap<String, String>,
    ) -> Result<(Attempt, Url), LoginError> {
        match &self.registered.oauth1 {
            None => self.begin_oauth2(attempt, params).await,
            Some(_) if !self.scopes.is_empty() => Err(LoginError::ReservedParameter { parameter: "scope".to_owned() }),
            Some(client) => self.begin_oauth1(client, attempt, params).await,
        }
    }

    async fn begin_oauth2(
        self,
        mut attempt: Attempt,
        mut params: BTreeMap<String, String>,
    ) -> Result<(Attempt, Url), LoginError> {
        let Self { http, registered, redirect_uri, scopes } = self;
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        attempt.verifier = verifier.secret().clone();
        let key = registered.dpop_key(None);
        if let Some(key) = &key {
            attempt.bind(key);
            let thumbprint = dpop::thumbprint(key).ok_or(TokenEndpointError::Proof)?;
            params.insert("dpop_jkt".to_owned(), thumbprint);
        }
        attempt.expect_id_token_for(registered, scopes);
        if attempt.openid {
            attempt.expect_sign_in_within(params.get("max_age"));
            params.extend(attempt.nonce.clone().map(|nonce| ("nonce".to_owned(), nonce)));
        }
        if registered.declared.quirks.form_post {
            params.insert("response_mode".to_owned(), "form_post".to_owned());
        }
        let (mut url, mut params) =
            authorization_request(registered, redirect_uri, &attempt.state, &challenge, scopes, params);
        if let Some(endpoint) = registered.pushed_authorization_request_endpoint() {
            let pushed = pushed_request::push(http, registered, endpoint, &params, key.as_ref()).await;
            let request_uri = pushed.map_err(LoginError::PushedRequest)?;
            params.retain(|(name, _)| name == "client_id");
            params.push(("request_uri".to_owned(), request_uri.expose().to_owned()));
        }
        url.query_pairs_mut().extend_pairs(params);
        Ok((attempt, url))
    }

    /// In OAuth 1.0a the provider chooses the identifier of the attempt. The secret of the temporary credentials is in the
    /// attempt.
    async fn begin_oauth1(
        self,
        client: &oauth1::Client,
        mut attempt: Attempt,
        params: BTreeMap<String, String>,
    ) -> Result<(Attempt, Url), LoginError> {
        let now = self.http.clock.now();
        let temporary = oauth1::temporary_credentials(self.http, client, self.redirect_uri, now).await?;
        let OAuth1Token { token, token_secret, .. } = temporary;
        let url = oauth1::authorization_url(self.registered.authorization_endpoint(), &token, params);
        attempt.state = token.expose().to_owned();
        attempt.verifier = Secret::expose(&token_secret).to_owned();
        Ok((attempt, url))
    }
}
