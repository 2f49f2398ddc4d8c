use std::time::{Duration, SystemTime, UNIX_EPOCH};

use askama::Template;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use oauth_dance::{OAuth, OAuth2Token};
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
    /// `good`, `warn` or nothing: how the badge looks.
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
        let (tone, badge, detail) = match &row.token {
            Ok(Some(token)) => connected(token),
            Ok(None) => ("", "Not connected", "No token is stored for this browser.".to_owned()),
            Err(error) => ("warn", "Unreadable", format!("{error}.")),
        };
        let token = row.token.as_ref().ok().and_then(Option::as_ref);
        Self {
            name: row.name.clone(),
            title: row.title.clone(),
            login: oauth.login_path(&row.name),
            connected: token.is_some(),
            tone,
            badge,
            detail,
            scope: token.and_then(|token| token.scope.clone()).unwrap_or_default(),
        }
    }
}

fn connected(token: &OAuth2Token) -> (&'static str, &'static str, String) {
    let Some(expiry) = token.expires_at else {
        return ("good", "Connected", "The access token does not expire.".to_owned());
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let left = expiry.as_unix_seconds().saturating_sub(now);
    match (left, &token.refresh_token) {
        (0, None) => ("warn", "Expired", "The access token has expired. Connect again.".to_owned()),
        (0, Some(_)) => ("good", "Connected", "The access token has expired; the next call refreshes it.".to_owned()),
        (left, Some(_)) => {
            let left = spoken(Duration::from_secs(left));
            ("good", "Connected", format!("The access token expires in {left} and is refreshed when needed."))
        }
        (left, None) => {
            let left = spoken(Duration::from_secs(left));
            ("good", "Connected", format!("The access token expires in {left} and cannot be refreshed."))
        }
    }
}

fn spoken(duration: Duration) -> String {
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
    answer: String,
}

impl<'a> CallPage<'a> {
    pub(super) fn new(title: &'a str, answer: &Value) -> Self {
        Self { title, answer: format!("{answer:#}") }
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
        if self.status == StatusCode::NOT_FOUND { "Not found" } else { "That did not work" }
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
    fn durations_are_told_in_one_unit() {
        for (seconds, expected) in [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7200, "2 hours"), (172_800, "2 days")]
        {
            assert_eq!(spoken(Duration::from_secs(seconds)), expected);
        }
    }
}
