//! Values in the text of a statement, for PostgreSQL.
//!
//! sqlx sends values as parameters of a prepared statement whose name is a number. A pooler in transaction mode runs
//! each transaction on any of its server connections. There, the same number may identify a statement of another
//! client. A statement that contains its values needs no prepared statement, and takes one message of the simple query
//! protocol.

use crate::dialect::Bind;

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Replaces each `?` of a statement for PostgreSQL by a value.
///
/// Every value becomes digits within quotes. Therefore nothing has to be escaped, and the meaning does not depend on a
/// setting of the session such as `standard_conforming_strings`.
///
/// # Errors
/// [`sqlx::Error::InvalidArgument`] if the numbers of values and placeholders differ.
pub(crate) fn with_literals(sql: &str, binds: &[Bind<'_>]) -> Result<String, sqlx::Error> {
    let placeholders = sql.matches('?').count();
    if placeholders != binds.len() {
        return Err(sqlx::Error::InvalidArgument(format!("{} values for {placeholders} placeholders", binds.len())));
    }
    let bytes: usize = binds.iter().map(|bind| bind.size()).sum();
    let mut written = String::with_capacity(sql.len() + 2 * bytes + 40 * binds.len());
    let mut pieces = sql.split('?');
    written.push_str(pieces.next().unwrap_or_default());
    for (bind, piece) in binds.iter().zip(pieces) {
        push_literal(&mut written, *bind);
        written.push_str(piece);
    }
    Ok(written)
}

/// Writes one value. Its type is explicit, because PostgreSQL cannot derive the type of a literal everywhere.
fn push_literal(sql: &mut String, bind: Bind<'_>) {
    match bind {
        Bind::Bytes(bytes) | Bind::OptionalBytes(Some(bytes)) => {
            sql.push_str("pg_catalog.decode('");
            push_hex(sql, bytes);
            sql.push_str("', 'hex')");
        }
        // The backslash is escaped for the string and for the array. `E''` has the same meaning in any session.
        Bind::Column(rows, column) => {
            sql.push_str("E'{");
            for (index, row) in rows.iter().enumerate() {
                sql.push_str(if index == 0 { r"\\\\x" } else { r",\\\\x" });
                push_hex(sql, row.get(column).copied().unwrap_or_default());
            }
            sql.push_str("}'::pg_catalog.bytea[]");
        }
        Bind::Number(number) | Bind::OptionalNumber(Some(number)) => sql.push_str(&format!("'{number}'::bigint")),
        Bind::OptionalBytes(None) => sql.push_str("NULL::bytea"),
        Bind::OptionalNumber(None) => sql.push_str("NULL::bigint"),
    }
}

/// Appends bytes in hexadecimal.
pub(crate) fn push_hex(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
}

impl Bind<'_> {
    /// The type of a parameter of a prepared statement.
    pub(crate) fn sql_type(self) -> &'static str {
        match self {
            Bind::Bytes(_) | Bind::OptionalBytes(_) => "pg_catalog.bytea",
            Bind::Column(..) => "pg_catalog.bytea[]",
            Bind::Number(_) | Bind::OptionalNumber(_) => "pg_catalog.int8",
        }
    }

    /// The number of bytes that are written in hexadecimal, including the separators of an array.
    fn size(self) -> usize {
        match self {
            Bind::Bytes(bytes) => bytes.len(),
            Bind::OptionalBytes(bytes) => bytes.map_or(0, <[u8]>::len),
            Bind::Column(rows, column) => {
                rows.iter().map(|row| row.get(column).map_or(0, |bytes| bytes.len() + 3)).sum()
            }
            Bind::Number(_) | Bind::OptionalNumber(_) => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_become_quoted_digits() {
        let every: Vec<_> = (0..=255).collect();
        let binds = [
            Bind::Bytes(b"'; DROP TABLE x; --\\?"),
            Bind::OptionalBytes(None),
            Bind::Number(i64::MIN),
            Bind::OptionalNumber(Some(-1)),
            Bind::OptionalNumber(None),
            Bind::OptionalBytes(Some(&every)),
        ];
        let sql = with_literals("? ? ? ? ? ?", &binds).unwrap();
        let mut literals = sql.split("::bigint ").flat_map(|part| part.split("::bytea ")).collect::<Vec<_>>();
        let last = literals.pop().unwrap();
        assert_eq!(
            literals,
            [
                "pg_catalog.decode('273b2044524f50205441424c4520783b202d2d5c3f', 'hex') NULL",
                "'-9223372036854775808'",
                "'-1'",
                "NULL"
            ]
        );
        let digits = last.strip_prefix("pg_catalog.decode('").and_then(|end| end.strip_suffix("', 'hex')")).unwrap();
        assert!(digits.len() == 512 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
    }

    #[test]
    fn columns_become_arrays_of_quoted_digits() {
        let rows: [[&[u8]; 4]; 3] = [[b"", b"a", b"", b""], [b"", b"\\{\"',}", b"", b""], [b"", b"", b"", b""]];
        let sql = with_literals("?", &[Bind::Column(&rows, 1)]).unwrap();
        assert_eq!(sql, r"E'{\\\\x61,\\\\x5c7b22272c7d,\\\\x}'::pg_catalog.bytea[]");
    }

    #[test]
    fn wrong_number_of_values_is_an_error() {
        for values in [&[][..], &[Bind::Number(1); 2]] {
            assert!(with_literals("DELETE FROM x WHERE y = ?", values).is_err());
        }
    }
}
