//! The outcomes of all properties for one storage: as a summary, as Markdown to publish, and as files.
//!
//! The order of failures is the most useful part. Properties depend on each other: if `get` is wrong, nearly everything
//! fails. A report therefore puts those failures first that no other failure explains.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use oauth_dance_core::{Clock, Timestamp};

use crate::outcome::{PropertyResult, Stop};
use crate::properties::dependencies;
use crate::run::Property;

/// The outcomes of the properties for one storage.
///
/// [`run_all`](crate::run_all) returns one, and [`Report::read_all`] reads those that
/// [`conformance_tests!`](crate::conformance_tests) has written. Its `Display` text is a summary: the counts, then the
/// failures in the order in which to read them, then what was skipped or is not applicable.
///
/// ```no_run
/// use oauth_dance_conformance::run_all;
/// use oauth_dance_core::MemoryStorage;
///
/// let report = run_all("my-storage", || async { Ok(MemoryStorage::new()) });
/// for (property, why) in report.failed() {
///     eprintln!("{property}: {why}");
/// }
/// std::fs::write("conformance.md", report.to_markdown("my-storage 1.2.3"))?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Report {
    name: String,
    outcomes: BTreeMap<&'static str, (PropertyResult, Duration)>,
}

impl Report {
    pub(crate) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), outcomes: BTreeMap::new() }
    }

    pub(crate) fn add(&mut self, property: &Property, outcome: PropertyResult, took: Duration) {
        self.outcomes.insert(property.name, (outcome, took));
    }

    /// The name of the storage in this report: that of [`run_all`](crate::run_all), or the path of the module with
    /// [`conformance_tests!`](crate::conformance_tests).
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The outcome of one property, by its [name](crate::Property::name). `None` if it was not tested.
    pub fn outcome(&self, property: &str) -> Option<&PropertyResult> {
        self.outcomes.get(property).map(|(outcome, _)| outcome)
    }

    /// How long one property took. `None` if it was not tested. It is zero in a report that was read from files.
    pub fn took(&self, property: &str) -> Option<Duration> {
        self.outcomes.get(property).map(|(_, took)| *took)
    }

    /// The number of properties that passed.
    pub fn passed(&self) -> usize {
        self.outcomes.values().filter(|(outcome, _)| outcome.is_ok()).count()
    }

    /// The names of the properties that are not applicable, each with the reason.
    pub fn not_applicable(&self) -> Vec<(&'static str, &str)> {
        self.stopped(|stop| if let Stop::NotApplicable(why) = stop { Some(why) } else { None })
    }

    /// The names of the properties that failed, each with the failure. Failures that no other one
    /// [explains](Self::explained_by) come first.
    pub fn failed(&self) -> Vec<(&'static str, &str)> {
        let mut failed = self.stopped(|stop| if let Stop::Failed(why) = stop { Some(why) } else { None });
        failed.sort_by_cached_key(|(name, _)| self.explained_by(name).is_some());
        failed
    }

    /// The most basic failed property that this one depends on, directly or indirectly. `None` if all of those passed: then
    /// the cause of the failure is in this property itself.
    ///
    /// For example, a storage that returns expired records fails `zero_retention_is_over_at_once`, and as a consequence
    /// `a_version_is_void_after_its_retention`. The first explains the second.
    pub fn explained_by(&self, property: &str) -> Option<&'static str> {
        let find = |name: &str| crate::PROPERTIES.iter().find(|property| property.name == name);
        let mut first = None;
        let mut below = dependencies(find(property)?);
        while let Some(dependency) = crate::PROPERTIES
            .iter()
            .find(|dependency| below.contains(dependency.name) && self.has_failed(dependency.name))
        {
            first = Some(dependency.name);
            below = dependencies(dependency);
        }
        first
    }

    fn has_failed(&self, property: &str) -> bool {
        matches!(self.outcome(property), Some(Err(Stop::Failed(_))))
    }

    /// The names of the properties that were skipped because something is not available, each with what is missing.
    pub fn skipped(&self) -> Vec<(&'static str, &str)> {
        self.stopped(|stop| if let Stop::Missing(what) = stop { Some(what) } else { None })
    }

    /// The report as Markdown to publish, with the versions of the storage and of this suite, and with the date (UTC).
    ///
    /// `storage` is the name and the version of the storage. The tests of
    /// [`conformance_tests!`](crate::conformance_tests) write this to `target/conformance/<storage>.md` after all properties
    /// were tested.
    pub fn to_markdown(&self, storage: &str) -> String {
        let (not_applicable, failed, skipped) = (self.not_applicable(), self.failed(), self.skipped());
        let (suite, count) = (env!("CARGO_PKG_VERSION"), crate::PROPERTIES.len());
        let result = format!(
            "{} passed, {} not applicable, {} skipped, {} failed",
            self.passed(),
            not_applicable.len(),
            skipped.len(),
            failed.len()
        );
        let mut text = format!(
            "# Conformance of {storage}\n\n| | |\n| --- | --- |\n| storage | {storage}, tested as `{}` |\n\
             | suite | oauth-dance-conformance {suite}, {count} properties |\n| date | {} |\n| result | {result} |\n",
            self.name,
            date(Clock::system().now()),
        );
        for (title, stops) in [("Failed", failed), ("Skipped", skipped), ("Not applicable", not_applicable)] {
            if stops.is_empty() {
                continue;
            }
            text += &format!("\n## {title}\n\n| property | why |\n| --- | --- |\n");
            for (name, why) in stops {
                let why = why.lines().next().unwrap_or_default().replace('|', "\\|");
                let cause = self.explained_by(name).filter(|_| title == "Failed");
                let cause = cause.map_or_else(String::new, |cause| format!(", explained by `{cause}`"));
                text += &format!("| `{name}`{cause} | {why} |\n");
            }
        }
        text
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.outcomes.len() == crate::PROPERTIES.len()
    }

    fn stopped<'a>(&'a self, choose: impl Fn(&'a Stop) -> Option<&'a String>) -> Vec<(&'static str, &'a str)> {
        let outcomes =
            crate::PROPERTIES.iter().filter_map(|property| Some((property.name, self.outcome(property.name)?)));
        let stops = outcomes.filter_map(|(name, outcome)| Some((name, outcome.as_ref().err()?)));
        stops.filter_map(|(name, stop)| Some((name, choose(stop)?.as_str()))).collect()
    }

    /// Reads the outcomes that the tests of [`conformance_tests!`](crate::conformance_tests) have written, from a folder
    /// such as `target/conformance`. Each of its folders is one report.
    ///
    /// A report may be incomplete, because each test run writes only the properties that it selects.
    ///
    /// ```
    /// use std::path::Path;
    /// use oauth_dance_conformance::Report;
    ///
    /// assert!(Report::read_all(Path::new("no/such/folder")).is_err());
    /// ```
    ///
    /// # Errors
    /// If the folder does not exist, or a file in it cannot be read.
    pub fn read_all(folder: &Path) -> io::Result<Vec<Self>> {
        let mut folders: Vec<PathBuf> =
            fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
        folders.sort();
        folders.iter().filter(|path| path.is_dir()).map(|path| Self::read(path)).collect()
    }

    fn read(folder: &Path) -> io::Result<Self> {
        let mut report = Self::new(&folder.file_name().unwrap_or_default().to_string_lossy());
        for property in crate::PROPERTIES {
            match fs::read_to_string(folder.join(property.name)) {
                Ok(text) => report.add(property, parse(&text), Duration::ZERO),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(report)
    }
}

/// The counts are on the first line. The failures follow in the order of [`Report::failed`], then the other properties that
/// did not pass.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (not_applicable, failed, skipped) = (self.not_applicable(), self.failed(), self.skipped());
        write!(f, "{}: {} passed, {} not applicable", self.name, self.passed(), not_applicable.len())?;
        write!(f, ", {} skipped, {} failed", skipped.len(), failed.len())?;
        for (kind, stops) in [("FAILED", failed), ("skipped", skipped), ("not applicable", not_applicable)] {
            for (name, why) in stops {
                let cause = self.explained_by(name).filter(|_| kind == "FAILED");
                let cause = cause.map_or_else(String::new, |cause| format!(" (explained by {cause})"));
                write!(f, "\n  {kind}{cause}: {name}: {why}")?;
            }
        }
        Ok(())
    }
}

