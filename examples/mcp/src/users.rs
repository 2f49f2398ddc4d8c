//! Who is signed in. A real application already has this; here, anyone can sign in with a name, in a signed cookie.

use axum::extract::FromRequestParts;
use axum::http::header::{COOKIE, SET_COOKIE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use cookie::{Cookie, CookieJar, SameSite};

use crate::app::App;

const NAME: &str = "user";

/// The signed-in user. Without one, the request is rejected.
pub(crate) struct User(pub(crate) String);

impl FromRequestParts<App> for User {
    type Rejection = (StatusCode, &'static str);

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Self::Rejection> {
        read(&parts.headers, app).ok_or((StatusCode::UNAUTHORIZED, "sign in first"))
    }
}

/// The signed-in user, if there is one.
pub(crate) fn read(headers: &HeaderMap, app: &App) -> Option<User> {
    let mut jar = CookieJar::new();
    for header in headers.get_all(COOKIE) {
        for cookie in Cookie::split_parse_encoded(header.to_str().ok()?.to_owned()).flatten() {
            jar.add_original(cookie);
        }
    }
    let user = jar.signed(&app.session_key).get(NAME)?;
    Some(User(user.value().to_owned()))
}

/// The header that signs a user in. Other sites cannot send forms with this cookie, because it is `SameSite=Lax`.
pub(crate) fn sign_in(user: &str, app: &App) -> [(HeaderName, HeaderValue); 1] {
    let cookie = Cookie::build((NAME, user.to_owned())).http_only(true).same_site(SameSite::Lax).path("/");
    let mut jar = CookieJar::new();
    jar.signed_mut(&app.session_key).add(cookie);
    let header = jar.get(NAME).map(|cookie| cookie.encoded().to_string()).unwrap_or_default();
    [(SET_COOKIE, HeaderValue::try_from(header).unwrap_or(HeaderValue::from_static("")))]
}
