//! Two processes whose clocks differ by ten minutes, with the clock of the provider in between.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use crate::backend::Backend;
use crate::crashes::{LEASE, TIMEOUT};
use crate::fleet::{Fleet, Size, users, with_long_timeouts};
use crate::gate::Point;
use crate::process::Process;
use crate::site::{self, NAME, Site};
use crate::table::Table;
use crate::worker::Settings;

const FIVE_MINUTES: i64 = 300;

/// Different clocks cause a few more refreshes, but lose no token: no refresh token is sent twice, no caller gets an error,
/// and a claim is taken over after its lease, regardless of the clocks.
pub async fn skew(backend: &Backend) {
    tokio::join!(expiries(backend), takeovers(backend));
}

async fn expiries(backend: &Backend) {
    const LIFE: Duration = Duration::from_secs(4);
    let size = Size { processes: 2, tasks: 20, keys: 10, time: Duration::from_secs(12) };
    let keys = site::keys();
    let site = Site::new(backend, &keys, NAME).await;
    site.provider.configure(|settings| settings.access_token_lifetime = LIFE);
    let users = users(size.keys);
    for user in &users {
        site.login(user, LIFE).await;
    }
    let settings = with_long_timeouts(Process::settings(backend, &keys, vec![site.at.clone()]));
    let offsets = [-FIVE_MINUTES, FIVE_MINUTES].into_iter();
    let fleet = Fleet::of(offsets.map(|clock_offset| Settings { clock_offset, ..settings.clone() })).await;

    let report = fleet.run(NAME, &users, &size, Duration::from_millis(150)).await;

    let counters = site.provider.counters();
    let twice = counters.redemptions.values().filter(|&&times| times > 1).count();
    // One refresh by the process whose clock is behind, which gets a 401, and one by the process for which the new token has
    // already expired.
    let lives = size.time.as_secs() / (LIFE.as_secs() - 1) + 1;
    let most = 2 * size.keys as u64 * lives;
    let mut table = Table::new(
        format!("{}: clocks ten minutes apart, tokens of {LIFE:?} for {:?}", backend.kind.name(), size.time),
        &["calls", "bad calls", "redemptions", "at most", "presented twice", "families revoked"],
    );
    let bad: u64 = report.bad.values().sum();
    table.row([&report.good, &bad, &counters.refreshes, &most, &twice, &counters.families_revoked]);
    table.print();

    assert_eq!(report.bad, BTreeMap::new(), "callers got errors");
    assert_eq!((twice, counters.families_revoked), (0, 0));
    assert!(counters.refreshes <= most, "{} redemptions", counters.refreshes);
    assert!(counters.refreshes >= size.keys as u64, "too few redemptions: {}", counters.refreshes);
}

async fn takeovers(backend: &Backend) {
    let keys = site::keys();
    let runs = [-FIVE_MINUTES, FIVE_MINUTES].map(|offset| {
        let keys = &keys;
        async move {
            let site = Site::new(backend, keys, format!("takeover{offset}")).await;
            let settings = Settings { timeout: TIMEOUT, ..Process::settings(backend, keys, vec![site.at.clone()]) };
            let dead = Process::start(&Settings { clock_offset: offset, ..settings.clone() }).await;
            let survivor = Process::start(&Settings { clock_offset: -offset, ..settings }).await;
            site.login(&site.user, Duration::ZERO).await;
            // The token has expired on both clocks.
            let mut token = site.issue(&site.user, Duration::ZERO);
            token.expires_at = token.expires_at.map(|expiry| {
                oauth_dance::Timestamp::from_unix_seconds(expiry.as_unix_seconds() - 2 * FIVE_MINUTES.unsigned_abs())
            });
            site.store(&site.user, token).await;
            dead.hold(Point::After(1)).await;
            let (_, ()) = tokio::join!(dead.call(&site.at.name, &site.user), async {
                dead.is_held().await;
                dead.kill().await;
            });
            let start = Instant::now();
            let outcome = survivor.call(&site.at.name, &site.user).await;
            (offset, outcome, start.elapsed(), site.most_presented())
        }
    });
    let seen = join_all(runs).await;
    let mut table = Table::new(
        format!("{}: a claim of a process whose clock is off, with a lease of {LEASE:?}", backend.kind.name()),
        &["dead", "survivor", "survivor gets", "after", "presented"],
    );
    for (offset, outcome, waited, presented) in &seen {
        let after = format!("{:.1} s", waited.as_secs_f32());
        table.row([&format!("{offset:+} s"), &format!("{:+} s", -offset), outcome, &after, presented]);
    }
    table.print();
    for (offset, outcome, waited, presented) in seen {
        assert_eq!(outcome, "200", "{offset:+}");
        assert!(waited >= LEASE && waited < LEASE * 2, "{offset:+}: {waited:?}");
        assert_eq!(presented, 1, "{offset:+}");
    }
}
