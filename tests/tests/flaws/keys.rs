//! Flaws that confuse keys.

use oauth_dance_core::{
    Filter, Page, PageRequest, Precondition, Record, StorageError, TokenKey, TokenStorage as _, Version,
};

use super::{Read, Write, flaws};

/// Defines flaws that store a record under another key, which a function derives.
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

                // The properties have to fail without the help of a list.
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

pub(crate) mod one_call {
    //! Flaws that confuse keys in one operation only.

    use std::collections::VecDeque;
    use std::sync::Mutex;

    use super::*;

    flaws! {
        TruncatesKeysOnGet(()) caught by long_keys_work_or_are_refused {
            async fn get(&self, key: &TokenKey) -> Read {
                self.server.get(&changed(key, |parts| parts.map(|part| part.chars().take(100).collect()))).await
            }
        }

        TruncatesKeysOnDelete(()) caught by long_keys_work_or_are_refused {
            async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
                self.server.delete(&changed(key, |parts| parts.map(|part| part.chars().take(300).collect())), only).await
            }
        }

        TrimsUsersOnGet(()) caught by case_spaces_and_accents_keep_keys_apart {
            async fn get(&self, key: &TokenKey) -> Read {
                let trim = |[tenant, user, provider, account]: Parts| [tenant, user.trim().to_owned(), provider, account];
                match self.server.get(key).await? {
                    None => self.server.get(&changed(key, trim)).await,
                    found => Ok(found),
                }
            }
        }

        // If a tenant has no record, returns that of the user without a tenant.
        FallsBackToNoTenant(()) caught by every_part_keeps_keys_apart {
            async fn get(&self, key: &TokenKey) -> Read {
                match self.server.get(key).await? {
                    None => self.server.get(&changed(key, |[_, user, provider, account]| [String::new(), user, provider, account])).await,
                    found => Ok(found),
                }
            }
        }

        DeletesAllAccounts(()) caught by every_part_keeps_keys_apart {
            async fn delete(&self, key: &TokenKey, only: Option<Version>) -> Result<bool, StorageError> {
                let removed = self.server.delete(key, only).await?;
                if removed && key.account().is_none() {
                    let filter = Filter::everything().tenant(key.tenant()).user(key.user()).provider(key.provider());
                    for entry in self.server.list(&filter, PageRequest::default()).await?.entries {
                        self.server.delete(&entry.key, None).await?;
                    }
                }
                Ok(removed)
            }
        }

        // A cache used as a storage.
        EvictsBeyondAThousand(Mutex<VecDeque<TokenKey>>) caught by no_record_is_evicted_for_another {
            async fn put(&self, key: &TokenKey, record: &Record, when: Precondition) -> Write {
                let version = self.server.put(key, record, when).await?;
                let oldest = {
                    let mut keys = self.own.lock().unwrap();
                    keys.push_back(key.clone());
                    if keys.len() > 1_000 { keys.pop_front() } else { None }
                };
                if let Some(oldest) = oldest.filter(|oldest| oldest != key) {
                    self.server.delete(&oldest, None).await?;
                }
                Ok(version)
            }
        }
    }
}

