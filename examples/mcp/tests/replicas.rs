//! Two replicas of the example, with many users and several MCP servers, against the certified npm package `oidc-provider`,
//! which rotates refresh tokens and revokes a grant if one is sent twice.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::thread;
use std::time::Duration;

use reqwest::StatusCode;
use support::{Browser, World, missing};

const SERVERS: [&str; 2] = ["notes", "calendar"];
const USERS: [&str; 3] = ["alice", "bob", "carol"];

/// Connects every user to every server, with tokens that live this long.
fn connected(world: &World, lifetime: u64) -> Vec<(&'static str, Browser)> {
    world.provider.set_access_token_ttl(lifetime);
    let users: Vec<_> = USERS.into_iter().map(|user| (user, world.browser(user))).collect();
    for (user, browser) in &users {
        for server in SERVERS {
            world.connect(browser, user, server);
        }
    }
    world.provider.set_access_token_ttl(3600);
    users
}

/// Every user calls every server several times at once, at both replicas.
fn storm(world: &World, users: &[(&'static str, Browser)]) {
    thread::scope(|scope| {
        for (user, browser) in users {
            for server in SERVERS {
                for n in 0..6 {
                    let replica = &world.replicas[n % 2];
                    scope.spawn(move || {
                        let (status, result) = replica.call(browser, server, "whoami");
                        assert_eq!(status, StatusCode::OK, "{user} at {server}: {result}");
                        assert_eq!(result["content"][0]["text"], *user, "{result}");
                    });
                }
            }
        }
    });
}

/// Every server received only tokens that were issued for it.
fn assert_no_foreign_tokens(world: &World) {
    for server in [&world.notes, &world.calendar] {
        let calls = server.calls();
        let tokens = calls.iter().filter(|call| call.token.is_some());
        for call in tokens.clone() {
            assert_eq!(call.audience.as_deref(), Some(server.url().as_str()));
        }
        assert!(tokens.count() > 0);
    }
}

fn refreshes_are_unique(database: Option<&str>) {
    let Some(world) = World::start(database) else { return };
    let users = connected(&world, 5);
    let connections = users.len() * SERVERS.len();
    thread::sleep(Duration::from_secs(6));

    // All tokens have expired.
    storm(&world, &users);
    let refreshes = world.provider.token_requests("refresh_token");
    assert_eq!(refreshes.len(), connections, "one for each token");
    assert!(refreshes.iter().all(|refresh| refresh["status"] == 200), "{refreshes:?}");

    // Both servers reject all tokens, although they have not expired.
    world.notes.revoke_all();
    world.calendar.revoke_all();
    storm(&world, &users);
    let refreshes = world.provider.token_requests("refresh_token");
    assert_eq!(refreshes.len(), 2 * connections, "one more for each token");
    assert!(refreshes.iter().all(|refresh| refresh["status"] == 200), "{refreshes:?}");

    storm(&world, &users);
    assert_eq!(world.provider.token_requests("refresh_token").len(), 2 * connections);
    assert_no_foreign_tokens(&world);
    assert_eq!(world.provider.requests("/reg").len(), SERVERS.len(), "one client for each server");
    assert_eq!(world.provider.secrets().found_in(&world.files()), [""; 0], "in the database and the logs");
}

#[test]
fn refreshes_are_unique_on_sqlite() {
    refreshes_are_unique(None);
}

#[test]
fn refreshes_are_unique_on_postgres() {
    match std::env::var("POSTGRES_URL") {
        Ok(url) => refreshes_are_unique(Some(&url)),
        Err(_) => missing("POSTGRES_URL"),
    }
}

#[test]
fn a_logout_leaves_all_other_connections() {
    let Some(world) = World::start(None) else { return };
    let users = connected(&world, 3600);
    let (_, alice) = &users[0];
    world.replicas[0].press(alice, "Disconnect notes");
    assert_eq!(world.provider.requests("/token/revocation").len(), 1);

    for replica in &world.replicas {
        let (status, result) = replica.call(alice, "notes", "whoami");
        assert_eq!(status, StatusCode::UNAUTHORIZED);
        assert!(result["login"].as_str().unwrap().contains("resource_metadata"), "{result}");
        for (user, browser) in &users {
            for server in SERVERS.into_iter().filter(|server| (*user, *server) != ("alice", "notes")) {
                assert_eq!(replica.call(browser, server, "whoami").0, StatusCode::OK, "{user} at {server}");
            }
        }
    }
    world.connect(alice, "alice", "notes");
    assert_eq!(world.replicas[0].call(alice, "notes", "whoami").0, StatusCode::OK);
}

#[test]
fn a_callback_works_once_for_its_user_and_server() {
    let Some(world) = World::start(None) else { return };
    let (alice, bob) = (world.browser("alice"), world.browser("bob"));
    let callback = world.callback(&alice, "alice", "notes");

    assert_eq!(world.finish(&bob, callback.clone()).status(), StatusCode::BAD_GATEWAY, "bob sends it");
    assert_eq!(
        world.finish(&Browser::new(), callback.clone()).status(),
        StatusCode::UNAUTHORIZED,
        "no one is signed in"
    );
    let mut elsewhere = callback.clone();
    elsewhere.set_path("/mcp/calendar/callback");
    assert_eq!(world.finish(&alice, elsewhere).status(), StatusCode::BAD_GATEWAY, "at another server");
    assert!(world.provider.token_requests("authorization_code").is_empty(), "the code was not sent");

    assert_eq!(world.finish(&alice, callback.clone()).status(), StatusCode::OK);
    assert_eq!(world.finish(&alice, callback).status(), StatusCode::BAD_GATEWAY, "it was finished before");
    assert_eq!(world.provider.token_requests("authorization_code").len(), 1);
    assert_eq!(world.replicas[0].call(&alice, "notes", "whoami").0, StatusCode::OK);
    assert_eq!(world.replicas[0].call(&bob, "notes", "whoami").0, StatusCode::UNAUTHORIZED);
    assert_eq!(world.replicas[0].call(&alice, "calendar", "whoami").0, StatusCode::UNAUTHORIZED);
}

#[test]
fn a_tool_can_require_another_scope() {
    let Some(world) = World::start(None) else { return };
    let alice = world.browser("alice");
    world.connect(&alice, "alice", "notes");
    let (status, result) = world.replicas[1].call(&alice, "notes", "write");
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert!(result["login"].as_str().unwrap().contains("insufficient_scope"), "{result}");

    let page = alice.open(world.replicas[0].url("/"));
    let mut form = page.form("Connect notes");
    form.fields.push(("scope".to_owned(), "tools:write".to_owned()));
    let page = alice.submit(&form);
    let page = world.provider.sign_in_and_consent(&alice, page, "alice");
    assert!(page.text().contains("notes: connected"), "{}", page.text());
    for tool in ["write", "whoami"] {
        let (status, result) = world.replicas[1].call(&alice, "notes", tool);
        assert_eq!(status, StatusCode::OK, "{result}");
    }
}
