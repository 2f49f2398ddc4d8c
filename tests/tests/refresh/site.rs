//! A provider with a user, and what a test can do with both.

use std::sync::Arc;
use std::time::{Duration, Instant};

use oauth_dance::testing::{Endpoint, ScriptedResponse, TestProvider};
use oauth_dance::{Clock, ConnectionState, KeyRing, OAuth, OAuth2Token, TokenStorage, User};
use oauth_dance_core::{Precondition, SealingKey, Token};
use tokio::time::sleep;

use crate::backend::Backend;
use crate::process::SOON;
use crate::worker::{self, At};

pub const NAME: &str = "acme";
pub const LONG: Duration = Duration::from_secs(3600);

/// The sealing key of all processes of a test.
pub fn keys() -> String {
    SealingKey::generate().encode().to_string()
}

pub struct Site {
    pub at: At,
    pub provider: TestProvider,
    pub oauth: OAuth,
    pub user: String,
}

impl Site {
    /// A separate provider with this name, and a user with a token that has just expired.
    pub async fn new(backend: &Backend, keys: &str, name: impl Into<String>) -> Self {
        let ring = KeyRing::parse(keys).unwrap();
        let site = Self::of(TestProvider::start().await.unwrap(), name.into(), backend.open().await, ring);
        site.login(&site.user, Duration::ZERO).await;
        site
    }

    /// A provider with this name, and a storage.
    pub fn of(provider: TestProvider, name: String, storage: Arc<dyn TokenStorage>, ring: KeyRing) -> Self {
        let user = format!("user-of-{name}");
        let at = At { name, url: provider.url().to_owned(), is_openid: false };
        let oauth = worker::oauth(storage, ring, std::slice::from_ref(&at)).build().unwrap();
        Self { at, provider, oauth, user }
    }

    /// A new login, with an access token of this lifetime.
    pub async fn login(&self, user: &str, life: Duration) {
        self.store(user, self.issue(user, life)).await;
    }

    /// A token of a new grant for this subject, with an access token of this lifetime.
    pub fn issue(&self, subject: &str, life: Duration) -> OAuth2Token {
        let mut usual = LONG;
        self.provider.configure(|settings| usual = std::mem::replace(&mut settings.access_token_lifetime, life));
        let mut token = self.provider.issue(subject);
        self.provider.configure(|settings| settings.access_token_lifetime = usual);
        token.issued_at = Some(Clock::system().now());
        token
    }

    /// Announces this lifetime in the next token responses. The API accepts the access tokens for an hour, because a call may
    /// take longer than the announced lifetime on a busy machine.
    pub fn announce_lifetime(&self, life: Duration, refreshes: usize) {
        for _ in 0..refreshes {
            self.provider.next_token_response(ScriptedResponse::normal().member("expires_in", life.as_secs()));
        }
    }

    /// Stores a user's token as a login does.
    pub async fn store(&self, user: &str, token: OAuth2Token) {
        let key = User::new(user).key(&self.at.name).unwrap();
        self.oauth.tokens().put(&key, &Token::from(token), Precondition::Always).await.unwrap();
    }

    /// What is stored for the user.
    pub async fn stored(&self, user: &str) -> Option<OAuth2Token> {
        let connection = self.oauth.connection(&self.at.name, &User::new(user)).await.unwrap();
        connection.map(|connection| connection.token.as_oauth2().unwrap().clone())
    }

    /// The state of the user's connection.
    pub async fn state(&self) -> String {
        match self.oauth.connection(&self.at.name, &User::new(&self.user)).await.unwrap() {
            None => "absent".to_owned(),
            Some(connection) => match connection.state {
                ConnectionState::Valid => "valid".to_owned(),
                ConnectionState::Expiring => "expiring".to_owned(),
                ConnectionState::Refreshing => "refreshing".to_owned(),
                ConnectionState::OutcomeUnknown => "outcome unknown".to_owned(),
                ConnectionState::BackingOff { .. } => "backing off".to_owned(),
                ConnectionState::NeedsAuthorization { reason, .. } => format!("needs authorization: {reason:?}"),
                _ => "another".to_owned(),
            },
        }
    }

    /// The number of token requests.
    pub fn token_requests(&self) -> usize {
        self.provider.requests_to(Endpoint::Token).len()
    }

    /// Waits until there were that many token requests.
    pub async fn wait_for_token_requests(&self, count: usize) {
        let start = Instant::now();
        while self.token_requests() < count {
            assert!(start.elapsed() < SOON, "{}: there is no token request", self.at.name);
            sleep(Duration::from_millis(2)).await;
        }
    }

    /// How often the most frequent refresh token was sent.
    pub fn most_presented(&self) -> usize {
        let sent = self.provider.requests_to(Endpoint::Token);
        let sent: Vec<_> = sent.iter().filter_map(|request| request.field("refresh_token")).collect();
        sent.iter().map(|token| sent.iter().filter(|other| *other == token).count()).max().unwrap_or_default()
    }

    pub fn families_revoked(&self) -> u64 {
        self.provider.counters().families_revoked
    }
}
