use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Form, Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;

type Params = BTreeMap<String, String>;

/// An authorization server that consents to everything, registers clients, rotates refresh tokens, and revokes the grant if a
/// refresh token is sent twice.
#[derive(Clone)]
pub struct AuthorizationServer {
    issuer: String,
    state: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    next: u64,
    lifetime: u64,
    /// The authorization request of each code.
    codes: BTreeMap<String, Params>,
    /// The grant of each refresh token, and whether the token is spent.
    refresh_tokens: BTreeMap<String, (u64, bool)>,
    /// The grant and the resource of each access token.
    access_tokens: BTreeMap<String, (u64, String)>,
    dead: BTreeSet<u64>,
    /// All token requests.
    requests: Vec<Params>,
    registrations: Vec<Value>,
    revoked: Vec<String>,
    /// The response to the next refreshes, instead of a token.
    fault: Option<(u16, Value)>,
    /// Additional members of each token response.
    extra: Value,
    /// Members of the metadata that replace the usual ones.
    metadata: Value,
}

impl AuthorizationServer {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("http://{}", listener.local_addr().unwrap());
        let state = Inner { lifetime: 3600, extra: json!({}), metadata: json!({}), ..Inner::default() };
        let server = Self { issuer, state: Arc::new(Mutex::new(state)) };
        let app = Router::new()
            .route("/.well-known/oauth-authorization-server", get(metadata))
            .route("/authorize", get(authorize))
            .route("/token", post(token))
            .route("/register", post(register))
            .route("/revoke", post(revoke))
            .with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        server
    }

    fn state(&self) -> MutexGuard<'_, Inner> {
        self.state.lock().unwrap()
    }

    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Sets the lifetime of further access tokens. The MCP server accepts them longer.
    pub fn set_lifetime(&self, seconds: u64) {
        self.state().lifetime = seconds;
    }

    /// Responds to refreshes with this, until it is `None`.
    pub fn set_fault(&self, fault: Option<(u16, Value)>) {
        self.state().fault = fault;
    }

    /// Adds members to each token response.
    pub fn set_extra(&self, extra: Value) {
        self.state().extra = extra;
    }

    /// Replaces members of the metadata.
    pub fn set_metadata(&self, metadata: Value) {
        self.state().metadata = metadata;
    }

    /// Rejects all access tokens that were issued so far.
    pub fn forget_access_tokens(&self) {
        self.state().access_tokens.clear();
    }

    /// The resource that a live access token is for.
    pub fn resource_of(&self, access_token: &str) -> Option<String> {
        let state = self.state();
        let (grant, resource) = state.access_tokens.get(access_token)?;
        (!state.dead.contains(grant)).then(|| resource.clone())
    }

    /// The token requests of one grant type.
    pub fn requests(&self, grant_type: &str) -> Vec<Params> {
        let state = self.state();
        state.requests.iter().filter(|request| request["grant_type"] == grant_type).cloned().collect()
    }

    pub fn refreshes(&self) -> usize {
        self.requests("refresh_token").len()
    }

    pub fn registrations(&self) -> Vec<Value> {
        self.state().registrations.clone()
    }

    pub fn revoked(&self) -> Vec<String> {
        self.state().revoked.clone()
    }

    /// Whether a refresh token was sent twice.
    pub fn has_dead_grants(&self) -> bool {
        !self.state().dead.is_empty()
    }
}

impl Inner {
    fn unique(&mut self, kind: &str) -> String {
        self.next += 1;
        format!("{kind}-{}-CANARY", self.next)
    }

    fn issue(&mut self, grant: u64, resource: String) -> Response {
        let (access_token, refresh_token) = (self.unique("access"), self.unique("refresh"));
        self.access_tokens.insert(access_token.clone(), (grant, resource));
        self.refresh_tokens.insert(refresh_token.clone(), (grant, false));
        let mut response = json!({
            "access_token": access_token,
            "token_type": "Bearer",
            "expires_in": self.lifetime,
            "refresh_token": refresh_token,
        });
        response.as_object_mut().unwrap().extend(self.extra.as_object().unwrap().clone());
        Json(response).into_response()
    }
}

async fn metadata(State(server): State<AuthorizationServer>) -> Json<Value> {
    let issuer = &server.issuer;
    let mut metadata = json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{issuer}/authorize"),
        "token_endpoint": format!("{issuer}/token"),
        "registration_endpoint": format!("{issuer}/register"),
        "revocation_endpoint": format!("{issuer}/revoke"),
        "response_types_supported": ["code"],
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": true,
    });
    metadata.as_object_mut().unwrap().extend(server.state().metadata.as_object().unwrap().clone());
    Json(metadata)
}

async fn authorize(State(server): State<AuthorizationServer>, Query(request): Query<Params>) -> Response {
    let code = server.state().unique("code");
    let location = format!("{}?code={code}&state={}&iss={}", request["redirect_uri"], request["state"], server.issuer);
    server.state().codes.insert(code, request);
    (StatusCode::FOUND, [(header::LOCATION, location)]).into_response()
}

async fn token(
    State(server): State<AuthorizationServer>,
    headers: HeaderMap,
    Form(mut form): Form<Params>,
) -> Response {
    let authorization = headers.get(header::AUTHORIZATION).map_or("", |value| value.to_str().unwrap());
    form.insert("authorization".to_owned(), authorization.to_owned());
    let mut state = server.state();
    state.requests.push(form.clone());
    let refused = || (StatusCode::BAD_REQUEST, Json(json!({ "error": "invalid_grant" }))).into_response();
    if form["grant_type"] == "authorization_code" {
        let Some(request) = state.codes.remove(&form["code"]) else { return refused() };
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(&form["code_verifier"]));
        let same = ["redirect_uri", "client_id", "resource"];
        let same = same.iter().all(|name| form.get(*name).is_none_or(|value| request[*name] == *value));
        if !same || request["code_challenge"] != challenge {
            return refused();
        }
        state.next += 1;
        let grant = state.next;
        return state.issue(grant, form["resource"].clone());
    }
    if let Some((status, body)) = state.fault.clone() {
        let location = body["location"].as_str().unwrap_or_default().to_owned();
        return (StatusCode::from_u16(status).unwrap(), [(header::LOCATION, location)], Json(body)).into_response();
    }
    let Some((grant, is_spent)) = state.refresh_tokens.get_mut(&form["refresh_token"]) else { return refused() };
    let (grant, was_spent) = (*grant, std::mem::replace(is_spent, true));
    if was_spent {
        state.dead.insert(grant);
    }
    if state.dead.contains(&grant) {
        return refused();
    }
    state.issue(grant, form["resource"].clone())
}

async fn register(State(server): State<AuthorizationServer>, Json(mut request): Json<Value>) -> Response {
    let mut state = server.state();
    state.next += 1;
    request["client_id"] = format!("client-{}", state.next).into();
    state.registrations.push(request.clone());
    (StatusCode::CREATED, Json(request)).into_response()
}

async fn revoke(State(server): State<AuthorizationServer>, Form(form): Form<Params>) -> StatusCode {
    server.state().revoked.push(form["token"].clone());
    StatusCode::OK
}
