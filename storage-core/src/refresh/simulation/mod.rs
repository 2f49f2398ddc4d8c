//! A simulation of the protocol in virtual time, with fault injection.
//!
//! A seed determines everything: when the application edits its tokens, when processes crash or are suspended, when the
//! storage breaks connections, and when the provider loses responses. An oracle sees what truly happened and checks the
//! promises of the protocol. Deliberate bugs prove that the oracle can detect a violation.
//!
//! * `OAUTH_DANCE_SEED=123` runs one seed only.
//! * `OAUTH_DANCE_TRACE=1` prints what happens.
//! * `OAUTH_DANCE_SEEDS=100000` sets the number of seeds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod oracle;
mod process;
mod provider;
mod storage;
mod world;

use std::thread;

use world::{Bug, Faults, Report, World};

const SEEDS: u64 = 1000;

/// Runs `seeds` and returns the reports with their seeds.
fn run(seeds: impl Iterator<Item = u64>, faults: Faults, bug: Bug) -> impl Iterator<Item = (u64, Report)> {
    seeds.map(move |seed| (seed, World::run(seed, faults, bug)))
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is a number")))
}

/// Runs every seed, or the requested one, and fails at the first violation.
fn expect_no_violation(faults: Faults) -> Report {
    let seeds = match number("OAUTH_DANCE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("OAUTH_DANCE_SEEDS").unwrap_or(SEEDS),
    };
    let halves = [0, 1].map(|half| {
        let seeds = seeds.clone().filter(move |seed| seed % 2 == half);
        thread::spawn(move || {
            let mut total = Report::default();
            for (seed, report) in run(seeds, faults, Bug::None) {
                assert!(report.violations.is_empty(), "OAUTH_DANCE_SEED={seed} {faults:?}: {:#?}", report.violations);
                total.add(&report);
            }
            total
        })
    });
    let mut total = Report::default();
    for half in halves {
        total.add(&half.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
    }
    println!("{faults:?}: {total:?}");
    total
}

#[test]
fn each_expiry_costs_one_redemption_without_faults() {
    let total = expect_no_violation(Faults::Off);
    assert!(total.redemptions > 0 && total.adopted > 0);
    assert_eq!((total.replays, total.taken_over, total.calls), (0, 0, total.redemptions));
    assert!(total.edits_during_refresh > 0);
}

#[test]
fn no_token_is_lost_unreported_under_faults() {
    let total = expect_no_violation(Faults::On);
    if number("OAUTH_DANCE_SEED").is_none() {
        // Every kind of fault occurred.
        assert!(total.crashes > 0 && total.taken_over > 0 && total.replays > 0 && total.not_stored > 0, "{total:?}");
        assert!(total.edits_during_refresh > 0 && total.suspended > 0 && total.not_sent > 0, "{total:?}");
        assert!(total.dead > 0 && total.dropped > 0 && total.redemptions > total.replays, "{total:?}");
    }
}

#[test]
fn run_is_deterministic_for_a_seed() {
    for seed in 0..20 {
        assert_eq!(World::run(seed, Faults::On, Bug::None).trace, World::run(seed, Faults::On, Bug::None).trace);
    }
    assert_ne!(World::run(1, Faults::On, Bug::None).trace, World::run(2, Faults::On, Bug::None).trace);
}

fn expect_detected(bug: Bug) {
    let found = [Faults::Off, Faults::On]
        .into_iter()
        .find_map(|faults| run(0..SEEDS, faults, bug).find(|(_, report)| !report.violations.is_empty()));
    let (seed, report) = found.unwrap_or_else(|| panic!("{bug:?} was not detected in {SEEDS} seeds"));
    println!("{bug:?} detected with seed {seed}: {}", report.violations[0]);
}

#[test]
fn unconditional_commit_is_detected() {
    expect_detected(Bug::UnconditionalCommit);
}

#[test]
fn non_atomic_compare_and_swap_is_detected() {
    expect_detected(Bug::CompareThenSwap);
}

#[test]
fn stale_reads_are_detected() {
    expect_detected(Bug::StaleReads);
}

#[test]
fn lease_shorter_than_the_request_is_detected() {
    expect_detected(Bug::ShortLease);
}

#[test]
fn takeover_that_does_not_wait_is_detected() {
    expect_detected(Bug::NoWait);
}

#[test]
fn edit_that_erases_a_claim_is_detected() {
    expect_detected(Bug::LosesProgress);
}

#[test]
fn commit_that_loses_an_edit_is_detected() {
    expect_detected(Bug::LosesEdits);
}

#[test]
fn request_sent_after_its_lease_is_detected() {
    expect_detected(Bug::IgnoresLease);
}

#[test]
fn redeemer_that_retries_is_detected() {
    expect_detected(Bug::Retries);
}