/// Writes an outcome to the file that [`Report::read_all`] reads.
pub(crate) fn write(folder: &Path, property: &Property, outcome: &PropertyResult) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let text = match outcome {
        Ok(()) => "passed\n".to_owned(),
        Err(Stop::NotApplicable(why)) => format!("not applicable\n{why}"),
        Err(Stop::Missing(what)) => format!("skipped\n{what}"),
        Err(Stop::Failed(why)) => format!("failed\n{why}"),
    };
    fs::write(folder.join(property.name), text)
}

fn parse(text: &str) -> PropertyResult {
    let (kind, why) = text.split_once('\n').unwrap_or((text, ""));
    match kind {
        "passed" => Ok(()),
        "not applicable" => Err(Stop::NotApplicable(why.to_owned())),
        "skipped" => Err(Stop::Missing(why.to_owned())),
        _ => Err(Stop::Failed(why.to_owned())),
    }
}

/// The date of an instant in UTC, such as `2026-01-31`.
fn date(at: Timestamp) -> String {
    // If years begin in March, the leap day is the last day of a year.
    let days = at.as_unix_seconds() / 86_400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (year, month) = if month < 10 { (year, month + 3) } else { (year + 1, month - 9) };
    format!("{:04}-{month:02}-{day:02}", era * 400 + year)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_converted_to_dates() {
        let dates = [
            (0, "1970-01-01"),
            (951_782_400, "2000-02-29"),
            (1_709_164_800, "2024-02-29"),
            (253_402_300_799, "9999-12-31"),
        ];
        for (seconds, wanted) in dates {
            assert_eq!(date(Timestamp::from_unix_seconds(seconds)), wanted);
        }
    }

    #[test]
    fn failures_that_no_other_explains_come_first() {
        let mut report = Report::new("mine");
        let names = ["a_version_is_void_after_its_retention", "zero_retention_is_over_at_once", "missing_is_none"];
        for name in &names[..2] {
            let property = crate::PROPERTIES.iter().find(|property| property.name == *name).unwrap();
            report.add(property, Err(Stop::Failed("wrong".to_owned())), Duration::ZERO);
        }
        let failed: Vec<_> = report.failed().into_iter().map(|(name, _)| name).collect();
        assert_eq!(failed, [names[1], names[0]]);
        assert_eq!(report.explained_by(names[0]), Some(names[1]));
        assert_eq!(report.explained_by(names[1]), None);

        let missing = crate::PROPERTIES.iter().find(|property| property.name == names[2]).unwrap();
        report.add(missing, Err(Stop::Failed("wrong".to_owned())), Duration::ZERO);
        assert_eq!(report.explained_by(names[1]), Some(names[2]), "the most basic one");
    }

    #[test]
    fn a_published_report_names_versions_and_failures() {
        let mut report = Report::new("mine");
        report.add(&crate::PROPERTIES[0], Ok(()), Duration::ZERO);
        report.add(&crate::PROPERTIES[1], Err(Stop::Failed("get is a | wrong\nlast calls".to_owned())), Duration::ZERO);
        let text = report.to_markdown("my-storage 1.2.3");
        for part in [
            "# Conformance of my-storage 1.2.3",
            env!("CARGO_PKG_VERSION"),
            "| date | 2",
            "1 passed, 0 not",
            "get is a \\| wrong |",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
