//! A process is suspended for longer than its lease, with SIGSTOP and SIGCONT, while another process refreshes.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use oauth_dance::testing::ScriptedResponse;
use tokio::time::sleep;

use crate::backend::Backend;
use crate::crashes::{LEASE, TIMEOUT};
use crate::gate::{Point, Resume};
use crate::process::Process;
use crate::site::{self, Site};
use crate::worker::{Command, Settings};

/// When a process is suspended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// After its claim, before the token request.
    Claimed,
    /// After the token request, which the provider processes much later.
    Sent,
    /// The provider has spent the refresh token, and its response waits in the socket of the suspended process.
    Replied,
    /// After its claim, but for less than the lease.
    WithinTheLease,
}

const ALL: [Step; 4] = [Step::Claimed, Step::Sent, Step::Replied, Step::WithinTheLease];

/// A suspended process does not send a refresh token that another process has redeemed in the meantime. If it had sent the
/// token before it was suspended, that is a replay, and the state of the connection reports it.
pub async fn stopped(backend: &Backend) {
    let keys = site::keys();
    let sites = join_all(ALL.map(|step| Site::new(backend, &keys, format!("{step:?}")))).await;
    let at = sites.iter().map(|site| site.at.clone()).collect();
    let settings = Settings { timeout: TIMEOUT, ..Process::settings(backend, &keys, at) };
    let survivor = Process::start(&settings).await;
    join_all(ALL.iter().zip(&sites).map(|(step, site)| suspend_and_resume(*step, site, &settings, &survivor))).await;
}

async fn suspend_and_resume(step: Step, site: &Site, settings: &Settings, survivor: &Process) {
    let (name, user) = (&site.at.name, &site.user);
    let is_claimed_only = matches!(step, Step::Claimed | Step::WithinTheLease);
    match step {
        Step::Sent => site.provider.next_token_response(ScriptedResponse::status(503).hanging()),
        Step::Replied => {
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
            false => site.wait_for_token_requests(1).await,
        }
        stopped.signal("STOP");
        let start = Instant::now();
        let resume = async {
            if is_claimed_only {
                // The worker reads this after it was resumed.
                stopped.send(&Command::Resume(Resume::AsUsual)).await;
            }
        };
        if step == Step::WithinTheLease {
            resume.await;
            sleep(Duration::from_secs(2)).await;
            stopped.signal("CONT");
            return (survivor.call(name, user).await, start.elapsed());
        }
        resume.await;
        let outcome = survivor.call(name, user).await;
        let waited = start.elapsed();
        stopped.signal("CONT");
        (outcome, waited)
    };
    let (of_stopped, (of_survivor, waited)) = tokio::join!(stopped.call(name, user), others);

    let taken_over = survivor.events(user).await.iter().filter(|event| *event == "taken_over").count();
    assert_eq!(taken_over, usize::from(step != Step::WithinTheLease), "{step:?}");
    assert_eq!(waited >= LEASE, step != Step::WithinTheLease, "{step:?}: {waited:?}");
    match step {
        Step::Claimed | Step::WithinTheLease => {
            assert_eq!((of_stopped.as_str(), of_survivor.as_str()), ("200", "200"), "{step:?}");
            assert_eq!(site.most_presented(), 1, "{step:?}: redeemed once");
            assert_eq!((site.families_revoked(), site.state().await.as_str()), (0, "valid"), "{step:?}");
        }
        Step::Sent => {
            assert_eq!(of_survivor, "200", "the request of the stopped process had no effect");
            assert_eq!((site.most_presented(), site.state().await.as_str()), (2, "valid"));
        }
        Step::Replied => {
            assert_eq!(of_survivor, "needs authorization: ResponseLost", "the replay is reported");
            assert_eq!((site.most_presented(), site.families_revoked()), (2, 1));
        }
    }
}
