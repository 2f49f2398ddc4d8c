use askama::Template;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use url::{Host, Origin, Url};

use super::LocalProvider;
use super::users::{PASSWORD, USERS, User};

#[derive(Template)]
#[template(path = "provider/login.html")]
pub(super) struct LoginPage<'a> {
    pub(super) query: &'a str,
    pub(super) csrf: &'a str,
    pub(super) client_id: &'a str,
    /// The user name of an attempt that just failed.
    pub(super) failed_username: Option<&'a str>,
}

#[derive(Template)]
#[template(path = "provider/consent.html")]
pub(super) struct ConsentPage<'a> {
    pub(super) query: &'a str,
    pub(super) csrf: &'a str,
    pub(super) client_id: &'a str,
    pub(super) redirect_uri: &'a str,
    pub(super) user: &'static User,
    pub(super) wants_profile: bool,
    pub(super) wants_email: bool,
}

/// An error that is shown to the user and told to nobody else.
#[derive(Template)]
#[template(path = "provider/error.html")]
pub(super) struct ErrorPage {
    status: StatusCode,
    title: &'static str,
    message: &'static str,
}

impl ErrorPage {
    pub(super) fn bad_request(message: &'static str) -> Self {
        Self { status: StatusCode::BAD_REQUEST, title: "This request cannot be answered", message }
    }

    pub(super) fn foreign_form() -> Self {
        Self {
            status: StatusCode::FORBIDDEN,
            title: "This form is not one of ours",
            message: "Another site may have sent it, or your browser sent no cookie along.",
        }
    }
}

impl From<getrandom::Error> for ErrorPage {
    fn from(_: getrandom::Error) -> Self {
        Self {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            title: "Something went wrong here",
            message: "The system gave no random bytes. Try again.",
        }
    }
}

impl IntoResponse for LoginPage<'_> {
    fn into_response(self) -> Response {
        let status = match self.failed_username {
            None => StatusCode::OK,
            Some(_) => StatusCode::UNPROCESSABLE_ENTITY,
        };
        render(status, &self)
    }
}

impl IntoResponse for ConsentPage<'_> {
    fn into_response(self) -> Response {
        render(StatusCode::OK, &self)
    }
}

impl IntoResponse for ErrorPage {
    fn into_response(self) -> Response {
        render(self.status, &self)
    }
}

pub(super) async fn not_found() -> ErrorPage {
    ErrorPage {
        status: StatusCode::NOT_FOUND,
        title: "There is no such page",
        message: "The demo site sends you here when there is something to decide.",
    }
}

pub(super) async fn style() -> impl IntoResponse {
    let content_type = [(header::CONTENT_TYPE, "text/css; charset=utf-8")];
    let css = include_str!("../../templates/provider/style.css");
    (content_type, css)
}

/// Headers of every response: nothing is stored, framed, sniffed or told to the next site.
pub(super) async fn security_headers(State(provider): State<LocalProvider>, mut response: Response) -> Response {
    let policy = content_security_policy(&provider.registration.redirect_uri);
    let headers = response.headers_mut();
    if let Ok(policy) = HeaderValue::try_from(policy) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    let fixed = [
        (header::CACHE_CONTROL, "no-store"),
        (header::PRAGMA, "no-cache"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Chromium holds the redirects that follow a form to `form-action` too, so the client's origin is in
/// it; where that cannot be written as a source (IPv6, custom schemes), forms are left unrestricted.
fn content_security_policy(redirect_uri: &str) -> String {
    let base = "default-src 'none'; style-src 'self'; img-src data:; base-uri 'none'; frame-ancestors 'none'";
    match Url::parse(redirect_uri).map(|target| target.origin()) {
        Ok(origin @ Origin::Tuple(_, Host::Domain(_) | Host::Ipv4(_), _)) => {
            format!("{base}; form-action 'self' {}", origin.ascii_serialization())
        }
        _ => base.to_owned(),
    }
}

fn render(status: StatusCode, page: &impl Template) -> Response {
    match page.render() {
        Ok(html) => (status, Html(html)).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_may_lead_to_the_client() {
        let policy = content_security_policy("http://127.0.0.1:4000/callback?x=1");
        assert!(policy.ends_with("form-action 'self' http://127.0.0.1:4000"));
    }

    #[test]
    fn an_origin_that_is_no_source_leaves_forms_alone() {
        for uri in ["http://[::1]:4000/", "app.example:/callback", "app://x", "no uri"] {
            let policy = content_security_policy(uri);
            assert!(!policy.contains("null"), "{policy}");
            assert!(!policy.contains("["), "{policy}");
        }
        assert!(!content_security_policy("http://[::1]:4000/").contains("form-action"));
    }

    #[test]
    fn pages_escape_what_came_from_outside() {
        let evil = "\"><script>alert('1')</script>";
        let page = LoginPage { query: evil, csrf: evil, client_id: evil, failed_username: Some(evil) };
        let html = page.to_string();
        assert!(!html.contains("<script"), "{html}");
        assert_eq!(html.matches("alert(&#39;1&#39;)").count(), 4, "{html}");
    }
}
