use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::harness::{Harness, HarnessResult};
use crate::outcome::{PropertyResult, Stop};
use crate::report::{self, Report};
use crate::run::{Property, SIDE_BY_SIDE, say, side_by_side};

/// Tests a storage: one test for every property, called `conformance::<group>::<property>`.
///
/// The argument is a closure or function that makes a [`Harness`](crate::Harness) of a fresh, empty storage, or the storage
/// itself. It is called once for every property. Use it once in a module; the module's path names the storage.
///
/// ```no_run
/// use oauth_dance_core::MemoryStorage;
///
/// oauth_dance_conformance::conformance_tests!(|| async { Ok(MemoryStorage::new()) });
/// # fn main() {}
/// ```
///
/// The last test of the module says how many properties passed, and which do not apply and why.
#[macro_export]
macro_rules! conformance_tests {
    ($maker:expr) => {
        mod conformance {
            #[allow(unused_imports)]
            use super::*;

            static TALLY: $crate::__private::Tally =
                $crate::__private::Tally::new(module_path!(), option_env!("CARGO_TARGET_TMPDIR"));

            fn check(property: &str) {
                TALLY.check(property, || ($maker)());
            }

            $crate::__properties!(__tests);
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __tests {
    ($($group:ident $([$($basis:ident)+])?: $($name:ident $([$($own:ident)+])?)+;)+) => {
        $(mod $group {
            $(#[test]
            fn $name() {
                super::check(stringify!($name));
            })+
        })+
    };
}

/// What one use of [`conformance_tests!`](crate::conformance_tests) found.
///
/// The first test starts all that this run of the test program asks for, side by side, each on a harness of its own; every
/// test waits for its own outcome.
#[derive(Debug)]
pub struct Tally {
    module: &'static str,
    scratch: Option<&'static str>,
    found: Mutex<Option<Report>>,
    news: Condvar,
}

impl Tally {
    /// A count of nothing. `module` ends in `::conformance`; `scratch` is cargo's `CARGO_TARGET_TMPDIR`.
    pub const fn new(module: &'static str, scratch: Option<&'static str>) -> Self {
        Self { module, scratch, found: Mutex::new(None), news: Condvar::new() }
    }

    /// Tries one property, notes the outcome, and panics if it failed: that is how a test fails.
    #[expect(clippy::panic, reason = "a test fails by panicking")]
    pub fn check<M, F, H>(&'static self, name: &str, maker: M)
    where
        M: Fn() -> F + Send + 'static,
        F: Future<Output = HarnessResult<H>> + Send + 'static,
        H: Harness,
    {
        let Some(property) = crate::PROPERTIES.iter().find(|property| property.name == name) else {
            panic!("there is no property {name}");
        };
        self.start(property, maker);
        if let Err(Stop::Failed(why)) = self.outcome_of(property) {
            panic!("{property:?}: {why}");
        }
    }

    /// Starts what was asked for, unless an earlier test did.
    fn start<M, F, H>(&'static self, property: &'static Property, maker: M)
    where
        M: Fn() -> F + Send + 'static,
        F: Future<Output = HarnessResult<H>> + Send + 'static,
        H: Harness,
    {
        let mut found = self.found();
        if found.is_some() {
            return;
        }
        *found = Some(Report::new(&self.name()));
        let asked = Asked::from(std::env::args().skip(1));
        let prefix = self.module.split_once("::").map_or(self.module, |(_, path)| path);
        let mut properties: Vec<_> =
            crate::PROPERTIES.iter().filter(|other| asked.includes(&format!("{prefix}::{other:?}"))).collect();
        if !properties.iter().any(|other| other.name == property.name) {
            // A runner that chooses in another way runs each test by itself.
            properties = vec![property];
        }
        thread::spawn(move || {
            side_by_side(&properties, asked.threads.unwrap_or(SIDE_BY_SIDE), maker, |property, outcome, took| {
                self.note(property, outcome, took);
            });
        });
    }

    fn outcome_of(&self, property: &Property) -> PropertyResult {
        let mut found = self.found();
        loop {
            if let Some(outcome) = found.as_ref().and_then(|report| report.outcome(property.name)) {
                return outcome.clone();
            }
            found = self.news.wait(found).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn note(&self, property: &Property, mut outcome: PropertyResult, took: Duration) {
        if let Err(Stop::Missing(what)) = &outcome
            && std::env::var("REQUIRE_BACKENDS").is_ok_and(|value| value == "1")
        {
            outcome = Err(Stop::Failed(format!("{what}, and REQUIRE_BACKENDS=1 asks for it")));
        }
        if let Some(folder) = self.folder()
            && let Err(error) = report::write(&folder, property, &outcome)
        {
            say(&format!("cannot write to {}: {error}", folder.display()));
        }
        let mut found = self.found();
        let Some(report) = found.as_mut() else { return };
        if let Err(Stop::Missing(what)) = &outcome
            && report.skipped().is_empty()
        {
            say(&format!("\nSKIP {}: {what}", self.name()));
        }
        report.add(property, outcome, took);
        if report.is_complete() {
            say(&format!("\n{report}"));
            self.publish(report);
        }
        self.news.notify_all();
    }

    /// Writes the report down as one that can be published.
    fn publish(&self, report: &Report) {
        let Some(folder) = self.folder() else { return };
        let variable = |name: &str| std::env::var(name).unwrap_or_default();
        // Cargo says of which package the tests are.
        let storage = format!("{} {}", variable("CARGO_PKG_NAME"), variable("CARGO_PKG_VERSION"));
        let file = folder.with_extension("md");
        if let Err(error) = std::fs::write(&file, report.to_markdown(&storage)) {
            say(&format!("cannot write {}: {error}", file.display()));
        }
    }

    fn found(&self) -> MutexGuard<'_, Option<Report>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn name(&self) -> String {
        self.module.strip_suffix("::conformance").unwrap_or(self.module).to_owned()
    }

    fn folder(&self) -> Option<PathBuf> {
        let target = Path::new(self.scratch?).parent()?;
        Some(target.join("conformance").join(self.name().replace("::", "-")))
    }
}

/// Which tests this run of the program asks for, in libtest's arguments.
#[derive(Debug, Default, PartialEq, Eq)]
struct Asked {
    filters: Vec<String>,
    skipped: Vec<String>,
    exact: bool,
    threads: Option<usize>,
}

impl Asked {
    fn from(arguments: impl IntoIterator<Item = String>) -> Self {
        let mut asked = Self { threads: std::env::var("RUST_TEST_THREADS").ok().and_then(parse), ..Self::default() };
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let (name, value) = match argument.split_once('=') {
                Some((name, value)) if name.starts_with("--") => (name.to_owned(), Some(value.to_owned())),
                _ => (argument, None),
            };
            match name.as_str() {
                "--exact" => asked.exact = true,
                "--skip" => asked.skipped.extend(value.or_else(|| arguments.next())),
                "--test-threads" => asked.threads = value.or_else(|| arguments.next()).and_then(parse),
                "--color" | "--format" | "--logfile" | "--shuffle-seed" | "-Z" if value.is_none() => {
                    arguments.next();
                }
                other if other.starts_with('-') => {}
                _ => asked.filters.push(name),
            }
        }
        asked
    }

    fn includes(&self, test: &str) -> bool {
        let fits = |filter: &String| if self.exact { test == filter } else { test.contains(filter.as_str()) };
        (self.filters.is_empty() || self.filters.iter().any(fits)) && !self.skipped.iter().any(fits)
    }
}

fn parse(threads: impl AsRef<str>) -> Option<usize> {
    threads.as_ref().parse().ok().filter(|threads| *threads > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(arguments: &str) -> Asked {
        Asked::from(arguments.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn a_run_tries_what_it_was_asked_for() {
        let test = "mine::conformance::map::missing_is_none";
        for arguments in ["", "--nocapture", "map --test-threads 2", "--color always missing", "--skip keys"] {
            assert!(asked(arguments).includes(test), "{arguments}");
        }
        assert!(asked(&format!("--exact {test} --nocapture")).includes(test));
        for arguments in ["keys", "--exact map", "--skip map", "--skip=map", "mine::conformance::keys map::d"] {
            assert!(!asked(arguments).includes(test), "{arguments}");
        }
        assert_eq!(asked("--test-threads=3 -q").threads, Some(3));
    }
}
