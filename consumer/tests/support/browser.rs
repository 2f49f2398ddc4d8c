use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use url::Url;

use super::site::Site;

/// A browser with one site open. It stores cookies by the rules of RFC 6265bis, and follows no redirect by itself.
pub struct Browser {
    http: reqwest::Client,
    listener: String,
    base: Url,
    jar: Mutex<BTreeMap<String, String>>,
}

/// A complete response.
#[derive(Debug)]
pub struct Page {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
}

impl Browser {
    pub fn of(site: &Site) -> Self {
        let base = Url::parse(&site.base).unwrap();
        Self { http: client(), listener: site.listener.clone(), base, jar: Mutex::default() }
    }

    /// A browser in which a user is signed in to the application.
    pub fn signed_in(site: &Site, user: &str) -> Self {
        let browser = Self::of(site);
        browser.set_cookie("who", user);
        browser
    }

    pub fn set_cookie(&self, name: &str, value: &str) {
        self.jar.lock().unwrap().insert(name.to_owned(), value.to_owned());
    }

    pub fn remove_cookie(&self, name: &str) {
        self.jar.lock().unwrap().remove(name);
    }

    pub fn cookies(&self) -> BTreeMap<String, String> {
        self.jar.lock().unwrap().clone()
    }

    pub fn cookie_header(&self) -> String {
        let pairs: Vec<_> = self.jar.lock().unwrap().iter().map(|(name, value)| format!("{name}={value}")).collect();
        pairs.join("; ")
    }

    pub async fn get(&self, url: &str) -> Page {
        self.get_with(url, &[]).await
    }

    pub async fn get_with(&self, url: &str, headers: &[(&str, &str)]) -> Page {
        self.send(Method::GET, url, headers, String::new()).await
    }

    pub async fn post(&self, url: &str, form: &str, headers: &[(&str, &str)]) -> Page {
        let form_type = [("content-type", "application/x-www-form-urlencoded")];
        self.send(Method::POST, url, &[headers, &form_type].concat(), form.to_owned()).await
    }

    /// Requests a path or URL of the site as browsers see it; the proxy in front strips scheme, host and prefix.
    pub async fn send(&self, method: Method, url: &str, headers: &[(&str, &str)], body: String) -> Page {
        let mut map = HeaderMap::new();
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("accept")) {
            map.insert(header::ACCEPT, HeaderValue::from_static("text/html,*/*"));
        }
        for (name, value) in headers {
            map.append(http::HeaderName::try_from(*name).unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let cookies = self.cookie_header();
        if !cookies.is_empty() && !map.contains_key(header::COOKIE) {
            map.insert(header::COOKIE, HeaderValue::try_from(cookies).unwrap());
        }
        let request = self.http.request(method, self.local(url)).headers(map).body(body);
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        for value in headers.get_all(header::SET_COOKIE) {
            self.store(value.to_str().unwrap());
        }
        let body = String::from_utf8_lossy(&response.bytes().await.unwrap()).into_owned();
        Page { status, headers, body }
    }

    /// Requests a page, and closes the connection without waiting for the response once the condition is true.
    pub async fn hang_up(&self, url: &str, when: impl Fn() -> bool) {
        use tokio::io::AsyncWriteExt as _;

        let url = Url::parse(&self.local(url)).unwrap();
        let mut stream = tokio::net::TcpStream::connect(url.authority()).await.unwrap();
        let (path, host, cookies) = (&url[url::Position::BeforePath..], url.authority(), self.cookie_header());
        let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\naccept: text/html\r\ncookie: {cookies}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        while !when() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Removes the cookies of ended logins, which expire after a minute.
    pub fn forget_logins(&self) {
        self.jar.lock().unwrap().retain(|name, _| !name.contains("oauth-dance-login-"));
    }

    /// Starts a login and returns the authorization URL of the redirect.
    pub async fn start(&self, provider: &str) -> Url {
        let page = self.get(&format!("{}login/{provider}", self.home())).await;
        assert_eq!(page.status, StatusCode::SEE_OTHER, "{page:?}");
        Url::parse(page.location()).unwrap()
    }

    /// Visits the provider, and returns the callback URL of its redirect.
    pub async fn approve(&self, authorization: &Url) -> Url {
        let response = self.http.get(authorization.clone()).send().await.unwrap();
        let status = response.status();
        let location = response.headers().get(header::LOCATION).map(|value| value.to_str().unwrap().to_owned());
        let Some(location) = location else { panic!("the provider answered {status}: {:?}", response.text().await) };
        Url::parse(&location).unwrap()
    }

    /// The callback URL of a login that is complete except for the callback.
    pub async fn stopped_at_callback(&self, provider: &str) -> Url {
        let authorization = self.start(provider).await;
        self.approve(&authorization).await
    }

    /// The whole login; returns the response to the callback.
    pub async fn login(&self, provider: &str) -> Page {
        let callback = self.stopped_at_callback(provider).await;
        self.get(callback.as_str()).await
    }

    /// The home page's path, with the site's prefix.
    pub fn home(&self) -> String {
        format!("{}/", self.base.path().trim_end_matches('/'))
    }

    fn local(&self, url: &str) -> String {
        let path = url.strip_prefix(&self.base.origin().ascii_serialization()).unwrap_or(url);
        let prefix = self.base.path().trim_end_matches('/');
        let path = path.strip_prefix(prefix).expect("the URL is one of the site's");
        assert!(path.starts_with('/'), "{url} is not of {}", self.base);
        format!("{}{path}", self.listener)
    }

    fn store(&self, set_cookie: &str) {
        let mut parts = set_cookie.split("; ");
        let (name, value) = parts.next().unwrap().split_once('=').unwrap();
        let attributes: Vec<String> = parts.map(str::to_ascii_lowercase).collect();
        let has = |attribute: &str| attributes.iter().any(|found| found == attribute);
        let domain = attributes.iter().any(|found| found.starts_with("domain"));
        let https = self.base.scheme() == "https";
        let refused = (has("secure") && !https)
            || (name.starts_with("__Host-") && !(has("secure") && has("path=/") && !domain))
            || set_cookie.len() > 4096;
        if refused {
            return;
        }
        if has("max-age=0") {
            self.remove_cookie(name);
        } else {
            self.set_cookie(name, value);
        }
    }
}

/// One client for all browsers, because creating it is slow. It pools no connections, because each test has its own runtime.
fn client() -> reqwest::Client {
    static CLIENT: OnceLock<reqwest::Client> = OnceLock::new();
    let make = || {
        let builder = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
        builder.no_gzip().pool_max_idle_per_host(0).build().unwrap()
    };
    CLIENT.get_or_init(make).clone()
}

impl Page {
    pub fn location(&self) -> &str {
        self.header("location")
    }

    /// The text of a header, empty if there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub fn set_cookies(&self) -> Vec<&str> {
        self.headers.get_all(header::SET_COOKIE).iter().map(|value| value.to_str().unwrap()).collect()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// The whole response as text, to search.
    pub fn text(&self) -> String {
        format!("{:?}\n{}", self.headers, self.body)
    }
}
