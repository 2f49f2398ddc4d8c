//! How records are arranged on the servers.
//!
//! A script can change several keys at once only if they are in the same slot. A record and its two sorted sets
//! therefore share a hash tag, which is the name of their bucket. 256 buckets are few enough for a list to visit all of
//! them, and many enough for a Cluster to distribute them over its servers.

use oauth_dance_core::{KeyError, StorageError, TokenKey};
use redis::Cmd;

/// The number of buckets for the records of one prefix.
pub(crate) const BUCKETS: u16 = 256;
/// The maximum size of a part of a token key in bytes.
const MAX_PART: usize = 16 * 1024;
/// The maximum size of a prefix in bytes.
const MAX_PREFIX: usize = 64;

/// The names of all keys with one prefix.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    prefix: String,
    /// The checksum of every hash tag up to the number of the bucket.
    tag_crc: u16,
}

/// A group of records and their two sorted sets, which all have the same hash slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Bucket(u16);

/// The location of a record.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) bucket: Bucket,
    /// The name of the record in the sorted sets of its bucket.
    pub(crate) member: String,
}

impl Layout {
    /// Accepts a prefix.
    ///
    /// # Errors
    /// The advice for a prefix that could collide with another one or would break the hash tag.
    pub(crate) fn new(prefix: &str) -> Result<Self, &'static str> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
        if prefix.is_empty() || prefix.len() > MAX_PREFIX || !prefix.bytes().all(plain) {
            return Err("choose a prefix of 1 to 64 letters, digits and `-`, `.`, `_` or `:`");
        }
        Ok(Self { prefix: prefix.to_owned(), tag_crc: crc16(crc16(0, prefix.as_bytes()), b":") })
    }

    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The key of a record.
    pub(crate) fn record(&self, bucket: Bucket, member: &str) -> String {
        self.name(bucket, ":", member)
    }

    /// The command that reads a record.
    pub(crate) fn get(&self, place: &Place) -> Cmd {
        let name = self.record(place.bucket, &place.member);
        let mut get = Cmd::with_capacity(2, "GET".len() + name.len());
        get.arg("GET").arg(name);
        get
    }

    /// The sorted set of all members of a bucket. All have the score 0, so that they are ordered by their bytes.
    pub(crate) fn index(&self, bucket: Bucket) -> String {
        self.name(bucket, "/", "index")
    }

    /// The sorted set of the members of a bucket that have a retention. The score is its end.
    pub(crate) fn deadlines(&self, bucket: Bucket) -> String {
        self.name(bucket, "/", "deadlines")
    }

    /// The Cluster slot of all keys of a bucket.
    pub(crate) fn slot(&self, bucket: Bucket) -> u16 {
        crc16(self.tag_crc, &bucket.digits()) % 16384
    }

    /// A key of a bucket. Between the braces is its hash tag, from which a Cluster computes the slot.
    fn name(&self, bucket: Bucket, separator: &str, rest: &str) -> String {
        let mut name = String::with_capacity(self.prefix.len() + rest.len() + 6);
        name.push('{');
        name.push_str(&self.prefix);
        name.push(':');
        name.extend(bucket.digits().map(char::from));
        name.push('}');
        name.push_str(separator);
        name.push_str(rest);
        name
    }
}

impl Bucket {
    /// Every bucket, in the order of lists.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..BUCKETS).map(Self)
    }

    /// The bucket of all tokens of a user.
    pub(crate) fn of(tenant: &str, user: &str) -> Self {
        Self::of_member(&[escape(tenant), escape(user)].join(":"))
    }

    /// The bucket of the members that begin with this tenant and user.
    fn of_member(start: &str) -> Self {
        Self(crc16(0, start.as_bytes()) % BUCKETS)
    }

    /// The number in hexadecimal.
    fn digits(self) -> [u8; 2] {
        [self.0 >> 4, self.0].map(|digit| b"0123456789abcdef"[usize::from(digit & 15)])
    }
}

impl Place {
    /// The location of the record of a key.
    ///
    /// # Errors
    /// [`StorageError::KeyTooLong`] if a part is too long.
    pub(crate) fn of(key: &TokenKey) -> Result<Self, StorageError> {
        let parts = key.parts();
        for (part, name) in parts.iter().zip(["tenant", "user", "provider", "account"]) {
            if part.len() > MAX_PART {
                return Err(StorageError::KeyTooLong { part: name, length: part.len(), limit: MAX_PART });
            }
        }
        let [tenant, user, provider, account] = parts;
        let mut member = String::with_capacity(key.len() + 3);
        escape_to(&mut member, tenant);
        member.push(':');
        escape_to(&mut member, user);
        let bucket = Bucket::of_member(&member);
        for part in [provider, account] {
            member.push(':');
            escape_to(&mut member, part);
        }
        Ok(Self { bucket, member })
    }
}

/// Decodes a member that [`Place::of`] has encoded.
///
/// # Errors
/// [`KeyError`] if the member is not the encoding of a key.
pub(crate) fn key_of(member: &str) -> Result<TokenKey, KeyError> {
    let parts: Vec<_> = member.split(':').map(unescape).collect::<Option<_>>().ok_or(KeyError::Malformed)?;
    let [tenant, user, provider, account] = <[String; 4]>::try_from(parts).map_err(|_| KeyError::Malformed)?;
    let key = TokenKey::from_parts(tenant, user, provider, account)?;
    // Each key has only one valid encoding.
    if key.parts().map(escape).join(":") == member { Ok(key) } else { Err(KeyError::Malformed) }
}

