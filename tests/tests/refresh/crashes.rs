//! Processes killed with SIGKILL at each step of a refresh, and what others make of what they left.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use oauth_dance::testing::ScriptedResponse;

use crate::backend::Backend;
use crate::gate::{GoOn, Point};
use crate::process::Process;
use crate::site::{self, LONG, Site};
use crate::table::Table;
use crate::worker::Settings;

/// How long a token request may take here.
pub const TIMEOUT: Duration = Duration::from_secs(3);
/// The lease is ten seconds longer.
pub const LEASE: Duration = Duration::from_secs(13);

/// Where a process is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    BeforeTheClaim,
    Claimed,
    /// The provider has got the request, and has done nothing yet.
    Sent,
    /// The provider has spent the refresh token.
    Spent,
    /// The process has got the answer.
    Received,
    Committed,
    /// Not killed, but held up for longer than its lease with the claim in hand.
    HeldUp,
}

impl Step {
    const ALL: [Self; 7] =
        [Self::BeforeTheClaim, Self::Claimed, Self::Sent, Self::Spent, Self::Received, Self::Committed, Self::HeldUp];

    const fn point(self) -> Option<Point> {
        match self {
            Self::BeforeTheClaim => Some(Point::Before(1)),
            Self::Claimed | Self::HeldUp => Some(Point::After(1)),
            Self::Sent | Self::Spent => None,
            Self::Received => Some(Point::Before(2)),
            Self::Committed => Some(Point::After(2)),
        }
    }

    /// How the connection stands right after it.
    const fn leaves(self) -> &'static str {
        match self {
            Self::BeforeTheClaim => "expiring",
            Self::Claimed | Self::Sent | Self::Spent | Self::Received | Self::HeldUp => "refreshing",
            Self::Committed => "valid",
        }
    }

    /// Whether the new token is lost with the process.
    const fn loses_the_answer(self) -> bool {
        matches!(self, Self::Spent | Self::Received)
    }

    /// How often the refresh token comes, the dead process's request included.
    const fn presented(self) -> usize {
        match self {
            Self::Sent | Self::Spent | Self::Received => 2,
            _ => 1,
        }
    }
}

/// What was seen of one step.
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

/// Whatever a process dies of between two steps: the token is the old one or the new one, or the connection says that the
/// answer was lost; the refresh token comes a second time only after a takeover that is told, and then never again.
pub async fn crash_matrix(backend: &Backend) {
    let keys = site::keys();
    let sites = join_all(Step::ALL.map(|step| Site::new(backend, &keys, format!("{step:?}")))).await;
    let at = sites.iter().map(|site| site.at.clone()).collect();
    let settings = Settings { timeout: TIMEOUT, ..Process::settings(backend, &keys, at) };
    let heirs = [Process::start(&settings).await, Process::start(&settings).await];

    let runs = Step::ALL.iter().zip(&sites).map(|(step, site)| die_and_recover(*step, site, &settings, &heirs));
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

async fn die_and_recover(step: Step, site: &Site, settings: &Settings, heirs: &[Process; 2]) -> Seen {
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
            None => site.has_token_requests(1).await,
        }
        if step != Step::HeldUp {
            victim.kill().await;
        }
        let left = site.state().await;
        let start = Instant::now();
        let [one, two] = heirs;
        let outcomes: [String; 2] = tokio::join!(one.call(name, user), two.call(name, user)).into();
        let waited = start.elapsed();
        if step == Step::HeldUp {
            victim.go_on(GoOn::AsUsual).await;
        }
        (left, outcomes, waited)
    };
    let (of_victim, (left, outcomes, waited)) = tokio::join!(victim.call(name, user), die);
    let expected = if step == Step::HeldUp { "200" } else { "killed" };
    assert_eq!(of_victim, expected, "{step:?}");

    // Nobody tries again what is over.
    let requests = site.token_requests();
    for heir in heirs.iter().chain(heirs) {
        assert_eq!(heir.call(name, user).await, outcomes[0], "{step:?}: the same response again");
    }
    assert_eq!(site.token_requests(), requests, "{step:?}: no more token requests");
    let (presented, state) = (site.most_presented(), site.state().await);
    let families_revoked = site.families_revoked();
    let mut taken_over = 0;
    for heir in heirs {
        taken_over += heir.events(user).await.iter().filter(|event| *event == "taken_over").count();
    }

    site.login(user, LONG).await;
    let after_login = heirs[0].call(name, user).await;
    Seen { left, outcomes, waited, taken_over, presented, families_revoked, state, after_login }
}

fn check(step: Step, seen: &Seen) {
    let lost = "needs authorization: ResponseLost";
    let (outcome, state) = if step.loses_the_answer() { (lost, lost) } else { ("200", "valid") };
    assert_eq!(seen.left, step.leaves(), "{step:?}");
    assert_eq!(seen.outcomes, [outcome, outcome], "{step:?}");
    assert_eq!(seen.state, state, "{step:?}");
    assert_eq!(seen.presented, step.presented(), "{step:?}: how often the refresh token came");
    assert_eq!(seen.families_revoked, u64::from(step.loses_the_answer()), "{step:?}");
    assert_eq!(seen.after_login, "200", "{step:?}: a login helps at once");
    let has_a_claim = step.leaves() == "refreshing";
    assert_eq!(seen.taken_over, usize::from(has_a_claim), "{step:?}: takeovers");
    match has_a_claim {
        true => assert!(seen.waited >= LEASE && seen.waited < LEASE * 2, "{step:?}: {:?}", seen.waited),
        false => assert!(seen.waited < LEASE, "{step:?}: {:?}", seen.waited),
    }
}
