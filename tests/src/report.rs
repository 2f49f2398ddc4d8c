use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use oauth_dance_core::{Clock, Timestamp};

use crate::outcome::{PropertyResult, Stop};
use crate::properties::bases;
use crate::run::Property;

/// How one storage did.
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

    /// The storage's name in this report.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The outcome of one property, if it was tried.
    pub fn outcome(&self, property: &str) -> Option<&PropertyResult> {
        self.outcomes.get(property).map(|(outcome, _)| outcome)
    }

    /// How long one property took, if it was tried.
    pub fn took(&self, property: &str) -> Option<Duration> {
        self.outcomes.get(property).map(|(_, took)| *took)
    }

    /// How many properties hold.
    pub fn passed(&self) -> usize {
        self.outcomes.values().filter(|(outcome, _)| outcome.is_ok()).count()
    }

    /// The properties that do not apply, and why.
    pub fn not_applicable(&self) -> Vec<(&'static str, &str)> {
        self.stopped(|stop| if let Stop::NotApplicable(why) = stop { Some(why) } else { None })
    }

    /// The properties that were broken, and how; the most telling first: before all others those that no other broken
    /// property [explains](Self::explained_by).
    pub fn failed(&self) -> Vec<(&'static str, &str)> {
        let mut failed = self.stopped(|stop| if let Stop::Failed(why) = stop { Some(why) } else { None });
        failed.sort_by_cached_key(|(name, _)| self.explained_by(name).is_some());
        failed
    }

    /// The broken property to read first, if one was broken that the property takes for granted.
    pub fn explained_by(&self, property: &str) -> Option<&'static str> {
        let find = |name: &str| crate::PROPERTIES.iter().find(|property| property.name == name);
        let mut first = None;
        let mut below = bases(find(property)?);
        while let Some(basis) =
            crate::PROPERTIES.iter().find(|basis| below.contains(basis.name) && self.has_failed(basis.name))
        {
            first = Some(basis.name);
            below = bases(basis);
        }
        first
    }

    fn has_failed(&self, property: &str) -> bool {
        matches!(self.outcome(property), Some(Err(Stop::Failed(_))))
    }

    /// The properties that could not be tried because something is not there, and what.
    pub fn skipped(&self) -> Vec<(&'static str, &str)> {
        self.stopped(|stop| if let Stop::Missing(what) = stop { Some(what) } else { None })
    }

    /// The report in a form to publish: Markdown with the versions of the storage and of this suite, and the date.
    ///
    /// `storage` names the storage and its version. The tests of [`conformance_tests!`](crate::conformance_tests) write it
    /// below `target/conformance` when all properties have been tried.
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
                let basis = self.explained_by(name).filter(|_| title == "Failed");
                let basis = basis.map_or_else(String::new, |basis| format!(", after `{basis}`"));
                text += &format!("| `{name}`{basis} | {why} |\n");
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

    /// Reads what the tests of [`conformance_tests!`](crate::conformance_tests) wrote under `target/conformance`, one
    /// report a folder.
    ///
    /// # Errors
    /// Whatever the file system says.
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

/// The counts on the first line, then what was not shown to hold: failures first, the most telling of them at the top.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (not_applicable, failed, skipped) = (self.not_applicable(), self.failed(), self.skipped());
        write!(f, "{}: {} passed, {} not applicable", self.name, self.passed(), not_applicable.len())?;
        write!(f, ", {} skipped, {} failed", skipped.len(), failed.len())?;
        for (kind, stops) in [("FAILED", failed), ("skipped", skipped), ("not applicable", not_applicable)] {
            for (name, why) in stops {
                let basis = self.explained_by(name).filter(|_| kind == "FAILED");
                let basis = basis.map_or_else(String::new, |basis| format!(" after {basis}"));
                write!(f, "\n  {kind}{basis}: {name}: {why}")?;
            }
        }
        Ok(())
    }
}

/// Notes an outcome where [`Report::read_all`] finds it.
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

/// The day of an instant, as in `2026-01-31`.
fn date(at: Timestamp) -> String {
    // Years that begin in March end with the day that some of them do not have.
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
    fn days_have_their_dates() {
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
        assert_eq!(report.explained_by(names[1]), Some(names[2]), "what is most basic");
    }

    #[test]
    fn a_published_report_says_what_was_tested_and_what_failed() {
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