/// Percent-encodes all characters except letters, digits, `-`, `.`, `_`, `~` and `@`. The result is readable, and
/// contains no separator, no hash tag and no wildcard of the server.
pub(crate) fn escape(part: &str) -> String {
    let mut escaped = String::with_capacity(part.len());
    escape_to(&mut escaped, part);
    escaped
}

/// Appends the result of [`escape`].
fn escape_to(escaped: &mut String, part: &str) {
    use std::fmt::Write as _;

    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~@".contains(&byte);
    if part.bytes().all(is_plain) {
        escaped.push_str(part);
        return;
    }
    for byte in part.bytes() {
        if is_plain(byte) {
            escaped.push(char::from(byte));
        } else {
            // A write to a string never fails.
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
}

/// Decodes the result of [`escape`]. `None` for an invalid encoding.
pub(crate) fn unescape(escaped: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(escaped.len());
    let mut rest = escaped.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, tail) = rest.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
        rest = tail;
    }
    String::from_utf8(bytes).ok()
}

/// The checksum from which Redis Cluster computes slots (CRC-16/XMODEM). `start` is the checksum of the bytes before, or 0.
fn crc16(start: u16, bytes: &[u8]) -> u16 {
    bytes.iter().fold(start, |crc, byte| (crc << 8) ^ CRC16_OF_BYTES[usize::from((crc >> 8) ^ u16::from(*byte))])
}

/// The checksums of the 256 bytes.
const CRC16_OF_BYTES: [u16; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let (mut crc, mut bit) = ((byte as u16) << 8, 0);
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// Checks every key over a small alphabet of separators, globs and tags.
    #[test]
    fn names_are_injective_and_reversible() {
        let alphabet = ["", "a", "A", ":", "%", "%3A", "{a}", "}", "*", "\0", "é", "a:", "/index"];
        let layout = Layout::new("p").unwrap();
        let mut seen = HashMap::new();
        for tenant in alphabet {
            for user in &alphabet[1..] {
                for provider in &alphabet[1..] {
                    for account in alphabet {
                        let key = TokenKey::from_parts(tenant, *user, *provider, account).unwrap();
                        let place = Place::of(&key).unwrap();
                        assert_eq!(key_of(&place.member).unwrap(), key);
                        let name = layout.record(place.bucket, &place.member);
                        assert_eq!(
                            name.matches(['{', '}', '*', '\0']).count(),
                            2,
                            "{name} contains another tag or a glob"
                        );
                        assert_eq!(seen.insert(name, key), None, "two keys have the same name");
                    }
                }
            }
        }
    }

    #[test]
    fn invalid_members_are_rejected() {
        for member in [
            "",
            ":",
            "a",
            "::github:",
            ":a::",
            ":alice:github",
            ":alice:github::",
            ":a%3:b:",
            ":%61:b:",
            ":é:b:",
            ":%FF:b:",
        ] {
            assert!(key_of(member).is_err(), "{member:?} is accepted as a key");
        }
        assert!(key_of(":alice:github:").is_ok());
    }

    #[test]
    fn slots_match_those_of_the_server() {
        // CLUSTER KEYSLOT of "123456789" and "{oauth-dance:2a}/index".
        assert_eq!(crc16(0, b"123456789") % 16384, 12739);
        let layout = Layout::new("oauth-dance").unwrap();
        assert_eq!(layout.slot(Bucket(0x2a)), 7689);
    }

    /// The server computes a slot from the text between the braces.
    #[test]
    fn slot_is_that_of_the_name() {
        for prefix in ["a", "app:eu.1_x-2", &"x".repeat(MAX_PREFIX)] {
            let layout = Layout::new(prefix).unwrap();
            for bucket in Bucket::all() {
                let index = layout.index(bucket);
                let tag = index.strip_prefix('{').and_then(|rest| rest.split_once('}')).unwrap().0;
                assert_eq!(layout.slot(bucket), crc16(0, tag.as_bytes()) % 16384, "{index}");
            }
        }
    }

    /// Records that were stored under these names have to be found again.
    #[test]
    fn names_do_not_change() {
        let place = Place::of(&TokenKey::new("github", "alice").unwrap()).unwrap();
        let layout = Layout::new("oauth-dance").unwrap();
        assert_eq!(layout.record(place.bucket, &place.member), "{oauth-dance:63}::alice:github:");
        assert_eq!(layout.index(Bucket(7)), "{oauth-dance:07}/index");
        assert_eq!(layout.deadlines(Bucket(7)), "{oauth-dance:07}/deadlines");
    }

    #[test]
    fn buckets_and_users_are_spread_evenly() {
        let layout = Layout::new("oauth-dance").unwrap();
        for nodes in [3, 6, 10] {
            let mut load = vec![0; nodes];
            Bucket::all().for_each(|bucket| load[usize::from(layout.slot(bucket)) * nodes / 16384] += 1);
            let fair = usize::from(BUCKETS) / nodes;
            assert!(load.iter().all(|load| (fair * 2 / 3..=fair * 3 / 2).contains(load)), "{load:?}");
        }
        let mut users = vec![0; usize::from(BUCKETS)];
        (0..25_600).for_each(|user| users[usize::from(Bucket::of("", &format!("user{user}")).0)] += 1);
        assert!(users.iter().all(|users| (50..=200).contains(users)), "{users:?}");
    }

    #[test]
    fn prefixes_that_break_tags_are_rejected() {
        for prefix in ["", "{a", "a}", "a b", "é", "a*", &"x".repeat(65)] {
            assert!(Layout::new(prefix).is_err(), "{prefix:?}");
        }
        assert!(Layout::new("app:eu.1_x-2").is_ok());
    }
}
