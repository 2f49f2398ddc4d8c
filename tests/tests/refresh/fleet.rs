//! Many processes with many tasks each, which use the same tokens at the same time.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use oauth_dance::testing::Endpoint;
use oauth_dance_core::random_bytes;

use crate::backend::Backend;
use crate::process::Process;
use crate::site::{self, LONG, NAME, Site};
use crate::table::Table;
use crate::worker::{Command, Report, Settings};

/// The lifetime of an access token of a fleet. It ends at a whole second, so it is at least one second.
const LIFE: Duration = Duration::from_secs(2);
/// More refreshes than any fleet makes.
const MANY: usize = 200_000;

/// The size of a fleet.
pub struct Size {
    pub processes: usize,
    pub tasks: usize,
    pub keys: usize,
    pub time: Duration,
}

impl Size {
    pub fn from_env() -> Self {
        let number = |name: &str, usual| std::env::var(name).map_or(usual, |text| text.parse().unwrap());
        Self {
            processes: number("REFRESH_PROCESSES", 8),
            tasks: number("REFRESH_TASKS", 50),
            keys: number("REFRESH_KEYS", 50),
            time: Duration::from_secs(number("REFRESH_SECONDS", 10) as u64),
        }
    }
}

/// Processes that all do the same.
pub struct Fleet(Vec<Process>);

impl Fleet {
    pub async fn start(settings: &Settings, processes: usize) -> Self {
        Self::of((0..processes).map(|_| settings.clone())).await
    }

    pub async fn of(settings: impl Iterator<Item = Settings>) -> Self {
        Self(join_all(settings.map(|settings| async move { Process::start(&settings).await })).await)
    }

    /// Calls the API from all tasks of all processes for some time, and adds up the results.
    pub async fn run(&self, provider: &str, users: &[String], size: &Size, interval: Duration) -> Report {
        let runs = self.0.iter().enumerate().map(|(number, process)| async move {
            let mut users = users.to_vec();
            // Each user has tasks in several processes, even if there are fewer tasks than users.
            let shift = (number * size.tasks) % users.len();
            users.rotate_left(shift);
            let provider = provider.to_owned();
            let command = Command::Run { provider, users, tasks: size.tasks, time: size.time, interval };
            process.request::<Report>(&command).await.unwrap()
        });
        let mut sum = Report::default();
        for report in join_all(runs).await {
            sum.good += report.good;
            sum.seen.claims += report.seen.claims;
            sum.seen.early += report.seen.early;
            sum.seen.commits += report.seen.commits;
            add(&mut sum.bad, report.bad);
            add(&mut sum.events, report.events);
        }
        sum
    }
}

fn add(sum: &mut BTreeMap<String, u64>, counts: BTreeMap<String, u64>) {
    for (name, count) in counts {
        *sum.entry(name).or_default() += count;
    }
}

pub fn users(count: usize) -> Vec<String> {
    let run = u32::from_be_bytes(random_bytes());
    (0..count).map(|number| format!("user-{run:08x}-{number}")).collect()
}

