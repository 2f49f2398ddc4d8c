//! Reads of several records by one statement.
//!
//! The result has to show which row belongs to which key, and the database has to find each key in the primary key. How
//! to write that differs: PostgreSQL takes four arrays, SQLite joins with a list of rows, and MySQL and MariaDB get a
//! union.

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
    /// One `SELECT` for each key. MariaDB 10.11 loses rows of a prepared join with a list of rows.
    Union,
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
/// One part of the union.
const UNION: &str = "SELECT version, payload, expires_at, retain_until - {now}, key_id, {number} FROM {table} \
    WHERE {key} AND {live}";

/// The statements that read several records.
#[derive(Debug)]
pub(crate) struct ReadSeveral {
    form: Several,
    /// One text for each of [`SIZES`], or a single one for arrays.
    texts: Vec<Sql>,
}

impl ReadSeveral {
    /// Writes the statements. `fill` replaces the placeholders of a text, such as the table.
    pub(crate) fn new(form: Several, fill: impl Fn(&str) -> Sql) -> Self {
        let text = |size: usize| match form {
            Several::Arrays => ARRAYS.to_owned(),
            Several::Rows => {
                let rows: Vec<_> = (1..=size).map(|number| format!("({number}, ?, ?, ?, ?)")).collect();
                ROWS.replace("{rows}", &rows.join(", "))
            }
            Several::Union => {
                let reads: Vec<_> = (1..=size).map(|number| UNION.replace("{number}", &number.to_string())).collect();
                reads.join(" UNION ALL ")
            }
        };
        let sizes = if form == Several::Arrays { &SIZES[..1] } else { &SIZES[..] };
        Self { form, texts: sizes.iter().map(|size| fill(&text(*size))).collect() }
    }

    /// The statement and the values for at most [`MAX_KEYS`] keys.
    pub(crate) fn of<'a>(&'a self, keys: &'a [Arc<TokenKey>]) -> Lookup<'a> {
        let index = SIZES.iter().position(|size| *size >= keys.len()).unwrap_or(SIZES.len() - 1);
        let sql = self.texts.get(index).unwrap_or(&self.texts[0]);
        let padded = if self.form == Several::Arrays { 0 } else { SIZES[index].saturating_sub(keys.len()) };
        let parts = keys.iter().map(|key| key.parts().map(str::as_bytes)).chain((0..padded).map(|_| PADDING));
        Lookup { sql, form: self.form, parts: parts.collect() }
    }
}

/// A statement that reads several records, and its keys.
pub(crate) struct Lookup<'a> {
    pub(crate) sql: &'a Sql,
    form: Several,
    parts: Vec<[&'a [u8]; 4]>,
}

impl Lookup<'_> {
    /// The values of the statement.
    pub(crate) fn binds(&self) -> Vec<Bind<'_>> {
        match self.form {
            Several::Arrays => (0..4).map(|column| Bind::Column(&self.parts, column)).collect(),
            Several::Rows | Several::Union => self.parts.iter().flatten().map(|part| Bind::Bytes(part)).collect(),
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
        for form in [Several::Rows, Several::Union] {
            let several = ReadSeveral::new(form, |text| sql(text.replace("{key}", "? ? ? ?")));
            for (count, size) in [(2, 2), (3, 4), (4, 4), (5, 8), (33, 64), (64, 64)] {
                let keys = keys(count);
                let wanted = several.of(&keys);
                assert_eq!(wanted.sql.text.matches('?').count(), 4 * size, "{form:?} {count}");
                let values: Vec<_> = wanted.binds().into_iter().map(|bind| matches!(bind, Bind::Bytes(b""))).collect();
                assert_eq!(values.len(), 4 * size);
                assert!(values[4 * count..].iter().all(|is_empty| *is_empty), "the padding is no key");
                assert!(!values[4 * count - 3], "the last key is not padding");
            }
        }
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
