//! Reads of several records by one statement.
//!
//! The result has to show which row belongs to which key, and the database has to find each key in the primary key. How
//! to write that differs: PostgreSQL takes four arrays, SQLite joins with a list of rows, and MySQL and MariaDB take a
//! document.

use std::sync::Arc;

use oauth_dance_core::TokenKey;

use crate::combined::MAX_KEYS;
use crate::dialect::Bind;
use crate::sql::Sql;

/// The index of the result column with the number of the key, counted from 1. The columns of the record precede it.
pub(crate) const NUMBER: usize = 5;

/// The numbers of keys for which there is a statement. Fewer keys are padded to the next of these numbers, so that a
/// connection prepares a few statements and not one for each number.
const SIZES: [usize; 6] = [2, 4, 8, 16, 32, MAX_KEYS];
/// A key that no record has, because a user is never empty.
const PADDING: [&[u8]; 4] = [b""; 4];

/// How one statement reads several records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Several {
    /// A join with four arrays, one for each column of the key. One statement reads any number of records.
    Arrays,
    /// A join with a list of rows.
    Rows,
    /// A join with a JSON document. One statement reads any number of records. MariaDB 10.11 loses rows of a prepared
    /// join with a list of rows, and plans each part of a union at each execution.
    Document,
}

/// The subqueries hide the arrays from the planner, so that it plans the statement once and not for each length. The
/// subqueries with the clock are evaluated once and not for each record.
const ARRAYS: &str = "SELECT found.*, wanted.number \
    FROM unnest((SELECT ?), (SELECT ?), (SELECT ?), (SELECT ?)) \
        WITH ORDINALITY AS wanted (tenant, user_id, provider, account, number) CROSS JOIN LATERAL \
        (SELECT version, payload, expires_at, retain_until - (SELECT {now}), key_id FROM {table} AS stored \
        WHERE stored.tenant = wanted.tenant AND stored.user_id = wanted.user_id \
            AND stored.provider = wanted.provider AND stored.account = wanted.account \
            AND (retain_until IS NULL OR retain_until > (SELECT {now})) LIMIT 1) AS found \
    WHERE true";
/// SQLite does not reorder a `CROSS JOIN`, so each key is one search in the primary key.
const ROWS: &str = "WITH wanted (number, tenant, user_id, provider, account) AS (VALUES {rows}) \
    SELECT version, payload, expires_at, retain_until - {now}, key_id, number \
    FROM wanted CROSS JOIN {table} AS stored \
    WHERE stored.tenant = wanted.tenant AND stored.user_id = wanted.user_id \
        AND stored.provider = wanted.provider AND stored.account = wanted.account AND {live}";
/// The document is an array with the four columns of each key in hexadecimal digits. A `STRAIGHT_JOIN` is not reordered,
/// so each key is one search in the primary key. Without a `LIMIT`, a server with a `sql_select_limit` would leave out
/// records.
const DOCUMENT: &str = "SELECT version, payload, expires_at, retain_until - {now}, key_id, CAST(number AS SIGNED) \
    FROM JSON_TABLE(CONVERT(? USING utf8mb4), '$[*]' COLUMNS (number FOR ORDINALITY, \
        tenant VARCHAR(510) PATH '$[0]', user_id VARCHAR(2046) PATH '$[1]', \
        provider VARCHAR(510) PATH '$[2]', account VARCHAR(510) PATH '$[3]')) AS wanted \
    STRAIGHT_JOIN {table} AS stored \
    ON stored.tenant = UNHEX(wanted.tenant) AND stored.user_id = UNHEX(wanted.user_id) \
        AND stored.provider = UNHEX(wanted.provider) AND stored.account = UNHEX(wanted.account) \
    WHERE {live} LIMIT {keys}";

/// The statements that read several records.
#[derive(Debug)]
pub(crate) struct ReadSeveral {
    form: Several,
    /// One text for each of [`SIZES`], or a single one for all of them.
    texts: Vec<Sql>,
}

impl ReadSeveral {
    /// Writes the statements. `fill` replaces the placeholders of a text, such as the table.
    pub(crate) fn new(form: Several, fill: impl Fn(&str) -> Sql) -> Self {
        let rows = |size: &usize| {
            let rows: Vec<_> = (1..=*size).map(|number| format!("({number}, ?, ?, ?, ?)")).collect();
            fill(&ROWS.replace("{rows}", &rows.join(", ")))
        };
        let texts = match form {
            Several::Arrays => vec![fill(ARRAYS)],
            Several::Rows => SIZES.iter().map(rows).collect(),
            Several::Document => vec![fill(&DOCUMENT.replace("{keys}", &MAX_KEYS.to_string()))],
        };
        Self { form, texts }
    }

