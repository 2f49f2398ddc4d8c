//! Prepared statements of PostgreSQL that work through any pooler.
//!
//! A statement that is prepared saves the server parsing and planning at each read. A pooler in transaction mode runs
//! each transaction on any of its server connections, which other clients use too. The name of a statement therefore
//! must not depend on what a connection has prepared before. It is the hash of the statement's text: whichever client
//! has prepared a statement of this name, it is the same statement. If a connection does not know the name, the
//! statement is prepared there, and found by the next read.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, Ordering};

use sha2::{Digest as _, Sha256};
use sqlx::error::DatabaseError;

use crate::dialect::Bind;
use crate::literal::{push_hex, with_literals};
use crate::sql::number_parameters;

/// A prepared statement of PostgreSQL whose name is derived from its text.
///
/// On any server connection, the name identifies this statement or none. An unknown name is an error before anything
/// runs.
#[derive(Debug)]
pub(crate) struct Named {
    name: String,
    /// The `EXECUTE` of this statement, with a `?` for each value.
    call: String,
    /// The types of the parameters and the text.
    definition: String,
}

impl Named {
    /// Derives the name from a text with a `?` for each value.
    pub(crate) fn new(text: &str, binds: &[Bind<'_>]) -> Self {
        let types: Vec<_> = binds.iter().map(|bind| bind.sql_type()).collect();
        let definition = format!("({}) AS {}", types.join(", "), number_parameters(text));
        let mut name = "oauth_dance_".to_owned();
        push_hex(&mut name, &Sha256::digest(&definition)[..16]);
        let call = format!("EXECUTE {name}({})", vec!["?"; binds.len()].join(", "));
        Self { name, call, definition }
    }

    /// Returns the `EXECUTE` with its values.
    ///
    /// # Errors
    /// [`sqlx::Error::InvalidArgument`] if the numbers of values and placeholders differ.
    pub(crate) fn execute(&self, binds: &[Bind<'_>]) -> Result<String, sqlx::Error> {
        with_literals(&self.call, binds)
    }

    /// Returns the statement that corrects an error of [`execute`](Self::execute): it prepares an unknown name, or
    /// removes an outdated one. `None` for any other error.
    ///
    /// The statement contains no values, because the server retains its text.
    pub(crate) fn remedy(&self, error: &dyn DatabaseError) -> Option<String> {
        match error.code().as_deref() {
            // invalid_sql_statement_name: no statement has this name.
            Some("26000") => Some(format!("PREPARE {} {}", self.name, self.definition)),
            // feature_not_supported: the type of a column has changed since the statement was prepared.
            Some("0A000") => Some(format!("DEALLOCATE {}", self.name)),
            _ => None,
        }
    }
}

/// Decides whether a read tries its statement by name.
///
/// An unknown name costs two more messages and a line in the server's log. Behind a pooler that resets its connections,
/// every name is unknown. Each read therefore earns a credit of 1, and an unknown name costs [`PRICE`](Self::PRICE). A
/// read tries the name only if the credit is sufficient, so that in the long run at most one read in a hundred fails.
#[derive(Debug)]
pub(crate) struct LookupName {
    credit: AtomicI64,
    /// Derived at the first read, because every read of a table has the same text and types.
    named: OnceLock<Named>,
}

impl LookupName {
    /// What an unknown name costs, in reads.
    const PRICE: i64 = 100;
    /// The initial and the highest credit. It pays for preparing the statement on 200 server connections.
    const MAX_CREDIT: i64 = 200 * Self::PRICE;

    /// The statement with its name.
    pub(crate) fn of(&self, text: &str, binds: &[Bind<'_>]) -> &Named {
        self.named.get_or_init(|| Named::new(text, binds))
    }

    /// Earns the credit of a read, and returns whether it may try the name.
    pub(crate) fn may_try(&self) -> bool {
        let earn = |credit: i64| Some((credit + 1).min(Self::MAX_CREDIT));
        self.credit.fetch_update(Ordering::Relaxed, Ordering::Relaxed, earn).is_ok_and(|credit| credit >= Self::PRICE)
    }

    /// Pays for a name that was unknown or outdated.
    pub(crate) fn report_unknown(&self) {
        self.credit.fetch_sub(Self::PRICE, Ordering::Relaxed);
    }
}

impl Default for LookupName {
    fn default() -> Self {
        Self { credit: AtomicI64::new(Self::MAX_CREDIT), named: OnceLock::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BINDS: [Bind<'static>; 2] = [Bind::Bytes(b"a"), Bind::Number(1)];

    #[test]
    fn different_texts_have_different_names() {
        let one = Named::new("SELECT a FROM b WHERE c = ? LIMIT ?", &BINDS);
        assert_eq!(one.definition, "(pg_catalog.bytea, pg_catalog.int8) AS SELECT a FROM b WHERE c = $1 LIMIT $2");
        assert_eq!(
            one.execute(&BINDS).unwrap(),
            format!("EXECUTE {}(pg_catalog.decode('61', 'hex'), '1'::bigint)", one.name)
        );
        assert_eq!(one.name.len(), 44);
        let swapped = [BINDS[1], BINDS[0]];
        for other in [
            Named::new("SELECT a FROM x.b WHERE c = ? LIMIT ?", &BINDS),
            Named::new("SELECT a FROM b WHERE c = ? LIMIT ?", &swapped),
        ] {
            assert_ne!(one.name, other.name);
        }
    }

    #[test]
    fn unknown_names_are_tried_less_often() {
        let names = LookupName::default();
        let mut tries = 0;
        for _ in 0..100_000 {
            if names.may_try() {
                names.report_unknown();
                tries += 1;
            }
        }
        assert!((1000..1300).contains(&tries), "{tries}");
        assert!((0..200).filter(|_| names.may_try()).count() > 90, "after some reads, the name is tried again");
    }
}
