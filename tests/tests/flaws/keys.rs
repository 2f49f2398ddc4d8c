//! Wrong about which keys are the same.

use oauth_dance_core::{
    Filter, Page, PageRequest, Precondition, Record, StorageError, TokenKey, TokenStorage as _, Version,
};

use super::{Read, Write, flaws};

/// Flaws that keep a record under the key of a function's choice.
macro_rules! other_keys {
    ($($name:ident caught by $property:ident: $change:expr;)+) => {
        flaws! {
            $($name(()) caught by $property {
                async fn get(&self, key: &TokenKey) -> Read {
                    self.server.get(&changed(key, $change)).await
                }

                async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
                    self.server.put(&changed(key, $change), record, when).await
                }

                async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
                    self.server.delete(&changed(key, $change), only).await
                }

                // No property may owe its failure to the list alone.
                async fn list(&self, _filter: &Filter, _page: PageRequest) -> Result<Page, StorageError> {
                    Err(StorageError::Unsupported("listing"))
                }

                fn capabilities(&self) -> oauth_dance_core::Capabilities {
                    self.server.capabilities().with_listable(false)
                }
            })+
        }
    };
}

type Parts = [String; 4];

other_keys! {
    FoldsCase caught by case_spaces_and_accents_keep_keys_apart: |parts| parts.map(|part| part.to_lowercase());
    // How SQL compares CHAR columns.
    PadsSpaces caught by case_spaces_and_accents_keep_keys_apart: |parts| parts.map(|part| part.trim_end_matches(' ').to_owned());
    FoldsAccents caught by case_spaces_and_accents_keep_keys_apart: |parts| parts.map(|part| part.replace(['á', 'à'], "a").replace('é', "e"));
    Normalizes caught by unicode_keeps_keys_apart: |parts| parts.map(|part| part.replace("e\u{301}", "\u{e9}"));
    // MySQL's `utf8`, which has three bytes a character.
    ReplacesEmoji caught by unicode_keeps_keys_apart: |parts| parts.map(|part| part.chars().map(|c| if c as u32 > 0xffff { '?' } else { c }).collect());
    JoinsWithColons caught by separators_keep_keys_apart: |parts| joined(&parts, ":");
    JoinsWithBars caught by separators_keep_keys_apart: |parts| joined(&parts, "|");
    JoinsWithNothing caught by every_part_keeps_keys_apart: |parts| joined(&parts, "");
    ForgetsTheTenant caught by every_part_keeps_keys_apart: |[_, user, provider, account]| [String::new(), user, provider, account];
    ForgetsTheAccount caught by every_part_keeps_keys_apart: |[tenant, user, provider, _]| [tenant, user, provider, String::new()];
    OneProviderAUser caught by every_part_keeps_keys_apart: |[tenant, user, _, account]| [tenant, user, "any".to_owned(), account];
    OneUserForAll caught by nobody_reads_anothers_record: |[tenant, _, provider, account]| [tenant, "any".to_owned(), provider, account];
    CutsKeysAtNul caught by separators_keep_keys_apart: |parts| parts.map(|part| part.split('\0').next().unwrap_or_default().to_owned());
    CutsKeysAt255 caught by long_keys_work_or_are_refused: |parts| parts.map(|part| part.chars().take(255).collect());
    CutsKeysAt64 caught by long_keys_work_or_are_refused: |parts| parts.map(|part| part.chars().take(64).collect());
    // A hash that is too short to keep keys apart.
    HashesKeysToAByte caught by separators_keep_keys_apart: |parts| {
        let sum = parts.concat().bytes().fold(parts[0].len() as u8, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte));
        [String::new(), sum.to_string(), "any".to_owned(), String::new()]
    };
    UnescapesKeys caught by separators_keep_keys_apart: |parts| parts.map(|part| part.replace("%3A", ":"));
    TakesWildcardsForOneAnother caught by special_characters_are_data: |parts| parts.map(|part| if part == "%" || part == "*" { "_".to_owned() } else { part });
}

fn joined(parts: &Parts, separator: &str) -> Parts {
    [String::new(), parts.join(separator), "any".to_owned(), String::new()]
}

fn changed(key: &TokenKey, change: impl Fn(Parts) -> Parts) -> TokenKey {
    let [tenant, user, provider, account] = change(key.parts().map(str::to_owned));
    // What became empty may not stay so: a key always has a user.
    let filled = |part: String| if part.is_empty() { "empty".to_owned() } else { part };
    TokenKey::from_parts(tenant, filled(user), filled(provider), account).unwrap()
}
