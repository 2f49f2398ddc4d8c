use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ServerCapabilities, ServerConfig,
};
use rmcp::service::RequestContext;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{ErrorData, RoleServer, ServerHandler};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::AuthorizationServer;

/// An MCP server of the Rust SDK that accepts the tokens of one authorization server, and records all tokens it receives.
#[derive(Clone)]
pub struct McpTestServer {
    url: String,
    origin: String,
    id: AuthorizationServer,
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    seen: Vec<Option<String>>,
    /// The issuer that the metadata names.
    issuer: String,
    /// The reason of a rejection, as in the challenge.
    reason: &'static str,
    /// How much longer each rejection takes than the one before.
    delay: Duration,
    rejections: u32,
}

impl McpTestServer {
    pub async fn start(id: &AuthorizationServer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let shared = Shared {
            seen: Vec::new(),
            issuer: id.issuer().to_owned(),
            reason: "error=\"invalid_token\"",
            delay: Duration::ZERO,
            rejections: 0,
        };
        let shared = Arc::new(Mutex::new(shared));
        let server = Self { url: format!("{origin}/mcp"), origin, id: id.clone(), shared };
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
        tokio::spawn(async move { axum::serve(listener, app).await });
        server
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// All tokens that were received, and `None` for requests without one.
    pub fn seen(&self) -> Vec<Option<String>> {
        self.shared.lock().unwrap().seen.clone()
    }

    /// Names another authorization server in the metadata.
    pub fn name_issuer(&self, issuer: &str) {
        issuer.clone_into(&mut self.shared.lock().unwrap().issuer);
    }

    /// Takes longer for each rejection than for the one before.
    pub fn delay_rejections(&self) {
        self.shared.lock().unwrap().delay = Duration::from_millis(10);
    }

    /// Gives no reason when it rejects a token.
    pub fn explain_nothing(&self) {
        self.shared.lock().unwrap().reason = "realm=\"notes\"";
    }
}

async fn metadata(State(server): State<McpTestServer>) -> Json<Value> {
    let issuer = server.shared.lock().unwrap().issuer.clone();
    Json(json!({ "resource": server.url, "authorization_servers": [issuer], "scopes_supported": ["notes"] }))
}

async fn authenticate(State(server): State<McpTestServer>, request: Request, next: Next) -> Response {
    let header = request.headers().get(header::AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned());
    let token = header.as_deref().and_then(|header| header.strip_prefix("Bearer ")).map(str::to_owned);
    let reason = {
        let mut shared = server.shared.lock().unwrap();
        shared.seen.push(token.clone());
        shared.reason
    };
    if token.and_then(|token| server.id.resource_of(&token)).as_ref() == Some(&server.url) {
        return next.run(request).await;
    }
    let delay = {
        let mut shared = server.shared.lock().unwrap();
        shared.rejections += 1;
        shared.delay * shared.rejections
    };
    tokio::time::sleep(delay).await;
    let metadata = format!("{}/.well-known/oauth-protected-resource/mcp", server.origin);
    let challenge = format!("Bearer {reason}, resource_metadata=\"{metadata}\", scope=\"notes\"");
    (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, challenge)]).into_response()
}

#[derive(Clone)]
struct Tools;

impl ServerHandler for Tools {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        Ok(CallToolResult::success(vec![ContentBlock::text(request.name.to_string())]).into())
    }
}
