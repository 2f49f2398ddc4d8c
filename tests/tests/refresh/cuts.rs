//! The storage becomes unavailable at each step of a refresh.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use oauth_dance::KeyRing;
use oauth_dance::testing::ScriptedResponse;
use sqlx::{Connection as _, SqliteConnection};
use tokio::sync::Mutex;
use tokio::time::sleep;

use crate::backend::{Backend, Kind};
use crate::crashes::{LEASE, TIMEOUT};
use crate::gate::{Point, Resume};
use crate::process::{Process, SOON};
use crate::proxy::{LinkState, Proxy};
use crate::site::{self, LONG, Site};
use crate::table::Table;
use crate::worker::Settings;

/// The timeout of an operation of the storage in these tests.
const STORAGE_TIMEOUT: Duration = Duration::from_secs(2);
const LOST: &str = "needs authorization: ResponseLost";

/// When the storage becomes unavailable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    BeforeAll,
    BeforeTheClaim,
    /// The claim is written, but the storage's reply is lost.
    ClaimReplyLost,
    DuringTheTokenRequest,
    /// In addition, the process is killed before the storage works again.
    DuringTheTokenRequestAndKilled,
    /// The new token is written, but the storage's reply is lost.
    CommitReplyLost,
    /// During a token request that the provider rejects because it is down.
    BeforeTheFailureIsRecorded,
}

impl Step {
    const ALL: [Self; 7] = [
        Self::BeforeAll,
        Self::BeforeTheClaim,
        Self::ClaimReplyLost,
        Self::DuringTheTokenRequest,
        Self::DuringTheTokenRequestAndKilled,
        Self::CommitReplyLost,
        Self::BeforeTheFailureIsRecorded,
    ];

    /// What the caller gets while the storage is unavailable.
    const fn first(self) -> &'static str {
        match self {
            Self::BeforeAll | Self::BeforeTheClaim => "storage_failed",
            Self::BeforeTheFailureIsRecorded => "backing_off",
            _ => "200",
        }
    }

    /// The number of token requests until the storage works again.
    const fn requests(self) -> usize {
        match self {
            Self::BeforeAll | Self::BeforeTheClaim => 0,
            _ => 1,
        }
    }

    /// The possible states of the connection at that time.
    const fn leaves(self) -> &'static [&'static str] {
        match self {
            // A claim that timed out while SQLite waited for its lock may be written when the lock is released.
            Self::BeforeAll | Self::BeforeTheClaim => &["expiring", "refreshing"],
            // The token may already be stored.
            Self::DuringTheTokenRequest => &["refreshing", "valid"],
            Self::DuringTheTokenRequestAndKilled | Self::BeforeTheFailureIsRecorded => &["refreshing"],
            Self::ClaimReplyLost | Self::CommitReplyLost => &["valid"],
        }
    }

    const fn presented(self) -> usize {
        match self {
            Self::DuringTheTokenRequestAndKilled | Self::BeforeTheFailureIsRecorded => 2,
            _ => 1,
        }
    }
}

/// What was observed for one step.
struct Seen {
    how: &'static str,
    first: String,
    state: String,
    requests: usize,
    then: String,
    waited: Duration,
    presented: usize,
    families_revoked: u64,
    last: String,
    events: Vec<String>,
}

/// Without the storage, no refresh token is redeemed. A token that was redeemed before the outage is served from memory, and
/// stored as soon as the storage works again. It is lost only if the process dies in between, and the connection reports
/// that. No record is ever deleted.
pub async fn storage_matrix(backend: &Backend) {
    let runs = Step::ALL.map(|step| async move {
        let backend = Backend::of(backend.kind).await.expect("the backend was available before");
        let seen = cut_and_recover(step, &backend).await;
        backend.remove().await;
        seen
    });
    let seen = join_all(runs).await;

    let mut table = Table::new(
        format!("{}: the storage is cut off in the middle of a refresh", backend.kind.name()),
        &["cut off", "how", "caller gets", "when back", "sent", "others get", "after", "presented", "revoked", "end"],
    );
    for (step, seen) in Step::ALL.iter().zip(&seen) {
        table.row([
            &format!("{step:?}"),
            &seen.how,
            &seen.first,
            &seen.state,
            &seen.requests,
            &seen.then,
            &format!("{:.1} s", seen.waited.as_secs_f32()),
            &seen.presented,
            &seen.families_revoked,
            &seen.last,
        ]);
    }
    table.print();
    for (step, seen) in Step::ALL.iter().zip(&seen) {
        check(*step, seen);
    }
}

