//! Two different keys never share a record.
//!
//! A storage that confuses two keys gives one user's token to another, so this is a question of security. Keys come from
//! outside: identifiers of users, tenants and accounts are chosen by applications, providers and sometimes by users. Most
//! failures have one of three causes: a collation that treats different texts as equal, an encoding of several parts as one
//! text that is ambiguous, or a limit on the length of a key.

mod isolation;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use oauth_dance_core::{Cursor, Filter, PageRequest, Precondition, Record, TokenKey};

pub use self::isolation::{
    equal_payloads_have_records_of_their_own, namespaces_are_apart, no_record_is_evicted_for_another,
    no_user_reads_another_users_record,
};
use crate::calls::Call;
use crate::lengths;
use crate::lookalikes;
use crate::outcome::{PropertyResult, ensure};
use crate::separate_records::have_separate_records;
use crate::show::Show as _;
use crate::tested_storage::{TestedStorage, key};

/// The most bytes of a key that every storage accepts, if no part has more than 64.
pub(crate) const ACCEPTED: usize = 96;

/// Keys that differ in one part only (tenant, user, provider or account) have separate records.
///
/// Writes a record under each of 36 keys, and checks before each write that the key has none yet. Then it reads, lists
/// and deletes all of them. A part that is missing in the primary key, or in the condition of a single statement, fails
/// this.
pub async fn every_part_keeps_keys_apart(on: Arc<TestedStorage>) -> PropertyResult {
    let mut keys = Vec::new();
    for tenant in ["", "a", "b"] {
        for (user, provider) in [("a", "a"), ("a", "b"), ("b", "a"), ("b", "b")] {
            for account in ["", "a", "b"] {
                keys.push(TokenKey::from_parts(tenant, user, provider, account)?);
            }
        }
    }
    have_separate_records(&on, &keys).await
}

/// Parts that read the same when they are joined with a separator are different keys, whatever the separator is.
///
/// Tries each separator inside a part and at its end, percent-encoded, and after an escape character. Join the parts
/// together with their lengths, or escape both the separator and the escape character.
pub async fn separators_keep_keys_apart(on: Arc<TestedStorage>) -> PropertyResult {
    let separators = [
        ":",
        "\0",
        "|",
        "/",
        "\\",
        "%",
        ".",
        ",",
        ";",
        "=",
        "-",
        "_",
        "\u{1f}",
        "::",
        "\"",
        "\n",
        "\t",
        " ",
        "#",
        "~",
        "+",
        "&",
        "@",
        "\u{1e}",
        "->",
        "$",
        "!",
        "'",
        "{",
        "#USER#",
        "#PROVIDER#",
        "#ACCOUNT#",
        ":user:",
        ":provider:",
        ":account:",
        "/users/",
        "/user/",
        "/providers/",
        "/accounts/",
        "USER#",
        "_user_",
        "|user|",
        "--",
        "__",
        ";user=",
        "&user=",
    ];
    // On a slow storage there is time for some of them only: the usual ones, and others in each run.
    let (usual, others) = separators.split_at(4);
    let mut others = others.to_vec();
    let first = on.random().below(others.len());
    others.rotate_left(first);
    for index in on.rounds(separators.len(), Duration::from_secs(4)).await? {
        let plain = *usual.get(index).unwrap_or_else(|| &others[index - usual.len()]);
        let encoded: String = plain.bytes().map(|byte| format!("%{byte:02X}")).collect();
        // Unchanged, percent-encoded, and after a backslash.
        let mut keys = BTreeSet::new();
        for s in [plain, &encoded, &format!("\\{plain}")] {
            keys.insert(TokenKey::from_parts("", "a", format!("b{s}c"), "")?);
            keys.insert(TokenKey::from_parts("", format!("a{s}b"), "c", "")?);
            keys.insert(TokenKey::from_parts("", "a", "b", format!("{s}c"))?);
            keys.insert(TokenKey::from_parts("", "a", format!("b{s}"), "c")?);
            keys.insert(TokenKey::from_parts("", format!("a{s}"), "b", "c")?);
            keys.insert(TokenKey::from_parts("a", format!("b{s}c"), "d", "")?);
            keys.insert(TokenKey::from_parts(format!("a{s}b"), "c", "d", "")?);
            keys.insert(TokenKey::from_parts("", s, s, "")?);
        }
        // A part that ends with an escape character joins the next part, unless that character is escaped itself.
        for e in ["\\", "%", "^", "~", "\"", "'", plain] {
            keys.insert(TokenKey::from_parts("", format!("a{e}"), format!("b{plain}c"), "d")?);
            keys.insert(TokenKey::from_parts("", format!("a{plain}b{e}"), "c", "d")?);
        }
        for e in ["\\", plain] {
            keys.insert(TokenKey::from_parts(format!("a{e}"), format!("b{plain}c"), "d", "")?);
            keys.insert(TokenKey::from_parts(format!("a{plain}b{e}"), "c", "d", "")?);
            keys.insert(TokenKey::from_parts("", "a", format!("b{e}"), format!("c{plain}d"))?);
            keys.insert(TokenKey::from_parts("", "a", format!("b{plain}c{e}"), "d")?);
        }
        keys.insert(TokenKey::from_parts("a", "b", "c", "")?);
        keys.insert(TokenKey::from_parts("", "a", "b", "c")?);
        have_separate_records(&on, &keys.into_iter().collect::<Vec<_>>()).await?;
    }
    Ok(())
}

