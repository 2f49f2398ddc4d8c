//! Removes tokens, and revokes them at their providers.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use oauth_dance::{ConnectError, OAuth, Revocation, User};
use oauth_dance_core::{KeyRing, StorageError, TokenKey, Tokens, TokensError};
use serde_json::Value;

use super::OperateError;
use super::records::{problem, who};
use crate::keys::{KeyArgs, Keys};
use crate::open::{Access, Opened, StorageArgs};

pub(super) const COLUMNS: [&str; 7] = ["tenant", "user", "provider", "account", "removed", "revocation", "detail"];
/// The number of tries if a token is replaced while it is removed. A refresh writes twice.
const MAX_RETRIES: u32 = 8;

/// How tokens are revoked before they are removed.
#[derive(Args, Debug)]
pub struct RevocationArgs {
    /// Revoke each token at its provider first; the file names the providers as for `oauth-dance demo`
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// With --config: also remove a token that could not be revoked, which stays valid at its provider
    #[arg(long, requires = "config")]
    pub force: bool,
    /// The keys, which only --config needs.
    #[command(flatten)]
    pub keys: KeyArgs,
}

/// Removes tokens of a storage.
pub(super) struct Remover {
    opened: Opened,
    /// `None` if no token is revoked.
    revoker: Option<(OAuth, Tokens)>,
    force: bool,
}

/// The outcome of one record.
pub(super) struct Removal {
    pub(super) removed: bool,
    /// Whether the record was to be removed and is still there.
    pub(super) is_left: bool,
    row: Vec<Value>,
}

impl Remover {
    /// Opens the storage, and verifies that it accepts writes. Otherwise a token would be revoked and then remain
    /// stored.
    pub(super) async fn new(storage: &StorageArgs, revocation: &RevocationArgs) -> Result<Self, OperateError> {
        let keys = match &revocation.config {
            Some(_) => Some(revocation.keys.require().await?),
            None => None,
        };
        let opened = storage.open(Access::Write).await?;
        let revoker = match (&revocation.config, keys) {
            (Some(path), Some(keys)) => Some((oauth(path, &opened, &keys)?, keys.tokens(&opened.storage))),
            _ => None,
        };
        Ok(Self { opened, revoker, force: revocation.force })
    }

    pub(super) fn opened(&self) -> &Opened {
        &self.opened
    }

    /// Revokes and removes the token of a key. It can be repeated after an interruption at any point.
    pub(super) async fn remove(&self, key: &TokenKey) -> Result<Removal, OperateError> {
        let Some((oauth, tokens)) = &self.revoker else {
            let removed = self.delete(key).await?;
            return Ok(Removal::new(key, removed, false, "not_requested", None));
        };
        for _ in 0..MAX_RETRIES {
            let version = match tokens.get(key).await {
                Ok(Some(found)) => found.version,
                Ok(None) => return Ok(Removal::new(key, false, false, "not_possible", None)),
                Err(TokensError::Storage(error)) if !matches!(error, StorageError::Corrupt { .. }) => {
                    return Err(self.opened.explain(error).await);
                }
                Err(unreadable) => return self.unrevoked(key, "unreadable", problem(&unreadable)).await,
            };
            let revocation = match oauth.revoke(key.provider(), &user(key)).await {
                Ok(Revocation::Done) => "done",
                Ok(Revocation::Failed) => {
                    let detail = "the provider could not be reached or rejects the request; the log has the cause";
                    return self.unrevoked(key, "failed", detail.to_owned()).await;
                }
                Ok(_) => "not_possible",
                Err(ConnectError::UnknownProvider(_)) => {
                    return self
                        .unrevoked(key, "not_configured", "the config does not name this provider".to_owned())
                        .await;
                }
                Err(error) => return self.unrevoked(key, "failed", error.to_string()).await,
            };
            match self.opened.storage.delete(key, Some(version)).await {
                Ok(true) => return Ok(Removal::new(key, true, false, revocation, None)),
                // The token was refreshed in the meantime, so the new token has to be revoked.
                Ok(false) => {}
                Err(error) => return Err(self.opened.explain(error).await),
            }
        }
        self.unrevoked(
            key,
            "failed",
            "the token keeps changing; stop the application, or run the command again".to_owned(),
        )
        .await
    }

    /// Handles a token that could not be revoked. Without `--force`, it remains stored so that it can be revoked later.
    async fn unrevoked(&self, key: &TokenKey, revocation: &str, detail: String) -> Result<Removal, OperateError> {
        let removed = self.force && self.delete(key).await?;
        Ok(Removal::new(key, removed, !self.force, revocation, Some(detail)))
    }

    async fn delete(&self, key: &TokenKey) -> Result<bool, OperateError> {
        match self.opened.storage.delete(key, None).await {
            Ok(removed) => Ok(removed),
            Err(error) => Err(self.opened.explain(error).await),
        }
    }
}

impl Removal {
    fn new(key: &TokenKey, removed: bool, is_left: bool, revocation: &str, detail: Option<String>) -> Self {
        let mut row = Vec::from(who(key));
        row.extend([removed.into(), revocation.into(), detail.into()]);
        Self { removed, is_left, row }
    }

    pub(super) fn into_row(self) -> Vec<Value> {
        self.row
    }
}

fn user(key: &TokenKey) -> User {
    let mut user = User::new(key.user());
    if let Some(tenant) = key.tenant() {
        user = user.in_tenant(tenant);
    }
    if let Some(account) = key.account() {
        user = user.with_account(account);
    }
    user
}

/// An `OAuth` with the providers of a config file on an open storage. It serves no site, so its URL is arbitrary.
fn oauth(config: &Path, opened: &Opened, keys: &Keys) -> Result<OAuth, OperateError> {
    let providers = crate::demo::providers(config).map_err(Box::new)?;
    let storage = Arc::clone(&opened.storage);
    let mut builder = match keys {
        Keys::Ring(ring) => OAuth::builder("http://localhost", storage, ring.clone()),
        Keys::Plaintext => {
            OAuth::builder("http://localhost", storage, KeyRing::generate()).dangerous_plaintext_tokens()
        }
    };
    builder = builder.dangerously_allow_http(providers.dangerously_allow_http).anonymous_users();
    if let Some(timeout) = providers.timeout {
        builder = builder.timeout(timeout);
    }
    for registration in providers.registrations {
        builder = builder.provider(registration);
    }
    builder.build().map_err(|error| Box::new(crate::demo::DemoError::from(error)).into())
}
