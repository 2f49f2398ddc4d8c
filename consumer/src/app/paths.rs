//! The application's own URLs.
//!
//! They are built from the configured base URL and never from a request. `Host` and `X-Forwarded-Host` are set by the client
//! or by a proxy that forwards what a client sent; a redirect URI from them would let an attacker choose where a code is
//! sent. A base URL with a path is the address behind a proxy that strips the path: the router sees the routes, browsers see
//! them with the prefix.

use url::Url;

use crate::config::endpoint::{PlainHttp, parse_endpoint};
use crate::error::ConfigError;

const PLACEHOLDER: &str = "{provider}";

/// The URLs of the application and the paths of its routes, as browsers see them.
#[derive(Clone, Debug)]
pub(crate) struct Paths {
    base: Url,
    /// The base URL's path without a trailing slash: a prefix that a proxy strips.
    prefix: String,
    pub(crate) login_route: String,
    pub(crate) callback_route: String,
    /// The route to which a provider returns a browser after it has ended the session.
    pub(crate) ended_route: String,
}

impl Paths {
    pub(crate) fn new(
        base_url: &str,
        plain_http: &PlainHttp,
        login_route: String,
        callback_route: String,
    ) -> Result<Self, ConfigError> {
        let base = parse_endpoint(base_url, plain_http).map_err(|problem| ConfigError::BaseUrl { problem })?;
        if base.query().is_some() {
            return Err(ConfigError::BaseUrl { problem: "must not contain a query" });
        }
        for (which, route) in [("login", &login_route), ("callback", &callback_route)] {
            if !is_route(route) {
                return Err(ConfigError::Path { which });
            }
        }
        let prefix = base.path().trim_end_matches('/').to_owned();
        let ended_route = format!("{}/ended", login_route.trim_end_matches('/'));
        if [&login_route, &ended_route].contains(&&callback_route) {
            return Err(ConfigError::SamePath { path: callback_route });
        }
        Ok(Self { base, prefix, login_route, callback_route, ended_route })
    }

    pub(crate) fn is_https(&self) -> bool {
        self.base.scheme() == "https"
    }

    /// The origin of the application, as browsers send it in `Origin`.
    pub(crate) fn origin(&self) -> String {
        self.base.origin().ascii_serialization()
    }

    pub(crate) fn login(&self, provider: &str) -> String {
        self.visible(&self.login_route.replace(PLACEHOLDER, provider))
    }

    pub(crate) fn callback_url(&self, provider: &str) -> String {
        let path = self.visible(&self.callback_route.replace(PLACEHOLDER, provider));
        format!("{}{path}", self.origin())
    }

    pub(crate) fn ended_url(&self, provider: &str) -> String {
        let path = self.visible(&self.ended_route.replace(PLACEHOLDER, provider));
        format!("{}{path}", self.origin())
    }

    /// A path of this application's router as browsers see it.
    pub(crate) fn visible(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }

    /// The default target of a redirect.
    pub(crate) fn home(&self) -> String {
        self.visible("/")
    }

    /// The path to redirect to after a login, if it leads to this application's own origin (RFC 9700 section 4.11).
    /// Otherwise it is the home page.
    pub(crate) fn local(&self, next: Option<&str>) -> String {
        next.and_then(|next| self.checked_local(next)).unwrap_or_else(|| self.home())
    }

    fn checked_local(&self, next: &str) -> Option<String> {
        const MAX: usize = 768;
        let mut characters = next.chars();
        let is_path = characters.next() == Some('/') && characters.next() != Some('/');
        // Browsers treat a backslash as a slash, and skip tabs and line breaks.
        if !is_path || next.len() > MAX || next.contains(|c: char| c == '\\' || c.is_control()) {
            return None;
        }
        let url = self.base.join(next).ok().filter(|url| url.origin() == self.base.origin())?;
        let local = &url[url::Position::BeforePath..];
        // Normalizing dots can leave two slashes, and percent-encoding makes non-ASCII text three times as long.
        (!local.starts_with("//") && local.len() <= MAX).then(|| local.to_owned())
    }
}

/// Whether a router accepts the path, with the provider as one whole segment.
fn is_route(path: &str) -> bool {
    let Some(segments) = path.strip_prefix('/') else { return false };
    let is_plain = |segment: &str| !segment.starts_with([':', '*']) && !segment.contains(['{', '}', '?', '#']);
    segments.split('/').filter(|segment| *segment == PLACEHOLDER).count() == 1
        && segments.split('/').all(|segment| segment == PLACEHOLDER || is_plain(segment))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(base: &str, login: String, callback: String) -> Result<Paths, ConfigError> {
        Paths::new(base, &PlainHttp::default(), login, callback)
    }

    fn paths(base: &str) -> Paths {
        new(base, "/login/{provider}".to_owned(), "/login/{provider}/authorized".to_owned()).unwrap()
    }

    #[test]
    fn next_stays_on_the_application_s_origin() {
        let paths = paths("https://app.example");
        for good in ["/", "/a", "/a/b?c=d&e=//x#f", "/%2f%2fe", "/%C3%A4"] {
            assert_eq!(paths.local(Some(good)), good);
        }
        assert_eq!(paths.local(Some("/a/../\u{e4}")), "/%C3%A4");
        for bad in [
            "",
            "//e",
            "/\\e",
            "\\\\e",
            "/\t/e",
            "/\n/e",
            "https:e",
            "https://e",
            "http://app@e",
            "/..//e",
            "/.//e",
            "javascript:alert(1)",
            "a",
            "?x",
            "/x\r\nSet-Cookie: a=b",
            " /x",
            "/\u{0}",
        ] {
            assert_eq!(paths.local(Some(bad)), "/", "{bad:?}");
        }
        assert_eq!(paths.local(Some(&format!("/{}", "x".repeat(2000)))), "/");
        assert_eq!(paths.local(Some(&format!("/{}", "\u{e4}".repeat(200)))), "/");
        assert_eq!(paths.local(None), "/");
    }

    #[test]
    fn a_prefix_of_the_base_url_is_retained() {
        let paths = paths("https://app.example/sub/");
        assert_eq!(paths.login("github"), "/sub/login/github");
        assert_eq!(paths.callback_url("github"), "https://app.example/sub/login/github/authorized");
        assert_eq!(paths.local(None), "/sub/");
        assert_eq!(paths.origin(), "https://app.example");
    }

    #[test]
    fn invalid_settings_are_rejected() {
        let route = || "/login/{provider}".to_owned();
        for base in ["", "app.example", "http://app.example", "https://app.example/?a=b", "https://app.example/#a"] {
            assert!(new(base, route(), route()).is_err(), "{base}");
        }
        for bad in [
            "login/{provider}",
            "/login",
            "/{provider}/{provider}",
            "/login/x{provider}",
            "/{tenant}/{provider}",
            "/{*path}/{provider}",
            "/:tenant/{provider}",
            "/login/{provider}?a=b",
        ] {
            assert!(new("https://app.example", bad.to_owned(), "/callback/{provider}".to_owned()).is_err(), "{bad}");
            assert!(new("https://app.example", route(), bad.to_owned()).is_err(), "{bad}");
        }
        for taken in ["/login/{provider}", "/login/{provider}/ended"] {
            let error = new("https://app.example", route(), taken.to_owned()).unwrap_err();
            assert!(error.to_string().contains(taken), "{error}");
        }
    }
}
