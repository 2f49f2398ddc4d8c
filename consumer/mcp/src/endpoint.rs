//! Requests to the token endpoint and the revocation endpoint of an authorization server.
//!
//! They are not made by the Rust SDK, for three reasons: its errors do not say whether a refresh token may be spent, it
//! discovers the endpoint again for each manager, and it would refresh outside of the claim that makes a refresh unique.
//!
//! Nor are they made by `oauth-dance`, whose providers are configuration. Here, each record says where its token is
//! refreshed.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use oauth_dance_core::{Clock, Lease, OAuth2Token, Redeem, RedeemError, Timestamp, async_trait};
use reqwest::redirect::Policy;
use reqwest::{Body, Client, Response};
use serde_json::{Map, Value};
use url::{Url, form_urlencoded};

use crate::error::McpError;
use crate::grant::Grant;
use crate::leased::{self, LeasedBody};
use crate::reach::PublicAddresses;
use crate::response;

/// The timeout of a request as a whole. The refresh protocol allows 20 seconds.
const TIMEOUT: Duration = Duration::from_secs(15);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The size limit of a response.
const MAX_RESPONSE: usize = 256 * 1024;

/// The HTTP clients for authorization servers. They follow no redirect.
#[derive(Clone, Debug)]
pub(crate) struct TokenEndpoints {
    anywhere: Client,
    public: Client,
    pub(crate) clock: Clock,
}

impl TokenEndpoints {
    pub(crate) fn new(clock: Clock) -> Result<Self, McpError> {
        let builder = || {
            Client::builder()
                .user_agent(concat!("oauth-dance-mcp/", env!("CARGO_PKG_VERSION")))
                .redirect(Policy::none())
                .referer(false)
                // Else a request may be sent on a connection that the server has just closed, and its outcome is unknown.
                .pool_max_idle_per_host(0)
                .connect_timeout(CONNECT_TIMEOUT)
                .timeout(TIMEOUT)
        };
        let anywhere = builder().build().map_err(|error| McpError::Http(error.into()))?;
        let public = builder().dns_resolver(PublicAddresses).build().map_err(|error| McpError::Http(error.into()))?;
        Ok(Self { anywhere, public, clock })
    }

    /// Uses one client of the application for all requests.
    pub(crate) fn with_client(self, client: Client) -> Self {
        Self { anywhere: client.clone(), public: client, ..self }
    }

    /// Reads the time from another clock.
    pub(crate) fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// Exchanges an authorization code (RFC 6749 section 4.1.3, RFC 7636 section 4.5). It is sent once, because a code works
    /// once.
    pub(crate) async fn exchange(&self, grant: &Grant, code: &str, verifier: &str) -> Result<OAuth2Token, RedeemError> {
        let form = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", &grant.redirect_uri),
            ("code_verifier", verifier),
            ("resource", &grant.resource),
        ];
        let mut token = self.request(grant, &form, None).await?;
        if !response::is_bearer(&token) {
            return Err(unusable("the token is not a bearer token"));
        }
        grant.add_to(&mut token);
        Ok(token)
    }

    /// Revokes a token (RFC 7009), best-effort. The refresh token ends the whole grant.
    pub(crate) async fn revoke(&self, token: &OAuth2Token) {
        let Some((grant, endpoint)) =
            Grant::of(token).and_then(|grant| Some((grant.clone(), grant.revocation_endpoint?)))
        else {
            return;
        };
        let (secret, hint) = match &token.refresh_token {
            Some(refresh_token) => (refresh_token, "refresh_token"),
            None => (&token.access_token, "access_token"),
        };
        let form = [("token", secret.expose()), ("token_type_hint", hint)];
        let revoked = self.post(&grant, endpoint, &form, None).await;
        if revoked.is_none_or(|response| !response.status().is_success()) {
            tracing::warn!("a token was deleted, but could not be revoked at its authorization server");
        }
    }

    /// Sends a token request once, and reads the response.
    async fn request(
        &self,
        grant: &Grant,
        form: &[(&str, &str)],
        lease: Option<&Lease>,
    ) -> Result<OAuth2Token, RedeemError> {
        let sent = self.send(grant, grant.token_endpoint.clone(), form, lease).await;
        let received = sent.map_err(|error| not_received(&error))?;
        let (status, headers) = (received.status(), received.headers().clone());
        let body = body_of(received).await?;
        read(grant, status, &headers, &body, self.clock.now())
    }

    async fn post(&self, grant: &Grant, url: Url, form: &[(&str, &str)], lease: Option<&Lease>) -> Option<Response> {
        self.send(grant, url, form, lease).await.ok()
    }

    async fn send(
        &self,
        grant: &Grant,
        url: Url,
        form: &[(&str, &str)],
        lease: Option<&Lease>,
    ) -> Result<Response, reqwest::Error> {
        let client = if grant.reaches_private { &self.anywhere } else { &self.public };
        let mut request = client
            .post(url)
            .header(header::ACCEPT, "application/json")
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        let mut form = form.to_vec();
        match &grant.client_secret {
            Some(secret) if grant.secret_in_form => {
                form.extend([("client_id", &*grant.client_id), ("client_secret", secret)]);
            }
            Some(secret) => request = request.header(header::AUTHORIZATION, basic(&grant.client_id, secret)),
            None => form.push(("client_id", &grant.client_id)),
        }
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let body = match lease {
            Some(lease) => Body::wrap(LeasedBody::new(body, lease.clone())),
            None => Body::from(body),
        };
        request.body(body).send().await
    }
}