/// Keys are compared byte by byte: case, spaces and accents are significant in every part.
///
/// The default collations of MySQL and MariaDB ignore case, and some ignore trailing spaces: use a binary column or a
/// binary collation. File systems may ignore case too.
pub async fn case_spaces_and_accents_keep_keys_apart(on: Arc<TestedStorage>) -> PropertyResult {
    groups_are_separate(&on, lookalikes::CASE_SPACES_AND_ACCENTS).await
}

/// Unicode is not normalized: texts that look alike are different keys, and every character is preserved.
///
/// Includes composed and decomposed accents, characters of zero width, emoji sequences and ligatures. A driver or a
/// file system that normalizes fails this, and so does a character set that replaces what it lacks by `?`.
pub async fn unicode_keeps_keys_apart(on: Arc<TestedStorage>) -> PropertyResult {
    groups_are_separate(&on, lookalikes::UNICODE).await
}

/// No collation applies: kana, width, digraphs and characters without weight are significant.
///
/// Collations of a language treat texts as equal that merely case-insensitive ones distinguish, such as hiragana and
/// katakana.
pub async fn collations_do_not_apply_to_keys(on: Arc<TestedStorage>) -> PropertyResult {
    groups_are_separate(&on, lookalikes::COLLATIONS).await
}

/// No value stands for an absent part, for a default or for everything: `default`, `null`, `-`, `*` and `0` are
/// ordinary values.
///
/// A storage fails this if it stores an absent tenant or account as a word that a real one can have. No part of a key
/// that is present is empty, so an empty text can safely stand for absence.
pub async fn no_value_stands_for_none(on: Arc<TestedStorage>) -> PropertyResult {
    groups_are_separate(&on, lookalikes::STAND_INS).await
}

/// No word that the storage writes beside a record stands for an absent tenant or account.
///
/// Splits the dump of the medium, and a cursor, into words and tries each of them as a tenant and as an account. This
/// finds placeholders that the fixed texts of [`no_value_stands_for_none`] do not contain.
pub async fn no_stored_word_stands_for_none(on: Arc<TestedStorage>) -> PropertyResult {
    let alice = key("alice")?;
    on.storage().put(&alice, &Record::new("x"), Precondition::Always).await?;
    let mut shown = on.harness().raw_dump().await?;
    if on.capabilities().listable {
        on.storage().put(&key("bob")?, &Record::new("x"), Precondition::Always).await?;
        let first = PageRequest { after: None, limit: 1 };
        let next = on.storage().list(&Filter::everything(), first).await?.next;
        shown.push(b'\n');
        shown.extend(next.iter().flat_map(Cursor::as_bytes));
    }
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-.:#$@~".contains(byte);
    let words: BTreeSet<_> = shown.split(|byte| !is_word(byte)).filter(|word| (1..=32).contains(&word.len())).collect();
    for word in words.into_iter().take(2_000) {
        let word = String::from_utf8_lossy(word).into_owned();
        let trimmed = word.trim_matches(|letter: char| !letter.is_alphanumeric() && letter != '_').to_owned();
        for text in BTreeSet::from([word, trimmed]).into_iter().filter(|text| !text.is_empty()) {
            for other in [alice.clone().with_tenant(text.as_str())?, alice.clone().with_account(text.as_str())?] {
                let found = on.storage().get(&other).await?;
                let get = Call::get(&other);
                ensure!(
                    found.is_none(),
                    "{get} returned the record of ({}), but the key was never written",
                    alice.show()
                );
            }
        }
    }
    Ok(())
}

