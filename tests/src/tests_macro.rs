//! The macro that creates the tests, and the state that these tests share.
//!
//! libtest runs each test separately, but the properties of a storage run together: the first test starts all that the
//! arguments of the program select, and each test waits for its own outcome. The number of properties at a time is thus
//! ours and not libtest's, so that a property which waits for time to pass does not occupy a thread of libtest.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::harness::{Harness, HarnessResult};
use crate::outcome::{PropertyResult, Stop};
use crate::report::{self, Report};
use crate::run::{CONCURRENT_PROPERTIES, Property, print_line, run_concurrently};

/// Tests a storage. The macro expands to one test for every property, named `conformance::<group>::<property>`.
///
/// The argument is a closure or a function without parameters. It returns a future of a
/// [`HarnessResult`](crate::HarnessResult) with a [`Harness`](crate::Harness), or with the storage itself. It is called once
/// for each property, and every call must return an empty storage that nothing else uses.
///
/// ```no_run
/// use oauth_dance_core::MemoryStorage;
///
/// oauth_dance_conformance::conformance_tests!(|| async { Ok(MemoryStorage::new()) });
/// # fn main() {}
/// ```
///
/// The path of the module names the storage. Use the macro once in each module, to test several storages or set-ups:
///
/// ```no_run
/// # use oauth_dance_core::MemoryStorage as MyStorage;
/// # trait Namespaced: Sized { async fn connect(_: &str) -> std::io::Result<Self>; }
/// # impl Namespaced for MyStorage { async fn connect(_: &str) -> std::io::Result<Self> { Ok(Self::new()) } }
/// mod in_memory {
///     use super::*;
///
///     oauth_dance_conformance::conformance_tests!(|| async { Ok(MyStorage::new()) });
/// }
///
/// mod on_a_server {
///     use super::*;
///     use oauth_dance_conformance::server_from_env;
///
///     oauth_dance_conformance::conformance_tests!(|| async {
///         // Without the variable, the tests are skipped.
///         let url = server_from_env("MY_SERVER_URL")?;
///         Ok(MyStorage::connect(&url).await?)
///     });
/// }
/// # fn main() {}
/// ```
///
/// The last test of a module prints how many properties passed, and which are not applicable and why. The [crate
/// documentation](crate) describes what a failure shows and what the tests write.
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
    ($($group:ident $([$($dependency:ident)+])?: $($name:ident $([$($own:ident)+])?)+;)+) => {
        $(mod $group {
            $(#[test]
            fn $name() {
                super::check(stringify!($name));
            })+
        })+
    };
}

/// The outcomes of the tests of one [`conformance_tests!`](crate::conformance_tests).
#[derive(Debug)]
pub struct Tally {
    module: &'static str,
    scratch: Option<&'static str>,
    report: Mutex<Option<Report>>,
    changed: Condvar,
}

impl Tally {
    /// No outcomes yet. `module` ends in `::conformance`. `scratch` is cargo's `CARGO_TARGET_TMPDIR`.
    pub const fn new(module: &'static str, scratch: Option<&'static str>) -> Self {
        Self { module, scratch, report: Mutex::new(None), changed: Condvar::new() }
    }

    /// Waits for the outcome of one property, and panics if the property failed, so that its test fails.
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

    /// Starts the selected properties, unless an earlier test has started them.
    fn start<M, F, H>(&'static self, property: &'static Property, maker: M)
    where
        M: Fn() -> F + Send + 'static,
        F: Future<Output = HarnessResult<H>> + Send + 'static,
        H: Harness,
    {
        let mut report = self.report();
        if report.is_some() {
            return;
        }
        *report = Some(Report::new(&self.name()));
        let arguments = Arguments::parse(std::env::args().skip(1));
        let prefix = self.module.split_once("::").map_or(self.module, |(_, path)| path);
        let mut properties: Vec<_> =
            crate::PROPERTIES.iter().filter(|other| arguments.select(&format!("{prefix}::{other:?}"))).collect();
        if !properties.iter().any(|other| other.name == property.name) {
            // A test runner that selects tests in another way runs each test in a process of its own.
            properties = vec![property];
        }
        thread::spawn(move || {
            let limit = arguments.threads.unwrap_or(CONCURRENT_PROPERTIES);
            run_concurrently(&properties, limit, maker, |property, outcome, took| self.add(property, outcome, took));
        });
    }