    /// The statement and the values for at most [`MAX_KEYS`] keys.
    pub(crate) fn of<'a>(&'a self, keys: &'a [Arc<TokenKey>]) -> Lookup<'a> {
        let mut parts: Vec<_> = keys.iter().map(|key| key.parts().map(str::as_bytes)).collect();
        let index = match self.form {
            Several::Arrays | Several::Document => 0,
            Several::Rows => SIZES.iter().position(|size| *size >= keys.len()).unwrap_or(SIZES.len() - 1),
        };
        if self.form == Several::Rows {
            parts.resize(SIZES[index].max(keys.len()), PADDING);
        }
        let document = if self.form == Several::Document { document(&parts) } else { String::new() };
        Lookup { sql: &self.texts[index], form: self.form, parts, document }
    }
}

/// The keys as a JSON array of arrays of hexadecimal digits.
fn document(parts: &[[&[u8]; 4]]) -> String {
    let length: usize = parts.iter().flatten().map(|part| 2 * part.len() + 4).sum();
    let mut document = String::with_capacity(length + 2);
    for (index, key) in parts.iter().enumerate() {
        document.push_str(if index == 0 { "[" } else { "," });
        for (column, part) in key.iter().enumerate() {
            document.push_str(if column == 0 { "[\"" } else { "\",\"" });
            part.iter().for_each(|byte| push_hex(&mut document, *byte));
        }
        document.push_str("\"]");
    }
    document.push(']');
    document
}

fn push_hex(text: &mut String, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for digit in [byte >> 4, byte & 15] {
        text.push(char::from(DIGITS[usize::from(digit)]));
    }
}

/// A statement that reads several records, and its keys.
pub(crate) struct Lookup<'a> {
    pub(crate) sql: &'a Sql,
    form: Several,
    parts: Vec<[&'a [u8]; 4]>,
    /// The keys for [`Several::Document`].
    document: String,
}

impl Lookup<'_> {
    /// The values of the statement.
    pub(crate) fn binds(&self) -> Vec<Bind<'_>> {
        match self.form {
            Several::Arrays => (0..4).map(|column| Bind::Column(&self.parts, column)).collect(),
            Several::Rows => self.parts.iter().flatten().map(|part| Bind::Bytes(part)).collect(),
            Several::Document => vec![Bind::Bytes(self.document.as_bytes())],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(count: usize) -> Vec<Arc<TokenKey>> {
        (0..count).map(|number| Arc::new(TokenKey::new("github", number.to_string()).unwrap())).collect()
    }

    fn sql(text: String) -> Sql {
        Sql { prepared: text.as_str().into(), text: text.into() }
    }

    #[test]
    fn batches_are_padded_to_a_few_sizes() {
        let several = ReadSeveral::new(Several::Rows, |text| sql(text.to_owned()));
        for (count, size) in [(2, 2), (3, 4), (4, 4), (5, 8), (33, 64), (64, 64)] {
            let keys = keys(count);
            let wanted = several.of(&keys);
            assert_eq!(wanted.sql.text.matches('?').count(), 4 * size, "{count}");
            let values: Vec<_> = wanted.binds().into_iter().map(|bind| matches!(bind, Bind::Bytes(b""))).collect();
            assert_eq!(values.len(), 4 * size);
            assert!(values[4 * count..].iter().all(|is_empty| *is_empty), "the padding is no key");
            assert!(!values[4 * count - 3], "the last key is not padding");
        }
    }

    #[test]
    fn document_contains_each_key() {
        let several = ReadSeveral::new(Several::Document, |text| sql(text.to_owned()));
        let keys = [TokenKey::new("a\"", "é").unwrap(), TokenKey::new("b", "\0").unwrap().with_tenant("t").unwrap()];
        let keys = keys.map(Arc::new);
        let wanted = several.of(&keys);
        let binds = wanted.binds();
        let [Bind::Bytes(document)] = binds[..] else { panic!("one value") };
        assert_eq!(document, br#"[["","c3a9","6122",""],["74","00","62",""]]"#);
        assert_eq!(wanted.sql.text.matches('?').count(), 1);
    }

    #[test]
    fn arrays_of_any_length_use_one_statement() {
        let several = ReadSeveral::new(Several::Arrays, |text| sql(text.to_owned()));
        for count in [2, 3, 64] {
            let keys = keys(count);
            let wanted = several.of(&keys);
            assert_eq!(wanted.sql.text, several.texts[0].text);
            assert!(
                matches!(wanted.binds()[..], [Bind::Column(rows, 0), _, _, Bind::Column(_, 3)] if rows.len() == count)
            );
        }
    }
}