/// HTTP Basic, with both parts form-encoded first (RFC 6749 section 2.3.1).
fn basic(id: &str, secret: &str) -> HeaderValue {
    let encode = |part: &str| form_urlencoded::byte_serialize(part.as_bytes()).collect::<String>();
    let credentials = STANDARD.encode(format!("{}:{}", encode(id), encode(secret)));
    // Base64 always fits a header.
    let mut value = HeaderValue::try_from(format!("Basic {credentials}")).unwrap_or(HeaderValue::from_static("Basic"));
    value.set_sensitive(true);
    value
}

/// Reads a body up to its size limit. If it breaks, the refresh token may be spent.
async fn body_of(mut received: Response) -> Result<Vec<u8>, RedeemError> {
    let mut body = Vec::new();
    loop {
        match received.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() <= MAX_RESPONSE => body.extend_from_slice(&chunk),
            Ok(Some(_)) => return Err(unusable("the response of the token endpoint is too large")),
            Ok(None) => return Ok(body),
            Err(error) => return Err(not_received(&error)),
        }
    }
}

/// What a missing response means for the refresh token.
fn not_received(error: &reqwest::Error) -> RedeemError {
    if leased::is_lease_expired(error) {
        return RedeemError::LeaseExpired;
    }
    // The URL is not a secret, but nothing of it is needed.
    let (what, retry_after) = ("the token endpoint", None);
    if error.is_connect() || error.is_builder() {
        return RedeemError::NotRedeemed { cause: format!("{what} could not be reached"), retry_after };
    }
    let problem = if error.is_timeout() { "did not respond in time" } else { "broke the connection" };
    RedeemError::Unknown { cause: format!("{what} {problem}"), retry_after }
}

fn unusable(cause: &str) -> RedeemError {
    RedeemError::Unusable { cause: cause.to_owned(), retry_after: None }
}

/// Reads the response of a token endpoint, and decides what an error means for the refresh token.
///
/// If the response says that the grant is dead, its status does not matter. Otherwise the status comes first, because a
/// gateway may respond for a server that has already spent the refresh token.
fn read(
    grant: &Grant,
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    now: Timestamp,
) -> Result<OAuth2Token, RedeemError> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let members: Map<String, Value> = serde_json::from_slice(body).unwrap_or_default();
    let code = response::error_code(&members).map(str::to_owned);
    let retry_after = retry_after(headers, now);
    let cause = match &code {
        Some(code) => format!("the token endpoint responded with {code} and status {}", status.as_u16()),
        None => format!("the token endpoint responded with status {}", status.as_u16()),
    };
    if code.is_none() && status.is_success() {
        return response::token(members, now).ok_or_else(|| unusable("the token endpoint sent no usable token"));
    }
    let refused = |cause| Err(RedeemError::Refused { cause, retry_after });
    match (status.as_u16(), code.as_deref()) {
        (_, Some("invalid_grant")) => Err(RedeemError::Dead { cause }),
        (408 | 425 | 429, _) => Err(RedeemError::NotRedeemed { cause, retry_after }),
        (300..=399 | 500.., _) | (_, Some("server_error")) => Err(RedeemError::Unusable { cause, retry_after }),
        (_, Some("temporarily_unavailable" | "slow_down")) => Err(RedeemError::NotRedeemed { cause, retry_after }),
        // The authorization server may have forgotten the client. Only a new registration and a login help then, so
        // this must not be retried indefinitely.
        (_, Some("invalid_client" | "unauthorized_client")) if grant.is_registered_dynamically => refused(cause),
        (_, Some("invalid_client" | "unauthorized_client")) | (401 | 404 | 405 | 410 | 415, None) => {
            Err(RedeemError::Misconfigured { cause: format!("{cause}; check the registration of the client") })
        }
        _ => refused(cause),
    }
}

/// `Retry-After`, in seconds or as a date (RFC 9110 section 10.2.3).
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(Timestamp::from_unix_seconds(date.as_secs()).saturating_since(now))
}

/// Redeems refresh tokens of all MCP servers: each record says where.
#[async_trait]
impl Redeem for TokenEndpoints {
    async fn redeem(&self, token: &OAuth2Token, lease: &Lease) -> Result<OAuth2Token, RedeemError> {
        let (Some(grant), Some(refresh_token)) = (Grant::of(token), &token.refresh_token) else {
            // Without these, only a login helps.
            return Err(RedeemError::Dead { cause: "the record does not say how to refresh the token".to_owned() });
        };
        let form =
            [("grant_type", "refresh_token"), ("refresh_token", refresh_token.expose()), ("resource", &grant.resource)];
        let requested = self.request(&grant, &form, Some(lease)).await;
        let mut new = requested.inspect_err(|error| {
            tracing::warn!(error = error as &dyn std::error::Error, "the refresh token was not redeemed");
        })?;
        if new.refresh_token.is_none() {
            new.refresh_token = Some(refresh_token.clone());
            new.expires_at =
                new.expires_at.or_else(|| Some(self.clock.now().saturating_add(response::DEFAULT_LIFETIME)));
        }
        new.scope = new.scope.or_else(|| token.scope.clone());
        new.subject.clone_from(&token.subject);
        grant.add_to(&mut new);
        Ok(new)
    }

    async fn revoke(&self, token: &OAuth2Token) {
        Self::revoke(self, token).await;
    }
}
