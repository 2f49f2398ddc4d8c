//! A migration to another storage while two processes refresh tokens, and users log in and out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use oauth_dance::{KeyRing, OAuth, User};
use oauth_dance_core::{Filter, Migrating, Moved, PageRequest, TokenStorage, random_bytes};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::backend::{Backend, Kind};
use crate::fleet::{users, with_long_timeouts};
use crate::process::Process;
use crate::site::{self, NAME, Site};
use crate::table::Table;
use crate::worker::{self, Command, Moves, Report, Settings};

/// The lifetime of an access token.
const LIFE: Duration = Duration::from_secs(2);
/// How long each stage of the migration lasts.
const STAGE: Duration = Duration::from_secs(4);

/// The configuration of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Config {
    Old,
    Prepare,
    Moving,
    New,
}

/// The configurations of the two processes, which are restarted one after the other. In one stage, all records are moved.
const STAGES: [([Config; 2], bool); 8] = [
    ([Config::Old, Config::Old], false),
    ([Config::Prepare, Config::Old], false),
    ([Config::Prepare, Config::Prepare], false),
    ([Config::Moving, Config::Prepare], false),
    ([Config::Moving, Config::Moving], false),
    ([Config::Moving, Config::Moving], true),
    ([Config::New, Config::Moving], false),
    ([Config::New, Config::New], false),
];

/// What each user did last: after a login, the user's subject at the provider, and after a logout, nothing.
type Last = BTreeMap<String, Option<String>>;

struct Move {
    from: Backend,
    to: Backend,
    keys: String,
    site: Site,
    users: Vec<String>,
}

/// Asserts that no refresh token is sent twice, that no user loses a connection, and that the new storage finally contains
/// the result of each user's last login or logout.
pub async fn no_downtime(from: Kind, to: Kind) {
    let (Some(from), Some(to)) = (Backend::of(from).await, Backend::of(to).await) else { return };
    let keys = site::keys();
    let site = Site::new(&from, &keys, NAME).await;
    site.provider.configure(|settings| settings.access_token_lifetime = LIFE);
    let migration = Move { from, to, keys, site, users: users(10) };
    let mut last = Last::new();
    for user in &migration.users {
        migration.site.login(user, LIFE).await;
        last.insert(user.clone(), Some(user.clone()));
    }
    let names = [migration.from.kind.name(), migration.to.kind.name()];
    let mut table = Table::new(
        format!("{} to {} without downtime", names[0], names[1]),
        &["processes", "calls", "others", "logins", "logouts", "moved", "redemptions"],
    );
    let mut processes: [Option<(Config, Process)>; 2] = [None, None];
    for (configs, moves_all) in STAGES {
        for (process, config) in processes.iter_mut().zip(configs) {
            if process.as_ref().is_none_or(|(before, _)| *before != config) {
                // The new process is ready before the old one ends.
                *process = Some((config, Process::start(&migration.settings(config)).await));
            }
        }
        let running = [0, 1].map(|index| &processes[index].as_ref().unwrap().1);
        let redeemed = migration.site.provider.counters().refreshes;
        let (one, two, (logins, logouts), moved) = tokio::join!(
            migration.run(running[0]),
            migration.run(running[1]),
            migration.interfere(configs, &mut last),
            migration.move_all(moves_all)
        );
        let refreshes = migration.site.provider.counters().refreshes - redeemed;
        let (calls, others) = (one.good + two.good, format!("{:?} {:?}", one.bad, two.bad));
        table.row([&format!("{configs:?}"), &calls, &others, &logins, &logouts, &moved, &refreshes]);
        for report in [&one, &two] {
            assert!(report.good > 0, "{configs:?}: {report:?}");
            assert!(report.bad.keys().all(|what| what == "not_connected" || what == "401"), "{configs:?}: {report:?}");
        }
        // A background refresh ends before its process.
        sleep(Duration::from_millis(700)).await;
    }
    table.print();
    drop(processes);
    migration.assert_moved(&last).await;
    migration.from.remove().await;
    migration.to.remove().await;
}

