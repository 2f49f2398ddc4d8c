//! The suite's own proof: storages that each break one promise, and the properties that notice.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod bench;
mod flaws;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::sync::Mutex;
use std::thread;

use bench::Bench;
use oauth_dance_conformance::{PROPERTIES, Report, run_all};

/// Properties that need another process, and are shown to notice flaws in `processes.rs`.
const ELSEWHERE: &[&str] = &[
    "no_update_is_lost_between_processes",
    "writes_are_seen_by_other_processes",
    "acknowledged_writes_survive_a_kill",
];

#[test]
fn every_broken_storage_is_caught_by_name() {
    let cases: Vec<_> = flaws::cases().collect();
    // A storage that panics is caught; the backtrace would hide the table.
    let told = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let queue = Mutex::new(cases.iter());
    let reports: Mutex<Vec<(&str, Report)>> = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let Some(case) = queue.lock().unwrap().next() else { break };
                    let front = case.front;
                    let report = run_all(case.name, move || async move { Ok(Bench::new(front)) });
                    reports.lock().unwrap().push((case.caught_by, report));
                }
            });
        }
    });
    std::panic::set_hook(told);
    let reports = reports.into_inner().unwrap();
    print(&reports);

    let mut unbroken: BTreeSet<_> = PROPERTIES.iter().map(|property| property.name).collect();
    let mut unnoticed = Vec::new();
    for (caught_by, report) in &reports {
        let failed = report.failed();
        if !failed.iter().any(|(name, _)| name == caught_by) {
            unnoticed.push(format!("{caught_by} does not notice {}", report.name()));
        }
        unbroken.retain(|name| !failed.iter().any(|(failed, _)| failed == name));
    }
    assert_eq!(unnoticed, Vec::<String>::new());
    assert_eq!(unbroken, ELSEWHERE.iter().copied().collect(), "properties that no broken storage fails");
}

/// A line a storage: its name, and the properties that caught it, the expected one first.
fn print(reports: &[(&str, Report)]) {
    let mut output = std::io::stderr().lock();
    writeln!(output, "\n| broken storage | caught by | and by so many others |\n| --- | --- | ---: |").unwrap();
    for (caught_by, report) in reports {
        let others = report.failed().iter().filter(|(name, _)| name != caught_by).count();
        writeln!(output, "| {} | {caught_by} | {others} |", report.name()).unwrap();
    }
}
