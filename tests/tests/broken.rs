//! Tests the suite itself: every broken storage has to fail the properties that it names, and every property has to fail on
//! at least one broken storage.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod bench;
mod flaws;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use bench::Bench;
use oauth_dance_conformance::{PROPERTIES, Stop, run_all};

/// Properties that need other processes or namespaces. `processes.rs` tests that they detect flaws.
const ELSEWHERE: &[&str] = &[
    "no_update_is_lost_between_processes",
    "writes_are_seen_by_other_processes",
    "acknowledged_writes_survive_a_kill",
    "each_refresh_token_is_redeemed_once",
    "namespaces_are_apart",
];

/// How often a property is tried again if it did not detect a flaw. Races are a matter of chance, especially on a busy
/// machine.
const RETRIES: usize = 2;

#[test]
fn every_broken_storage_is_caught_by_name() {
    let cases: Vec<_> = flaws::cases().flat_map(|case| case.caught_by.iter().map(move |name| (case, *name))).collect();
    let run = |(case, name): &(&'static flaws::Case, &str)| {
        let property = PROPERTIES.iter().find(|property| property.name == *name);
        let property = property.unwrap_or_else(|| panic!("{}: there is no property {name}", case.name));
        let front = case.front;
        property.run(move || async move { Ok(Bench::new(front)) })
    };
    let mut outcomes = of_each(&cases, run);
    for (case, outcome) in &mut outcomes {
        for _ in 0..RETRIES {
            if matches!(outcome, Err(Stop::Failed(_))) {
                break;
            }
            eprintln!("{} does not detect {} in this run: {outcome:?}", case.1, case.0.name);
            *outcome = run(&*case);
        }
    }
    let mut output = std::io::stderr().lock();
    writeln!(output, "\n| broken storage | caught by | failure |\n| --- | --- | --- |").unwrap();
    let mut undetected = Vec::new();
    let mut never_failed: BTreeSet<_> = PROPERTIES.iter().map(|property| property.name).collect();
    for ((case, name), outcome) in &outcomes {
        let failure = match outcome {
            Err(Stop::Failed(why)) => {
                never_failed.remove(name);
                first_line(why)
            }
            other => {
                undetected.push(format!("{name} does not detect {}: {other:?}", case.name));
                "**none**".to_owned()
            }
        };
        writeln!(output, "| {} | {name} | {failure} |", case.name).unwrap();
    }
    writeln!(output, "{} broken storages", flaws::cases().count()).unwrap();
    assert_eq!(undetected, Vec::<String>::new());
    assert_eq!(never_failed, ELSEWHERE.iter().copied().collect(), "properties that no broken storage fails");
}

/// Tests all properties on all broken storages, to find how many properties detect each flaw. It takes some minutes.
#[test]
#[ignore = "a survey, for changes of the suite"]
fn survey_of_properties_that_detect_each_flaw() {
    let cases: Vec<_> = flaws::cases().collect();
    let reports = of_each(&cases, |case| {
        let front = case.front;
        run_all(case.name, move || async move { Ok(Bench::new(front)) })
    });
    let mut output = std::io::stderr().lock();
    for (case, report) in &reports {
        let failed = report.failed();
        let first = failed.first().map_or_else(|| "none".to_owned(), |(_, why)| first_line(why));
        let names: Vec<_> = failed.iter().map(|(name, _)| *name).collect();
        writeln!(output, "{}: {}: {first}; {}", case.name, names.len(), names.join(", ")).unwrap();
    }
}

/// Processes the cases, two at a time, without printing panics.
fn of_each<C: Copy + Send + Sync, T: Send>(cases: &[C], work: impl Fn(&C) -> T + Sync) -> Vec<(C, T)> {
    // Panics of storages are expected. Their messages would hide the table.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::SeqCst);
                    let Some(case) = cases.get(index) else { break };
                    let found = work(case);
                    done.lock().unwrap().push((index, *case, found));
                }
            });
        }
    });
    std::panic::set_hook(hook);
    let mut done = done.into_inner().unwrap();
    done.sort_by_key(|(index, ..)| *index);
    done.into_iter().map(|(_, case, found)| (case, found)).collect()
}

fn first_line(why: &str) -> String {
    why.lines().next().unwrap_or_default().replace('|', "\\|")
}