async fn cut_and_recover(step: Step, backend: &Backend) -> Seen {
    let keys = site::keys();
    let site = Site::new(backend, &keys, format!("{step:?}")).await;
    let (name, user) = (&site.at.name, &site.user);
    let link = Link::to(backend).await;
    let settings = Settings {
        timeout: TIMEOUT,
        storage_timeout: Some(STORAGE_TIMEOUT),
        ..Process::settings(backend, &keys, vec![site.at.clone()])
    };
    let here = Process::start(&Settings { storage: link.url(backend), ..settings.clone() }).await;
    let other = Process::start(&settings).await;

    let is_ambiguous = matches!(step, Step::ClaimReplyLost | Step::CommitReplyLost);
    let (before, after) = match step {
        Step::CommitReplyLost => (Point::Before(2), Point::After(2)),
        _ => (Point::Before(1), Point::After(1)),
    };
    match step {
        Step::DuringTheTokenRequest | Step::DuringTheTokenRequestAndKilled => {
            site.provider.next_token_response(ScriptedResponse::normal().after(Duration::from_secs(1)));
        }
        Step::BeforeTheFailureIsRecorded => {
            site.provider.next_token_response(ScriptedResponse::status(503).after(Duration::from_secs(1)));
        }
        Step::BeforeAll => link.cut(&here).await,
        _ if is_ambiguous && !matches!(link, Link::Server(_)) => here.hold(after).await,
        _ => here.hold(before).await,
    }
    let cut = async {
        match step {
            Step::BeforeAll => {}
            Step::BeforeTheClaim => {
                here.is_held().await;
                link.cut(&here).await;
                here.resume(Resume::AsUsual).await;
            }
            Step::ClaimReplyLost | Step::CommitReplyLost => {
                here.is_held().await;
                match &link {
                    Link::Server(proxy) => {
                        // Every write contains the id of the sealing key.
                        proxy.lose_reply_to(KeyRing::parse(&keys).unwrap().primary_id().as_bytes());
                        here.resume(Resume::AsUsual).await;
                    }
                    _ => here.resume(Resume::Ambiguous).await,
                }
            }
            Step::DuringTheTokenRequest | Step::DuringTheTokenRequestAndKilled | Step::BeforeTheFailureIsRecorded => {
                site.wait_for_token_requests(1).await;
                link.cut(&here).await;
            }
        }
    };
    let (first, ()) = tokio::join!(here.call(name, user), cut);
    if let Link::Server(proxy) = &link {
        assert!(proxy.has_lost_reply(), "{step:?}: no reply was lost");
    }
    let is_killed = step == Step::DuringTheTokenRequestAndKilled;
    if is_killed {
        assert_eq!(here.call(name, user).await, "200", "served from memory while the process runs");
        here.kill().await;
    }
    let requests = site.token_requests();
    if !(is_killed && matches!(link, Link::InProcess)) {
        link.restore(&here).await;
    }
    let state = site.state().await;

    let start = Instant::now();
    let then = other.call(name, user).await;
    let waited = start.elapsed();
    let last = site.state().await;
    let (presented, families_revoked) = (site.most_presented(), site.families_revoked());
    let sent = site.token_requests();
    let mut events = Vec::new();
    if !is_killed {
        assert_eq!(here.call(name, user).await, then, "{step:?}: both processes get the same");
        events = final_events(&here, user).await;
    }
    assert_eq!(other.call(name, user).await, then, "{step:?}: the same response again");
    assert_eq!(site.token_requests(), sent, "{step:?}: no more token requests");
    site.login(user, LONG).await;
    assert_eq!(other.call(name, user).await, "200", "{step:?}: a login restores the connection");
    let how = link.how(is_ambiguous);
    Seen { how, first, state, requests, then, waited, presented, families_revoked, last, events }
}

