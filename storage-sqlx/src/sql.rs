//! The text of every statement.
//!
//! Most of the SQL is the same on all databases and is written here once, with placeholders in braces. What differs is
//! in [`Texts`]. A storage completes the statements once, so that an operation, except for a list, builds no SQL.

use std::sync::Arc;

use oauth_dance_migrations::TableName;

use crate::several::{ReadSeveral, Several};

/// The SQL that only one dialect understands.
///
/// In each statement, `{table}` is the table and `{now}` is the database's clock in seconds. Each `?` is one value:
/// first those of the record (version, payload, expiry, retention, key id), then those of the key (tenant, user,
/// provider, account), then others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Texts {
    /// The seconds since 1970 on the database's clock, constant during a statement.
    pub(crate) now: &'static str,
    /// Inserts or replaces a record.
    pub(crate) put_always: &'static str,
    /// Inserts a record, or replaces one that is past its retention.
    pub(crate) put_absent: &'static str,
    /// Deletes at most `?` records past their retention.
    pub(crate) purge: &'static str,
    /// How a list continues after a key.
    pub(crate) after: After,
    /// How one statement reads several records.
    pub(crate) several: Several,
    /// A condition for reads that is an error on a replica, which may be behind the primary.
    pub(crate) only_primary: &'static str,
    /// Whether the parameters of a prepared statement have numbers.
    pub(crate) is_numbered: bool,
}

/// The condition with which a list continues in the middle of an index.
#[derive(Clone, Copy, Debug)]
pub(crate) enum After {
    /// A comparison of rows.
    Rows,
    /// A comparison column by column, because MySQL and MariaDB would otherwise read all rows before the key. Each
    /// value except the last occurs twice.
    Columns,
}

/// Inserts or replaces a record, on databases with `ON CONFLICT`.
pub(crate) const UPSERT_ALWAYS: &str = "INSERT INTO {table} (version, payload, expires_at, retain_until, key_id, \
        tenant, user_id, provider, account, created_at, updated_at) \
    VALUES (?, ?, ?, {now} + ?, ?, ?, ?, ?, ?, {now}, {now}) \
    ON CONFLICT (tenant, user_id, provider, account) DO UPDATE \
    SET version = excluded.version, payload = excluded.payload, expires_at = excluded.expires_at, \
        retain_until = excluded.retain_until, key_id = excluded.key_id, updated_at = excluded.updated_at";
/// Inserts a record, or replaces one that is past its retention, on databases with `ON CONFLICT`.
pub(crate) const UPSERT_ABSENT: &str = "INSERT INTO {table} AS existing (version, payload, expires_at, retain_until, key_id, \
        tenant, user_id, provider, account, created_at, updated_at) \
    VALUES (?, ?, ?, {now} + ?, ?, ?, ?, ?, ?, {now}, {now}) \
    ON CONFLICT (tenant, user_id, provider, account) DO UPDATE \
    SET version = excluded.version, payload = excluded.payload, expires_at = excluded.expires_at, \
        retain_until = excluded.retain_until, key_id = excluded.key_id, \
        created_at = excluded.created_at, updated_at = excluded.updated_at \
    WHERE existing.retain_until <= {now}";

/// The condition that a record is within its retention.
const LIVE: &str = "(retain_until IS NULL OR retain_until > {now})";
/// The condition that a row has a certain key.
const KEY: &str = "tenant = ? AND user_id = ? AND provider = ? AND account = ?";
const GET: &str = "SELECT version, payload, expires_at, retain_until - {now}, key_id FROM {table} \
    WHERE {key} AND {live}";
const PUT_VERSION: &str = "UPDATE {table} \
    SET version = ?, payload = ?, expires_at = ?, retain_until = {now} + ?, key_id = ?, updated_at = {now} \
    WHERE {key} AND version = ? AND {live}";
const DELETE: &str = "DELETE FROM {table} WHERE {key} AND {live}";
const DELETE_VERSION: &str = "DELETE FROM {table} WHERE {key} AND version = ? AND {live}";
const LIST: &str = "SELECT tenant, user_id, provider, account, version, expires_at, key_id FROM {table} WHERE {live}";

