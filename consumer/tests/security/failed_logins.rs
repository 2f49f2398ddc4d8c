//! Logins that fail after the provider has issued a token. The token is revoked, and never with it an earlier one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::StatusCode;
use oauth_dance::testing::{Endpoint, TestProvider};
use oauth_dance::{Authorized, BoxError, Decision, Hooks, User};
use tokio::sync::Notify;

use crate::support::{Browser, FragileStorage, Setup, Site};

struct Fails;

#[async_trait::async_trait]
impl Hooks for Fails {
    async fn authorized(&self, _: Authorized<'_>) -> Result<Decision, BoxError> {
        Err("the application's database is down".into())
    }
}

/// A hook that names the user.
struct SignsIn(&'static str);

#[async_trait::async_trait]
impl Hooks for SignsIn {
    async fn authorized(&self, _: Authorized<'_>) -> Result<Decision, BoxError> {
        Ok(Decision::store().for_user(User::new(self.0)))
    }
}

/// A site with two registrations of the same client.
async fn site(provider: &TestProvider, hooks: impl Hooks) -> (Site, Arc<FragileStorage>) {
    let storage = Arc::new(FragileStorage::default());
    let setup = Setup { storage: storage.clone(), ..Setup::default() };
    let [one, two] = ["acme", "acme-too"].map(|name| provider.registration(name));
    let site = setup.start(|builder| builder.provider(one).provider(two).hooks(hooks)).await;
    // The work account of alice, the second registration of bob, and nothing of carol.
    provider.connect(&site.oauth, "acme", &User::new("alice").with_account("work")).await.unwrap();
    provider.connect(&site.oauth, "acme-too", &User::new("bob")).await.unwrap();
    (site, storage)
}

fn revocations(provider: &TestProvider) -> usize {
    provider.requests_to(Endpoint::Revocation).len()
}

/// At some providers, one revocation ends all grants of the user.
#[tokio::test]
async fn a_failed_login_revokes_no_other_account() {
    let provider = TestProvider::start().await.unwrap();
    let (site, _) = site(&provider, Fails).await;
    for (user, revoked) in [("alice", 0), ("bob", 0), ("carol", 2)] {
        provider.clear_requests();
        Browser::signed_in(&site, user).login("acme").await;
        assert_eq!(revocations(&provider), revoked, "{user}");
    }
}

/// The user is known only after the token was issued.
#[tokio::test]
async fn a_failed_sign_in_revokes_no_other_account() {
    for (user, revoked) in [("alice", 0), ("bob", 0), ("carol", 2)] {
        let provider = TestProvider::start().await.unwrap();
        let (site, storage) = site(&provider, SignsIn(user)).await;
        storage.full.store(true, Ordering::SeqCst);
        let page = Browser::of(&site).login("acme").await;
        assert!(page.status.is_server_error(), "{}", page.status);
        assert_eq!(revocations(&provider), revoked, "{user}");
    }
}

/// Such a storage may have an earlier token under a key that is not known.
#[tokio::test]
async fn nothing_is_revoked_if_the_storage_has_no_lists() {
    let provider = TestProvider::start().await.unwrap();
    let (site, storage) = site(&provider, Fails).await;
    storage.unlistable.store(true, Ordering::SeqCst);
    for user in ["alice", "carol"] {
        let page = Browser::signed_in(&site, user).login("acme").await;
        assert_eq!(page.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(revocations(&provider), 0, "{user}");
    }
}

/// A hook that fails at the first login, as soon as a second one has ended.
#[derive(Clone, Default)]
struct FailsAfterAnother {
    has_begun: Arc<AtomicBool>,
    other_has_ended: Arc<Notify>,
}

#[async_trait::async_trait]
impl Hooks for FailsAfterAnother {
    async fn authorized(&self, _: Authorized<'_>) -> Result<Decision, BoxError> {
        if self.has_begun.swap(true, Ordering::SeqCst) {
            return Ok(Decision::store());
        }
        self.other_has_ended.notified().await;
        Err("this account is connected already".into())
    }
}

/// When the first login began, there was no token that its revocation could end.
#[tokio::test]
async fn a_failed_login_revokes_no_token_of_another_tab() {
    let provider = TestProvider::start().await.unwrap();
    let hooks = FailsAfterAnother::default();
    let site = Site::with(&provider, |builder| builder.hooks(hooks.clone())).await;
    let alice = Browser::signed_in(&site, "alice");
    let [one, two] = [alice.stopped_at_callback("acme").await, alice.stopped_at_callback("acme").await];
    let (failed, ()) = tokio::join!(alice.get(one.as_str()), async {
        while !hooks.has_begun.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(alice.get(two.as_str()).await.status, StatusCode::SEE_OTHER);
        hooks.other_has_ended.notify_one();
    });
    assert_eq!(failed.status, StatusCode::INTERNAL_SERVER_ERROR);
    site.oauth.finish().await;
    assert_eq!(revocations(&provider), 0);
    assert!(site.access_token("alice").await.is_some());
}
