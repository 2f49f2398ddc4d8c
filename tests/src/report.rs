use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::outcome::{Outcome, Stop};
use crate::run::Property;

/// How one storage did.
#[derive(Clone, Debug)]
pub struct Report {
    name: String,
    outcomes: BTreeMap<&'static str, (Outcome, Duration)>,
}

impl Report {
    pub(crate) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), outcomes: BTreeMap::new() }
    }

    pub(crate) fn add(&mut self, property: &Property, outcome: Outcome, took: Duration) {
        self.outcomes.insert(property.name, (outcome, took));
    }

    /// The storage's name in this report.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The outcome of one property, if it was tried.
    pub fn outcome(&self, property: &str) -> Option<&Outcome> {
        self.outcomes.get(property).map(|(outcome, _)| outcome)
    }

    /// How long one property took, if it was tried.
    pub fn took(&self, property: &str) -> Option<Duration> {
        self.outcomes.get(property).map(|(_, took)| *took)
    }

    /// How many properties were kept.
    pub fn passed(&self) -> usize {
        self.outcomes.values().filter(|(outcome, _)| outcome.is_ok()).count()
    }

    /// The properties that do not apply, and why.
    pub fn not_applicable(&self) -> Vec<(&'static str, &str)> {
        self.stopped(|stop| if let Stop::NotApplicable(why) = stop { Some(why) } else { None })
    }

    /// The properties that were broken, and how; the most telling first.
    pub fn failed(&self) -> Vec<(&'static str, &str)> {
        self.stopped(|stop| if let Stop::Failed(why) = stop { Some(why) } else { None })
    }

    /// The properties that could not be tried because something is not there, and what.
    pub fn skipped(&self) -> Vec<(&'static str, &str)> {
        self.stopped(|stop| if let Stop::Missing(what) = stop { Some(what) } else { None })
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

/// The counts on the first line, then a line for everything that was not kept.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (not_applicable, failed, skipped) = (self.not_applicable(), self.failed(), self.skipped());
        write!(f, "{}: {} passed, {} not applicable", self.name, self.passed(), not_applicable.len())?;
        write!(f, ", {} skipped, {} failed", skipped.len(), failed.len())?;
        for (kind, stops) in [("not applicable", not_applicable), ("skipped", skipped), ("FAILED", failed)] {
            for (name, why) in stops {
                write!(f, "\n  {kind}: {name}: {why}")?;
            }
        }
        Ok(())
    }
}

/// Notes an outcome where [`Report::read_all`] finds it.
pub(crate) fn write(folder: &Path, property: &Property, outcome: &Outcome) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let text = match outcome {
        Ok(()) => "passed\n".to_owned(),
        Err(Stop::NotApplicable(why)) => format!("not applicable\n{why}"),
        Err(Stop::Missing(what)) => format!("skipped\n{what}"),
        Err(Stop::Failed(why)) => format!("failed\n{why}"),
    };
    fs::write(folder.join(property.name), text)
}

fn parse(text: &str) -> Outcome {
    let (kind, why) = text.split_once('\n').unwrap_or((text, ""));
    match kind {
        "passed" => Ok(()),
        "not applicable" => Err(Stop::NotApplicable(why.to_owned())),
        "skipped" => Err(Stop::Missing(why.to_owned())),
        _ => Err(Stop::Failed(why.to_owned())),
    }
}
