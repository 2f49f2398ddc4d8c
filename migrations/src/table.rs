use std::fmt;
use std::str::FromStr;

const DEFAULT: &str = "oauth_dance_tokens";
/// With `_` before and `_migrations` behind it still fits PostgreSQL's 63 bytes.
const LONGEST: usize = 48;

/// The name of the table that keeps the tokens; `oauth_dance_tokens` unless the application chooses another.
///
/// Lower-case letters, digits and underscores, not starting with a digit, at most 48 of them, so that it means the same
/// table everywhere without quotes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TableName(String);

impl TableName {
    /// The name of the table where applied migrations are noted: `_oauth_dance_tokens_migrations` for the default.
    pub fn bookkeeping(&self) -> String {
        format!("_{}_migrations", self.0)
    }

    /// Puts this name where a text has the default one, in the names of indexes too.
    pub(crate) fn write_into(&self, sql: &str) -> String {
        sql.replace(DEFAULT, &self.0)
    }
}

impl Default for TableName {
    fn default() -> Self {
        Self(DEFAULT.to_owned())
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for TableName {
    type Err = TableNameError;

    fn from_str(name: &str) -> Result<Self, TableNameError> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        let starts_well = name.bytes().next().is_some_and(|first| !first.is_ascii_digit());
        if !starts_well || name.len() > LONGEST || !name.bytes().all(allowed) {
            return Err(TableNameError(name.to_owned()));
        }
        Ok(Self(name.to_owned()))
    }
}

/// Why something is not a [`TableName`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a table name: use at most {LONGEST} lower-case letters, digits and underscores, not starting with a digit"
)]
pub struct TableNameError(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_need_quotes_are_refused() {
        let longest = "a".repeat(LONGEST);
        for good in ["tokens", "_t2", &longest] {
            assert_eq!(good.parse::<TableName>().unwrap().to_string(), good);
        }
        let too_long = "a".repeat(LONGEST + 1);
        for bad in ["", "2fa", "Tokens", "a b", "a;drop", "a\"b", "a.b", "ü", "a\0", &too_long] {
            assert_eq!(bad.parse::<TableName>(), Err(TableNameError(bad.to_owned())));
        }
    }
}
