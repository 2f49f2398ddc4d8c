//! Tenants, each on its own host, with its own client at the provider and its own users.
//!
//! A redirect URI and its cookies belong to one host, so each tenant has its own `OAuth`. All tenants share the storage
//! and the keys, and the tenant is a part of every key in the storage. They also share the session store, so a session
//! contains its tenant. Otherwise a user could send it to another tenant, where the same primary key belongs to another
//! person.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::{FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use oauth_dance::presets::GitHub;
use oauth_dance::{ApiError, ConfigError, Connected, KeyRing, OAuth, Registration, TokenStorage};
use tower::ServiceExt as _;
use tower_sessions::{MemoryStore, Session, session};
use url::Url;

use crate::people::Id;
use crate::sessions;

const MEMBER: &str = "member";

/// The configuration of a tenant.
#[derive(Debug)]
pub struct Tenant {
    /// Its name, which never changes.
    pub name: &'static str,
    /// The URL that browsers open.
    pub base_url: String,
    /// Its client at the provider.
    pub github: Registration,
    /// The rest of its pages, with the sign-in.
    pub own_pages: Router,
}

/// The application of all tenants. A host that belongs to no tenant is not served.
///
/// # Errors
/// If the configuration is wrong.
pub fn router(
    storage: &Arc<dyn TokenStorage>,
    keys: &KeyRing,
    tenants: impl IntoIterator<Item = Tenant>,
) -> Result<Router, ConfigError> {
    let store = MemoryStore::default();
    let mut hosts = BTreeMap::new();
    for tenant in tenants {
        hosts.insert(host(&tenant.base_url), one(Arc::clone(storage), keys.clone(), store.clone(), tenant)?);
    }
    let hosts = Arc::new(hosts);
    Ok(Router::new().fallback(move |request| serve(Arc::clone(&hosts), request)))
}

async fn serve(hosts: Arc<BTreeMap<String, Router>>, request: Request) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let Some(router) = host.and_then(|host| hosts.get(&host.to_ascii_lowercase())) else {
        return StatusCode::MISDIRECTED_REQUEST.into_response();
    };
    router.clone().oneshot(request).await.into_response()
}

/// Host and port, as browsers send them.
fn host(base_url: &str) -> String {
    let url = Url::parse(base_url).ok();
    let host = url.as_ref().map(|url| url[url::Position::BeforeHost..url::Position::AfterPort].to_owned());
    host.unwrap_or_default()
}

/// The application of one tenant.
fn one(
    storage: Arc<dyn TokenStorage>,
    keys: KeyRing,
    store: MemoryStore,
    tenant: Tenant,
) -> Result<Router, ConfigError> {
    let Tenant { name, base_url, github, own_pages } = tenant;
    let oauth = OAuth::builder(&base_url, storage, keys)
        .provider(github)
        .user(move |Member(member): Member| async move {
            let (_, id) = member.filter(|(tenant, _)| tenant == name)?;
            Some(sessions::user(id).in_tenant(name))
        })
        .build()?;
    Ok(Router::new()
        .route("/me", get(me))
        .merge(oauth.routes())
        .with_state(oauth)
        .merge(own_pages)
        .layer(sessions::layer_on(store, &base_url)))
}

/// Signs a user of a tenant in.
///
/// # Errors
/// If the session store fails.
pub async fn sign_in(session: &Session, tenant: &str, id: Id) -> Result<(), session::Error> {
    session.cycle_id().await?;
    session.insert(MEMBER, (tenant, id)).await
}

/// The signed-in user and their tenant.
struct Member(Option<(String, Id)>);

impl<S: Send + Sync> FromRequestParts<S> for Member {
    type Rejection = (StatusCode, &'static str);

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let session = Session::from_request_parts(parts, state).await?;
        let unavailable = |_: session::Error| (StatusCode::SERVICE_UNAVAILABLE, "the session cannot be read");
        session.get(MEMBER).await.map(Self).map_err(unavailable)
    }
}

async fn me(github: Connected<GitHub>) -> Result<String, ApiError> {
    github.userinfo().send().await?.success()?.text()
}