/// A part of a key that looks like a number, a date or a boolean is compared as text.
///
/// A column with a numeric type or affinity fails this, and so does a format that parses `007`, `1e3` or `no` as a
/// value of another type.
pub async fn numbers_are_compared_as_text(on: Arc<TestedStorage>) -> PropertyResult {
    groups_are_separate(&on, lookalikes::NUMBERS).await
}

/// Addresses, paths and identifiers are neither decoded nor cleaned: `a+b@x`, `a b@x` and `a%20b@x` are three users.
///
/// Includes e-mail addresses, URLs, paths, host names, UUIDs and distinguished names. Whether two of them mean the same
/// person is for the application to decide.
pub async fn addresses_are_not_normalized(on: Arc<TestedStorage>) -> PropertyResult {
    groups_are_separate(&on, lookalikes::ADDRESSES).await
}

/// Patterns, quotes, escapes and control characters in a key are data in every operation.
///
/// Includes SQL, the wildcards of `LIKE`, glob and regular expressions, shell syntax, and file names that some systems
/// reserve. Bind keys as parameters, and encode them before they become part of a file name or a pattern.
pub async fn special_characters_are_data(on: Arc<TestedStorage>) -> PropertyResult {
    groups_are_separate(&on, lookalikes::SPECIAL).await
}

/// A long key works or is rejected with `KeyTooLong`. No operation truncates it to another key.
///
/// Tries lengths up to 65,537 bytes in each part, with texts that are the beginning or the end of longer ones, and texts
/// with equal checksums. All operations have to agree on which keys are too long. If keys are hashed, use a cryptographic
/// hash of the whole key.
pub async fn long_keys_work_or_are_refused(on: Arc<TestedStorage>) -> PropertyResult {
    let lengths = [1, 31, 32, 33, 63, 64, 65, 100, 127, 128, 129, 191, 192, 199, 200, 201, 250, 254, 255, 256, 257];
    let longer =
        [258, 300, 511, 512, 513, 767, 768, 1023, 1024, 1025, 3072, 4096, 8192, 16_385, 65_535, 65_536, 65_537];
    for part in 0..4 {
        // Repetitions of one letter, so that each text is the beginning and the end of all longer ones.
        let plain = lengths.iter().chain(&longer).map(|length| long(part, &"k".repeat(*length)));
        let others = [64, 65, 128, 129, 200, 255, 256, 257, 300, 513, 1025, 4097, 16_385, 65_537].into_iter().flat_map(
            |length: usize| {
                let stem = "k".repeat(length - 1);
                [long(part, &format!("{stem}x")), long(part, &format!("x{stem}"))]
            },
        );
        // A hash of the whole key, or of a long part.
        let stems = ["".to_owned(), "k".repeat(300)];
        let hashed = stems.iter().flat_map(|stem| {
            lookalikes::EQUAL_CHECKSUMS.iter().flatten().map(move |text| long(part, &format!("{stem}{text}{stem}")))
        });
        let keys: BTreeSet<_> = plain.chain(others).chain(hashed).collect::<PropertyResult<_>>()?;
        have_separate_records(&on, &keys.into_iter().collect::<Vec<_>>()).await?;
    }
    Ok(())
}

