//! The provider responds to a refresh with each kind of fault, and two processes handle it.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use oauth_dance::Timestamp;
use oauth_dance::testing::ScriptedResponse;
use tokio::time::sleep;

use crate::backend::Backend;
use crate::crashes::TIMEOUT;
use crate::process::Process;
use crate::site::{self, LONG, Site};
use crate::table::Table;
use crate::worker::Settings;

const LOST: &str = "needs authorization: ResponseLost";
const HTML: &str = "<!doctype html><title>Sorry</title><h1>We'll be back soon</h1>";

struct Fault {
    name: &'static str,
    response: fn() -> ScriptedResponse,
    /// Whether the provider has spent the refresh token.
    spent: bool,
    /// What the first caller gets.
    first: &'static str,
    /// What callers get after the fault.
    last: &'static str,
    /// How long no process sends another request.
    pause: Duration,
}

const FAULTS: [Fault; 17] = [
    not_done("closed at once", ScriptedResponse::closed),
    done("reset after it was done", || ScriptedResponse::normal().lost()),
    not_done("500", || ScriptedResponse::status(500)),
    stored("a token with status 500", || ScriptedResponse::normal().with_status(500)),
    not_done("503, HTML", || html(ScriptedResponse::status(503))),
    not_done("200, HTML", || html(ScriptedResponse::status(200))),
    done("200, HTML after it was done", || html(ScriptedResponse::normal())),
    Fault { pause: Duration::from_secs(4), ..not_done("429, Retry-After: 4", || retry_after(429, "4")) },
    Fault { pause: Duration::from_secs(4), ..not_done("503, Retry-After: 4", || retry_after(503, "4")) },
    not_done("408", || ScriptedResponse::status(408)),
    not_done("a wrong client", || ScriptedResponse::error(401, "invalid_client")),
    not_done("redirected", || ScriptedResponse::redirect(307, "http://127.0.0.1:9/token")),
    done("truncated JSON", || ScriptedResponse::normal().truncated()),
    done("a body too slow", || ScriptedResponse::normal().dripping(Duration::from_millis(500))),
    not_done("no response, nothing done", || ScriptedResponse::status(503).hanging()),
    done("no response after it was done", || ScriptedResponse::normal().hanging()),
    Fault {
        name: "invalid_grant",
        response: || ScriptedResponse::error(400, "invalid_grant"),
        spent: false,
        first: "needs authorization: Refused",
        last: "needs authorization: Refused",
        pause: Duration::ZERO,
    },
];

/// The provider has not processed the request, and the next try returns the new token.
const fn not_done(name: &'static str, response: fn() -> ScriptedResponse) -> Fault {
    let pause = Duration::from_millis(1);
    Fault { name, response, spent: false, first: "backing_off", last: "200", pause }
}

/// The provider has spent the refresh token, and the new token is lost. The next try reveals that.
const fn done(name: &'static str, response: fn() -> ScriptedResponse) -> Fault {
    Fault { spent: true, last: LOST, ..not_done(name, response) }
}

/// The response contains the new token, which is stored.
const fn stored(name: &'static str, response: fn() -> ScriptedResponse) -> Fault {
    Fault { first: "200", pause: Duration::ZERO, ..not_done(name, response) }
}

fn html(response: ScriptedResponse) -> ScriptedResponse {
    response.header("content-type", "text/html").body(HTML)
}

fn retry_after(status: u16, seconds: &str) -> ScriptedResponse {
    html(ScriptedResponse::status(status)).header("retry-after", seconds)
}

/// What was observed for one fault.
struct Seen {
    first: String,
    state: String,
    other: String,
    served: String,
    pause: Duration,
    last: String,
    requests: usize,
    families_revoked: u64,
}

/// A fault of the provider loses no token that the provider has not spent. The token stays stored, is not sent again before
/// the provider permits it, and is then tried again by the next caller. A dead grant is tried once.
pub async fn transient_matrix(backend: &Backend) {
    let keys = site::keys();
    let sites = join_all((0..FAULTS.len()).map(|number| Site::new(backend, &keys, format!("fault-{number}"))));
    let sites = sites.await;
    let at = sites.iter().map(|site| site.at.clone()).collect();
    let settings = Settings { timeout: TIMEOUT, ..Process::settings(backend, &keys, at) };
    let (one, other) = tokio::join!(Process::start(&settings), Process::start(&settings));

    let runs = FAULTS.iter().zip(&sites).map(|(fault, site)| go_through(fault, site, &one, &other));
    let seen = join_all(runs).await;

    let mut table = Table::new(
        format!("{}: faults of the token endpoint", backend.kind.name()),
        &[
            "response",
            "caller gets",
            "then it is",
            "others get",
            "while valid",
            "next request",
            "after that",
            "requests",
        ],
    );
    for (fault, seen) in FAULTS.iter().zip(&seen) {
        table.row([
            &fault.name,
            &seen.first,
            &seen.state,
            &seen.other,
            &seen.served,
            &match seen.requests {
                1 => "never".to_owned(),
                _ => format!("after {:.1} s", seen.pause.as_secs_f32()),
            },
            &seen.last,
            &seen.requests,
        ]);
    }
    table.print();
    for (fault, seen) in FAULTS.iter().zip(&seen) {
        check(fault, seen);
    }
}

async fn go_through(fault: &Fault, site: &Site, one: &Process, other: &Process) -> Seen {
    let (name, user) = (&site.at.name, &site.user);
    // The access token of this connection is due, but valid for another half a minute.
    let valid = format!("{user}-with-time");
    site.provider.next_token_response((fault.response)());
    let first = one.call(name, user).await;
    let failed = Instant::now();
    let state = site.state().await;
    let others = other.call(name, user).await;
    assert_eq!(site.token_requests(), 1, "{}: no other request follows immediately", fault.name);

    let last = loop {
        let outcome = other.call(name, user).await;
        if outcome != "backing_off" || failed.elapsed() > Duration::from_secs(30) {
            break outcome;
        }
        sleep(Duration::from_millis(100)).await;
    };
    let pause = failed.elapsed();
    let requests = site.token_requests();
    for process in [one, other, one, other] {
        assert_eq!(process.call(name, user).await, last, "{}: the same response again", fault.name);
    }
    assert_eq!(site.token_requests(), requests, "{}: no more token requests", fault.name);
    let families_revoked = site.families_revoked();

    site.provider.next_token_response((fault.response)());
    let mut token = site.issue(&valid, Duration::from_secs(30));
    token.issued_at = Some(Timestamp::from_unix_seconds(0));
    site.store(&valid, token).await;
    let served = one.call(name, &valid).await;
    site.login(user, LONG).await;
    assert_eq!(other.call(name, user).await, "200", "{}: a login restores the connection", fault.name);
    Seen { first, state, other: others, served, pause, last, requests, families_revoked }
}

fn check(fault: &Fault, seen: &Seen) {
    let name = fault.name;
    assert_eq!(seen.first, fault.first, "{name}");
    assert_eq!(seen.other, fault.first, "{name}: the result of the other process");
    let state = if fault.first == "200" { "valid".to_owned() } else { fault.first.replace('_', " ") };
    assert_eq!(seen.state, state, "{name}");
    assert_eq!(seen.last, fault.last, "{name}");
    assert_eq!(seen.served, "200", "{name}: a valid token is served");
    assert!(seen.pause >= fault.pause, "{name}: the next request after {:?}", seen.pause);
    assert_eq!(seen.requests, if fault.first == "backing_off" { 2 } else { 1 }, "{name}");
    assert_eq!(seen.families_revoked, u64::from(fault.spent), "{name}");
}
