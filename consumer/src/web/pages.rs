//! The plain default pages. They need no script, and every text in them is escaped.

use axum::Json;
use axum::response::{Html, IntoResponse, Response};
use http::{HeaderMap, HeaderValue, header};
use serde_json::json;

use super::private;
use super::rejection::accepts_html;
use crate::app::OAuth;
use crate::error::{ConnectError, LoginError};
use crate::html::{self, Escaped, sentence};
use crate::protocol::registered::Registered;

/// Describes a failure and what to do next: in HTML or, for a program, in JSON.
pub(super) fn failure(
    oauth: &OAuth,
    registered: Option<&Registered>,
    error: &LoginError,
    headers: &HeaderMap,
) -> Response {
    if !accepts_html(headers) {
        let body = json!({ "error": error.code(), "message": error.to_string() });
        return (error.status(), Json(body)).into_response();
    }
    let heading = match (registered, error) {
        // The first callback showed the outcome.
        (_, LoginError::Spent) => "This login has ended".to_owned(),
        (_, LoginError::Interrupted) => "This login was interrupted".to_owned(),
        (Some(registered), _) => format!("{} was not connected", registered.declared.title),
        (None, _) => "Not connected".to_owned(),
    };
    let again = match registered {
        Some(registered) => {
            let path = oauth.inner.paths.login(&registered.declared.name);
            format!("<a class=\"button\" href=\"{}\">Try again</a> ", Escaped(&path))
        }
        None => String::new(),
    };
    let body = format!(
        "<p>{}.</p><p>{again}<a href=\"{}\">Go back</a></p>",
        Escaped(&sentence(&error.to_string())),
        Escaped(&oauth.inner.paths.home()),
    );
    (error.status(), page(&heading, &body)).into_response()
}

/// Explains why a page that needs a connection cannot be shown, and offers the login at the provider if that helps.
pub(crate) fn no_connection(oauth: &OAuth, error: &ConnectError, login: Option<(&str, &str)>) -> Response {
    let title = |provider: &str| {
        oauth.registered(provider).map_or_else(|_| provider.to_owned(), |found| found.declared.title.clone())
    };
    let (heading, button) = match login {
        Some((provider, path)) => {
            let title = title(provider);
            let button = format!("<a class=\"button\" href=\"{}\">Connect {}</a> ", Escaped(path), Escaped(&title));
            (format!("{title} is not connected"), button)
        }
        None => ("This page is not available".to_owned(), String::new()),
    };
    let body = format!(
        "<p>{}.</p><p>{button}<a href=\"{}\">Go back</a></p>",
        Escaped(&sentence(&error.to_string())),
        Escaped(&oauth.inner.paths.home()),
    );
    (error.status(), page(&heading, &body)).into_response()
}

/// Asks for confirmation if another site caused the request.
pub(super) fn confirm(oauth: &OAuth, registered: &Registered, next: &str) -> Response {
    let heading = format!("Connect {}?", registered.declared.title);
    let body = format!(
        "<p>Another site wants to connect your account at {} here. Continue only if you started this.</p>\
         <form method=\"post\" action=\"{}\"><input type=\"hidden\" name=\"next\" value=\"{}\">\
         <button class=\"button\">Connect {}</button> <a href=\"{}\">Cancel</a></form>",
        Escaped(&registered.declared.title),
        Escaped(&oauth.inner.paths.login(&registered.declared.name)),
        Escaped(next),
        Escaped(&registered.declared.title),
        Escaped(&oauth.inner.paths.home()),
    );
    // With `no-referrer`, the form's `Origin` would be `null`, but browsers without Fetch Metadata are recognised by their
    // `Origin`.
    let mut response = private(page(&heading, &body));
    response.headers_mut().insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    response
}

fn page(heading: &str, body: &str) -> Response {
    let policy = [(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(html::POLICY))];
    (policy, Html(html::document(heading, body))).into_response()
}