/// A key of at most 96 bytes, with no part longer than 64, works whatever its characters are: escaping does not make it
/// too long.
///
/// Percent-encoding triples the length of a text. The limit of a file name, a column or an index has to leave room for
/// that.
pub async fn keys_of_any_characters_work(on: Arc<TestedStorage>) -> PropertyResult {
    let characters = [
        "é",
        "/",
        "-",
        "%",
        "_",
        " ",
        "\u{1}",
        "\n",
        "\\",
        "\"",
        "'",
        "\u{7f}",
        "中",
        "😀",
        "A",
        "\u{10ffff}",
        // What a check of texts may reject: private, unassigned, not a character, the last one before the surrogates.
        "\0",
        "\u{85}",
        "\u{2028}",
        "\u{202e}",
        "\u{e000}",
        "\u{f8ff}",
        "\u{100000}",
        "\u{378}",
        "\u{fdd0}",
        "\u{ffff}",
        "\u{d7ff}",
        "\u{fffd}",
        "\u{e0001}",
    ];
    let first = on.random().below(characters.len());
    for index in on.rounds(characters.len(), Duration::from_secs(2)).await? {
        let character = characters[(first + index) % characters.len()];
        let lengths = [[0, 64, 32, 0], [0, 32, 64, 0], [24, 24, 24, 24], [8, 8, 16, 64], [64, 8, 12, 12]];
        let keys = lengths.map(|lengths| filled(character, lengths));
        have_separate_records(&on, &keys.into_iter().collect::<PropertyResult<Vec<_>>>()?).await?;
    }
    Ok(())
}

/// A key whose parts have these lengths and repeat one character. If a length is not a multiple of the character's, `x`
/// fills the rest.
fn filled(character: &str, lengths: [usize; 4]) -> PropertyResult<TokenKey> {
    let [tenant, user, provider, account] = lengths.map(|length| {
        let text = character.repeat(length / character.len());
        format!("{text}{}", "x".repeat(length - text.len()))
    });
    Ok(TokenKey::from_parts(tenant, user, provider, account)?)
}

/// The lengths of parts are stored neither modulo 256 or 65,536 nor as digits that the text continues, so no part extends
/// into the next one.
///
/// A length prefix of one or two bytes fails this, unless longer parts are rejected with `KeyTooLong`.
pub async fn lengths_do_not_wrap(on: Arc<TestedStorage>) -> PropertyResult {
    for one in 0..4 {
        for other in (0..4).filter(|other| *other != one) {
            for (wraps, length) in [(256, usize::from(b'x')), (65_536, usize::from(u16::from_be_bytes(*b"xx")))] {
                // With length prefixes that wrap, the first two have the same encoding: a short length, many `x`, and a
                // length whose bytes are themselves `x` or `xx`.
                let first = lengths::two_parts(one, 1, other, wraps + length)?;
                let second = lengths::two_parts(one, 1 + wraps, other, length)?;
                let third = lengths::two_parts(one, 1, other, length)?;
                have_separate_records(&on, &[first, second, third]).await?;
            }
            for base in [10, 16] {
                have_separate_records(&on, &lengths::spelled(one, other, base)?).await?;
            }
        }
    }
    Ok(())
}

/// A key with this text as one of its parts. The other parts are plain.
fn long(part: usize, text: &str) -> PropertyResult<TokenKey> {
    let mut parts = ["", "alice", "github", ""];
    parts[part] = text;
    Ok(TokenKey::from_parts(parts[0], parts[1], parts[2], parts[3])?)
}

/// Tries each text of a group in each part of a key, with plain texts in the other parts. On a slow storage, only some of
/// the groups are tried. A storage whose records share one cookie gets a few texts at a time.
async fn groups_are_separate(on: &TestedStorage, groups: &[&[&str]]) -> PropertyResult {
    let (at_once, time) = if on.capabilities().request_bound { (6, 1) } else { (usize::MAX, 4) };
    let first = on.random().below(groups.len());
    let texts = (0..groups.len()).flat_map(|index| groups[(first + index) % groups.len()].chunks(at_once));
    for (_, texts) in on.rounds(usize::MAX, Duration::from_secs(time)).await?.zip(texts) {
        let mut keys = BTreeSet::from([key("alice")?]);
        for text in texts {
            for part in 0..4 {
                keys.insert(long(part, text)?);
            }
        }
        have_separate_records(on, &keys.into_iter().collect::<Vec<_>>()).await?;
    }
    Ok(())
}
