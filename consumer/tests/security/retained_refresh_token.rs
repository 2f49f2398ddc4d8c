//! Logins without a refresh token, for an account that already has one.

use std::time::Duration;

use http::StatusCode;
use oauth_dance::testing::{Endpoint, ScriptedResponse, TestProvider};
use oauth_dance::{Authorized, BoxError, Decision, Hooks, User};

use crate::support::{Browser, Setup, Site};

/// Identifies the account with the provider's userinfo.
struct NamesTheAccount;

#[async_trait::async_trait]
impl Hooks for NamesTheAccount {
    async fn authorized(&self, login: Authorized<'_>) -> Result<Decision, BoxError> {
        let claims: serde_json::Value = login.client.userinfo().send().await?.success()?.json()?;
        Ok(Decision::store().with_subject(claims["sub"].as_str().unwrap()))
    }
}

async fn named_by_the_application(provider: &TestProvider) -> Site {
    let registration = provider.registration("acme");
    let site = Setup::default().start(|builder| builder.provider(registration).hooks(NamesTheAccount)).await;
    provider.configure(|settings| settings.clock = site.clock.clock());
    site
}

/// Logs in twice, the second time without a refresh token and as another account if one is named; whether the first
/// refresh token is still there.
async fn survives(provider: &TestProvider, site: &Site, user: &str, then: Option<&str>) -> bool {
    let browser = Browser::signed_in(site, user);
    provider.configure(|settings| settings.refresh_tokens = true);
    assert_eq!(browser.login("acme").await.status, StatusCode::SEE_OTHER);
    let first = site.token(user).await.unwrap();
    provider.configure(|settings| {
        settings.refresh_tokens = false;
        settings.user = then.unwrap_or(&settings.user).to_owned();
    });
    assert_eq!(browser.login("acme").await.status, StatusCode::SEE_OTHER);
    let second = site.token(user).await.unwrap();
    assert_ne!(first.access_token, second.access_token, "the new one is used");
    second.refresh_token.is_some() && second.refresh_token == first.refresh_token
}

#[tokio::test]
async fn mu_03_the_application_may_identify_the_account() {
    let provider = TestProvider::start().await.unwrap();
    let site = named_by_the_application(&provider).await;
    assert!(survives(&provider, &site, "alice", None).await);
    assert!(!survives(&provider, &site, "bob", Some("another account")).await);

    // The refresh still works.
    provider.configure(|settings| settings.refresh_tokens = true);
    site.clock.advance(Duration::from_secs(3601));
    assert_eq!(Browser::signed_in(&site, "alice").get("/required").await.status, StatusCode::OK);
    assert_eq!(provider.counters().families_revoked, 0);
}

#[tokio::test]
async fn mu_03_unidentified_accounts_are_never_the_same() {
    let provider = TestProvider::start().await.unwrap();
    let site = Site::of(&provider).await;
    assert!(!survives(&provider, &site, "alice", None).await);
}

#[tokio::test]
async fn mu_03_a_logout_removes_the_refresh_token() {
    let provider = TestProvider::start().await.unwrap();
    let site = named_by_the_application(&provider).await;
    let browser = Browser::signed_in(&site, "alice");
    browser.login("acme").await;
    site.oauth.disconnect("acme", &User::new("alice")).await.unwrap();
    provider.configure(|settings| settings.refresh_tokens = false);
    browser.login("acme").await;
    assert_eq!(site.refresh_token("alice").await, None);
}

#[tokio::test]
async fn mu_03_a_login_during_a_refresh_loses_nothing() {
    let provider = TestProvider::start().await.unwrap();
    let site = named_by_the_application(&provider).await;
    let (browser, alice) = (Browser::signed_in(&site, "alice"), User::new("alice"));
    browser.login("acme").await;
    site.clock.advance(Duration::from_secs(3601));
    provider.next_token_response(ScriptedResponse::normal().after(Duration::from_millis(300)));
    let (oauth, user) = (site.oauth.clone(), alice.clone());
    let refresh = tokio::spawn(async move { oauth.client("acme", &user).await.map(drop) });
    while provider.requests_to(Endpoint::Token).len() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    provider.configure(|settings| settings.refresh_tokens = false);
    assert_eq!(browser.login("acme").await.status, StatusCode::SEE_OTHER);
    refresh.await.unwrap().unwrap();
    site.oauth.finish().await;

    provider.configure(|settings| settings.refresh_tokens = true);
    site.clock.advance(Duration::from_secs(3601));
    site.oauth.client("acme", &alice).await.expect("the rotated refresh token is the one that is stored");
    assert_eq!(provider.counters().families_revoked, 0);
}

#[cfg(feature = "oidc")]
#[tokio::test]
async fn id_08_the_same_subject_retains_its_refresh_token() {
    let provider = TestProvider::start().await.unwrap();
    let (site, _) = crate::support::openid_site(&provider).await;
    assert!(survives(&provider, &site, "alice", None).await);
    assert!(!survives(&provider, &site, "bob", Some("another account")).await);

    provider.configure(|settings| settings.refresh_tokens = true);
    site.clock.advance(Duration::from_secs(3601));
    assert_eq!(Browser::signed_in(&site, "alice").get("/required").await.status, StatusCode::OK);
    assert_eq!(provider.counters().families_revoked, 0);
}

#[cfg(feature = "oidc")]
#[tokio::test]
async fn id_08_ended_or_bound_grants_are_not_mixed() {
    type Change = fn(&mut oauth_dance::Provider);
    let changes: [Change; 2] = [|known| known.quirks.new_login_ends_grant = true, |known| known.dpop = true];
    for change in changes {
        let provider = TestProvider::start().await.unwrap();
        let (site, _) = crate::support::openid_site_with(&provider, change, |builder| builder).await;
        assert!(!survives(&provider, &site, "alice", None).await);
    }
}