    fn outcome_of(&self, property: &Property) -> PropertyResult {
        let mut report = self.report();
        loop {
            if let Some(outcome) = report.as_ref().and_then(|report| report.outcome(property.name)) {
                return outcome.clone();
            }
            report = self.changed.wait(report).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Adds an outcome to the report, writes it to its file, and wakes the test that waits for it.
    fn add(&self, property: &Property, mut outcome: PropertyResult, took: Duration) {
        if let Err(Stop::Missing(what)) = &outcome
            && std::env::var("REQUIRE_BACKENDS").is_ok_and(|value| value == "1")
        {
            outcome = Err(Stop::Failed(format!("{what}, although REQUIRE_BACKENDS=1 is set")));
        }
        if let Some(folder) = self.folder()
            && let Err(error) = report::write(&folder, property, &outcome)
        {
            print_line(&format!("cannot write to {}: {error}", folder.display()));
        }
        let mut report = self.report();
        let Some(report) = report.as_mut() else { return };
        if let Err(Stop::Missing(what)) = &outcome
            && report.skipped().is_empty()
        {
            print_line(&format!("\nSKIP {}: {what}", self.name()));
        }
        report.add(property, outcome, took);
        if report.is_complete() {
            print_line(&format!("\n{report}"));
            self.publish(report);
        }
        self.changed.notify_all();
    }

    /// Writes the report as Markdown.
    fn publish(&self, report: &Report) {
        let Some(folder) = self.folder() else { return };
        let variable = |name: &str| std::env::var(name).unwrap_or_default();
        // Cargo sets the name and the version of the package whose tests these are.
        let storage = format!("{} {}", variable("CARGO_PKG_NAME"), variable("CARGO_PKG_VERSION"));
        let file = folder.with_extension("md");
        if let Err(error) = std::fs::write(&file, report.to_markdown(&storage)) {
            print_line(&format!("cannot write {}: {error}", file.display()));
        }
    }

    fn report(&self) -> MutexGuard<'_, Option<Report>> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn name(&self) -> String {
        self.module.strip_suffix("::conformance").unwrap_or(self.module).to_owned()
    }

    fn folder(&self) -> Option<PathBuf> {
        let target = Path::new(self.scratch?).parent()?;
        Some(target.join("conformance").join(self.name().replace("::", "-")))
    }
}

/// The arguments of libtest that select tests.
#[derive(Debug, Default, PartialEq, Eq)]
struct Arguments {
    filters: Vec<String>,
    skipped: Vec<String>,
    exact: bool,
    threads: Option<usize>,
}

impl Arguments {
    fn parse(arguments: impl IntoIterator<Item = String>) -> Self {
        let mut parsed = Self { threads: std::env::var("RUST_TEST_THREADS").ok().and_then(number), ..Self::default() };
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let (name, value) = match argument.split_once('=') {
                Some((name, value)) if name.starts_with("--") => (name.to_owned(), Some(value.to_owned())),
                _ => (argument, None),
            };
            match name.as_str() {
                "--exact" => parsed.exact = true,
                "--skip" => parsed.skipped.extend(value.or_else(|| arguments.next())),
                "--test-threads" => parsed.threads = value.or_else(|| arguments.next()).and_then(number),
                "--color" | "--format" | "--logfile" | "--shuffle-seed" | "-Z" if value.is_none() => {
                    arguments.next();
                }
                other if other.starts_with('-') => {}
                _ => parsed.filters.push(name),
            }
        }
        parsed
    }

    fn select(&self, test: &str) -> bool {
        let matches = |filter: &String| if self.exact { test == filter } else { test.contains(filter.as_str()) };
        (self.filters.is_empty() || self.filters.iter().any(matches)) && !self.skipped.iter().any(matches)
    }
}

fn number(threads: impl AsRef<str>) -> Option<usize> {
    threads.as_ref().parse().ok().filter(|threads| *threads > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(arguments: &str) -> Arguments {
        Arguments::parse(arguments.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn arguments_select_the_properties_that_libtest_runs() {
        let test = "mine::conformance::map::missing_is_none";
        for line in ["", "--nocapture", "map --test-threads 2", "--color always missing", "--skip keys"] {
            assert!(arguments(line).select(test), "{line}");
        }
        assert!(arguments(&format!("--exact {test} --nocapture")).select(test));
        for line in ["keys", "--exact map", "--skip map", "--skip=map", "mine::conformance::keys map::d"] {
            assert!(!arguments(line).select(test), "{line}");
        }
        assert_eq!(arguments("--test-threads=3 -q").threads, Some(3));
    }
}
