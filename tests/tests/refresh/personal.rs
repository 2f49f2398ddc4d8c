//! The storage of one person: processes that start at the same time on an empty folder, and then refresh the same token.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use oauth_dance::KeyRing;
use oauth_dance::testing::TestProvider;
use oauth_dance_core::TokenStorage;
use oauth_dance_sqlx::{KeyPlace, PersonalStorage};
use tokio::time::timeout;

use crate::crashes::{LEASE, TIMEOUT};
use crate::fleet::users;
use crate::gate::Point;
use crate::process::Process;
use crate::site::{NAME, Site};
use crate::support::{Desktop, without_bus};
use crate::table::Table;
use crate::worker::Settings;

/// How the folder is written in the settings of a worker.
const SCHEME: &str = "personal:";
const PROCESSES: usize = 8;

/// The storage and the keys of a worker, if its settings name a folder of one person.
pub async fn open(settings: &Settings) -> Option<(Arc<dyn TokenStorage>, KeyRing)> {
    let folder = settings.storage.strip_prefix(SCHEME)?;
    Some(open_folder(folder.as_ref()).await.0)
}

async fn open_folder(folder: &Path) -> ((Arc<dyn TokenStorage>, KeyRing), KeyPlace) {
    let personal = PersonalStorage::builder("acme-cli").folder(folder).open().await.unwrap();
    let place = personal.key_place();
    let (storage, ring) = personal.into_parts();
    ((Arc::new(storage.with_timeout(Duration::from_secs(60))), ring), place)
}

#[test]
fn one_redemption_with_a_key_file() {
    run_again("without_a_keyring", |command| _ = without_bus(command));
}

#[test]
fn one_redemption_with_a_keyring() {
    let Some(desktop) = Desktop::with_keyring() else { return };
    run_again("with_a_keyring", |command| _ = desktop.put_in(command));
    assert_eq!(desktop.entries("acme-cli").len(), 1, "one key was generated");
}

/// Runs another test of this program in another environment.
fn run_again(name: &str, change: impl FnOnce(&mut Command)) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([&format!("personal::{name}"), "--exact", "--ignored", "--nocapture"]);
    change(&mut command);
    assert!(command.status().unwrap().success(), "{name} failed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "started by another test"]
async fn without_a_keyring() {
    one_redemption(KeyPlace::File).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "started by another test"]
async fn with_a_keyring() {
    one_redemption(KeyPlace::Keyring).await;
}

/// Processes that start at the same time on an empty folder, some of which are killed, use one key, and redeem each refresh
/// token once.
async fn one_redemption(expected: KeyPlace) {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("oauth");
    let provider = TestProvider::start().await.unwrap();
    let settings = Settings {
        storage: format!("{SCHEME}{}", folder.display()),
        namespace: String::new(),
        moves: None,
        storage_timeout: None,
        keys: String::new(),
        providers: vec![crate::worker::At { name: NAME.to_owned(), url: provider.url().to_owned(), is_openid: false }],
        timeout: TIMEOUT,
        clock_offset: 0,
    };

    let killed = (1..=PROCESSES as u64).map(|number| {
        let settings = &settings;
        // A process that is dropped is killed.
        async move { timeout(Duration::from_millis(8 * number), Process::start(settings)).await.is_err() }
    });
    let killed = join_all(killed).await.into_iter().filter(|is_killed| *is_killed).count();
    let processes = join_all((0..PROCESSES).map(|_| Process::start(&settings))).await;
    let ((storage, ring), place) = open_folder(&folder).await;
    assert_eq!(place, expected);
    let site = Site::of(provider, NAME.to_owned(), storage, ring);

    let users = users(4);
    for user in &users {
        site.login(user, Duration::ZERO).await;
        let calls = processes.iter().map(|process| process.call(NAME, user));
        let outcomes = join_all(calls).await;
        assert!(outcomes.iter().all(|outcome| outcome == "200"), "{outcomes:?}");
    }
    assert_eq!(site.provider.counters().refreshes, users.len() as u64, "one redemption for each expiry");

    site.login(&site.user, Duration::ZERO).await;
    let (victim, others) = processes.split_first().unwrap();
    victim.hold(Point::After(1)).await;
    let die = async {
        victim.is_held().await;
        victim.kill().await;
    };
    tokio::join!(victim.call(NAME, &site.user), die);
    let outcomes = timeout(3 * LEASE, join_all(others.iter().map(|process| process.call(NAME, &site.user)))).await;
    let outcomes = outcomes.unwrap();

    let mut table = Table::new(
        format!("{PROCESSES} processes that start on the empty folder of one person, with the key in {place:?}"),
        &["killed at their start", "killed with a claim", "redemptions", "presented twice", "families revoked"],
    );
    let counters = site.provider.counters();
    let twice = counters.redemptions.values().filter(|&&times| times > 1).count();
    table.row([&killed, &1, &counters.refreshes, &twice, &counters.families_revoked]);
    table.print();
    assert!(outcomes.iter().all(|outcome| outcome == "200"), "{outcomes:?}");
    assert_eq!(counters.refreshes, users.len() as u64 + 1);
    assert_eq!((site.most_presented(), twice, site.families_revoked()), (1, 0, 0));
    assert_eq!(site.state().await, "valid");
}
