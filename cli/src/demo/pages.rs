//! The pages of the demo.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use askama::Template;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use oauth_dance::{Connection, ConnectionState, OAuth};
use serde_json::Value;

use super::site::Row;

const STYLE: &str =
    concat!(include_str!("../../templates/provider/style.css"), include_str!("../../templates/demo/style.css"));

pub(super) async fn style() -> Response {
    let headers = [(header::CONTENT_TYPE, "text/css; charset=utf-8"), (header::CACHE_CONTROL, "max-age=3600")];
    (headers, STYLE).into_response()
}

#[derive(Template)]
#[template(path = "demo/connections.html")]
pub(super) struct ConnectionsPage {
    cards: Vec<Card>,
    storage: &'static str,
}

struct Card {
    name: String,
    title: String,
    login: String,
    connected: bool,
    /// The style of the badge: `good`, `warn` or none.
    tone: &'static str,
    badge: &'static str,
    detail: String,
    scope: Vec<String>,
}

impl ConnectionsPage {
    pub(super) fn new(oauth: &OAuth, rows: &[Row], storage: &'static str) -> Self {
        Self { cards: rows.iter().map(|row| Card::new(oauth, row)).collect(), storage }
    }
}

impl Card {
    fn new(oauth: &OAuth, row: &Row) -> Self {
        let (tone, badge, detail) = match &row.connection {
            Ok(Some(connection)) => describe(connection),
            Ok(None) => ("", "Not connected", "No token is stored for this browser.".to_owned()),
            Err(error) => ("warn", "Unreadable", format!("{error}.")),
        };
        let token = row.connection.as_ref().ok().and_then(Option::as_ref).map(|connection| &connection.token);
        Self {
            name: row.name.clone(),
            title: row.title.clone(),
            login: oauth.login_path(&row.name),
            connected: token.is_some(),
            tone,
            badge,
            detail,
            scope: token.and_then(|token| token.scope()).unwrap_or_default().to_vec(),
        }
    }
}

/// Describes a connection: the style and the text of the badge, and a sentence.
fn describe(connection: &Connection) -> (&'static str, &'static str, String) {
    let left = connection.token.expires_at().map(|expiry| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Duration::from_secs(expiry.as_unix_seconds().saturating_sub(now))
    });
    let refreshable = connection.token.as_oauth2().is_some_and(|token| token.refresh_token.is_some());
    match (&connection.state, left) {
        (ConnectionState::NeedsAuthorization { reason, .. }, _) => {
            ("warn", "Connect again", format!("{}.", capitalized(reason.describe())))
        }
        (ConnectionState::BackingOff { cause, .. }, _) => {
            ("warn", "Waiting", format!("The token could not be refreshed ({cause}); the next attempt follows soon."))
        }
        (ConnectionState::Refreshing, _) => ("good", "Connected", "The token is being refreshed.".to_owned()),
        (ConnectionState::OutcomeUnknown, _) => {
            ("warn", "Connected", "A refresh was interrupted; the next call tries again.".to_owned())
        }
        (_, None) => ("good", "Connected", "The access token does not expire.".to_owned()),
        (_, Some(Duration::ZERO)) => {
            ("good", "Connected", "The access token has expired; the next call refreshes it.".to_owned())
        }
        (_, Some(left)) => {
            let then = if refreshable { "is refreshed when needed" } else { "cannot be refreshed" };
            ("good", "Connected", format!("The access token expires in {} and {then}.", in_words(left)))
        }
    }
}

fn capitalized(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(characters).collect()
}

fn in_words(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} hours", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[derive(Template)]
#[template(path = "demo/call.html")]
pub(super) struct CallPage<'a> {
    title: &'a str,
    response: String,
}

impl<'a> CallPage<'a> {
    pub(super) fn new(title: &'a str, response: &Value) -> Self {
        Self { title, response: format!("{response:#}") }
    }
}

#[derive(Template)]
#[template(path = "demo/error.html")]
pub(super) struct ErrorPage<'a> {
    status: StatusCode,
    message: &'a str,
}

impl<'a> ErrorPage<'a> {
    pub(super) fn new(status: StatusCode, message: &'a str) -> Self {
        Self { status, message }
    }

    fn heading(&self) -> &'static str {
        if self.status == StatusCode::NOT_FOUND { "Not found" } else { "Something went wrong" }
    }
}

impl IntoResponse for ConnectionsPage {
    fn into_response(self) -> Response {
        render(StatusCode::OK, &self)
    }
}

impl IntoResponse for CallPage<'_> {
    fn into_response(self) -> Response {
        render(StatusCode::OK, &self)
    }
}

impl IntoResponse for ErrorPage<'_> {
    fn into_response(self) -> Response {
        render(self.status, &self)
    }
}

fn render(status: StatusCode, page: &impl Template) -> Response {
    match page.render() {
        Ok(html) => (status, Html(html)).into_response(),
        Err(error) => {
            tracing::error!(%error, "a page could not be rendered");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_shown_in_one_unit() {
        for (seconds, expected) in [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7200, "2 hours"), (172_800, "2 days")]
        {
            assert_eq!(in_words(Duration::from_secs(seconds)), expected);
        }
    }
}
