//! Processes that stand still for longer than their lease, by SIGSTOP and SIGCONT, and what others do meanwhile.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use oauth_dance::testing::ScriptedResponse;
use tokio::time::sleep;

use crate::backend::Backend;
use crate::crashes::{LEASE, TIMEOUT};
use crate::gate::{GoOn, Point};
use crate::process::Process;
use crate::site::{self, Site};
use crate::worker::{Command, Settings};

/// Where a process is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// With its claim written, and nothing sent.
    Claimed,
    /// The provider has got the request, and does nothing with it until long after.
    Sent,
    /// The provider has spent the refresh token, and the answer waits in the stopped process's socket.
    Answered,
    /// With its claim written, but for less than the lease.
    Shortly,
}

const ALL: [Step; 4] = [Step::Claimed, Step::Sent, Step::Answered, Step::Shortly];

/// A refresh token that another process has redeemed meanwhile is not sent by the one that stood still, if it had not left
/// before; one that had left is a replay, which ends in a state that says so.
pub async fn stopped(backend: &Backend) {
    let keys = site::keys();
    let sites = join_all(ALL.map(|step| Site::new(backend, &keys, format!("{step:?}")))).await;
    let at = sites.iter().map(|site| site.at.clone()).collect();
    let settings = Settings { timeout: TIMEOUT, ..Process::settings(backend, &keys, at) };
    let heir = Process::start(&settings).await;
    join_all(ALL.iter().zip(&sites).map(|(step, site)| stop_and_go_on(*step, site, &settings, &heir))).await;
}

async fn stop_and_go_on(step: Step, site: &Site, settings: &Settings, heir: &Process) {
    let (name, user) = (&site.at.name, &site.user);
    let is_claimed_only = matches!(step, Step::Claimed | Step::Shortly);
    match step {
        Step::Sent => site.provider.next_token_response(ScriptedResponse::status(503).hanging()),
        Step::Answered => {
            site.provider.next_token_response(ScriptedResponse::normal().after(Duration::from_millis(300)));
        }
        _ => {}
    }
    let stopped = Process::start(settings).await;
    if is_claimed_only {
        stopped.hold(Point::After(1)).await;
    }
    let others = async {
        match is_claimed_only {
            true => stopped.is_held().await,
            false => site.has_token_requests(1).await,
        }
        stopped.signal("STOP");
        let start = Instant::now();
        let go_on = async {
            if is_claimed_only {
                // It reads this when it goes on.
                stopped.tell(&Command::GoOn(GoOn::AsUsual)).await;
            }
        };
        if step == Step::Shortly {
            go_on.await;
            sleep(Duration::from_secs(2)).await;
            stopped.signal("CONT");
            return (heir.call(name, user).await, start.elapsed());
        }
        go_on.await;
        let outcome = heir.call(name, user).await;
        let waited = start.elapsed();
        stopped.signal("CONT");
        (outcome, waited)
    };
    let (of_stopped, (of_heir, waited)) = tokio::join!(stopped.call(name, user), others);

    let taken_over = heir.events(user).await.iter().filter(|event| *event == "taken_over").count();
    assert_eq!(taken_over, usize::from(step != Step::Shortly), "{step:?}");
    assert_eq!(waited >= LEASE, step != Step::Shortly, "{step:?}: {waited:?}");
    match step {
        Step::Claimed | Step::Shortly => {
            assert_eq!((of_stopped.as_str(), of_heir.as_str()), ("200", "200"), "{step:?}");
            assert_eq!(site.most_presented(), 1, "{step:?}: redeemed once");
            assert_eq!((site.families_revoked(), site.state().await.as_str()), (0, "valid"), "{step:?}");
        }
        Step::Sent => {
            assert_eq!(of_heir, "200", "the request of the stopped process had no effect");
            assert_eq!((site.most_presented(), site.state().await.as_str()), (2, "valid"));
        }
        Step::Answered => {
            assert_eq!(of_heir, "needs authorization: ResponseLost", "what no lease can exclude has a name");
            assert_eq!((site.most_presented(), site.families_revoked()), (2, 1));
        }
    }
}
