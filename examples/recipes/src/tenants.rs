//! Tenants, each on a host of its own, with its own client at the provider and its own users.
//!
//! A redirect URI and its cookies belong to one host, so each tenant has an `OAuth` of its own. Storage and keys are the
//! same for all of them; the tenant is a part of every key in the storage.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use oauth_dance::presets::GitHub;
use oauth_dance::{ApiError, ConfigError, Connected, KeyRing, OAuth, Registration, TokenStorage};
use tower::ServiceExt as _;
use url::Url;

use crate::sessions::{self, SignedIn};

/// A tenant as the configuration has it.
#[derive(Debug)]
pub struct Tenant {
    /// Its name, which never changes.
    pub name: &'static str,
    /// Where browsers reach it.
    pub base_url: String,
    /// Its client at the provider.
    pub github: Registration,
    /// The rest of its pages, with the sign-in.
    pub own_pages: Router,
}

/// The application of all tenants. A host that is nobody's is not served.
///
/// # Errors
/// What is wrong with the configuration.
pub fn router(
    storage: &Arc<dyn TokenStorage>,
    keys: &KeyRing,
    tenants: impl IntoIterator<Item = Tenant>,
) -> Result<Router, ConfigError> {
    let mut hosts = BTreeMap::new();
    for tenant in tenants {
        hosts.insert(host(&tenant.base_url), one(Arc::clone(storage), keys.clone(), tenant)?);
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

/// Host and port as browsers send them.
fn host(base_url: &str) -> String {
    let url = Url::parse(base_url).ok();
    let host = url.as_ref().map(|url| url[url::Position::BeforeHost..url::Position::AfterPort].to_owned());
    host.unwrap_or_default()
}

/// The application of one tenant.
fn one(storage: Arc<dyn TokenStorage>, keys: KeyRing, tenant: Tenant) -> Result<Router, ConfigError> {
    let Tenant { name, base_url, github, own_pages } = tenant;
    let oauth = OAuth::builder(&base_url, storage, keys)
        .provider(github)
        .user(move |signed_in: SignedIn| async move { Some(signed_in.user()?.in_tenant(name)) })
        .build()?;
    Ok(Router::new()
        .route("/me", get(me))
        .merge(oauth.routes())
        .with_state(oauth)
        .merge(own_pages)
        // Each tenant has sessions of its own, so that one of a tenant is worth nothing at another.
        .layer(sessions::layer(&base_url)))
}

async fn me(github: Connected<GitHub>) -> Result<String, ApiError> {
    github.userinfo().send().await?.success()?.text()
}
