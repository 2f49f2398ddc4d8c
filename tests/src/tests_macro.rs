use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::harness::{Answer, Harness};
use crate::outcome::Stop;
use crate::report::{self, Report};
use crate::run::say;

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
                TALLY.check(property, $maker);
            }

            $crate::__properties!(__tests);
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __tests {
    ($($group:ident: $($name:ident)+;)+) => {
        $(mod $group {
            $(#[test]
            fn $name() {
                super::check(stringify!($name));
            })+
        })+
    };
}

/// Counts what one use of [`conformance_tests!`](crate::conformance_tests) found.
#[derive(Debug)]
pub struct Tally {
    module: &'static str,
    scratch: Option<&'static str>,
    report: Mutex<Option<Report>>,
}

impl Tally {
    /// A count of nothing. `module` ends in `::conformance`; `scratch` is cargo's `CARGO_TARGET_TMPDIR`.
    pub const fn new(module: &'static str, scratch: Option<&'static str>) -> Self {
        Self { module, scratch, report: Mutex::new(None) }
    }

    /// Tries one property, notes the outcome, and panics if it failed: that is how a test fails.
    #[expect(clippy::panic, reason = "a test fails by panicking")]
    pub fn check<M, F, H>(&self, name: &str, maker: M)
    where
        M: FnOnce() -> F,
        F: Future<Output = Answer<H>> + Send + 'static,
        H: Harness,
    {
        let Some(property) = crate::PROPERTIES.iter().find(|property| property.name == name) else {
            panic!("there is no property {name}");
        };
        let begun = Instant::now();
        let mut outcome = property.run(maker);
        if let Err(Stop::Missing(what)) = &outcome
            && std::env::var("REQUIRE_BACKENDS").is_ok_and(|value| value == "1")
        {
            outcome = Err(Stop::Failed(format!("{what}, and REQUIRE_BACKENDS=1 asks for it")));
        }

        let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        let report = report.get_or_insert_with(|| Report::new(&self.name()));
        if let Err(Stop::Missing(what)) = &outcome
            && report.skipped().is_empty()
        {
            say(&format!("\nSKIP {}: {what}", self.name()));
        }
        if let Some(folder) = self.folder()
            && let Err(error) = report::write(&folder, property, &outcome)
        {
            say(&format!("cannot write to {}: {error}", folder.display()));
        }
        report.add(property, outcome.clone(), begun.elapsed());
        if report.is_complete() {
            say(&format!("\n{report}"));
        }
        if let Err(Stop::Failed(why)) = outcome {
            panic!("{property:?}: {why}");
        }
    }

    fn name(&self) -> String {
        self.module.strip_suffix("::conformance").unwrap_or(self.module).to_owned()
    }

    fn folder(&self) -> Option<PathBuf> {
        let target = Path::new(self.scratch?).parent()?;
        Some(target.join("conformance").join(self.name().replace("::", "-")))
    }
}
