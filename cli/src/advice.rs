//! What an operator can do about an error of a storage, in commands and options instead of functions.

use std::error::Error;

use oauth_dance_core::StorageError;

pub(crate) const UNREACHABLE: &str = "start its server, or correct the URL";
const FULL: &str = "free space on its disk, and run the command again";
const BROKEN: &str = "check its disk, and the space on it; then run the command again";
const LATER: &str = "check its server, and run the command again";
const AGAIN: &str = "run the command again";

/// Parts of messages of systems that have run out of space: SQLite, operating systems, PostgreSQL, MariaDB, MySQL.
const NO_SPACE: [&str; 8] = [
    "database or disk is full",
    "No space left",
    "Disk quota exceeded",
    "File too large",
    "could not extend file",
    "is full",
    "Disk full",
    "Out of disk",
];
/// The message of SQLite for any other failure of a disk.
const IO_ERROR: &str = "disk I/O error";

/// What to do, if the error itself does not say it.
pub(crate) fn of(error: &StorageError) -> Option<&'static str> {
    match error {
        StorageError::Unavailable { source } | StorageError::Ambiguous { source } if says(&**source, &NO_SPACE) => {
            Some(FULL)
        }
        StorageError::Unavailable { source } | StorageError::Ambiguous { source } if says(&**source, &[IO_ERROR]) => {
            Some(BROKEN)
        }
        StorageError::Unavailable { .. } => Some(LATER),
        StorageError::Ambiguous { .. } | StorageError::Conflict => Some(AGAIN),
        _ => None,
    }
}

/// Whether an error or one of its causes contains one of these parts.
fn says(error: &(dyn Error + 'static), parts: &[&str]) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let text = error.to_string();
        if parts.iter().any(|part| text.contains(part)) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// The same error, with commands and options of this program in its advice instead of functions of the libraries.
pub(crate) fn for_operators(error: StorageError, start: &str) -> StorageError {
    match error {
        StorageError::Misconfigured { advice, source } => {
            StorageError::Misconfigured { advice: translated(&advice, start), source }
        }
        error => error,
    }
}

fn translated(advice: &str, start: &str) -> String {
    let table = format!("--{start}table");
    let schema = format!("--{start}schema");
    let prefix = format!("--{start}prefix");
    let phrases = [
        ("run the migrations with `migrate()` or by hand", "run `oauth-dance migrate up`".to_owned()),
        ("run the migrations", "run `oauth-dance migrate up`".to_owned()),
        ("name the schema with `with_table(\"schema.table\")`", format!("name the schema with {schema}")),
        ("choose another name with `with_table`", format!("choose another table with {table}")),
        ("choose another prefix", format!("choose another one with {prefix}")),
        (
            "set `wsrep_sync_wait = 7` on the connections of the pool, in its `after_connect`",
            "set wsrep_sync_wait to 7 for the sessions of this user".to_owned(),
        ),
        (
            "grant the permissions in the crate's documentation",
            "`oauth-dance doctor` names the missing permissions".to_owned(),
        ),
        (
            "correct the server URL; the crate's documentation lists the valid forms",
            "correct the URL: redis://HOST:PORT/DATABASE, redis+cluster://… or redis+sentinel://… (rediss for TLS)"
                .to_owned(),
        ),
        (", and enable the feature `tls`", String::new()),
    ];
    phrases.iter().fold(advice.to_owned(), |text, (phrase, by)| text.replace(phrase, by))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_full_disk_is_recognized() {
        for text in [
            "error returned from database: (code: 13) database or disk is full",
            "could not extend file \"base/1/2\": No space left on device",
            "The table 'oauth_dance_tokens' is full",
            "Disk full (/tmp/x); waiting for someone to free some space...",
        ] {
            assert_eq!(of(&StorageError::unavailable(text)), Some(FULL), "{text}");
        }
        assert_eq!(of(&StorageError::unavailable("(code: 778) disk I/O error")), Some(BROKEN));
        assert_eq!(of(&StorageError::unavailable("timed out")), Some(LATER));
    }

    /// The advice in the sources of the storages, with everything that looks like a function.
    #[test]
    fn no_advice_names_a_function_of_a_library() {
        let mut found = 0;
        for folder in ["../storage-sqlx/src", "../storage-redis/src"] {
            for file in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).unwrap() {
                let Ok(source) = std::fs::read_to_string(file.unwrap().path()) else { continue };
                let source = source.split("#[cfg(test)]").next().unwrap();
                for text in texts(source) {
                    let advice = translated(&text, "from-");
                    found += usize::from(advice != text);
                    let names_function = ["()`", "`with_", "`from_", "after_connect", "`migrate", "crate's doc", "::"];
                    let is_advice = text.contains("; ") || text.starts_with("set ") || text.starts_with("run ");
                    assert!(
                        !is_advice || !names_function.iter().any(|part| advice.contains(part)),
                        "{folder}: {advice}"
                    );
                }
            }
        }
        assert!(found >= 6, "{found}");
    }

    /// The literals of a source that are sentences, without comments and attributes.
    fn texts(source: &str) -> Vec<String> {
        let code = source.lines().filter(|line| !line.trim_start().starts_with("//"));
        let code = code.map(|line| line.trim_start().trim_end_matches('\\')).collect::<Vec<_>>().join("");
        let code = code.replace("\\\"", "\u{1}");
        let literals = code.split('"').skip(1).step_by(2);
        literals.filter(|text| text.contains(' ')).map(|text| text.replace('\u{1}', "\"")).collect()
    }
}
