//! The pages of the demo's provider.

use askama::Template;
use axum::http::{HeaderName, HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use url::{Host, Origin, Url};

use super::users::{PASSWORD, USERS, User};

#[derive(Template)]
#[template(path = "provider/login.html")]
pub(super) struct LoginPage<'a> {
    pub(super) csrf: &'a str,
    pub(super) client_id: &'a str,
    /// The user name of a login that has just failed.
    pub(super) failed_username: Option<&'a str>,
}

#[derive(Template)]
#[template(path = "provider/consent.html")]
pub(super) struct ConsentPage<'a> {
    pub(super) csrf: &'a str,
    pub(super) client_id: &'a str,
    pub(super) redirect_uri: &'a str,
    pub(super) user: &'static User,
    pub(super) wants_profile: bool,
    pub(super) wants_email: bool,
}

/// An error that is shown to the user and not sent to the client.
#[derive(Template)]
#[template(path = "provider/error.html")]
pub(super) struct ErrorPage<'a> {
    pub(super) title: &'a str,
    pub(super) message: &'a str,
}

impl ErrorPage<'_> {
    pub(super) const FOREIGN_FORM: Self = Self {
        title: "This form did not come from here",
        message: "Another site may have sent it, or your browser sent no cookie with it.",
    };
}

/// The headers of every page. A page is not stored, framed or sniffed, loads nothing from other origins, and sends no
/// referrer.
pub(super) struct PageHeaders(String);

impl PageHeaders {
    /// Chromium applies `form-action` to the redirects that follow a form, so it contains the client's origin. If that
    /// cannot be written as a source (IPv6, custom schemes), forms are not restricted.
    pub(super) fn new(redirect_uri: &str) -> Self {
        let policy = "default-src 'none'; style-src 'self'; img-src data:; base-uri 'none'; frame-ancestors 'none'";
        Self(match Url::parse(redirect_uri).map(|target| target.origin()) {
            Ok(origin @ Origin::Tuple(_, Host::Domain(_) | Host::Ipv4(_), _)) => {
                format!("{policy}; form-action 'self' {}", origin.ascii_serialization())
            }
            _ => policy.to_owned(),
        })
    }

    pub(super) fn page(&self, status: StatusCode, page: &impl Template) -> Response<String> {
        match page.render() {
            Ok(html) => self.response(status, html),
            Err(_) => self.response(StatusCode::INTERNAL_SERVER_ERROR, String::new()),
        }
    }

    pub(super) fn response(&self, status: StatusCode, html: String) -> Response<String> {
        const HEADERS: [(HeaderName, &str); 6] = [
            (header::CONTENT_TYPE, "text/html; charset=utf-8"),
            (header::CACHE_CONTROL, "no-store"),
            (header::PRAGMA, "no-cache"),
            (header::REFERRER_POLICY, "no-referrer"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::X_FRAME_OPTIONS, "DENY"),
        ];
        let mut response = Response::new(html);
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.extend(HEADERS.map(|(name, value)| (name, HeaderValue::from_static(value))));
        if let Ok(policy) = HeaderValue::try_from(&self.0) {
            headers.insert(header::CONTENT_SECURITY_POLICY, policy);
        }
        response
    }
}

pub(super) async fn style() -> impl IntoResponse {
    let headers = [(header::CONTENT_TYPE, "text/css; charset=utf-8"), (header::CACHE_CONTROL, "no-store")];
    (headers, include_str!("../../templates/provider/style.css"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_may_lead_to_the_client() {
        let PageHeaders(policy) = PageHeaders::new("http://127.0.0.1:4000/callback?x=1");
        assert!(policy.ends_with("form-action 'self' http://127.0.0.1:4000"));
    }

    #[test]
    fn forms_are_unrestricted_when_an_origin_is_no_source() {
        for uri in ["http://[::1]:4000/", "app.example:/callback", "app://x", "no uri"] {
            let PageHeaders(policy) = PageHeaders::new(uri);
            assert!(!policy.contains("null") && !policy.contains('[') && !policy.contains("form-action"), "{policy}");
        }
    }

    #[test]
    fn pages_escape_outside_text() {
        let evil = "\"><script>alert('1')</script>";
        let html = LoginPage { csrf: evil, client_id: evil, failed_username: Some(evil) }.to_string();
        assert!(!html.contains("<script"), "{html}");
        assert_eq!(html.matches("alert(&#39;1&#39;)").count(), 3, "{html}");
        let html = ErrorPage { title: evil, message: evil }.to_string();
        assert!(!html.contains("<script"), "{html}");
    }
}