/// Exactly one redemption replaces each expired access token, however many callers wait for it: each refresh token is sent
/// once, no family is revoked, and no caller gets an error.
///
/// An expiry is counted as a claim over an expired token. The storage permits one such write for each version, so their
/// number is that of the tokens that expired in use.
pub async fn one_redemption(backend: &Backend) {
    let size = Size::from_env();
    let keys = site::keys();
    let site = Site::new(backend, &keys, NAME).await;
    let users = users(size.keys);
    for user in &users {
        site.login(user, LIFE).await;
    }
    site.announce_lifetime(LIFE, MANY);
    let fleet = Fleet::start(&settings(backend, &keys, &site), size.processes).await;

    let report = fleet.run(NAME, &users, &size, LONG).await;

    let counters = site.provider.counters();
    let adopted = report.events.get("adopted").copied().unwrap_or_default();
    let expiries = report.seen.claims - report.seen.early;
    let mut table = Table::new(
        format!(
            "{}: {} processes x {} tasks on {} tokens of {LIFE:?} for {:?}",
            backend.kind.name(),
            size.processes,
            size.tasks,
            size.keys,
            size.time
        ),
        &["calls", "bad calls", "expiries", "redemptions", "presented twice", "families revoked", "adopted elsewhere"],
    );
    let twice = counters.redemptions.values().filter(|&&times| times > 1).count();
    let bad: u64 = report.bad.values().sum();
    table.row([&report.good, &bad, &expiries, &counters.refreshes, &twice, &counters.families_revoked, &adopted]);
    table.print();

    assert_eq!(report.bad, BTreeMap::new(), "callers got errors");
    assert_eq!((twice, counters.families_revoked), (0, 0));
    assert_eq!(counters.redemptions.len() as u64, counters.refreshes, "each refresh token that was sent was redeemed");
    assert_eq!(counters.refreshes, expiries, "one redemption for each expiry");
    assert_eq!(report.seen.early, 0, "tokens were refreshed before they had expired");
    assert_eq!(report.seen.commits, expiries, "each new token was stored");
    let least = size.keys as u64 * size.time.as_secs() / 6;
    assert!(expiries >= least, "{expiries} expiries are fewer than {least}");
    assert!(size.processes == 1 || adopted > 0, "no process adopted the token of another");
    for user in &users {
        let stored = site.stored(user).await.unwrap();
        let next = stored.refresh_token.unwrap();
        assert!(!counters.redemptions.contains_key(next.expose()), "the stored refresh token is spent");
    }
}

/// The API rejects an access token that has not expired: one refresh in all processes, and no caller sees the 401.
pub async fn api_401_retry(backend: &Backend) {
    let size = Size { keys: 4, time: Duration::from_secs(3), ..Size::from_env() };
    let keys = site::keys();
    let site = Site::new(backend, &keys, NAME).await;
    let users = users(size.keys);
    let tokens: Vec<_> = users.iter().map(|user| site.issue(user, LONG)).collect();
    for (user, token) in users.iter().zip(&tokens) {
        site.store(user, token.clone()).await;
        revoke(&site, token.access_token.expose()).await;
    }
    let fleet = Fleet::start(&settings(backend, &keys, &site), size.processes).await;

    let report = fleet.run(NAME, &users, &size, Duration::from_secs(1)).await;

    let counters = site.provider.counters();
    let calls = site.provider.requests_to(Endpoint::Userinfo);
    let rejections = calls.iter().filter(|request| {
        let sent = request.header("authorization").unwrap_or_default();
        tokens.iter().any(|token| sent.ends_with(token.access_token.expose()))
    });
    let rejections = rejections.count();
    let mut table = Table::new(
        format!("{}: the API rejects {} access tokens in use", backend.kind.name(), size.keys),
        &["calls", "bad calls", "answered with 401 first", "redemptions", "families revoked"],
    );
    let bad: u64 = report.bad.values().sum();
    table.row([&report.good, &bad, &rejections, &counters.refreshes, &counters.families_revoked]);
    table.print();

    assert_eq!(report.bad, BTreeMap::new(), "callers got errors");
    assert_eq!(counters.refreshes, size.keys as u64, "one refresh for each rejected token");
    assert_eq!(counters.families_revoked, 0);
    assert_eq!(site.most_presented(), 1);
    assert!(rejections > size.keys, "only {rejections} calls got a 401");
}

/// Sets long timeouts, for busy machines and tests that are not about timeouts.
pub fn with_long_timeouts(settings: Settings) -> Settings {
    let timeout = Duration::from_secs(60);
    Settings { timeout, storage_timeout: Some(timeout), ..settings }
}

fn settings(backend: &Backend, keys: &str, site: &Site) -> Settings {
    with_long_timeouts(Process::settings(backend, keys, vec![site.at.clone()]))
}

/// Revokes an access token at the provider, but not its grant.
async fn revoke(site: &Site, token: &str) {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let (id, secret) = oauth_dance::testing::CLIENT;
    let form = [("token", token), ("client_id", id), ("client_secret", secret)];
    let response = client.post(format!("{}/revoke", site.provider.url())).form(&form).send().await.unwrap();
    assert_eq!(response.status(), 200);
}
