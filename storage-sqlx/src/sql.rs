use std::sync::Arc;

use oauth_dance_migrations::TableName;

/// What the databases write differently. Every statement has `{table}` for the table and `{now}` for the database's
/// clock in seconds, and takes its values at `?`, each once: first those of the record (version, payload, expiry,
/// retention, key id), then those of the key (tenant, user, provider, account), then others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Texts {
    /// Seconds since 1970 on the database's clock, the same throughout a statement.
    pub(crate) now: &'static str,
    /// Insert, or replace what is there.
    pub(crate) put_always: &'static str,
    /// Insert, or replace what is there if it is past its retention.
    pub(crate) put_absent: &'static str,
    /// Delete at most `?` records past their retention.
    pub(crate) purge: &'static str,
    /// Where lists go on.
    pub(crate) after: After,
    /// A condition of reads that is an error on a server that only follows another one, and may be behind.
    pub(crate) only_primary: &'static str,
}

/// How a database is told to start in the middle of its index.
#[derive(Clone, Copy, Debug)]
pub(crate) enum After {
    /// As rows are compared.
    Rows,
    /// Spelled out, column by column: MySQL and MariaDB would read everything before a row, too. Each value but the last
    /// stands there twice.
    Columns,
}

const LIVE: &str = "(retain_until IS NULL OR retain_until > {now})";
const KEY: &str = "tenant = ? AND user_id = ? AND provider = ? AND account = ?";
const GET: &str = "SELECT version, payload, expires_at, retain_until - {now}, key_id FROM {table} \
    WHERE {key} AND {live}";
const PUT_VERSION: &str = "UPDATE {table} \
    SET version = ?, payload = ?, expires_at = ?, retain_until = {now} + ?, key_id = ?, updated_at = {now} \
    WHERE {key} AND version = ? AND {live}";
const DELETE: &str = "DELETE FROM {table} WHERE {key} AND {live}";
const DELETE_VERSION: &str = "DELETE FROM {table} WHERE {key} AND version = ? AND {live}";
const LIST: &str = "SELECT tenant, user_id, provider, account, version, expires_at, key_id FROM {table} WHERE {live}";

/// The conditions a list is put together from, and its end.
pub(crate) const TENANT: &str = " AND tenant = ?";
pub(crate) const USER: &str = " AND user_id = ?";
pub(crate) const PROVIDER: &str = " AND provider = ?";
pub(crate) const EXPIRING_BEFORE: &str = " AND expires_at < ?";
pub(crate) const IN_ORDER: &str = " ORDER BY tenant, user_id, provider, account LIMIT ?";

/// With the tenant given it is compared and sorted by no more, which keeps SQLite and MariaDB from using the index.
pub(crate) const IN_ORDER_IN_TENANT: &str = " ORDER BY user_id, provider, account LIMIT ?";

impl After {
    pub(crate) const fn key(self) -> &'static str {
        match self {
            Self::Rows => " AND (tenant, user_id, provider, account) > (?, ?, ?, ?)",
            Self::Columns => {
                " AND (tenant > ? OR (tenant = ? AND (user_id > ? OR (user_id = ? AND \
                    (provider > ? OR (provider = ? AND account > ?))))))"
            }
        }
    }

    pub(crate) const fn key_in_tenant(self) -> &'static str {
        match self {
            Self::Rows => " AND (user_id, provider, account) > (?, ?, ?)",
            Self::Columns => " AND (user_id > ? OR (user_id = ? AND (provider > ? OR (provider = ? AND account > ?))))",
        }
    }
}

/// The statements for one table.
#[derive(Debug)]
pub(crate) struct Statements {
    pub(crate) get: Arc<str>,
    pub(crate) put_always: Arc<str>,
    pub(crate) put_absent: Arc<str>,
    pub(crate) put_version: Arc<str>,
    pub(crate) delete: Arc<str>,
    pub(crate) delete_version: Arc<str>,
    pub(crate) purge: Arc<str>,
    pub(crate) list: String,
}

impl Statements {
    /// The statements for a table, each with `opening` before it.
    pub(crate) fn new(texts: &Texts, table: &TableName, opening: &str) -> Self {
        let table = table.to_string();
        let fill = |text: &str| {
            let text = format!("{opening}{text}").replace("{key}", KEY).replace("{live}", LIVE);
            text.replace("{now}", texts.now).replace("{table}", &table)
        };
        let read = |text: &str| fill(&format!("{text}{}", texts.only_primary));
        Self {
            get: read(GET).into(),
            put_always: fill(texts.put_always).into(),
            put_absent: fill(texts.put_absent).into(),
            put_version: fill(PUT_VERSION).into(),
            delete: fill(DELETE).into(),
            delete_version: fill(DELETE_VERSION).into(),
            purge: fill(texts.purge).into(),
            list: read(LIST),
        }
    }
}
