//! A browser with one application open. It stores cookies for each host, and sends what browsers send.
#![allow(dead_code, unreachable_pub)]

use std::collections::BTreeMap;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use tower::ServiceExt as _;
use url::Url;

pub struct Browser {
    app: Router,
    base: Url,
    jars: BTreeMap<String, BTreeMap<String, String>>,
    provider: reqwest::Client,
}

/// A complete response.
#[derive(Debug)]
pub struct Page {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
}

impl Page {
    pub fn location(&self) -> &str {
        self.headers.get(header::LOCATION).map_or("", |location| location.to_str().unwrap())
    }
}

impl Browser {
    pub fn of(app: &Router, base: &str) -> Self {
        let provider = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        Self { app: app.clone(), base: Url::parse(base).unwrap(), jars: BTreeMap::new(), provider }
    }

    /// Another site of the same application, in the same browser.
    pub fn visit(&mut self, base: &str) {
        self.base = Url::parse(base).unwrap();
    }

    pub async fn get(&mut self, path: &str) -> Page {
        self.send(Method::GET, path, "none").await
    }

    /// Sends a form from one of the application's own pages.
    pub async fn post(&mut self, path: &str) -> Page {
        self.send(Method::POST, path, "same-origin").await
    }

    /// Sends what a form on another site makes the browser send.
    pub async fn post_from_elsewhere(&mut self, path: &str) -> Page {
        self.send(Method::POST, path, "cross-site").await
    }

    /// Logs in at a provider as `who`, comes back, and returns the callback's response.
    pub async fn log_in(&mut self, provider: &str, who: &str) -> Page {
        self.log_in_from(&format!("/login/{provider}"), who).await
    }

    pub async fn log_in_from(&mut self, path: &str, who: &str) -> Page {
        let start = self.get(path).await;
        assert_eq!(start.status, StatusCode::SEE_OTHER, "{start:?}");
        let mut authorization = Url::parse(start.location()).unwrap();
        authorization.query_pairs_mut().append_pair("login_hint", who);
        let response = self.provider.get(authorization).send().await.unwrap();
        let callback = Url::parse(response.headers()[header::LOCATION].to_str().unwrap()).unwrap();
        assert_eq!(callback.origin(), self.base.origin(), "the callback is on the host that was left");
        self.get(&callback[url::Position::BeforePath..]).await
    }

    pub fn cookies(&self) -> BTreeMap<String, String> {
        self.jars.get(self.base.authority()).cloned().unwrap_or_default()
    }

    pub fn set_cookies(&mut self, cookies: BTreeMap<String, String>) {
        self.jars.insert(self.base.authority().to_owned(), cookies);
    }

    async fn send(&mut self, method: Method, path: &str, site: &str) -> Page {
        let host = self.base.authority().to_owned();
        let jar = self.jars.entry(host.clone()).or_default();
        let cookies: Vec<_> = jar.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, &host)
            .header(header::ACCEPT, "text/html,*/*")
            .header(header::COOKIE, cookies.join("; "))
            .header("sec-fetch-site", site)
            .body(Body::empty())
            .unwrap();
        let (parts, body) = self.app.clone().oneshot(request).await.unwrap().into_parts();
        for cookie in parts.headers.get_all(header::SET_COOKIE) {
            let cookie = cookie.to_str().unwrap();
            let (name, value) = cookie.split(';').next().unwrap().split_once('=').unwrap();
            if cookie.contains("Max-Age=0") {
                jar.remove(name);
            } else {
                jar.insert(name.to_owned(), value.to_owned());
            }
        }
        let body = String::from_utf8(to_bytes(body, 1 << 20).await.unwrap().to_vec()).unwrap();
        Page { status: parts.status, headers: parts.headers, body }
    }
}
