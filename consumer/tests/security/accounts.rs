//! Several accounts of one user at one provider, and tokens that are refreshed in the background.

use std::time::Duration;

use http::StatusCode;
use oauth_dance::testing::{Endpoint, ScriptedResponse, TestProvider};
use oauth_dance::{Account, Authorized, BoxError, ConnectError, Decision, Due, Hooks, User};

use crate::support::{Browser, Site};

/// Stores each account that a user connects, named after the provider's subject.
struct EveryAccount;

#[async_trait::async_trait]
impl Hooks for EveryAccount {
    async fn authorized(&self, login: Authorized<'_>) -> Result<Decision, BoxError> {
        let identity: serde_json::Value = login.client.userinfo().send().await?.success()?.json()?;
        let subject = identity["sub"].as_str().ok_or("the provider did not identify the user")?;
        Ok(Decision::store().as_account(subject))
    }
}

async fn world() -> (TestProvider, Site) {
    let provider = TestProvider::start().await.unwrap();
    let site = Site::with(&provider, |builder| builder.hooks(EveryAccount)).await;
    provider.configure(|settings| settings.clock = site.clock.clock());
    (provider, site)
}

async fn log_in(provider: &TestProvider, browser: &Browser, account: &str) {
    provider.configure(|settings| settings.user = account.to_owned());
    assert_eq!(browser.login("acme").await.status, StatusCode::SEE_OTHER);
}

fn names(accounts: &[Account]) -> Vec<&str> {
    accounts.iter().map(|account| account.user.account().unwrap()).collect()
}

#[tokio::test]
async fn a_user_has_as_many_accounts_as_they_connect() {
    let (provider, site) = world().await;
    let (alice, bob) = (Browser::signed_in(&site, "alice"), Browser::signed_in(&site, "bob"));
    for account in ["work", "home", "work"] {
        log_in(&provider, &alice, account).await;
    }
    log_in(&provider, &bob, "work").await;

    let user = User::new("alice");
    let accounts = site.oauth.accounts(&user).await.unwrap();
    assert_eq!(names(&accounts), ["home", "work"]);
    for account in accounts {
        let client = site.oauth.client(&account.provider, &account.user).await.unwrap();
        let me: serde_json::Value = client.userinfo().send().await.unwrap().json().unwrap();
        assert_eq!(me["sub"], account.user.account().unwrap());
    }
    assert!(matches!(site.oauth.client("acme", &user).await, Err(ConnectError::NotConnected)));

    let gone = site.oauth.disconnect("acme", &user.clone().with_account("home")).await.unwrap();
    assert!(gone.removed);
    assert_eq!(names(&site.oauth.accounts(&user).await.unwrap()), ["work"]);
    assert_eq!(names(&site.oauth.accounts(&User::new("bob")).await.unwrap()), ["work"]);
    assert!(site.oauth.accounts(&user.in_tenant("t")).await.unwrap().is_empty());
}

#[tokio::test]
async fn accounts_are_refreshed_apart() {
    let (provider, site) = world().await;
    let alice = Browser::signed_in(&site, "alice");
    log_in(&provider, &alice, "work").await;
    log_in(&provider, &alice, "home").await;
    site.clock.advance(Duration::from_secs(3601));
    provider.next_token_response(ScriptedResponse::error(400, "invalid_grant"));
    let user = User::new("alice");
    let dead = site.oauth.client("acme", &user.clone().with_account("work")).await;
    assert!(dead.unwrap_err().needs_login());
    assert!(site.oauth.client("acme", &user.with_account("home")).await.is_ok());
}

#[tokio::test]
async fn accounts_need_a_storage_that_can_list() {
    let provider = TestProvider::start().await.unwrap();
    let oauth = oauth_dance::OAuth::per_request("http://localhost:3000", oauth_dance::KeyRing::generate());
    let oauth = oauth.provider(provider.registration("acme")).anonymous_users().build().unwrap();
    let error = oauth.accounts(&User::new("alice")).await.unwrap_err();
    assert!(matches!(error, ConnectError::Storage(_)), "{error:?}");
}

#[tokio::test]
async fn due_tokens_are_refreshed_without_a_request() {
    let (provider, site) = world().await;
    for user in ["alice", "bob", "carol"] {
        provider.connect(&site.oauth, "acme", &User::new(user)).await.unwrap();
    }
    let due = Due::expiring_within(Duration::from_secs(600)).with_rate(1000);
    let report = site.oauth.refresh_due(&due).await.unwrap();
    assert_eq!((report.refreshed, report.skipped), (0, 0));

    site.clock.advance(Duration::from_secs(3300));
    provider.connect(&site.oauth, "acme", &User::new("dave")).await.unwrap();
    let report = site.oauth.refresh_due(&due).await.unwrap();
    assert_eq!((report.refreshed, report.failed), (3, 0), "{report:?}");
    assert_eq!(provider.requests_to(Endpoint::Token).len(), 3);
    let counters = provider.counters();
    assert!(counters.redemptions.values().all(|times| *times == 1) && counters.families_revoked == 0);

    site.clock.advance(Duration::from_secs(600));
    let before = provider.requests_to(Endpoint::Token).len();
    site.oauth.client("acme", &User::new("alice")).await.unwrap();
    assert_eq!(provider.requests_to(Endpoint::Token).len(), before, "it is fresh");
}
