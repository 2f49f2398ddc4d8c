//! A process is killed with SIGKILL at each step of a refresh, and other processes recover.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use oauth_dance::testing::ScriptedResponse;

use crate::backend::Backend;
use crate::gate::{Point, Resume};
use crate::process::Process;
use crate::site::{self, LONG, Site};
use crate::table::Table;
use crate::worker::Settings;

/// The timeout of a token request in these tests.
pub const TIMEOUT: Duration = Duration::from_secs(3);
/// The lease is ten seconds longer.
pub const LEASE: Duration = Duration::from_secs(13);

/// Where a process is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    BeforeTheClaim,
    Claimed,
    /// The provider has received the request, and has not processed it yet.
    Sent,
    /// The provider has spent the refresh token.
    Spent,
    /// The process has received the response.
    Received,
    Committed,
    /// Not killed, but suspended for longer than its lease, after its claim.
    Suspended,
}

impl Step {
    const ALL: [Self; 7] = [
        Self::BeforeTheClaim,
        Self::Claimed,
        Self::Sent,
        Self::Spent,
        Self::Received,
        Self::Committed,
        Self::Suspended,
    ];

    const fn point(self) -> Option<Point> {
        match self {
            Self::BeforeTheClaim => Some(Point::Before(1)),
            Self::Claimed | Self::Suspended => Some(Point::After(1)),
            Self::Sent | Self::Spent => None,
            Self::Received => Some(Point::Before(2)),
            Self::Committed => Some(Point::After(2)),
        }
    }

    /// The state of the connection right after the kill.
    const fn leaves(self) -> &'static str {
        match self {
            Self::BeforeTheClaim => "expiring",
            Self::Claimed | Self::Sent | Self::Spent | Self::Received | Self::Suspended => "refreshing",
            Self::Committed => "valid",
        }
    }

    /// Whether the new token is lost with the process.
    const fn loses_the_response(self) -> bool {
        matches!(self, Self::Spent | Self::Received)
    }

    /// How often the provider receives the refresh token, including the request of the killed process.
    const fn presented(self) -> usize {
        match self {
            Self::Sent | Self::Spent | Self::Received => 2,
            _ => 1,
        }
    }
}

/// What was observed for one step.
struct Seen {
    left: String,
    outcomes: [String; 2],
    waited: Duration,
    taken_over: usize,
    presented: usize,
    families_revoked: u64,
    state: String,
    after_login: String,
}

/// If a process dies between any two steps, the stored token is the old or the new one, or the connection reports that the
/// response was lost. The refresh token is sent a second time only after a takeover, and then never again.
pub async fn crash_matrix(backend: &Backend) {
    let keys = site::keys();
    let sites = join_all(Step::ALL.map(|step| Site::new(backend, &keys, format!("{step:?}")))).await;
    let at = sites.iter().map(|site| site.at.clone()).collect();
    let settings = Settings { timeout: TIMEOUT, ..Process::settings(backend, &keys, at) };
    let survivors = [Process::start(&settings).await, Process::start(&settings).await];

    let runs = Step::ALL.iter().zip(&sites).map(|(step, site)| die_and_recover(*step, site, &settings, &survivors));
    let seen = join_all(runs).await;

    let mut table = Table::new(
        format!("{}: killed in the middle of a refresh, with a lease of {LEASE:?}", backend.kind.name()),
        &["killed", "left", "the others get", "after", "taken over", "presented", "families revoked", "in the end"],
    );
    for (step, seen) in Step::ALL.iter().zip(&seen) {
        table.row([
            &format!("{step:?}"),
            &seen.left,
            &seen.outcomes[0],
            &format!("{:.1} s", seen.waited.as_secs_f32()),
            &seen.taken_over,
            &seen.presented,
            &seen.families_revoked,
            &seen.state,
        ]);
    }
    table.print();
    for (step, seen) in Step::ALL.iter().zip(&seen) {
        check(*step, seen);
    }
}

async fn die_and_recover(step: Step, site: &Site, settings: &Settings, survivors: &[Process; 2]) -> Seen {
    let (name, user) = (&site.at.name, &site.user);
    match step {
        Step::Sent => site.provider.next_token_response(ScriptedResponse::status(503).hanging()),
        Step::Spent => site.provider.next_token_response(ScriptedResponse::normal().hanging()),
        _ => {}
    }
    let victim = Process::start(settings).await;
    if let Some(point) = step.point() {
        victim.hold(point).await;
    }
    let die = async {
        match step.point() {
            Some(_) => victim.is_held().await,
            None => site.wait_for_token_requests(1).await,
        }
        if step != Step::Suspended {
            victim.kill().await;
        }
        let left = site.state().await;
        let start = Instant::now();
        let [one, two] = survivors;
        let outcomes: [String; 2] = tokio::join!(one.call(name, user), two.call(name, user)).into();
        let waited = start.elapsed();
        if step == Step::Suspended {
            victim.resume(Resume::AsUsual).await;
        }
        (left, outcomes, waited)
    };
    let (of_victim, (left, outcomes, waited)) = tokio::join!(victim.call(name, user), die);
    let expected = if step == Step::Suspended { "200" } else { "killed" };
    assert_eq!(of_victim, expected, "{step:?}");

    // What has ended is not tried again.
    let requests = site.token_requests();
    for survivor in survivors.iter().chain(survivors) {
        assert_eq!(survivor.call(name, user).await, outcomes[0], "{step:?}: the same response again");
    }
    assert_eq!(site.token_requests(), requests, "{step:?}: no more token requests");
    let (presented, state) = (site.most_presented(), site.state().await);
    let families_revoked = site.families_revoked();
    let mut taken_over = 0;
    for survivor in survivors {
        taken_over += survivor.events(user).await.iter().filter(|event| *event == "taken_over").count();
    }

    site.login(user, LONG).await;
    let after_login = survivors[0].call(name, user).await;
    Seen { left, outcomes, waited, taken_over, presented, families_revoked, state, after_login }
}

fn check(step: Step, seen: &Seen) {
    let lost = "needs authorization: ResponseLost";
    let (outcome, state) = if step.loses_the_response() { (lost, lost) } else { ("200", "valid") };
    assert_eq!(seen.left, step.leaves(), "{step:?}");
    assert_eq!(seen.outcomes, [outcome, outcome], "{step:?}");
    assert_eq!(seen.state, state, "{step:?}");
    assert_eq!(seen.presented, step.presented(), "{step:?}: how often the refresh token was sent");
    assert_eq!(seen.families_revoked, u64::from(step.loses_the_response()), "{step:?}");
    assert_eq!(seen.after_login, "200", "{step:?}: a login restores the connection");
    let has_a_claim = step.leaves() == "refreshing";
    assert_eq!(seen.taken_over, usize::from(has_a_claim), "{step:?}: takeovers");
    match has_a_claim {
        true => assert!(seen.waited >= LEASE && seen.waited < LEASE * 2, "{step:?}: {:?}", seen.waited),
        false => assert!(seen.waited < LEASE, "{step:?}: {:?}", seen.waited),
    }
}
