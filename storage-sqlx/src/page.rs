//! Lists in pages.
//!
//! A page starts after the key of the last row of the previous page, and not at a number of rows. Therefore a page
//! costs the same anywhere in the table, and records that are written or deleted between two pages do not shift the
//! others. A table that was edited by hand can contain keys that are not valid [`TokenKey`]s. A list has to continue
//! after such a row too, so a cursor contains a [`RawKey`].

use std::cmp::Ordering;
use std::fmt;

use oauth_dance_core::{Cursor, Filter, StorageError, TokenKey};

use crate::dialect::{Bind, Dialect};
use crate::sql::{After, EXPIRING_BEFORE, IN_ORDER, IN_ORDER_IN_TENANT, PROVIDER, TENANT, USER};

/// The four key columns of a row, which may be an invalid [`TokenKey`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RawKey([Vec<u8>; 4]);

impl RawKey {
    /// Reads columns 0 to 3.
    pub(crate) fn read<DB: Dialect>(row: &DB::Row) -> Result<Self, sqlx::Error> {
        Ok(Self([DB::bytes(row, 0)?, DB::bytes(row, 1)?, DB::bytes(row, 2)?, DB::bytes(row, 3)?]))
    }

    /// The key, if it is valid.
    pub(crate) fn to_key(&self) -> Option<TokenKey> {
        let [tenant, user, provider, account] = self.0.each_ref().map(|part| str::from_utf8(part));
        TokenKey::from_parts(tenant.ok()?, user.ok()?, provider.ok()?, account.ok()?).ok()
    }

    /// Encodes the position after this key: each part preceded by its length in four bytes.
    pub(crate) fn to_cursor(&self) -> Cursor {
        let mut bytes = Vec::new();
        for part in &self.0 {
            // No column can contain 4 GiB.
            bytes.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
            bytes.extend_from_slice(part);
        }
        Cursor::from_bytes(bytes)
    }

    /// Decodes the result of [`RawKey::to_cursor`].
    ///
    /// # Errors
    /// [`StorageError::InvalidCursor`].
    pub(crate) fn from_cursor(cursor: &Cursor) -> Result<Self, StorageError> {
        let mut rest = cursor.as_bytes();
        let mut parts: [Vec<u8>; 4] = Default::default();
        for part in &mut parts {
            let (length, tail) = rest.split_first_chunk::<4>().ok_or(StorageError::InvalidCursor)?;
            let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| StorageError::InvalidCursor)?;
            let (bytes, tail) = tail.split_at_checked(length).ok_or(StorageError::InvalidCursor)?;
            *part = bytes.to_vec();
            rest = tail;
        }
        if !rest.is_empty() {
            return Err(StorageError::InvalidCursor);
        }
        Ok(Self(parts))
    }
}

/// Tenant, user, provider and account, with escapes.
impl fmt::Display for RawKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [tenant, user, provider, account] = self.0.each_ref().map(|part| part.escape_ascii());
        write!(f, "tenant \"{tenant}\", user \"{user}\", provider \"{provider}\", account \"{account}\"")
    }
}

/// The statement for one page. It contains only the conditions that the filter sets, so that the database can choose an
/// index.
pub(crate) struct PageQuery<'a> {
    pub(crate) sql: String,
    pub(crate) binds: Vec<Bind<'a>>,
}

impl<'a> PageQuery<'a> {
    /// Builds the statement for at most `rows` rows that match the filter and follow `after`. `None` if no row can.
    pub(crate) fn new<DB: Dialect>(
        list: &str,
        filter: &'a Filter,
        after: Option<&'a RawKey>,
        rows: i64,
    ) -> Option<Self> {
        let mut query = Self { sql: list.to_owned(), binds: Vec::new() };
        for (condition, wanted) in [(TENANT, &filter.tenant), (USER, &filter.user), (PROVIDER, &filter.provider)] {
            if let Some(wanted) = wanted {
                query.push(condition, [Bind::Bytes(wanted.as_bytes())]);
            }
        }
        if let Some(before) = filter.expiring_before {
            query.push(EXPIRING_BEFORE, [Bind::Number(before.as_unix_seconds_signed())]);
        }
        let start = DB::TEXTS.after;
        if let Some(RawKey(after)) = after {
            match filter.tenant.as_ref().map(|wanted| after[0].as_slice().cmp(wanted.as_bytes())) {
                None => query.push_after(start, start.key(), after),
                Some(Ordering::Equal) => query.push_after(start, start.key_in_tenant(), &after[1..]),
                Some(Ordering::Less) => {}
                Some(Ordering::Greater) => return None,
            }
        }
        let order = if filter.tenant.is_some() { IN_ORDER_IN_TENANT } else { IN_ORDER };
        query.push(order, [Bind::Number(rows)]);
        Some(query)
    }

    /// Adds the condition that a row follows a key.
    fn push_after(&mut self, after: After, sql: &str, parts: &'a [Vec<u8>]) {
        let binds = parts.iter().map(|part| Bind::Bytes(part));
        match after {
            After::Rows => self.push(sql, binds),
            After::Columns => {
                self.push(sql, binds.flat_map(|bind| [bind, bind]));
                self.binds.pop();
            }
        }
    }

    fn push(&mut self, sql: &str, binds: impl IntoIterator<Item = Bind<'a>>) {
        self.sql.push_str(sql);
        self.binds.extend(binds);
    }
}
