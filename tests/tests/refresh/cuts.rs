//! The storage cut off at each step of a refresh.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use oauth_dance::KeyRing;
use oauth_dance::testing::ScriptedResponse;
use sqlx::{Connection as _, SqliteConnection};
use tokio::sync::Mutex;
use tokio::time::sleep;

use crate::backend::{Backend, Kind};
use crate::crashes::{LEASE, TIMEOUT};
use crate::gate::{GoOn, Point};
use crate::process::{Process, SOON};
use crate::proxy::{Proxy, Way};
use crate::site::{self, LONG, Site};
use crate::table::Table;
use crate::worker::Settings;

/// The longest an operation of the storage takes here.
const STORAGE_TIMEOUT: Duration = Duration::from_secs(2);
const LOST: &str = "needs authorization: ResponseLost";

/// When the storage is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    BeforeAll,
    BeforeTheClaim,
    /// The claim is written, and the storage's answer is lost.
    ClaimUnanswered,
    WhileTheProviderAnswers,
    /// The same, and the process is killed before the storage is back.
    AndThenItIsKilled,
    /// The new token is written, and the storage's answer is lost.
    CommitUnanswered,
    /// While the provider says that it is down.
    BeforeTheFailureIsNoted,
}

impl Step {
    const ALL: [Self; 7] = [
        Self::BeforeAll,
        Self::BeforeTheClaim,
        Self::ClaimUnanswered,
        Self::WhileTheProviderAnswers,
        Self::AndThenItIsKilled,
        Self::CommitUnanswered,
        Self::BeforeTheFailureIsNoted,
    ];

    /// What the caller may get while the storage is away.
    const fn first(self) -> &'static str {
        match self {
            Self::BeforeAll | Self::BeforeTheClaim => "storage_failed",
            Self::BeforeTheFailureIsNoted => "backing_off",
            _ => "200",
        }
    }

    /// How many token requests there have been when the storage is back.
    const fn requests(self) -> usize {
        match self {
            Self::BeforeAll | Self::BeforeTheClaim => 0,
            _ => 1,
        }
    }

    /// How the connection may stand then.
    const fn leaves(self) -> &'static [&'static str] {
        match self {
            // A claim that was given up while SQLite waited for its lock may be written when that goes.
            Self::BeforeAll | Self::BeforeTheClaim => &["expiring", "refreshing"],
            // The token may be written by then.
            Self::WhileTheProviderAnswers => &["refreshing", "valid"],
            Self::AndThenItIsKilled | Self::BeforeTheFailureIsNoted => &["refreshing"],
            Self::ClaimUnanswered | Self::CommitUnanswered => &["valid"],
        }
    }

    const fn presented(self) -> usize {
        match self {
            Self::AndThenItIsKilled | Self::BeforeTheFailureIsNoted => 2,
            _ => 1,
        }
    }
}

/// What was seen of one step.
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

/// Without the storage nothing is redeemed; what was redeemed already is served from memory and stored when the storage
/// is back; and only if the process dies in between is it lost, which the connection says. Nothing is ever wiped.
pub async fn storage_matrix(backend: &Backend) {
    let runs = Step::ALL.map(|step| async move {
        let backend = Backend::of(backend.kind).await.expect("there was one before");
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

    let is_ambiguous = matches!(step, Step::ClaimUnanswered | Step::CommitUnanswered);
    let (before, after) = match step {
        Step::CommitUnanswered => (Point::Before(2), Point::After(2)),
        _ => (Point::Before(1), Point::After(1)),
    };
    match step {
        Step::WhileTheProviderAnswers | Step::AndThenItIsKilled => {
            site.provider.next_token_response(ScriptedResponse::normal().after(Duration::from_secs(1)));
        }
        Step::BeforeTheFailureIsNoted => {
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
                here.go_on(GoOn::AsUsual).await;
            }
            Step::ClaimUnanswered | Step::CommitUnanswered => {
                here.is_held().await;
                match &link {
                    Link::Server(proxy) => {
                        // Every write names the key that it is sealed with.
                        proxy.lose_answer_to(KeyRing::parse(&keys).unwrap().primary_id().as_bytes());
                        here.go_on(GoOn::AsUsual).await;
                    }
                    _ => here.go_on(GoOn::Ambiguous).await,
                }
            }
            Step::WhileTheProviderAnswers | Step::AndThenItIsKilled | Step::BeforeTheFailureIsNoted => {
                site.has_token_requests(1).await;
                link.cut(&here).await;
            }
        }
    };
    let (first, ()) = tokio::join!(here.call(name, user), cut);
    if let Link::Server(proxy) = &link {
        assert!(proxy.has_lost_it(), "{step:?}: no response was lost");
    }
    let is_killed = step == Step::AndThenItIsKilled;
    if is_killed {
        assert_eq!(here.call(name, user).await, "200", "served from memory until it dies");
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
        assert_eq!(here.call(name, user).await, then, "{step:?}: both get the same");
        events = in_the_end(&here, user).await;
    }
    assert_eq!(other.call(name, user).await, then, "{step:?}: the same response again");
    assert_eq!(site.token_requests(), sent, "{step:?}: no more token requests");
    site.login(user, LONG).await;
    assert_eq!(other.call(name, user).await, "200", "{step:?}: a login helps at once");
    let how = link.how(is_ambiguous);
    Seen { how, first, state, requests, then, waited, presented, families_revoked, last, events }
}

/// What happened, once the token is stored.
async fn in_the_end(process: &Process, user: &str) -> Vec<String> {
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
    let is_lost = step == Step::AndThenItIsKilled;
    let (then, last) = if is_lost { (LOST, LOST) } else { ("200", "valid") };
    assert_eq!((seen.then.as_str(), seen.last.as_str()), (then, last), "{step:?}");
    assert_eq!(seen.presented, step.presented(), "{step:?}: how often the refresh token came");
    assert_eq!(seen.families_revoked, u64::from(is_lost), "{step:?}");
    assert!(seen.waited < LEASE * 2, "{step:?}: {:?}", seen.waited);
    if step == Step::WhileTheProviderAnswers {
        assert_eq!(seen.events, ["not_stored", "refreshed"], "{step:?}");
    }
    if step == Step::CommitUnanswered {
        assert_eq!(seen.events.last().map(String::as_str), Some("refreshed"), "{step:?}");
    }
}

/// The way from one process to its storage.
enum Link {
    Server(Proxy),
    /// Another connection keeps the file locked for writing.
    Sqlite {
        url: String,
        lock: Mutex<Option<SqliteConnection>>,
    },
    /// The members of a cluster tell each other's addresses, so nothing can stand in between.
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
            Self::Server(proxy) => proxy.set(Way::Down),
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
            Self::Server(proxy) => proxy.set(Way::Open),
            Self::Sqlite { lock, .. } => {
                if let Some(mut connection) = lock.lock().await.take() {
                    sqlx::raw_sql("ROLLBACK").execute(&mut connection).await.unwrap();
                }
            }
            Self::InProcess => process.offline(false).await,
        }
    }
}
