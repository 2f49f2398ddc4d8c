use axum::Json;
use axum::extract::rejection::StringRejection;
use axum::extract::{FromRequest, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use subtle::ConstantTimeEq;
use url::form_urlencoded;

use super::params::Params;
use super::store::{Refusal, Tokens};
use super::{LocalProvider, Registration};

const KNOWN: [&str; 9] = [
    "grant_type",
    "code",
    "redirect_uri",
    "code_verifier",
    "refresh_token",
    "scope",
    "token",
    "client_id",
    "client_secret",
];

/// The parameters of a request whose client proved who it is (RFC 6749 section 2.3.1).
pub(super) struct ClientRequest(Params);

/// An error response of the token endpoint (RFC 6749 section 5.2).
pub(super) enum TokenError {
    InvalidRequest(&'static str),
    InvalidClient,
    InvalidGrant,
    InvalidScope,
    UnsupportedGrantType,
    ServerError,
}

pub(super) async fn token(
    State(provider): State<LocalProvider>,
    ClientRequest(params): ClientRequest,
) -> Result<Json<Value>, TokenError> {
    let lifetime = provider.access_token_lifetime;
    let now = provider.now();
    let tokens = match params.value("grant_type") {
        Some("authorization_code") => provider.store().redeem_code(
            required(&params, "code", "code is missing")?,
            required(&params, "redirect_uri", "redirect_uri is missing")?,
            required(&params, "code_verifier", "code_verifier is missing")?,
            lifetime,
            now,
        )?,
        Some("refresh_token") => provider.store().refresh(
            required(&params, "refresh_token", "refresh_token is missing")?,
            params.value("scope"),
            lifetime,
            now,
        )?,
        Some(_) => return Err(TokenError::UnsupportedGrantType),
        None => return Err(TokenError::InvalidRequest("grant_type is missing")),
    };
    let Tokens { access_token, refresh_token, scope } = tokens;
    Ok(Json(json!({
        "access_token": access_token,
        "token_type": "Bearer",
        "expires_in": lifetime.as_secs(),
        "refresh_token": refresh_token,
        "scope": scope,
    })))
}

pub(super) async fn revoke(
    State(provider): State<LocalProvider>,
    ClientRequest(params): ClientRequest,
) -> Result<StatusCode, TokenError> {
    let token = required(&params, "token", "token is missing")?;
    let now = provider.now();
    provider.store().revoke(token, now);
    Ok(StatusCode::OK)
}

impl FromRequest<LocalProvider> for ClientRequest {
    type Rejection = TokenError;

    async fn from_request(request: Request, provider: &LocalProvider) -> Result<Self, TokenError> {
        if !is_form(request.headers()) {
            let reason = "the body must be application/x-www-form-urlencoded";
            return Err(TokenError::InvalidRequest(reason));
        }
        let authorization = request.headers().get(header::AUTHORIZATION).cloned();
        let params = Params::parse(&String::from_request(request, provider).await?);
        if params.repeats(&KNOWN) {
            return Err(TokenError::InvalidRequest("a parameter is repeated"));
        }

        let (id, secret) = match (&authorization, params.value("client_secret")) {
            (Some(_), Some(_)) => {
                let reason = "the client must authenticate in one way only";
                return Err(TokenError::InvalidRequest(reason));
            }
            (Some(header), None) => basic(header.as_bytes()).ok_or(TokenError::InvalidClient)?,
            (None, secret) => {
                let id = params.value("client_id").unwrap_or_default();
                (id.to_owned(), secret.unwrap_or_default().to_owned())
            }
        };
        if params.value("client_id").is_some_and(|also| also != id) {
            return Err(TokenError::InvalidClient);
        }
        if !authenticates(&provider.registration, &id, &secret) {
            return Err(TokenError::InvalidClient);
        }
        Ok(Self(params))
    }
}

impl IntoResponse for TokenError {
    fn into_response(self) -> Response {
        let (status, error, description) = match self {
            Self::InvalidRequest(reason) => (StatusCode::BAD_REQUEST, "invalid_request", reason),
            Self::InvalidClient => (StatusCode::UNAUTHORIZED, "invalid_client", "the client id or secret is wrong"),
            Self::InvalidGrant => (
                StatusCode::BAD_REQUEST,
                "invalid_grant",
                "the code or refresh token is unknown, expired, revoked, spent or bound to other values",
            ),
            Self::InvalidScope => (StatusCode::BAD_REQUEST, "invalid_scope", "the scope exceeds what the user granted"),
            Self::UnsupportedGrantType => (
                StatusCode::BAD_REQUEST,
                "unsupported_grant_type",
                "grant_type must be authorization_code or refresh_token",
            ),
            Self::ServerError => (StatusCode::INTERNAL_SERVER_ERROR, "server_error", "the system gave no random bytes"),
        };
        let body = Json(json!({"error": error, "error_description": description}));
        let mut response = (status, body).into_response();
        if status == StatusCode::UNAUTHORIZED {
            let challenge = header::HeaderValue::from_static("Basic realm=\"local provider\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

impl From<Refusal> for TokenError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::InvalidGrant => Self::InvalidGrant,
            Refusal::InvalidScope => Self::InvalidScope,
            Refusal::NoRandomness => Self::ServerError,
        }
    }
}

impl From<StringRejection> for TokenError {
    fn from(_: StringRejection) -> Self {
        Self::InvalidRequest("the body is too large, cut short or not UTF-8")
    }
}

fn required<'a>(params: &'a Params, name: &str, missing: &'static str) -> Result<&'a str, TokenError> {
    params.value(name).ok_or(TokenError::InvalidRequest(missing))
}

fn is_form(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE);
    let content_type = content_type.and_then(|value| value.to_str().ok());
    let essence = content_type.and_then(|value| value.split(';').next());
    essence.is_some_and(|essence| {
        let essence = essence.trim();
        essence.eq_ignore_ascii_case("application/x-www-form-urlencoded")
    })
}

/// Both comparisons always run, so that the time tells neither which one failed nor where.
fn authenticates(registration: &Registration, id: &str, secret: &str) -> bool {
    let id = id.as_bytes().ct_eq(registration.client_id.as_bytes());
    let secret = secret.as_bytes().ct_eq(registration.client_secret.as_bytes());
    (id & secret).into()
}

/// Reads HTTP Basic credentials, each of which was form-encoded first (RFC 6749 section 2.3.1).
fn basic(header: &[u8]) -> Option<(String, String)> {
    let (scheme, credentials) = str::from_utf8(header).ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let credentials = STANDARD.decode(credentials.trim()).ok()?;
    let (id, secret) = str::from_utf8(&credentials).ok()?.split_once(':')?;
    Some((form_decode(id)?, form_decode(secret)?))
}

fn form_decode(value: &str) -> Option<String> {
    let pair = format!("={value}");
    let mut pairs = form_urlencoded::parse(pair.as_bytes());
    let (_, decoded) = pairs.next()?;
    pairs.next().is_none().then(|| decoded.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(credentials: &str) -> String {
        format!("Basic {}", STANDARD.encode(credentials))
    }

    fn decoded(header: &str) -> Option<(String, String)> {
        basic(header.as_bytes())
    }

    #[test]
    fn basic_credentials_are_form_decoded() {
        let expected = Some(("app:special".to_owned(), "p ä+/=&%".to_owned()));
        let encoded = header("app%3Aspecial:p+%C3%A4%2B%2F%3D%26%25");
        assert_eq!(decoded(&encoded), expected);
        assert_eq!(decoded(&encoded.replace("Basic", "bASIC")), expected);
    }

    #[test]
    fn malformed_credentials_are_none() {
        for bad in ["", "Basic", "Basic !!", "Bearer YTpi", &header("no colon")] {
            assert_eq!(decoded(bad), None, "{bad}");
        }
        assert_eq!(decoded(&header("a&b:c")), None);
    }

    #[test]
    fn only_the_exact_id_and_secret_authenticate() {
        let registration = Registration {
            client_id: "id".to_owned(),
            client_secret: "secret".to_owned(),
            redirect_uri: String::new(),
        };
        assert!(authenticates(&registration, "id", "secret"));
        for (id, secret) in [("id", "secre"), ("id", ""), ("", "secret"), ("ID", "secret")] {
            assert!(!authenticates(&registration, id, secret), "{id}:{secret}");
        }
    }
}