impl Move {
    fn settings(&self, config: Config) -> Settings {
        let backend = if config == Config::New { &self.to } else { &self.from };
        let mut settings = with_long_timeouts(Process::settings(backend, &self.keys, vec![self.site.at.clone()]));
        if matches!(config, Config::Prepare | Config::Moving) {
            let (to, namespace) = (self.to.url.clone(), self.to.namespace.clone());
            settings.moves = Some(Moves { to, namespace, is_preparing: config == Config::Prepare });
        }
        settings
    }

    async fn oauth(&self, config: Config) -> OAuth {
        let storage = worker::open(&self.settings(config)).await;
        worker::oauth(storage, KeyRing::parse(&self.keys).unwrap(), std::slice::from_ref(&self.site.at))
            .build()
            .unwrap()
    }

    async fn run(&self, process: &Process) -> Report {
        let (provider, users) = (NAME.to_owned(), self.users.clone());
        let tasks = users.len() * 2;
        let interval = Duration::from_millis(100);
        process.request::<Report>(&Command::Run { provider, users, tasks, time: STAGE, interval }).await.unwrap()
    }

    /// Logs random users in and out, in either of the two configurations.
    async fn interfere(&self, configs: [Config; 2], last: &mut Last) -> (u32, u32) {
        let instances = [self.oauth(configs[0]).await, self.oauth(configs[1]).await];
        let (mut logins, mut logouts) = (0, 0);
        let until = Instant::now() + STAGE - Duration::from_millis(200);
        while Instant::now() < until {
            let [who, what, instance] = random_bytes();
            let user = &self.users[usize::from(who) % self.users.len()];
            let instance = &instances[usize::from(instance) % 2];
            if what < 60 {
                instance.disconnect(NAME, &User::new(user)).await.unwrap();
                logouts += 1;
                last.insert(user.clone(), None);
            } else {
                logins += 1;
                // Each login has another subject at the provider, so that the stored token shows which login it is from.
                let subject = format!("{user}, login {}", u64::from_le_bytes(random_bytes()));
                let token = self.site.issue(&subject, LIFE).into();
                let key = User::new(user).key(NAME).unwrap();
                instance.tokens().put(&key, &token, oauth_dance_core::Precondition::Always).await.unwrap();
                last.insert(user.clone(), Some(subject));
            }
            sleep(Duration::from_millis(120)).await;
        }
        (logins, logouts)
    }

    /// Moves the records that no process has written since the migration started. Does so in one stage only.
    async fn move_all(&self, moves_all: bool) -> usize {
        if !moves_all {
            return 0;
        }
        sleep(STAGE / 4).await;
        let (old, new) = (self.from.open().await, self.to.open().await);
        let migrating = Migrating::new(new, Arc::clone(&old));
        let mut moved = 0;
        for entry in all(&old).await {
            moved += usize::from(migrating.move_record(&entry).await.unwrap() == Moved::Written);
        }
        assert_eq!(all(&old).await.len(), 0, "the old storage is empty");
        moved
    }

    async fn assert_moved(&self, last: &Last) {
        let counters = self.site.provider.counters();
        let twice = counters.redemptions.values().filter(|&&times| times > 1).count();
        assert_eq!((twice, counters.families_revoked), (0, 0), "a refresh token was sent twice");
        assert!(counters.refreshes > 0);
        assert_eq!(all(&self.from.open().await).await.len(), 0, "no process writes to the old storage after the move");
        let oauth = self.oauth(Config::New).await;
        for (user, subject) in last {
            let connected = oauth.connection(NAME, &User::new(user)).await.unwrap().is_some();
            assert_eq!(connected, subject.is_some(), "{user}");
            if let Some(subject) = subject {
                let client = oauth.client(NAME, &User::new(user)).await.unwrap();
                let response = client.userinfo().send().await.unwrap();
                let userinfo: Value = response.success().unwrap().json().unwrap();
                assert_eq!(userinfo["sub"].as_str(), Some(subject.as_str()), "{user}");
            }
        }
    }
}

async fn all(storage: &Arc<dyn TokenStorage>) -> Vec<oauth_dance_core::TokenKey> {
    let page = storage.list(&Filter::everything(), PageRequest { after: None, limit: 1000 }).await.unwrap();
    page.entries.into_iter().map(|entry| entry.key).collect()
}
