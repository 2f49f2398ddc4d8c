//! Reads all records of a storage, and opens them without showing a token.

use std::sync::Arc;

use clap::Args;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use oauth_dance::Connector;
use oauth_dance_core::{
    Connection, ConnectionState, Cursor, DeadReason, Entry, Filter, PageRequest, RefreshError, Refresher, StorageError,
    TokenKey, Tokens, TokensError,
};
use serde_json::Value;

use super::OperateError;
use crate::keys::KeyArgs;
use crate::open::{Opened, StorageArgs};
use crate::output::OutputArgs;
use crate::state::state_name;

/// The number of entries of a page, which is the most that a storage returns.
const PAGE: usize = 1000;
/// The number of records that are read or written at the same time.
pub(super) const AT_ONCE: usize = 8;

/// Which records a command is about. A record has to meet all conditions.
#[derive(Args, Clone, Debug, Default)]
pub struct FilterArgs {
    /// Only this tenant; "" selects the records without a tenant
    #[arg(long, value_name = "NAME")]
    pub tenant: Option<String>,
    /// Only this user, in every tenant unless --tenant is given
    #[arg(long, value_name = "ID")]
    pub user: Option<String>,
    /// Only this provider
    #[arg(long, value_name = "NAME")]
    pub provider: Option<String>,
}

impl FilterArgs {
    pub(super) fn is_everything(&self) -> bool {
        self.filter() == Filter::everything()
    }

    pub(super) fn filter(&self) -> Filter {
        let mut filter = Filter::everything();
        filter.tenant.clone_from(&self.tenant);
        filter.user.clone_from(&self.user);
        filter.provider.clone_from(&self.provider);
        filter
    }
}

/// The options of a command that opens the records of a storage.
#[derive(Args, Debug)]
pub struct RecordsArgs {
    /// The storage.
    #[command(flatten)]
    pub storage: StorageArgs,
    /// Which records.
    #[command(flatten)]
    pub filter: FilterArgs,
    /// The keys.
    #[command(flatten)]
    pub keys: KeyArgs,
    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// The records of a storage, one page after the other.
pub(super) struct Pages<'a> {
    opened: &'a Opened,
    /// Only used to list. Leaves out the records that belong to no user, unless it is `None`.
    tokens: Option<Tokens>,
    filter: Filter,
    /// The position of the next page. The outer `None` means that there is no further page.
    next: Option<Option<Cursor>>,
}

impl<'a> Pages<'a> {
    pub(super) fn new(opened: &'a Opened, filter: Filter) -> Self {
        let tokens = Tokens::dangerous_plaintext(Arc::clone(&opened.storage));
        Self { opened, tokens: Some(tokens), filter, next: Some(None) }
    }

    /// Includes the records that belong to no user, which this library stores for a few minutes.
    pub(super) fn of_everything(opened: &'a Opened, filter: Filter) -> Self {
        Self { opened, tokens: None, filter, next: Some(None) }
    }

    /// The next page, which may be empty. `None` after the last page.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<Entry>>, OperateError> {
        let Some(after) = self.next.take() else { return Ok(None) };
        let request = PageRequest { after, limit: PAGE };
        let page = match &self.tokens {
            Some(tokens) => tokens.list(&self.filter, request).await,
            None => self.opened.storage.list(&self.filter, request).await.map_err(TokensError::from),
        };
        match page {
            Ok(page) => {
                self.next = page.next.map(Some);
                Ok(Some(page.entries))
            }
            Err(TokensError::Storage(error)) => Err(self.opened.explain(error).await),
            Err(other) => Err(self.opened.explain(StorageError::unavailable(other)).await),
        }
    }
}

/// The result of opening a record.
#[derive(Debug)]
pub(super) enum Examined {
    /// The record was removed after it was listed.
    Gone,
    /// The record can be read.
    Readable(Box<Connection>),
    /// The record cannot be read.
    Unreadable(TokensError),
}

