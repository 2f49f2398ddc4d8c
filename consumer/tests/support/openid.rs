use std::sync::{Arc, Mutex};

use axum::response::Response;
use oauth_dance::testing::{CLIENT, TestProvider};
use oauth_dance::{
    Authorized, BoxError, Decision, FailedLogin, Hooks, Identity, LoginError, OAuthBuilder, Provider, RefreshEvent,
    TokenKey,
};

use super::site::{Setup, Site};

/// Records the identities that hooks received, the errors of logins, and refresh events.
#[derive(Clone, Default)]
pub struct Notes {
    identity: Arc<Mutex<Option<Identity>>>,
    posted_user: Arc<Mutex<Option<String>>>,
    failure: Arc<Mutex<Option<String>>>,
    events: Arc<Mutex<Vec<RefreshEvent>>>,
}

impl Notes {
    /// The identity that the hook received since the last call.
    pub fn identity(&self) -> Option<Identity> {
        self.identity.lock().unwrap().take()
    }

    /// The form data about the user that the hook received.
    pub fn posted_user(&self) -> Option<String> {
        self.posted_user.lock().unwrap().take()
    }

    /// The error of a login since the last call: the names of the variants.
    pub fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap().take()
    }

    pub fn events(&self) -> Vec<RefreshEvent> {
        std::mem::take(&mut self.events.lock().unwrap())
    }
}

#[async_trait::async_trait]
impl Hooks for Notes {
    async fn authorized(&self, login: Authorized<'_>) -> Result<Decision, BoxError> {
        *self.posted_user.lock().unwrap() = login.posted_user.map(|user| user.expose().to_owned());
        *self.identity.lock().unwrap() = login.identity;
        Ok(Decision::store())
    }

    async fn failed(&self, failure: FailedLogin<'_>) -> Option<Response> {
        let name = match failure.error {
            LoginError::IdToken(error) => variant(error),
            error => variant(error),
        };
        *self.failure.lock().unwrap() = Some(name);
        None
    }

    fn refresh(&self, _: &TokenKey, event: &RefreshEvent) {
        self.events.lock().unwrap().push(event.clone());
    }
}

/// The name of an enum's variant.
fn variant(value: &impl std::fmt::Debug) -> String {
    let text = format!("{value:?}");
    text.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap().to_owned()
}

/// An application with a provider that is configured by its issuer alone.
pub async fn openid_site(provider: &TestProvider) -> (Site, Notes) {
    openid_site_with(provider, |_| {}, |builder| builder).await
}

/// The same with the provider and the rest of the configuration changed.
pub async fn openid_site_with(
    provider: &TestProvider,
    change: impl FnOnce(&mut Provider),
    configure: impl FnOnce(OAuthBuilder) -> OAuthBuilder,
) -> (Site, Notes) {
    let mut known = Provider::openid("acme", provider.url()).with_scopes(["openid", "email"]);
    change(&mut known);
    let notes = Notes::default();
    let registration = known.client(CLIENT.0, CLIENT.1);
    let hooks = notes.clone();
    let site = Setup::default().start(|builder| configure(builder.provider(registration).hooks(hooks))).await;
    provider.configure(|settings| settings.clock = site.clock.clock());
    (site, notes)
}
