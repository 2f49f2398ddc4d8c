//! Splits a text into the values of several cookies, and joins them.
//!
//! The chunk with number 2 is the cookie `name.2=GGGGGGGGNNtext`, where `G` is the generation of its set and `N` the
//! number of chunks in it.
//!
//! A browser may have some cookies of one response and some of another. Therefore every value starts with the
//! generation of its set and the number of chunks in the set, and only complete sets are joined. The seal covers the
//! whole text, and proves that a joined text is genuine.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use http::header::COOKIE;
use oauth_dance_core::random_bytes;

/// The total size of name, value and attributes of a cookie that every browser supports (RFC 6265 section 6.1).
const COOKIE_SIZE: usize = 4096;
/// The maximum number of cookies in a set.
const MAX_CHUNKS: usize = 32;
/// The maximum size of all chunks together.
pub(super) const MAX_SIZE: usize = MAX_CHUNKS * COOKIE_SIZE;
/// The length of a generation: 48 random bits in base64.
const GENERATION: usize = 8;
/// The length of the generation and the count in two digits, which precede every chunk.
const PREFIX: usize = GENERATION + 2;

/// The chunks of one cookie.
pub(super) struct Chunks<'a> {
    /// The name without the number.
    pub(super) name: &'a str,
    /// The length of the attributes after the value.
    pub(super) attributes: usize,
}

/// Identifies a set of chunks that one response wrote.
pub(super) type Generation = [u8; GENERATION];

/// A new random generation.
pub(super) fn new_generation() -> Generation {
    let mut generation = [b'A'; GENERATION];
    let encoded = URL_SAFE_NO_PAD.encode(random_bytes::<6>());
    generation.copy_from_slice(encoded.as_bytes());
    generation
}

impl Chunks<'_> {
    /// The maximum length of a text whose chunks take at most `limit` bytes of a `Cookie` header.
    pub(super) fn capacity(&self, limit: usize) -> usize {
        let (room, overhead) = (self.room(), self.overhead());
        let whole = (limit / (overhead + room)).min(MAX_CHUNKS);
        let rest = if whole < MAX_CHUNKS { (limit % (overhead + room)).saturating_sub(overhead) } else { 0 };
        whole * room + rest
    }

    /// Splits a text of at most [`Chunks::capacity`] bytes. Returns the names and values of the cookies.
    pub(super) fn split(&self, generation: Generation, text: &str) -> Vec<(String, String)> {
        let generation = String::from_utf8_lossy(&generation);
        let count = text.len().div_ceil(self.room());
        let chunks = text.as_bytes().chunks(self.room()).enumerate();
        chunks
            .map(|(index, chunk)| {
                let value = format!("{generation}{count:02}{}", String::from_utf8_lossy(chunk));
                (format!("{}.{index}", self.name), value)
            })
            .collect()
    }

    /// Joins every complete set of the received chunks. A set is incomplete if a chunk is missing or has two different
    /// values. Chunks of other sets and chunks beyond the count are ignored.
    pub(super) fn join(received: &[(usize, String)]) -> Vec<(Generation, String)> {
        let mut sets: BTreeMap<(Generation, usize), Vec<BTreeSet<&str>>> = BTreeMap::new();
        for (index, value) in received {
            let Some((generation, count, chunk)) = read(value).filter(|(_, count, _)| index < count) else { continue };
            sets.entry((generation, count)).or_insert_with(|| vec![BTreeSet::new(); count])[*index].insert(chunk);
        }
        let whole = sets.into_iter().filter(|(_, set)| set.iter().all(|values| values.len() == 1));
        whole.map(|((generation, _), set)| (generation, set.into_iter().flatten().collect())).collect()
    }

    /// All chunks in the headers of a request, with their numbers.
    pub(super) fn received(&self, headers: &HeaderMap) -> Vec<(usize, String)> {
        let pairs = headers.get_all(COOKIE).into_iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b';'));
        pairs.filter_map(|pair| self.chunk(pair.trim_ascii())).collect()
    }

    /// Parses a pair of name and value. `None` if it is another cookie.
    fn chunk(&self, pair: &[u8]) -> Option<(usize, String)> {
        let number = pair.strip_prefix(self.name.as_bytes())?.strip_prefix(b".")?;
        let (digits, value) = number.split_at(number.iter().position(|byte| *byte == b'=')?);
        let digits = std::str::from_utf8(digits).ok()?;
        let index = digits.parse::<usize>().ok().filter(|index| *index < MAX_CHUNKS && index.to_string() == digits)?;
        Some((index, String::from_utf8_lossy(&value[1..]).into_owned()))
    }

    /// The number of bytes of the text that fit into one cookie.
    fn room(&self) -> usize {
        COOKIE_SIZE.saturating_sub(self.name.len() + ".00=".len() + PREFIX + self.attributes).max(1)
    }

    /// The number of bytes that a chunk takes in the header besides its text.
    fn overhead(&self) -> usize {
        self.name.len() + ".00=; ".len() + PREFIX
    }
}