/// Opens the records of a page, in their order.
pub(super) async fn examine_all(
    opened: &Opened,
    tokens: &Tokens,
    page: &[Entry],
) -> Result<Vec<Examined>, OperateError> {
    let refresher = Refresher::new();
    let reads = page.iter().map(|entry| examine(&refresher, tokens, &entry.key));
    match stream::iter(reads).buffered(AT_ONCE).try_collect().await {
        Ok(examined) => Ok(examined),
        Err(error) => Err(opened.explain(error).await),
    }
}

/// Opens a record. Nothing is sent to a provider.
async fn examine(refresher: &Refresher, tokens: &Tokens, key: &TokenKey) -> Result<Examined, StorageError> {
    let error = match refresher.connection(tokens, key).await {
        Ok(Some(connection)) => return Ok(Examined::Readable(Box::new(renewable(connection, key)))),
        Ok(None) => return Ok(Examined::Gone),
        Err(RefreshError::Storage(error)) => error,
        Err(other) => return Err(StorageError::unavailable(other)),
    };
    match Arc::try_unwrap(error) {
        Ok(TokensError::Storage(error @ StorageError::Corrupt { .. })) => Ok(Examined::Unreadable(error.into())),
        Ok(TokensError::Storage(error)) => Err(error),
        Ok(unreadable) => Ok(Examined::Unreadable(unreadable)),
        Err(shared) => Err(StorageError::unavailable(shared)),
    }
}

/// The same connection. A token that the application requests itself needs no refresh token, so the next use renews it.
fn renewable(mut connection: Connection, key: &TokenKey) -> Connection {
    let has_expired =
        matches!(connection.state, ConnectionState::NeedsAuthorization { reason: DeadReason::NoRefreshToken, .. });
    if has_expired && Connector::is_requested(key) {
        connection.state = ConnectionState::Expiring;
    }
    connection
}

impl Examined {
    /// The name of the state, and the reason for it.
    pub(super) fn state(&self) -> [Value; 2] {
        let connection = match self {
            Self::Gone => return ["removed".into(), Value::Null],
            Self::Unreadable(error) => return ["unreadable".into(), problem(error).into()],
            Self::Readable(connection) => connection,
        };
        let reason = match &connection.state {
            ConnectionState::BackingOff { cause, .. } => Some(cause.clone()),
            ConnectionState::NeedsAuthorization { reason, .. } => Some(reason.describe().to_owned()),
            _ => None,
        };
        [state_name(&connection.state).into(), reason.into()]
    }
}

/// Whether an error concerns one record, so that a command can continue with the others.
pub(super) fn is_about_one_record(error: &StorageError) -> bool {
    matches!(
        error,
        StorageError::Conflict
            | StorageError::Corrupt { .. }
            | StorageError::KeyTooLong { .. }
            | StorageError::TooLarge { .. }
    )
}

/// What is wrong with a record, without its key, which is printed beside it.
pub(super) fn problem(error: &TokensError) -> String {
    match error {
        TokensError::KeyUnavailable { key_id, .. } => format!("sealed with key {key_id}, which is not in the key ring"),
        TokensError::Tampered { .. } => "altered after it was sealed, or moved from another key".to_owned(),
        TokensError::NotSealed { .. } => "stored in plain text".to_owned(),
        TokensError::NoKeyRing { .. } => "sealed, but no key ring is given".to_owned(),
        TokensError::NewerFormat { found, .. } => format!("written by a newer release, in format {found}"),
        TokensError::Malformed { reason, .. } => format!("not a token: {reason}"),
        TokensError::Storage(error) => match std::error::Error::source(error) {
            Some(source) => format!("corrupt: {source}"),
            None => "corrupt".to_owned(),
        },
        other => other.to_string(),
    }
}

/// Tenant, user, provider and account of a record, in this order.
pub(super) fn who(key: &TokenKey) -> [Value; 4] {
    [key.tenant().into(), key.user().into(), key.provider().into(), key.account().into()]
}
