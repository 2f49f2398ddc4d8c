//! Logouts and logins while other processes refresh.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use oauth_dance::User;
use oauth_dance::testing::{Endpoint, ScriptedResponse};
use oauth_dance_core::random_bytes;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::backend::Backend;
use crate::fleet::{Fleet, Size, users, with_long_timeouts};
use crate::gate::{Point, Resume};
use crate::process::Process;
use crate::site::{self, LONG, NAME, Site};
use crate::table::Table;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    BeforeTheClaim,
    Claimed,
    Received,
    /// The provider responds with `invalid_grant`.
    Refused,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Other {
    Logout,
    Login,
    LogoutAndLogin,
}

const STEPS: [Step; 4] = [Step::BeforeTheClaim, Step::Claimed, Step::Received, Step::Refused];
const OTHERS: [Other; 3] = [Other::Logout, Other::Login, Other::LogoutAndLogin];

/// What was observed for one combination.
struct Seen {
    outcome: String,
    stored: &'static str,
    presented: usize,
    revoked: bool,
    events: Vec<String>,
}

/// A logout or a new login by another process takes precedence over a refresh at any step. The refresh ends with the result
/// of the other process, and neither writes nor deletes anything.
pub async fn logout_and_login_win(backend: &Backend) {
    let keys = site::keys();
    let all: Vec<_> = STEPS.iter().flat_map(|step| OTHERS.map(|other| (*step, other))).collect();
    let sites = all.iter().map(|(step, other)| {
        let (name, keys) = (format!("{step:?}-{other:?}"), &keys);
        async move { Site::new(backend, keys, name).await }
    });
    let sites = join_all(sites).await;
    let settings = Process::settings(backend, &keys, sites.iter().map(|site| site.at.clone()).collect());
    let (one, other) = tokio::join!(Process::start(&settings), Process::start(&settings));

    let mut seen = Vec::new();
    for ((step, what), site) in all.iter().zip(&sites) {
        seen.push(interfere(*step, *what, site, &one, &other).await);
    }

    let mut table = Table::new(
        format!("{}: another process logs out or in during a refresh", backend.kind.name()),
        &["refresh", "the other", "caller gets", "stored", "presented", "late token revoked", "events"],
    );
    for ((step, what), seen) in all.iter().zip(&seen) {
        table.row([
            &format!("{step:?}"),
            &format!("{what:?}"),
            &seen.outcome,
            &seen.stored,
            &seen.presented,
            &seen.revoked,
            &seen.events.join(", "),
        ]);
    }
    table.print();
    for ((step, what), seen) in all.iter().zip(&seen) {
        let here = format!("{step:?}, {what:?}");
        let (outcome, stored) = match what {
            Other::Logout => ("not_connected", "nothing"),
            Other::Login | Other::LogoutAndLogin => ("200", "the login's token"),
        };
        assert_eq!((seen.outcome.as_str(), seen.stored), (outcome, stored), "{here}");
        assert_eq!(seen.presented, usize::from(*step != Step::BeforeTheClaim), "{here}");
        let has_a_late_token = (*step, *what) == (Step::Received, Other::Logout);
        assert!(!has_a_late_token || seen.revoked, "{here}: a late token is revoked");
    }
}