/// The events of the refresh, after the token was stored.
async fn final_events(process: &Process, user: &str) -> Vec<String> {
    let start = Instant::now();
    loop {
        let events = process.events(user).await;
        if events.last().is_none_or(|last| last != "not_stored") || start.elapsed() > SOON {
            return events;
        }
        sleep(Duration::from_millis(50)).await;
    }
}

fn check(step: Step, seen: &Seen) {
    assert_eq!(seen.first, step.first(), "{step:?}");
    assert_eq!(seen.requests, step.requests(), "{step:?}: token requests");
    assert!(step.leaves().contains(&seen.state.as_str()), "{step:?}: {}", seen.state);
    let is_lost = step == Step::DuringTheTokenRequestAndKilled;
    let (then, last) = if is_lost { (LOST, LOST) } else { ("200", "valid") };
    assert_eq!((seen.then.as_str(), seen.last.as_str()), (then, last), "{step:?}");
    assert_eq!(seen.presented, step.presented(), "{step:?}: how often the refresh token was sent");
    assert_eq!(seen.families_revoked, u64::from(is_lost), "{step:?}");
    assert!(seen.waited < LEASE * 2, "{step:?}: {:?}", seen.waited);
    if step == Step::DuringTheTokenRequest {
        assert_eq!(seen.events, ["not_stored", "refreshed"], "{step:?}");
    }
    if step == Step::CommitReplyLost {
        assert_eq!(seen.events.last().map(String::as_str), Some("refreshed"), "{step:?}");
    }
}

/// The link between a process and its storage.
enum Link {
    Server(Proxy),
    /// Another connection keeps the file locked for writing.
    Sqlite {
        url: String,
        lock: Mutex<Option<SqliteConnection>>,
    },
    /// The nodes of a cluster announce their own addresses, so a proxy is not possible.
    InProcess,
}

impl Link {
    async fn to(backend: &Backend) -> Self {
        match backend.kind {
            Kind::Sqlite => Self::Sqlite { url: backend.url.clone(), lock: Mutex::default() },
            Kind::RedisCluster => Self::InProcess,
            _ => Self::Server(Proxy::before(&backend.url).await),
        }
    }

    fn url(&self, backend: &Backend) -> String {
        match self {
            Self::Server(proxy) => proxy.url().to_owned(),
            _ => backend.url.clone(),
        }
    }

    const fn how(&self, is_ambiguous: bool) -> &'static str {
        match self {
            Self::Server(_) => "network",
            Self::Sqlite { .. } if !is_ambiguous => "locked",
            _ => "in process",
        }
    }

    async fn cut(&self, process: &Process) {
        match self {
            Self::Server(proxy) => proxy.set(LinkState::Down),
            Self::Sqlite { url, lock } => {
                let mut connection = SqliteConnection::connect(url).await.unwrap();
                sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut connection).await.unwrap();
                *lock.lock().await = Some(connection);
            }
            Self::InProcess => process.offline(true).await,
        }
    }

    async fn restore(&self, process: &Process) {
        match self {
            Self::Server(proxy) => proxy.set(LinkState::Open),
            Self::Sqlite { lock, .. } => {
                if let Some(mut connection) = lock.lock().await.take() {
                    sqlx::raw_sql("ROLLBACK").execute(&mut connection).await.unwrap();
                }
            }
            Self::InProcess => process.offline(false).await,
        }
    }
}
