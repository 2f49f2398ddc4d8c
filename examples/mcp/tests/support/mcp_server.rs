use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ServerCapabilities, ServerConfig,
};
use rmcp::service::RequestContext;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{ErrorData, RoleServer, ServerHandler};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

/// A request that an MCP server has received: the claims of its token, if it had one.
#[derive(Clone)]
pub struct Call {
    pub token: Option<String>,
    pub audience: Option<String>,
    pub subject: Option<String>,
    pub accepted: bool,
}

/// An MCP server of the Rust SDK, which accepts tokens for itself. It reads their claims, and leaves the signature to the
/// provider's own tests.
#[derive(Clone)]
pub struct McpTestServer {
    origin: String,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    issuer: String,
    calls: Vec<Call>,
    revoked: BTreeSet<String>,
}

impl McpTestServer {
    pub fn start(runtime: &Runtime) -> Self {
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let server = Self { origin, shared: Arc::default() };
        let service = StreamableHttpService::new(
            || Ok(Tools),
            Arc::new(LocalSessionManager::default()),
            StreamableHttpServerConfig::default(),
        );
        let app = Router::new()
            .nest_service("/mcp", service)
            .layer(from_fn_with_state(server.clone(), authenticate))
            .route("/.well-known/oauth-protected-resource/mcp", get(metadata))
            .with_state(server.clone());
        runtime.spawn(async move { axum::serve(listener, app).await });
        server
    }

    pub fn url(&self) -> String {
        format!("{}/mcp", self.origin)
    }

    pub fn set_issuer(&self, issuer: &str) {
        issuer.clone_into(&mut self.shared.lock().unwrap().issuer);
    }

    /// All requests so far.
    pub fn calls(&self) -> Vec<Call> {
        self.shared.lock().unwrap().calls.clone()
    }

    /// Rejects all tokens that it has accepted so far, although they have not expired.
    pub fn revoke_all(&self) {
        let mut shared = self.shared.lock().unwrap();
        let tokens: Vec<_> = shared.calls.iter().filter_map(|call| call.token.clone()).collect();
        shared.revoked.extend(tokens);
    }
}

async fn metadata(State(server): State<McpTestServer>) -> Json<Value> {
    let issuer = server.shared.lock().unwrap().issuer.clone();
    Json(json!({ "resource": server.url(), "authorization_servers": [issuer], "scopes_supported": ["tools"] }))
}

/// The bearer token of a request and its claims.
fn claims(headers: &HeaderMap) -> Option<(String, Value)> {
    let token = headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")?;
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    Some((token.to_owned(), serde_json::from_slice(&payload).ok()?))
}

async fn authenticate(State(server): State<McpTestServer>, request: Request, next: Next) -> Response {
    let found = claims(request.headers());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let text = |claims: &Value, name: &str| claims[name].as_str().map(str::to_owned);
    let accepted = {
        let mut shared = server.shared.lock().unwrap();
        let accepted = found.as_ref().is_some_and(|(token, claims)| {
            claims["aud"] == server.url().as_str()
                && claims["exp"].as_u64().is_some_and(|expiry| expiry > now)
                && !shared.revoked.contains(token)
        });
        shared.calls.push(Call {
            token: found.as_ref().map(|(token, _)| token.clone()),
            audience: found.as_ref().and_then(|(_, claims)| text(claims, "aud")),
            subject: found.as_ref().and_then(|(_, claims)| text(claims, "sub")),
            accepted,
        });
        accepted
    };
    let metadata = format!("resource_metadata=\"{}/.well-known/oauth-protected-resource/mcp\"", server.origin);
    if !accepted {
        let error = if found.is_some() { "error=\"invalid_token\", " } else { "" };
        let challenge = format!("Bearer {error}{metadata}");
        return (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, challenge)]).into_response();
    }
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, 1 << 20).await.unwrap();
    let writes = String::from_utf8_lossy(&body).contains("\"name\":\"write\"");
    let scopes = found.and_then(|(_, claims)| text(&claims, "scope")).unwrap_or_default();
    if writes && !scopes.split(' ').any(|scope| scope == "tools:write") {
        let challenge = format!("Bearer error=\"insufficient_scope\", scope=\"tools:write\", {metadata}");
        return (StatusCode::FORBIDDEN, [(header::WWW_AUTHENTICATE, challenge)]).into_response();
    }
    next.run(Request::from_parts(parts, Body::from(body))).await
}

#[derive(Clone)]
struct Tools;

impl ServerHandler for Tools {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    /// Every tool returns for whom it was called.
    async fn call_tool(
        &self,
        _: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let parts = context.extensions.get::<Parts>().unwrap();
        let (_, claims) = claims(&parts.headers).unwrap();
        Ok(CallToolResult::success(vec![ContentBlock::text(claims["sub"].as_str().unwrap())]).into())
    }
}
