//! The protocol in a simulated world: virtual time, an application that writes to its tokens, and processes that crash or
//! stand still, storages that cut off and providers that lose answers as a seed says.
//!
//! `OAUTH_DANCE_SEED=123` runs one seed only, `OAUTH_DANCE_TRACE=1` tells what happens in it, `OAUTH_DANCE_SEEDS=100000` runs that
//! many.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod books;
mod process;
mod provider;
mod storage;
mod world;

use std::thread;

use world::{Bug, Report, Weather, World};

const SEEDS: u64 = 1000;

/// Runs `seeds` and returns the reports with their seeds.
fn run(seeds: impl Iterator<Item = u64>, weather: Weather, bug: Bug) -> impl Iterator<Item = (u64, Report)> {
    seeds.map(move |seed| (seed, World::run(seed, weather, bug)))
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is a number")))
}

/// Runs every seed, or the one that is asked for, and fails with the first that broke a promise.
fn expect_no_breach(weather: Weather) -> Report {
    let seeds = match number("OAUTH_DANCE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("OAUTH_DANCE_SEEDS").unwrap_or(SEEDS),
    };
    let halves = [0, 1].map(|half| {
        let seeds = seeds.clone().filter(move |seed| seed % 2 == half);
        thread::spawn(move || {
            let mut total = Report::default();
            for (seed, report) in run(seeds, weather, Bug::None) {
                assert!(report.breaches.is_empty(), "OAUTH_DANCE_SEED={seed} {weather:?}: {:#?}", report.breaches);
                total.add(&report);
            }
            total
        })
    });
    let mut total = Report::default();
    for half in halves {
        total.add(&half.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
    }
    println!("{weather:?}: {total:?}");
    total
}

#[test]
fn in_calm_weather_every_expiry_costs_one_redemption() {
    let total = expect_no_breach(Weather::Calm);
    assert!(total.redemptions > 0 && total.adopted > 0);
    assert_eq!((total.replays, total.taken_over, total.calls), (0, 0, total.redemptions));
    assert!(total.edits_during_refresh > 0);
}

#[test]
fn in_a_storm_no_token_is_lost_without_a_name() {
    let total = expect_no_breach(Weather::Storm);
    if number("OAUTH_DANCE_SEED").is_none() {
        // The storm was one: everything that can go wrong did.
        assert!(total.crashes > 0 && total.taken_over > 0 && total.replays > 0 && total.kept > 0, "{total:?}");
        assert!(total.edits_during_refresh > 0 && total.suspended > 0 && total.not_sent > 0, "{total:?}");
        assert!(total.dead > 0 && total.dropped > 0 && total.redemptions > total.replays, "{total:?}");
    }
}

#[test]
fn a_seed_says_everything() {
    for seed in 0..20 {
        assert_eq!(
            World::run(seed, Weather::Storm, Bug::None).trace,
            World::run(seed, Weather::Storm, Bug::None).trace
        );
    }
    assert_ne!(World::run(1, Weather::Storm, Bug::None).trace, World::run(2, Weather::Storm, Bug::None).trace);
}

fn expect_found(bug: Bug) {
    let found = [Weather::Calm, Weather::Storm]
        .into_iter()
        .find_map(|weather| run(0..SEEDS, weather, bug).find(|(_, report)| !report.breaches.is_empty()));
    let (seed, report) = found.unwrap_or_else(|| panic!("{bug:?} was not found in {SEEDS} seeds"));
    println!("{bug:?} found with seed {seed}: {}", report.breaches[0]);
}

#[test]
fn an_unconditional_commit_is_found() {
    expect_found(Bug::UnconditionalCommit);
}

#[test]
fn a_compare_and_swap_that_is_not_atomic_is_found() {
    expect_found(Bug::CompareThenSwap);
}

#[test]
fn stale_reads_are_found() {
    expect_found(Bug::StaleReads);
}

#[test]
fn a_lease_shorter_than_the_request_is_found() {
    expect_found(Bug::ShortLease);
}

#[test]
fn a_takeover_that_does_not_wait_is_found() {
    expect_found(Bug::NoWait);
}

#[test]
fn an_edit_that_erases_a_claim_is_found() {
    expect_found(Bug::ForgetsProgress);
}

#[test]
fn a_commit_that_loses_an_edit_is_found() {
    expect_found(Bug::ForgetsEdits);
}

#[test]
fn a_request_that_leaves_after_its_lease_is_found() {
    expect_found(Bug::IgnoresLease);
}

#[test]
fn a_redeemer_that_tries_twice_is_found() {
    expect_found(Bug::TriesTwice);
}
