//! Names of tables.
//!
//! sqlx cannot bind the name of a table as a value, so a name becomes part of the SQL. It is parsed into a
//! [`TableName`] first, which contains no character that could end a name.

use std::fmt;
use std::str::FromStr;

const DEFAULT: &str = "oauth_dance_tokens";
/// The longest name of a part. With the prefix `_` and the suffix `_migrations`, it fits PostgreSQL's limit of 63
/// bytes.
const MAX_LENGTH: usize = 48;

/// The name of the token table. The default is `oauth_dance_tokens`. An application may choose another name such as
/// `tokens`, or `auth.tokens` in a schema of PostgreSQL or a database of MySQL.
///
/// Each part consists of at most 48 lower-case letters, digits and underscores, and does not start with a digit. Such a
/// name needs no quotes, and identifies the same table on all databases.
///
/// ```
/// use oauth_dance_migrations::TableName;
///
/// let table: TableName = "auth.tokens".parse()?;
/// assert_eq!(table.schema(), Some("auth"));
/// assert_eq!(table.bookkeeping(), "auth._tokens_migrations");
/// assert!("Tokens; DROP TABLE users".parse::<TableName>().is_err());
/// # Ok::<(), oauth_dance_migrations::TableNameError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TableName {
    schema: Option<String>,
    name: String,
}

impl TableName {
    /// The schema, if the name has one.
    pub fn schema(&self) -> Option<&str> {
        self.schema.as_deref()
    }

    /// The name of the table that records applied migrations. For the default, it is `_oauth_dance_tokens_migrations`.
    pub fn bookkeeping(&self) -> String {
        self.in_schema(&format!("_{}_migrations", self.name))
    }

    /// Replaces the default name in the SQL by this name. The names of indexes start with the name of the table, and
    /// must not contain a schema.
    pub(crate) fn write_into(&self, sql: &str) -> String {
        let full = self.to_string();
        let mut pieces = sql.split(DEFAULT);
        let mut written = pieces.next().unwrap_or_default().to_owned();
        for piece in pieces {
            written.push_str(if piece.starts_with('_') { &self.name } else { &full });
            written.push_str(piece);
        }
        written
    }

    fn in_schema(&self, name: &str) -> String {
        self.schema.as_ref().map_or_else(|| name.to_owned(), |schema| format!("{schema}.{name}"))
    }
}

impl Default for TableName {
    fn default() -> Self {
        Self { schema: None, name: DEFAULT.to_owned() }
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.in_schema(&self.name))
    }
}

impl FromStr for TableName {
    type Err = TableNameError;

    fn from_str(text: &str) -> Result<Self, TableNameError> {
        let (schema, name) = text.split_once('.').map_or((None, text), |(schema, name)| (Some(schema), name));
        if !schema.is_none_or(is_plain) || !is_plain(name) {
            return Err(TableNameError(text.to_owned()));
        }
        Ok(Self { schema: schema.map(str::to_owned), name: name.to_owned() })
    }
}

/// Whether a name needs no quotes on any database.
fn is_plain(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    let starts_well = name.bytes().next().is_some_and(|first| !first.is_ascii_digit());
    starts_well && name.len() <= MAX_LENGTH && name.bytes().all(allowed)
}

/// Why a text is not a [`TableName`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a table name: use at most {MAX_LENGTH} lower-case letters, digits and underscores, not starting with a \
    digit; on databases with schemas, a schema name of the same form and a dot may precede it"
)]
pub struct TableNameError(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_need_quotes_are_rejected() {
        let longest = format!("{0}.{0}", "a".repeat(MAX_LENGTH));
        for good in ["tokens", "_t2", "auth.tokens", &longest] {
            assert_eq!(good.parse::<TableName>().unwrap().to_string(), good);
        }
        let too_long = "a".repeat(MAX_LENGTH + 1);
        let bad_schema = format!("{too_long}.t");
        let bad =
            ["", "2fa", "Tokens", "a b", "a;drop", "a\"b", "a.", ".a", "a.b.c", "ü", "a\0", &too_long, &bad_schema];
        for bad in bad {
            assert_eq!(bad.parse::<TableName>(), Err(TableNameError(bad.to_owned())));
        }
    }

    #[test]
    fn indexes_have_no_schema() {
        let table: TableName = "auth.oauth_dance_tokens2".parse().unwrap();
        let sql = table.write_into("CREATE INDEX oauth_dance_tokens_user_id ON oauth_dance_tokens (user_id)");
        assert_eq!(sql, "CREATE INDEX oauth_dance_tokens2_user_id ON auth.oauth_dance_tokens2 (user_id)");
        assert_eq!(table.bookkeeping(), "auth._oauth_dance_tokens2_migrations");
    }
}
