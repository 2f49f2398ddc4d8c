//! The other process: an application without a browser, which executes commands from its standard input.

use std::collections::BTreeMap;
use std::io::{BufRead as _, Write as _};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use oauth_dance::testing::{CLIENT, provider_at};
use oauth_dance::{
    ApiError, Clock, ConnectError, Hooks, KeyRing, OAuth, Provider, RefreshEvent, Registration, Timestamp, TokenKey,
    User,
};
use oauth_dance_core::{Migrating, TokenStorage};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::backend;
use crate::gate::{Gated, Point, Resume, Seen};
use crate::personal;
use crate::support::OidcProvider;

/// The environment variable with the [`Settings`] of a worker.
pub const SETTINGS: &str = "REFRESH_WORKER";
/// The prefix of each line that a worker sends to the test.
pub const PREFIX: &str = "worker says ";
/// The pause of a task between two reads of a token that has just expired.
const SHORTEST_NAP: Duration = Duration::from_millis(20);

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Settings {
    pub storage: String,
    pub namespace: String,
    /// If records are being moved to another storage: that storage, and the step of the migration.
    pub moves: Option<Moves>,
    /// The timeout of an operation of the storage.
    pub storage_timeout: Option<Duration>,
    pub keys: String,
    pub providers: Vec<At>,
    /// The timeout of a call of a provider.
    pub timeout: Duration,
    /// The offset of the clock in seconds.
    pub clock_offset: i64,
}

/// A step of a migration to another storage.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Moves {
    pub to: String,
    pub namespace: String,
    pub is_preparing: bool,
}

/// Opens the storage of a process.
pub async fn open(settings: &Settings) -> Arc<dyn TokenStorage> {
    let old = backend::open(&settings.storage, &settings.namespace, settings.storage_timeout).await;
    let Some(moves) = &settings.moves else { return old };
    let new = backend::open(&moves.to, &moves.namespace, settings.storage_timeout).await;
    Arc::new(if moves.is_preparing { Migrating::prepare(new, old) } else { Migrating::new(new, old) })
}

/// The address of a provider.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct At {
    pub name: String,
    pub url: String,
    /// Whether it is npm's `oidc-provider` instead of the `TestProvider`.
    pub is_openid: bool,
}

impl At {
    pub fn registration(&self) -> Registration {
        if !self.is_openid {
            return provider_at(&self.url, &self.name).client(CLIENT.0, CLIENT.1);
        }
        let at = |path| format!("{}{path}", self.url);
        let mut provider = Provider::new(&self.name, at("/auth"), at("/token"));
        provider.userinfo_endpoint = Some(at("/me"));
        provider.client(OidcProvider::CLIENT_ID, OidcProvider::CLIENT_SECRET)
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Command {
    /// Calls the API once for a user. If `give_up` is set, it stops waiting after that time.
    Call {
        provider: String,
        user: String,
        give_up: Option<Duration>,
    },
    /// Calls the API from many tasks, each for one user: as soon as the token expires, and at least once per interval.
    Run {
        provider: String,
        users: Vec<String>,
        tasks: usize,
        time: Duration,
        interval: Duration,
    },
    /// Logs a user out.
    Disconnect {
        provider: String,
        user: String,
    },
    /// The events of a user's token so far.
    Events {
        user: String,
    },
    /// Blocks once at this point.
    Hold(Point),
    /// Continues from there.
    Resume(Resume),
    Offline(bool),
}

/// The result of [`Command::Run`].
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// The number of calls with status 200.
    pub good: u64,
    /// The numbers of the other calls, by their results.
    pub bad: BTreeMap<String, u64>,
    pub seen: Seen,
    pub events: BTreeMap<String, u64>,
}

/// Sends a line to the test.
pub fn report(what: &Value) {
    let mut output = std::io::stdout().lock();
    writeln!(output, "\n{PREFIX}{what}").unwrap();
    output.flush().unwrap();
}

pub fn main() {
    let settings = serde_json::from_str(&std::env::var(SETTINGS).expect("started by a test")).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let worker = Arc::new(runtime.block_on(Worker::new(settings)));
    report(&json!({ "ready": std::process::id() }));
    for line in std::io::stdin().lock().lines() {
        let (id, command): (u64, Command) = serde_json::from_str(&line.unwrap()).unwrap();
        let worker = Arc::clone(&worker);
        runtime.spawn(async move {
            let response = worker.act(command).await;
            report(&json!({ "id": id, "response": response }));
        });
    }
    // The test has ended, and nothing waits for calls in flight.
    std::process::exit(0);
}

struct Worker {
    oauth: OAuth,
    storage: Gated,
    events: Events,
    clock_offset: i64,
}

impl Worker {
    async fn new(settings: Settings) -> Self {
        let clock_offset = settings.clock_offset;
        let clock = Clock::new(move || {
            Timestamp::from_unix_seconds(Clock::system().now().as_unix_seconds().saturating_add_signed(clock_offset))
        });
        let (storage, ring) = match personal::open(&settings).await {
            Some(opened) => opened,
            None => (open(&settings).await, KeyRing::parse(&settings.keys).unwrap()),
        };
        let storage = Gated::new(storage, clock.clone());
        let events = Events::default();
        let oauth = oauth(storage.clone(), ring, &settings.providers)
            .clock(clock)
            .timeout(settings.timeout)
            .hooks(events.clone())
            .build()
            .unwrap();
        Self { oauth, storage, events, clock_offset }
    }