/// Splits a value into its generation, the count of its set, and the chunk.
fn read(value: &str) -> Option<(Generation, usize, &str)> {
    let (generation, rest) = value.as_bytes().split_first_chunk()?;
    let (count, chunk) = rest.split_first_chunk::<2>()?;
    let count = std::str::from_utf8(count).ok().filter(|count| count.bytes().all(|byte| byte.is_ascii_digit()))?;
    let count = count.parse().ok().filter(|count| (1..=MAX_CHUNKS).contains(count))?;
    Some((*generation, count, std::str::from_utf8(chunk).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNKS: Chunks<'_> = Chunks { name: "__Host-name", attributes: 70 };

    fn received(set: &[(String, String)]) -> Vec<(usize, String)> {
        let mut headers = HeaderMap::new();
        for (name, value) in set {
            headers.append(COOKIE, format!("{name}={value}").parse().unwrap());
        }
        CHUNKS.received(&headers)
    }

    #[test]
    fn split_texts_are_joined_and_fit_the_limit() {
        for limit in [200, 4_000, 4_096, 6_144, 12_288, MAX_SIZE] {
            let capacity = CHUNKS.capacity(limit);
            for length in [1, 10, capacity / 2, capacity - 1, capacity] {
                let text = "x".repeat(length);
                let generation = new_generation();
                let set = CHUNKS.split(generation, &text);
                assert_eq!(Chunks::join(&received(&set)), [(generation, text)]);
                let header: usize = set.iter().map(|(name, value)| name.len() + 1 + value.len() + 2).sum();
                assert!(header <= limit, "{header} bytes of {limit}");
                for (name, value) in &set {
                    assert!(name.len() + 1 + value.len() + CHUNKS.attributes <= COOKIE_SIZE);
                }
            }
        }
        assert!(CHUNKS.split(new_generation(), &"x".repeat(CHUNKS.capacity(6_144))).len() == 2);
    }

    #[test]
    fn only_complete_sets_are_joined() {
        let text: String = ('a'..='z').cycle().take(10_000).collect();
        let set = CHUNKS.split(new_generation(), &text);
        assert_eq!(set.len(), 3);
        let whole = Chunks::join(&received(&set));

        let mut shuffled = set.clone();
        shuffled.reverse();
        shuffled.push(set[1].clone());
        assert_eq!(Chunks::join(&received(&shuffled)), whole, "order and repetition do not matter");
        let foreign =
            ["__Host-name", "__Host-name.", "__Host-name.x", "__Host-name_9", "__Host-name.03", "__Host-name.+1"]
                .map(|name| (name.to_owned(), set[0].1.clone()));
        assert_eq!(Chunks::join(&received(&[&set[..], &foreign].concat())), whole);
        assert!(received(&foreign).is_empty());
        let beyond = ("__Host-name.3".to_owned(), set[2].1.clone());
        assert_eq!(Chunks::join(&received(&[&set[..], &[beyond]].concat())), whole);

        let swapped = [(&set[0].0, &set[1].1), (&set[1].0, &set[0].1), (&set[2].0, &set[2].1)];
        let joined = Chunks::join(&received(&swapped.map(|(name, value)| (name.clone(), value.clone()))));
        assert!(joined != whole, "only the seal detects this");
        for missing in 0..3 {
            let mut rest = set.clone();
            rest.remove(missing);
            assert!(Chunks::join(&received(&rest)).is_empty());
        }
        let other = CHUNKS.split(new_generation(), &text);
        let mixed = [set[0].clone(), other[1].clone(), set[2].clone()];
        assert!(Chunks::join(&received(&mixed)).is_empty());
        let both = Chunks::join(&received(&[&set[..], &other[..]].concat()));
        assert_eq!(both.len(), 2, "two complete sets are both joined");
        let mut twice = set;
        let (name, value) = twice[1].clone();
        let (prefix, chunk) = value.split_at(PREFIX);
        twice.push((name, format!("{prefix}{}", chunk.replace('m', "M"))));
        assert!(Chunks::join(&received(&twice)).is_empty());
    }

    #[test]
    fn malformed_chunks_are_ignored() {
        for value in
            ["", "x", "AAAAAAAA", "AAAAAAAA00", "AAAAAAAA99x", "AAAAAAAA+1x", "\u{fffd}AAAAAAA01x", "AAAAAAAA02x"]
        {
            assert!(Chunks::join(&[(0, value.to_owned())]).is_empty(), "{value}");
        }
    }
}
