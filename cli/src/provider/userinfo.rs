use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::LocalProvider;

/// Why userinfo is not told (RFC 6750 section 3.1).
pub(super) enum Unauthorized {
    NoToken,
    InvalidToken,
}

pub(super) async fn userinfo(
    State(provider): State<LocalProvider>,
    headers: HeaderMap,
) -> Result<Json<Value>, Unauthorized> {
    let token = bearer(&headers).ok_or(Unauthorized::NoToken)?;
    let now = provider.now();
    let store = provider.store();
    let (user, scope) = store.access(token, now).ok_or(Unauthorized::InvalidToken)?;

    let mut claims = json!({"sub": user.subject});
    for name in scope.split(' ') {
        match name {
            "profile" => claims["name"] = user.name.into(),
            "email" => claims["email"] = user.email.into(),
            _ => {}
        }
    }
    Ok(Json(claims))
}

impl IntoResponse for Unauthorized {
    fn into_response(self) -> Response {
        let challenge = match self {
            Self::NoToken => "Bearer realm=\"local provider\"",
            Self::InvalidToken => {
                "Bearer realm=\"local provider\", error=\"invalid_token\", \
                 error_description=\"the access token is unknown, expired or revoked\""
            }
        };
        let headers = [(header::WWW_AUTHENTICATE, challenge)];
        (StatusCode::UNAUTHORIZED, headers).into_response()
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let header = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}