other_keys! {
    JoinsPartsWithWords caught by separators_keep_keys_apart: |[tenant, user, provider, account]| {
        [String::new(), format!("TENANT#{tenant}#USER#{user}#PROVIDER#{provider}#ACCOUNT#{account}"), "x".to_owned(), String::new()]
    };
    FoldsCase caught by case_spaces_and_accents_keep_keys_apart: |parts| parts.map(|part| part.to_lowercase());
    // The comparison of CHAR columns in SQL.
    PadsSpaces caught by case_spaces_and_accents_keep_keys_apart: |parts| parts.map(|part| part.trim_end_matches(' ').to_owned());
    FoldsAccents caught by case_spaces_and_accents_keep_keys_apart: |parts| parts.map(|part| part.replace(['á', 'à'], "a").replace('é', "e"));
    Normalizes caught by unicode_keeps_keys_apart: |parts| parts.map(|part| part.replace("e\u{301}", "\u{e9}"));
    // MySQL's `utf8`, which has at most three bytes per character.
    ReplacesEmoji caught by unicode_keeps_keys_apart: |parts| parts.map(|part| part.chars().map(|c| if c as u32 > 0xffff { '?' } else { c }).collect());
    JoinsWithColons caught by separators_keep_keys_apart: |parts| joined(&parts, ":");
    JoinsWithBars caught by separators_keep_keys_apart: |parts| joined(&parts, "|");
    JoinsWithNothing caught by every_part_keeps_keys_apart: |parts| joined(&parts, "");
    ForgetsTheTenant caught by every_part_keeps_keys_apart: |[_, user, provider, account]| [String::new(), user, provider, account];
    ForgetsTheAccount caught by every_part_keeps_keys_apart: |[tenant, user, provider, _]| [tenant, user, provider, String::new()];
    OneProviderPerUser caught by every_part_keeps_keys_apart: |[tenant, user, _, account]| [tenant, user, "any".to_owned(), account];
    OneUserForAll caught by no_user_reads_another_users_record: |[tenant, _, provider, account]| [tenant, "any".to_owned(), provider, account];
    TruncatesKeysAtNul caught by separators_keep_keys_apart: |parts| parts.map(|part| part.split('\0').next().unwrap_or_default().to_owned());
    TruncatesKeysAt255 caught by long_keys_work_or_are_refused: |parts| parts.map(|part| part.chars().take(255).collect());
    TruncatesKeysAt64 caught by long_keys_work_or_are_refused: |parts| parts.map(|part| part.chars().take(64).collect());
    // A hash that is too short to distinguish keys.
    HashesKeysToAByte caught by separators_keep_keys_apart: |parts| {
        let sum = parts.concat().bytes().fold(parts[0].len() as u8, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte));
        [String::new(), sum.to_string(), "any".to_owned(), String::new()]
    };
    // Collations such as utf8mb4_0900_ai_ci: kana, width, characters without weight.
    FoldsKana caught by collations_do_not_apply_to_keys: |parts| parts.map(|part| part.chars().map(katakana).collect());
    FoldsWidth caught by collations_do_not_apply_to_keys: |parts| parts.map(|part| part.chars().map(narrow).collect());
    IgnoresWeightless caught by unicode_keeps_keys_apart: |parts| parts.map(|part| part.replace(['\u{200b}', '\u{ad}', '\u{200d}', '\u{feff}'], ""));
    IgnoresPunctuation caught by collations_do_not_apply_to_keys: |parts| parts.map(|part| part.replace(['.', '-', '\u{b7}'], ""));
    TreatsDefaultAsNoTenant caught by no_value_stands_for_none: |[tenant, user, provider, account]| [if tenant == "default" { String::new() } else { tenant }, user, provider, account];
    WritesNullForNoAccount caught by no_value_stands_for_none: |[tenant, user, provider, account]| [tenant, user, provider, if account.is_empty() { "null".to_owned() } else { account }];
    TreatsZeroAsNoAccount caught by no_value_stands_for_none: |[tenant, user, provider, account]| [tenant, user, provider, if account == "0" { String::new() } else { account }];
    ReadsIntegers caught by numbers_are_compared_as_text: |parts| parts.map(|part| part.parse::<i64>().map_or(part, |number| number.to_string()));
    ReadsFloats caught by numbers_are_compared_as_text: |parts| parts.map(|part| part.parse::<f64>().map_or(part, |number| number.to_string()));
    DecodesForms caught by addresses_are_not_normalized: |parts| parts.map(|part| part.replace('+', " ").replace("%20", " "));
    FoldsDomains caught by addresses_are_not_normalized: |parts| parts.map(|part| match part.split_once('@') {
        Some((local, domain)) => format!("{local}@{}", domain.to_lowercase()),
        None => part,
    });
    DropsTrailingSlashes caught by addresses_are_not_normalized: |parts| parts.map(|part| part.trim_end_matches('/').to_owned());
    CountsLengthsInAByte caught by lengths_do_not_wrap: |parts| counted(&parts, 1);
    CountsLengthsInTwoBytes caught by lengths_do_not_wrap: |parts| counted(&parts, 2);
    // Hexadecimal lengths, with nothing between a length and its text, and the provider before the user.
    SpellsLengths caught by lengths_do_not_wrap: |[tenant, user, provider, account]| {
        let encoded: String = [provider, user, tenant, account].iter().map(|part| format!("{:x}{part}", part.len())).collect();
        [String::new(), encoded, "any".to_owned(), String::new()]
    };
    CutsKeysAt16K caught by long_keys_work_or_are_refused: |parts| parts.map(|part| part.chars().take(16_384).collect());
    HashesKeysTo20Bits caught by no_record_is_evicted_for_another: |parts| {
        let hash = parts.join("\0").bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        [String::new(), (hash & 0xf_ffff).to_string(), "any".to_owned(), String::new()]
    };
    UnescapesKeys caught by separators_keep_keys_apart: |parts| parts.map(|part| part.replace("%3A", ":"));
    TreatsWildcardsAsEqual caught by special_characters_are_data: |parts| parts.map(|part| if part == "%" || part == "*" { "_".to_owned() } else { part });
}

fn katakana(c: char) -> char {
    match c as u32 {
        0x3041..=0x3096 => char::from_u32(c as u32 + 0x60).unwrap_or(c),
        _ => c,
    }
}

fn narrow(c: char) -> char {
    match c as u32 {
        0xff01..=0xff5e => char::from_u32(c as u32 - 0xfee0).unwrap_or(c),
        _ => c,
    }
}

/// The parts, each after the last bytes of its length.
fn counted(parts: &Parts, bytes: usize) -> Parts {
    let mut encoded = String::new();
    for part in parts {
        for byte in &part.len().to_be_bytes()[8 - bytes..] {
            encoded.push(char::from(*byte));
        }
        encoded.push_str(part);
    }
    [String::new(), encoded, "any".to_owned(), String::new()]
}

fn joined(parts: &Parts, separator: &str) -> Parts {
    [String::new(), parts.join(separator), "any".to_owned(), String::new()]
}

fn changed(key: &TokenKey, change: impl Fn(Parts) -> Parts) -> TokenKey {
    let [tenant, user, provider, account] = change(key.parts().map(str::to_owned));
    // A key needs a user and a provider that are not empty.
    let filled = |part: String| if part.is_empty() { "empty".to_owned() } else { part };
    TokenKey::from_parts(tenant, filled(user), filled(provider), account).unwrap()
}
