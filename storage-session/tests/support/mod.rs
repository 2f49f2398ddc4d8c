//! An application that reads and writes records on request, and a browser with a strict cookie jar.
#![allow(dead_code, unreachable_pub)]

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use oauth_dance_core::{Precondition, Record, RequestStorage, StorageError, TokenKey};
use tokio::net::TcpListener;

/// Routes that run one operation on the storage of their request, and return its result.
pub fn routes() -> Router {
    Router::new()
        .route("/idle", get(|| async { "idle" }))
        .route("/get/{user}", get(read))
        .route("/put/{user}/{size}", get(put))
        .route("/create/{user}/{size}", get(create))
        .route("/put-500/{user}/{size}", get(put_and_fail))
        .route("/put-cached/{user}/{size}", get(put_and_cache))
        .route("/refresh/{user}/{size}", get(refresh))
        .route("/delete/{user}", get(delete))
}

pub fn key(user: &str) -> TokenKey {
    TokenKey::new("github", user).unwrap()
}

/// A payload that contains its size and varying bytes.
pub fn payload(size: usize) -> Vec<u8> {
    (0..size).map(|index| (index % 251) as u8).collect()
}

async fn read(Extension(storage): Extension<RequestStorage>, Path(user): Path<String>) -> Response {
    match storage.storage().get(&key(&user)).await {
        Ok(None) => "none".into_response(),
        Ok(Some(found)) if found.value.payload == payload(found.value.payload.len()) => {
            found.value.payload.len().to_string().into_response()
        }
        Ok(Some(_)) => "altered".into_response(),
        Err(error) => failed(&error),
    }
}

async fn put(Extension(storage): Extension<RequestStorage>, Path((user, size)): Path<(String, usize)>) -> Response {
    match storage.storage().put(&key(&user), &Record::new(payload(size)), Precondition::Always).await {
        Ok(_) => "put".into_response(),
        Err(error) => failed(&error),
    }
}

/// Writes a new record, without a login.
async fn create(Extension(storage): Extension<RequestStorage>, Path((user, size)): Path<(String, usize)>) -> Response {
    match storage.storage().put(&key(&user), &Record::new(payload(size)), Precondition::Absent).await {
        Ok(_) => "created".into_response(),
        Err(error) => failed(&error),
    }
}

async fn put_and_fail(storage: Extension<RequestStorage>, path: Path<(String, usize)>) -> Response {
    (StatusCode::INTERNAL_SERVER_ERROR, put(storage, path).await).into_response()
}

async fn put_and_cache(storage: Extension<RequestStorage>, path: Path<(String, usize)>) -> Response {
    ([(header::CACHE_CONTROL, "public, max-age=600")], put(storage, path).await).into_response()
}

/// Replaces the stored version, like a refresh.
async fn refresh(Extension(storage): Extension<RequestStorage>, Path((user, size)): Path<(String, usize)>) -> Response {
    let found = storage.storage().get(&key(&user)).await.unwrap().unwrap();
    let when = Precondition::Version(found.version);
    match storage.storage().put(&key(&user), &Record::new(payload(size)), when).await {
        Ok(_) => "refreshed".into_response(),
        Err(error) => failed(&error),
    }
}

async fn delete(Extension(storage): Extension<RequestStorage>, Path(user): Path<String>) -> Response {
    match storage.storage().delete(&key(&user), None).await {
        Ok(removed) => removed.to_string().into_response(),
        Err(error) => failed(&error),
    }
}

fn failed(error: &StorageError) -> Response {
    (StatusCode::INSUFFICIENT_STORAGE, format!("{error:?}")).into_response()
}

/// Serves an application on a free port.
pub async fn serve(app: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    url
}

/// A browser that stores cookies according to RFC 6265bis, and does not follow redirects.
pub struct Browser {
    http: reqwest::Client,
    url: String,
    https: bool,
    pub jar: Mutex<BTreeMap<String, String>>,
}

#[derive(Debug)]
pub struct Page {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
}

impl Browser {
    /// A browser of an application at `url`. With `https`, a proxy terminates TLS.
    pub fn new(url: &str, https: bool) -> Self {
        let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        Self { http, url: url.to_owned(), https, jar: Mutex::default() }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub async fn get(&self, path: &str) -> Page {
        self.get_with(path, &self.cookie_header()).await
    }

    /// Sends a request with the stored cookies, and stores those of the response.
    pub async fn get_with(&self, path: &str, cookies: &str) -> Page {
        let page = self.send(path, cookies.as_bytes()).await;
        self.keep(&page);
        page
    }

    /// Sends a request with these cookies, and stores nothing.
    pub async fn send(&self, path: &str, cookies: &[u8]) -> Page {
        let path = path.strip_prefix(&self.url).unwrap_or(path);
        let mut request = self.http.get(format!("{}{path}", self.url)).header(header::ACCEPT, "text/html");
        if !cookies.is_empty() {
            request = request.header(header::COOKIE, header::HeaderValue::from_bytes(cookies).unwrap());
        }
        let response = request.timeout(Duration::from_secs(20)).send().await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        Page { status, headers, body: response.text().await.unwrap() }
    }

    /// Requests a page, and disconnects when the condition holds.
    pub async fn hang_up(&self, path: &str, when: impl Fn() -> bool) {
        use tokio::io::AsyncWriteExt as _;

        let address = self.url.strip_prefix("http://").unwrap();
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let cookies = self.cookie_header();
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: {address}\r\naccept: text/html\r\ncookie: {cookies}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        while !when() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub fn cookie_header(&self) -> String {
        let pairs: Vec<_> = self.jar.lock().unwrap().iter().map(|(name, value)| format!("{name}={value}")).collect();
        pairs.join("; ")
    }

    pub fn names(&self) -> Vec<String> {
        self.jar.lock().unwrap().keys().cloned().collect()
    }

    pub fn cookies(&self) -> BTreeMap<String, String> {
        self.jar.lock().unwrap().clone()
    }

    pub fn keep(&self, page: &Page) {
        for set_cookie in page.set_cookies() {
            self.keep_cookie(set_cookie);
        }
    }

    fn keep_cookie(&self, set_cookie: &str) {
        assert!(set_cookie.len() <= 4096, "no browser accepts a cookie of {} bytes", set_cookie.len());
        let mut parts = set_cookie.split("; ");
        let (name, value) = parts.next().unwrap().split_once('=').unwrap();
        let attributes: Vec<String> = parts.map(str::to_ascii_lowercase).collect();
        let has = |attribute: &str| attributes.iter().any(|found| found == attribute);
        let domain = attributes.iter().any(|found| found.starts_with("domain"));
        assert!(!has("secure") || self.https, "{name} would be dropped");
        let is_host_only = has("secure") && has("path=/") && !domain;
        assert!(!name.starts_with("__Host-") || is_host_only, "{name} would be dropped");
        let mut jar = self.jar.lock().unwrap();
        if has("max-age=0") {
            jar.remove(name);
        } else {
            jar.insert(name.to_owned(), value.to_owned());
        }
    }
}

impl Page {
    pub fn set_cookies(&self) -> Vec<&str> {
        self.headers.get_all(header::SET_COOKIE).iter().map(|value| value.to_str().unwrap()).collect()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}
