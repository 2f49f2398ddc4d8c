//! Inputs for all code that reads bytes from outside: a corpus, and random variations of it.
//!
//! A target is a function of bytes that panics if a property is violated. [`check`] runs it on the files of
//! `tests/fuzz/corpus/NAME`, and then on inputs that are derived from them: truncated, repeated, joined, and mixed with texts
//! that parsers often mishandle. The inputs are the same in every run, so that a test always passes or always fails. A failing
//! input is shortened and printed. If `FUZZ_SECONDS` is set, each target runs for that many seconds, on different inputs
//! each time. `docs/testing.md` describes that, and coverage-guided runs.
#![allow(clippy::panic, reason = "it is for tests")]

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};

/// How many inputs a target gets in a test.
const CASES: u32 = 1000;
/// Longer inputs find nothing more.
const MAX_BYTES: usize = 64 * 1024;
const MAX_CHANGES: usize = 6;
/// How often a failing input is shortened.
const MAX_SHRINKS: u32 = 500;

/// Texts that parsers often mishandle: delimiters, numbers at their limits, bytes that are not text.
const DIFFICULT_TEXTS: [&[u8]; 48] = [
    b"\"",
    b"'",
    b"\\",
    b"\\\"",
    b"{",
    b"}",
    b"[",
    b"]",
    b"{}",
    b"[]",
    b"null",
    b"true",
    b":",
    b",",
    b";",
    b"=",
    b"&",
    b"%",
    b"%00",
    b"%ff",
    b"+",
    b".",
    b"/",
    b"//",
    b"\\\\",
    b"..",
    b"?",
    b"#",
    b"@",
    b" ",
    b"\t",
    b"\r\n",
    b"\0",
    b"\xff",
    b"\xc3\xa9",
    b"\xf0\x9f\x94\x91",
    b"\xed\xa0\x80",
    b"\xef\xbb\xbf",
    b"\\ud800",
    b"0",
    b"-1",
    b"1e999",
    b"18446744073709551616",
    b"4294967296",
    b"99999999999999999999999999",
    b"0.5",
    b"<script>",
    b"CANARY",
];

/// One change to an input. Its position is relative to the length of the input at that time.
#[derive(Clone, Debug)]
enum Change {
    Insert(Index, Vec<u8>),
    Replace(Index, u8),
    Remove(Index, Index),
    Repeat(Index, Index, usize),
    Join(Index, Vec<u8>),
}

/// Checks a target on its corpus and on inputs that are derived from it.
///
/// # Panics
/// If the target panics. The message contains the shortest such input that was found.
pub fn check(name: &str, target: impl Fn(&[u8])) {
    check_with(name, Vec::new(), target);
}

/// Checks a target as [`check`] does, and starts from more inputs than those in the corpus.
///
/// # Panics
/// As [`check`], and if there is no input to start from.
pub fn check_with(name: &str, mut seeds: Vec<Vec<u8>>, target: impl Fn(&[u8])) {
    seeds.extend(corpus(name));
    seeds.iter().flat_map(|seed| neighbours(seed)).for_each(|input| try_one(name, &input, &target));
    run_for_long(name, CASES, &seeds, target);
}

/// Checks a target with this number of inputs, for a slow target.
///
/// # Panics
/// As [`check_with`].
pub fn check_some(name: &str, cases: u32, mut seeds: Vec<Vec<u8>>, target: impl Fn(&[u8])) {
    seeds.extend(corpus(name));
    run_for_long(name, cases, &seeds, target);
}

fn run_for_long(name: &str, cases: u32, seeds: &[Vec<u8>], target: impl Fn(&[u8])) {
    assert!(!seeds.is_empty(), "there is no corpus of {name}");
    seeds.iter().for_each(|seed| try_one(name, seed, &target));

    let seconds = std::env::var("FUZZ_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    let until = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut round = if until.is_some() { now() } else { 0 };
    loop {
        run(name, cases, seeds, round, &target);
        round = round.wrapping_add(1);
        if until.is_none_or(|until| Instant::now() >= until) {
            break;
        }
    }
}

/// Inputs that are similar to one: its beginnings, and the same input with a text before or after it.
fn neighbours(seed: &[u8]) -> impl Iterator<Item = Vec<u8>> + use<'_> {
    let beginnings = (0..seed.len()).map(move |end| seed[..end].to_vec());
    let more = DIFFICULT_TEXTS.iter().flat_map(move |block| [[seed, block].concat(), [block, seed].concat()]);
    beginnings.chain(more)
}

fn try_one(name: &str, input: &[u8], target: impl Fn(&[u8])) {
    if catch_unwind(AssertUnwindSafe(|| target(input))).is_err() {
        panic!("{name} failed\nwith b\"{}\"", input.escape_ascii());
    }
}

