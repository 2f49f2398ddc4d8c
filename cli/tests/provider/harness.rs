use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use oauth_dance::testing::TestClock;
use oauth_dance_cli::provider::LocalProvider;
use reqwest::{Client, RequestBuilder, Response, StatusCode, header};
use serde_json::Value;
use url::{Url, form_urlencoded};

/// RFC 7636 appendix B.
pub const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
pub const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
pub use oauth_dance_cli::provider::CLIENT_ID;
pub const REDIRECT_URI: &str = "http://127.0.0.1:1/login/local/authorized?retained=yes";
pub const STATE: &str = "state & \"more\" = ü";

/// A provider that listens on a free port, with a clock that tests can move.
pub struct Provider {
    pub issuer: String,
    pub secret: String,
    http: Client,
    clock: TestClock,
}

/// A browser, which stores the session cookie and does not follow redirects.
pub struct Browser<'a> {
    provider: &'a Provider,
    pub cookie: Option<String>,
}

pub struct PageResponse {
    pub status: StatusCode,
    pub headers: header::HeaderMap,
    pub body: String,
}

impl Provider {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("http://{}", listener.local_addr().unwrap());
        let clock = TestClock::new();
        let provider = LocalProvider::new(&issuer, REDIRECT_URI, clock.clock());
        let (secret, router) = (provider.secret().expose().to_owned(), provider.router());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let http = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_secs(10))
            .no_proxy()
            .build()
            .unwrap();
        Self { issuer, secret, http, clock }
    }

    pub fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    pub fn browser(&self) -> Browser<'_> {
        Browser { provider: self, cookie: None }
    }

    pub fn get(&self, path: &str) -> RequestBuilder {
        self.http.get(format!("{}{path}", self.issuer))
    }

    /// A POST without client authentication.
    pub fn post(&self, path: &str, form: &[(&str, &str)]) -> RequestBuilder {
        self.post_as("application/x-www-form-urlencoded", path, encode(form))
    }

    pub fn post_as(&self, content_type: &str, path: &str, body: String) -> RequestBuilder {
        self.http.post(format!("{}{path}", self.issuer)).header(header::CONTENT_TYPE, content_type).body(body)
    }

    pub async fn token(&self, form: &[(&str, &str)]) -> PageResponse {
        let request = self.post("/token", form);
        send(request.header(header::AUTHORIZATION, basic(CLIENT_ID, &self.secret))).await
    }

    pub async fn redeem(&self, code: &str) -> PageResponse {
        self.token(&code_grant(code)).await
    }

    pub async fn refresh(&self, refresh_token: &str) -> PageResponse {
        let form = [("grant_type", "refresh_token"), ("refresh_token", refresh_token)];
        self.token(&form).await
    }

    pub async fn revoke(&self, token: &str) -> PageResponse {
        let request = self.post("/revoke", &[("token", token)]);
        send(request.header(header::AUTHORIZATION, basic(CLIENT_ID, &self.secret))).await
    }

    pub async fn userinfo(&self, access_token: &str) -> PageResponse {
        let bearer = format!("Bearer {access_token}");
        send(self.get("/userinfo").header(header::AUTHORIZATION, bearer)).await
    }

    /// A code for alice, after login and consent in a new browser.
    pub async fn code(&self) -> String {
        let mut browser = self.browser();
        browser.sign_in("alice").await;
        browser.decide("allow").await.query("code").unwrap()
    }

    /// The token response after a complete dance.
    pub async fn tokens(&self) -> Value {
        let code = self.code().await;
        let response = self.redeem(&code).await;
        assert_eq!(response.status, 200, "{}", response.body);
        response.json()
    }
}

impl Browser<'_> {
    pub async fn get(&mut self, path: &str) -> PageResponse {
        let request = self.provider.get(path);
        self.send(request).await
    }

    pub async fn post(&mut self, path: &str, form: &[(&str, &str)]) -> PageResponse {
        self.post_with(path, form, &[]).await
    }

    pub async fn post_with(&mut self, path: &str, form: &[(&str, &str)], headers: &[(&str, &str)]) -> PageResponse {
        let request = self.provider.post(path, form);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        self.send(request).await
    }

    /// Opens the login page and signs in.
    pub async fn sign_in(&mut self, username: &str) {
        let csrf = self.get(&authorize(&[])).await.csrf();
        let form = [("csrf", &*csrf), ("action", "login"), ("username", username), ("password", "dance")];
        let response = self.post(&authorize(&[]), &form).await;
        assert_eq!(response.status, 303, "{}", response.body);
        assert_eq!(response.location(), authorize(&[]));
    }

    /// Opens the consent page and presses a button.
    pub async fn decide(&mut self, action: &str) -> PageResponse {
        let csrf = self.get(&authorize(&[])).await.csrf();
        self.post(&authorize(&[]), &[("csrf", &*csrf), ("action", action)]).await
    }

    async fn send(&mut self, mut request: RequestBuilder) -> PageResponse {
        if let Some(cookie) = &self.cookie {
            request = request.header(header::COOKIE, format!("other=1; {cookie}"));
        }
        let response = send(request).await;
        if let Some(cookie) = response.headers.get(header::SET_COOKIE) {
            let pair = cookie.to_str().unwrap().split(';').next().unwrap();
            self.cookie = Some(pair.to_owned());
        }
        response
    }
}

impl PageResponse {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub fn location(&self) -> &str {
        self.header("location")
    }

    /// A parameter of the authorization response in this redirect.
    pub fn query(&self, name: &str) -> Option<String> {
        let location = Url::parse(self.location()).unwrap();
        let mut pairs = location.query_pairs();
        pairs.find(|(found, _)| found == name).map(|(_, value)| value.into_owned())
    }

    pub fn csrf(&self) -> String {
        let (_, rest) = self.body.split_once("name=\"csrf\" value=\"").unwrap();
        rest.split('"').next().unwrap().to_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    pub fn assert_error(&self, status: u16, error: &str) {
        assert_eq!(self.status, status, "{}", self.body);
        assert_eq!(self.json()["error"], error, "{}", self.body);
        assert_eq!(self.header("cache-control"), "no-store");
    }
}

pub async fn send(request: RequestBuilder) -> PageResponse {
    let response: Response = request.send().await.unwrap();
    PageResponse {
        status: response.status(),
        headers: response.headers().clone(),
        body: response.text().await.unwrap(),
    }
}

pub fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

pub fn code_grant(code: &str) -> [(&str, &str); 4] {
    [("grant_type", "authorization_code"), ("code", code), ("redirect_uri", REDIRECT_URI), ("code_verifier", VERIFIER)]
}

/// The path of a valid authorization request, changed by `changes`. An empty value removes a parameter.
pub fn authorize(changes: &[(&str, &str)]) -> String {
    let mut form = vec![
        ("response_type", "code"),
        ("client_id", CLIENT_ID),
        ("redirect_uri", REDIRECT_URI),
        ("scope", "profile email"),
        ("state", STATE),
        ("code_challenge", CHALLENGE),
        ("code_challenge_method", "S256"),
    ];
    form.retain(|(name, _)| changes.iter().all(|(changed, _)| changed != name));
    form.extend(changes.iter().filter(|(_, value)| !value.is_empty()));
    format!("/authorize?{}", encode(&form))
}

pub fn basic(id: &str, secret: &str) -> String {
    let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let credentials = format!("{}:{}", encode(id), encode(secret));
    format!("Basic {}", STANDARD.encode(credentials))
}

pub fn encode(form: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish()
}