async fn interfere(step: Step, what: Other, site: &Site, one: &Process, other: &Process) -> Seen {
    let (name, user) = (&site.at.name, &site.user);
    let mut login = None;
    match step {
        Step::BeforeTheClaim => one.hold(Point::Before(1)).await,
        Step::Claimed => one.hold(Point::After(1)).await,
        Step::Received => one.hold(Point::Before(2)).await,
        Step::Refused => {
            site.provider.next_token_response(ScriptedResponse::error(400, "invalid_grant"));
            one.hold(Point::Before(2)).await;
        }
    }
    let act = async {
        one.is_held().await;
        if what != Other::Login {
            assert_eq!(other.disconnect(name, user).await, "removed true");
        }
        if what != Other::Logout {
            let token = site.issue(user, LONG);
            login = Some(token.clone());
            site.store(user, token).await;
        }
        one.resume(Resume::AsUsual).await;
    };
    let (outcome, ()) = tokio::join!(one.call(name, user), act);
    // Events after the caller has got its result.
    sleep(Duration::from_millis(300)).await;
    let stored = match site.stored(user).await {
        None => "nothing",
        Some(found) if login.is_some_and(|login| login.access_token == found.access_token) => "the login's token",
        Some(_) => "something else",
    };
    let refreshed = site.provider.counters().refreshes > 0;
    let revocations = site.provider.requests_to(Endpoint::Revocation);
    let old = site
        .provider
        .requests_to(Endpoint::Token)
        .first()
        .and_then(|request| request.field("refresh_token").map(str::to_owned));
    let late = revocations.iter().any(|request| {
        request.field("token_type_hint") == Some("refresh_token") && request.field("token") != old.as_deref()
    });
    let events = one.events(user).await;
    Seen { outcome, stored, presented: site.token_requests(), revoked: refreshed && late, events }
}

/// Processes refresh while others log the same users out and in. No refresh token is sent twice, callers get
/// `NotConnected` or the API's 401, and in the end the storage contains the result of the last logout or login.
pub async fn under_load(backend: &Backend) {
    const LIFE: Duration = Duration::from_secs(2);
    let size = Size { processes: 4, tasks: 16, keys: 16, time: Size::from_env().time };
    let keys = site::keys();
    let site = Site::new(backend, &keys, NAME).await;
    site.provider.configure(|settings| settings.access_token_lifetime = LIFE);
    let users = users(size.keys);
    let settings = with_long_timeouts(Process::settings(backend, &keys, vec![site.at.clone()]));
    let (fleet, desk) = tokio::join!(Fleet::start(&settings, size.processes), Process::start(&settings));

    let (mut logins, mut logouts) = (0_u32, 0_u32);
    let mut last: BTreeMap<&str, Option<String>> = users.iter().map(|user| (user.as_str(), None)).collect();
    let interfere = async {
        let until = Instant::now() + size.time;
        while Instant::now() < until {
            let [who, what] = random_bytes();
            let user = users[usize::from(who) % users.len()].as_str();
            if what < 60 {
                desk.disconnect(NAME, user).await;
                logouts += 1;
                last.insert(user, None);
            } else {
                // Each login has another subject at the provider, so that the stored token shows which login it is from.
                logins += 1;
                let subject = format!("{user}, login {logins}");
                site.store(user, site.issue(&subject, LIFE)).await;
                last.insert(user, Some(subject));
            }
            sleep(Duration::from_millis(150)).await;
        }
    };
    let (report, ()) = tokio::join!(fleet.run(NAME, &users, &size, Duration::from_millis(100)), interfere);
    drop(fleet);

    let counters = site.provider.counters();
    let twice = counters.redemptions.values().filter(|&&times| times > 1).count();
    let mut table = Table::new(
        format!("{}: logins and logouts while {} processes refresh", backend.kind.name(), size.processes),
        &["logins", "logouts", "calls", "others", "redemptions", "presented twice", "families revoked"],
    );
    let others = format!("{:?}", report.bad);
    table.row([&logins, &logouts, &report.good, &others, &counters.refreshes, &twice, &counters.families_revoked]);
    table.print();

    assert_eq!((twice, counters.families_revoked), (0, 0));
    assert!(report.bad.keys().all(|what| what == "not_connected" || what == "401"), "{:?}", report.bad);
    assert!(report.good > 0 && counters.refreshes > 0 && logins > 0 && logouts > 0);
    for (user, subject) in last {
        assert_eq!(subject_of(&site, user).await, subject, "{user}");
    }
}

/// The subject of the stored token according to the provider. `None` if no token is stored.
async fn subject_of(site: &Site, user: &str) -> Option<String> {
    site.stored(user).await?;
    let client = site.oauth.client(NAME, &User::new(user)).await.unwrap();
    let response: Value = client.userinfo().send().await.unwrap().success().unwrap().json().unwrap();
    Some(response["sub"].as_str().unwrap().to_owned())
}
