use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, Ordering};

use sha2::{Digest as _, Sha256};
use sqlx::error::DatabaseError;

use crate::dialect::Bind;
use crate::literal::{push_hex, with_literals};

/// A statement that PostgreSQL prepares under a name made of the statement's own text.
///
/// One name can therefore mean no two statements, on whichever connection of the server a pooler runs it: it means this one,
/// or nothing, which is an error before anything runs.
#[derive(Debug)]
pub(crate) struct Named {
    name: String,
    /// The statement that runs it, with a `?` for each value.
    call: String,
    /// The types of the parameters, and the text.
    definition: String,
}

impl Named {
    /// Takes the text with a `?` for each value.
    pub(crate) fn new(text: &str, binds: &[Bind<'_>]) -> Self {
        let types: Vec<_> = binds.iter().map(|bind| bind.sql_type()).collect();
        let mut definition = format!("({}) AS ", types.join(", "));
        for (index, piece) in text.split('?').enumerate() {
            if index > 0 {
                definition.push_str(&format!("${index}"));
            }
            definition.push_str(piece);
        }
        let mut name = "oauth_dance_".to_owned();
        push_hex(&mut name, &Sha256::digest(&definition)[..16]);
        let call = format!("EXECUTE {name}({})", vec!["?"; binds.len()].join(", "));
        Self { name, call, definition }
    }

    /// # Errors
    /// If there are more or fewer values than places.
    pub(crate) fn execute(&self, binds: &[Bind<'_>]) -> Result<String, sqlx::Error> {
        with_literals(&self.call, binds)
    }

    /// What gives the name its meaning where an error says that it has none, or that its meaning is out of date.
    ///
    /// `None` if the error is another one. It has no values in it: the server retains the whole message.
    pub(crate) fn remedy(&self, error: &dyn DatabaseError) -> Option<String> {
        match error.code().as_deref() {
            // No such statement.
            Some("26000") => Some(format!("PREPARE {} {}", self.name, self.definition)),
            // A column has another type than when it was prepared.
            Some("0A000") => Some(format!("DEALLOCATE {}", self.name)),
            _ => None,
        }
    }
}

/// The name of a table's read, and whether it is worth a try. One that the server does not know costs two more messages and a
/// line in its log, and behind a pooler that clears its connections the server knows none.
#[derive(Debug)]
pub(crate) struct LookUpName {
    credit: AtomicI64,
    /// Made once, because every read of a table is the same text with values of the same types.
    named: OnceLock<Named>,
}

impl LookUpName {
    /// How many reads pay for one unknown name.
    const PRICE: i64 = 100;
    /// Enough for every connection of a large pool, one after another.
    const MOST: i64 = 200 * Self::PRICE;

    pub(crate) fn of(&self, text: &str, binds: &[Bind<'_>]) -> &Named {
        self.named.get_or_init(|| Named::new(text, binds))
    }

    /// Counts a read, and says whether it may try the name.
    pub(crate) fn try_one(&self) -> bool {
        let earn = |credit: i64| Some((credit + 1).min(Self::MOST));
        self.credit.fetch_update(Ordering::Relaxed, Ordering::Relaxed, earn).is_ok_and(|credit| credit >= Self::PRICE)
    }

    pub(crate) fn unknown(&self) {
        self.credit.fetch_sub(Self::PRICE, Ordering::Relaxed);
    }
}

impl Default for LookUpName {
    fn default() -> Self {
        Self { credit: AtomicI64::new(Self::MOST), named: OnceLock::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BINDS: [Bind<'static>; 2] = [Bind::Bytes(b"a"), Bind::Number(1)];

    #[test]
    fn another_text_has_another_name() {
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
    fn unknown_names_are_tried_ever_less() {
        let names = LookUpName::default();
        let mut tries = 0;
        for _ in 0..100_000 {
            if names.try_one() {
                names.unknown();
                tries += 1;
            }
        }
        assert!((1000..1300).contains(&tries), "{tries}");
        assert!((0..200).filter(|_| names.try_one()).count() > 90, "known again, tried again");
    }
}