/// The conditions of a list, one for each field of a filter, and its order.
pub(crate) const TENANT: &str = " AND tenant = ?";
pub(crate) const USER: &str = " AND user_id = ?";
pub(crate) const PROVIDER: &str = " AND provider = ?";
pub(crate) const EXPIRING_BEFORE: &str = " AND expires_at < ?";
pub(crate) const IN_ORDER: &str = " ORDER BY tenant, user_id, provider, account LIMIT ?";

/// The order of a list in one tenant. Sorting by the tenant as well would prevent SQLite and MariaDB from using the
/// index.
pub(crate) const IN_ORDER_IN_TENANT: &str = " ORDER BY user_id, provider, account LIMIT ?";

impl After {
    /// The condition that a row follows a key.
    pub(crate) const fn key(self) -> &'static str {
        match self {
            Self::Rows => " AND (tenant, user_id, provider, account) > (?, ?, ?, ?)",
            Self::Columns => {
                " AND (tenant > ? OR (tenant = ? AND (user_id > ? OR (user_id = ? AND \
                    (provider > ? OR (provider = ? AND account > ?))))))"
            }
        }
    }

    /// The same within one tenant.
    pub(crate) const fn key_in_tenant(self) -> &'static str {
        match self {
            Self::Rows => " AND (user_id, provider, account) > (?, ?, ?)",
            Self::Columns => " AND (user_id > ? OR (user_id = ? AND (provider > ? OR (provider = ? AND account > ?))))",
        }
    }
}

/// The text of a statement, with a `?` for each value.
#[derive(Clone, Debug)]
pub(crate) struct Sql {
    pub(crate) text: Arc<str>,
    /// The text that the database prepares. PostgreSQL numbers its parameters.
    pub(crate) prepared: Arc<str>,
}

impl Sql {
    pub(crate) fn new(text: String, texts: &Texts) -> Self {
        let text: Arc<str> = text.into();
        let prepared = if texts.is_numbered { number_parameters(&text).into() } else { Arc::clone(&text) };
        Self { text, prepared }
    }
}

/// Replaces each `?` by `$1`, `$2` and so on.
pub(crate) fn number_parameters(text: &str) -> String {
    let mut numbered = String::with_capacity(text.len() + 16);
    for (index, piece) in text.split('?').enumerate() {
        if index > 0 {
            numbered.push_str(&format!("${index}"));
        }
        numbered.push_str(piece);
    }
    numbered
}

/// The statements for one table.
#[derive(Debug)]
pub(crate) struct Statements {
    pub(crate) get: Sql,
    pub(crate) get_several: ReadSeveral,
    pub(crate) put_always: Sql,
    pub(crate) put_absent: Sql,
    pub(crate) put_version: Sql,
    pub(crate) delete: Sql,
    pub(crate) delete_version: Sql,
    pub(crate) purge: Sql,
    pub(crate) list: String,
}

impl Statements {
    /// The statements for a table, each preceded by `prefix`.
    pub(crate) fn new(texts: &Texts, table: &TableName, prefix: &str) -> Self {
        let table = table.to_string();
        let fill = |text: &str| {
            let text = format!("{prefix}{text}").replace("{key}", KEY).replace("{live}", LIVE);
            text.replace("{now}", texts.now).replace("{table}", &table)
        };
        let read = |text: &str| fill(&format!("{text}{}", texts.only_primary));
        let sql = |text| Sql::new(text, texts);
        Self {
            get: sql(read(GET)),
            get_several: ReadSeveral::new(texts.several, |text| sql(read(text))),
            put_always: sql(fill(texts.put_always)),
            put_absent: sql(fill(texts.put_absent)),
            put_version: sql(fill(PUT_VERSION)),
            delete: sql(fill(DELETE)),
            delete_version: sql(fill(DELETE_VERSION)),
            purge: sql(fill(texts.purge)),
            list: read(LIST),
        }
    }
}
