//! The pages that the browser shows at the end of a login. They are plain, and contain neither a code nor a token.

use http::{HeaderValue, Response, StatusCode, header};

use crate::error::LoginError;
use crate::html::{self, Escaped, sentence};

/// Shown when the token is stored.
pub(super) fn done(title: &str) -> Response<String> {
    let heading = format!("{title} is connected");
    page(StatusCode::OK, &heading, "You can close this window.")
}

/// Shown when the login has failed.
pub(super) fn failed(title: &str, status: StatusCode, message: &str) -> Response<String> {
    let heading = format!("{title} was not connected");
    let body = format!("{}. You can close this window.", sentence(message));
    page(status, &heading, &body)
}

/// The answer to a request that is not the response of the provider. The login continues.
pub(super) fn refused(status: StatusCode, message: &str) -> Response<String> {
    page(status, "This is not the login", &format!("{}.", sentence(message)))
}

/// The same with the reason and the status of an error.
pub(super) fn refused_for(error: &LoginError) -> Response<String> {
    refused(error.status(), &error.to_string())
}

fn page(status: StatusCode, heading: &str, text: &str) -> Response<String> {
    let mut response = Response::new(html::document(heading, &format!("<p>{}</p>", Escaped(text))));
    *response.status_mut() = status;
    for (name, value) in [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, html::POLICY),
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONNECTION, "close"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_the_provider_is_escaped() {
        let error = LoginError::Provider { code: "<script>".to_owned(), description: None };
        let page = failed("A & B", error.status(), &error.to_string());
        assert_eq!(page.status(), StatusCode::BAD_GATEWAY);
        let body = page.body();
        assert!(body.contains("A &amp; B was not connected") && body.contains("&lt;script&gt;"), "{body}");
        assert!(!body.contains("<script"), "{body}");
        let policy = page.headers()["content-security-policy"].to_str().unwrap();
        assert!(policy.contains("default-src 'none'"), "{policy}");
    }
}