fn run(name: &str, cases: u32, seeds: &[Vec<u8>], round: u64, target: impl Fn(&[u8])) {
    let config = Config { cases, failure_persistence: None, max_shrink_iters: MAX_SHRINKS, ..Config::default() };
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&round.to_be_bytes());
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
    let outcome = runner.run(&inputs(seeds), |input| {
        target(&input);
        Ok(())
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(reason, input)) => panic!("{name}: {reason}\nwith b\"{}\"", input.escape_ascii()),
        Err(TestError::Abort(reason)) => panic!("{name}: no input could be generated: {reason}"),
    }
}

/// The files of one target, in the order of their names.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.sort();
    files.iter().filter_map(|file| fs::read(file).ok()).collect()
}

fn inputs(seeds: &[Vec<u8>]) -> impl Strategy<Value = Vec<u8>> + use<> {
    let seed = select(seeds.to_vec());
    let changed = (seed, vec(change(seeds), 1..=MAX_CHANGES))
        .prop_map(|(seed, changes)| changes.into_iter().fold(seed, |input, change| change.apply(input)));
    prop_oneof![15 => changed, 1 => vec(any::<u8>(), 0..200)]
}

fn change(seeds: &[Vec<u8>]) -> impl Strategy<Value = Change> + use<> {
    let at = any::<Index>;
    let block = select(DIFFICULT_TEXTS.map(<[u8]>::to_vec).to_vec());
    let bytes = prop_oneof![3 => block, 1 => vec(any::<u8>(), 1..8), 1 => Just(Vec::new())];
    prop_oneof![
        4 => (at(), bytes).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        2 => (at(), any::<u8>()).prop_map(|(at, byte)| Change::Replace(at, byte)),
        3 => (at(), at()).prop_map(|(from, to)| Change::Remove(from, to)),
        1 => (at(), at(), 2..100_usize).prop_map(|(from, to, times)| Change::Repeat(from, to, times)),
        2 => (at(), select(seeds.to_vec())).prop_map(|(at, other)| Change::Join(at, other)),
    ]
}

impl Change {
    fn apply(self, mut input: Vec<u8>) -> Vec<u8> {
        let length = input.len();
        let range = |one: Index, other: Index| {
            let (one, other) = (one.index(length + 1), other.index(length + 1));
            one.min(other)..one.max(other)
        };
        match self {
            Self::Insert(at, bytes) => {
                let at = at.index(length + 1);
                input.splice(at..at, bytes);
            }
            Self::Replace(at, byte) if length > 0 => input[at.index(length)] = byte,
            Self::Replace(_, byte) => input.push(byte),
            Self::Remove(from, to) => drop(input.drain(range(from, to))),
            Self::Repeat(from, to, times) => {
                let range = range(from, to);
                let part = input[range.clone()].repeat(times);
                input.splice(range, part);
            }
            Self::Join(at, other) => {
                input.truncate(at.index(length + 1));
                input.extend_from_slice(&other[other.len().min(input.len())..]);
            }
        }
        input.truncate(MAX_BYTES);
        input
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_nanos() as u64
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn seen(seeds: &[&[u8]]) -> Vec<Vec<u8>> {
        let seen = RefCell::new(Vec::new());
        let seeds = seeds.iter().map(|seed| seed.to_vec()).collect();
        check_with("nothing", seeds, |input| seen.borrow_mut().push(input.to_vec()));
        seen.into_inner()
    }

    #[test]
    fn inputs_are_the_same_in_every_run() {
        let first = seen(&[b"{\"a\":1}", b""]);
        assert_eq!(first, seen(&[b"{\"a\":1}", b""]));
        assert!(first.contains(&b"{\"a\":1}".to_vec()) && first.contains(&b"{\"a\":1}\r\n".to_vec()));
        let different: std::collections::BTreeSet<_> = first.iter().collect();
        assert!(different.len() > 700, "{}", different.len());
    }

    #[test]
    fn a_failing_input_is_found_and_shortened() {
        let buggy = |input: &[u8]| assert!(!input.windows(2).any(|pair| pair == b"\"\""), "two quotation marks");
        let found = catch_unwind(AssertUnwindSafe(|| check_with("nothing", vec![b"a=\"long text\"".to_vec()], buggy)));
        let message = *found.unwrap_err().downcast::<String>().unwrap();
        let input = message.split("with b\"").nth(1).unwrap();
        assert!(input.len() < 40, "{message}");
    }

    #[test]
    #[should_panic(expected = "there is no corpus of nothing")]
    fn a_target_without_a_corpus_is_an_error() {
        check("nothing", |_| {});
    }
}