    async fn act(self: &Arc<Self>, command: Command) -> Value {
        match command {
            Command::Call { provider, user, give_up } => {
                let call = self.call(&provider, &user);
                let outcome = match give_up {
                    Some(give_up) => timeout(give_up, call).await.unwrap_or_else(|_| WorkerResult::of("gave up")),
                    None => call.await,
                };
                json!(outcome.what)
            }
            Command::Run { provider, users, tasks, time, interval } => {
                let until = Instant::now() + time;
                let runs = (0..tasks).map(|task| {
                    let (worker, provider, user) =
                        (Arc::clone(self), provider.clone(), users[task % users.len()].clone());
                    async move { worker.run(&provider, &user, until, interval).await }
                });
                let mut report = Report::default();
                for (good, bad) in runs.collect::<JoinSet<_>>().join_all().await {
                    report.good += good;
                    for what in bad {
                        *report.bad.entry(what).or_default() += 1;
                    }
                }
                report.seen = self.storage.seen();
                report.events = self.events.counts();
                json!(report)
            }
            Command::Disconnect { provider, user } => {
                let done = self.oauth.disconnect(&provider, &User::new(user)).await;
                json!(done.map_or_else(|error| error.code().to_owned(), |done| format!("removed {}", done.removed)))
            }
            Command::Events { user } => json!(self.events.of(&user)),
            Command::Hold(point) => json!(self.storage.hold(point)),
            Command::Resume(how) => json!(self.storage.resume(how)),
            Command::Offline(is_offline) => json!(self.storage.set_offline(is_offline)),
        }
    }

    /// Runs one task. Returns the number of successful calls, and the results of the others.
    async fn run(&self, provider: &str, user: &str, until: Instant, interval: Duration) -> (u64, Vec<String>) {
        let (mut good, mut bad) = (0, Vec::new());
        while Instant::now() < until {
            let WorkerResult { what, expires_at } = self.call(provider, user).await;
            match what.as_str() {
                "200" => good += 1,
                _ => bad.push(what),
            }
            let expiry = expires_at.map_or(interval, |expiry| self.until(expiry));
            sleep(expiry.min(interval).max(SHORTEST_NAP).min(until - Instant::now())).await;
        }
        (good, bad)
    }

    async fn call(&self, provider: &str, user: &str) -> WorkerResult {
        let client = match self.oauth.client(provider, &User::new(user)).await {
            Ok(client) => client,
            Err(ConnectError::NeedsAuthorization { reason, .. }) => {
                return WorkerResult::of(format!("needs authorization: {reason:?}"));
            }
            Err(error) => return WorkerResult::of(error.code()),
        };
        let what = match client.userinfo().send().await {
            Ok(response) => response.status().as_u16().to_string(),
            Err(ApiError::Timeout) => "the API timed out".to_owned(),
            Err(error) => format!("the API failed: {}", root(&error)),
        };
        WorkerResult { what, expires_at: client.token().expires_at() }
    }

    /// The time until this instant, to the millisecond, on the clock of this process.
    fn until(&self, instant: Timestamp) -> Duration {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let now = match u64::try_from(self.clock_offset) {
            Ok(ahead) => now + Duration::from_secs(ahead),
            Err(_) => now - Duration::from_secs(self.clock_offset.unsigned_abs()),
        };
        Duration::from_secs(instant.as_unix_seconds()).saturating_sub(now)
    }
}

/// The result of a caller: a status of the API, or the reason why there was no call.
struct WorkerResult {
    what: String,
    expires_at: Option<Timestamp>,
}

impl WorkerResult {
    fn of(what: impl Into<String>) -> Self {
        Self { what: what.into(), expires_at: None }
    }
}

/// The innermost source of an error.
fn root(mut error: &dyn std::error::Error) -> String {
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// A configuration over a storage, with these providers.
pub fn oauth(storage: impl TokenStorage, ring: KeyRing, providers: &[At]) -> oauth_dance::OAuthBuilder {
    let builder = OAuth::builder("http://localhost:3000", storage, ring);
    providers.iter().fold(builder.anonymous_users(), |builder, at| builder.provider(at.registration()))
}

/// The events of each user's token, in order.
#[derive(Clone, Default)]
struct Events(Arc<Mutex<Vec<(String, &'static str)>>>);

impl Events {
    fn of(&self, user: &str) -> Vec<&'static str> {
        self.0.lock().unwrap().iter().filter(|(owner, _)| owner == user).map(|(_, event)| *event).collect()
    }

    fn counts(&self) -> BTreeMap<String, u64> {
        self.0.lock().unwrap().iter().fold(BTreeMap::new(), |mut counts, (_, event)| {
            *counts.entry((*event).to_owned()).or_default() += 1;
            counts
        })
    }
}

impl Hooks for Events {
    fn refresh(&self, key: &TokenKey, event: &RefreshEvent) {
        self.0.lock().unwrap().push((key.user().to_owned(), event.name()));
    }
}
