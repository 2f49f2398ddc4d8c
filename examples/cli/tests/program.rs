//! The program, as a person uses it: each command is a process of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::process::{Output, Stdio};
use std::time::Duration;

use oauth_dance::testing::{Client, Endpoint, TestProvider};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

struct Person {
    provider: TestProvider,
    home: TempDir,
}

impl Person {
    async fn new() -> Self {
        let provider = TestProvider::start().await.unwrap();
        provider.configure(|settings| _ = settings.clients.insert("acme-cli".to_owned(), Client::public()));
        Self { provider, home: tempfile::tempdir().unwrap() }
    }

    /// A machine without a desktop, so without a browser and a keyring.
    fn run(&self, arguments: &[&str]) -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_acme"));
        command.args(arguments).env_clear().env("HOME", self.home.path()).env("ACME_URL", self.provider.url());
        command.env("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent/bus").env("PATH", "/nonexistent");
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap()
    }

    async fn output(&self, arguments: &[&str]) -> Output {
        self.run(arguments).wait_with_output().await.unwrap()
    }

    async fn whoami(&self) -> Option<String> {
        let output = self.output(&["whoami"]).await;
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    }

    /// Runs a login, and does with its first line what a person would do.
    async fn log_in(&self, arguments: &[&str], url: impl FnOnce(&str) -> String) {
        let mut program = self.run(arguments);
        let mut lines = BufReader::new(program.stdout.take().unwrap()).lines();
        let line = lines.next_line().await.unwrap().expect("the program says what to do");
        let browser = reqwest::Client::builder().no_proxy().build().unwrap();
        assert_eq!(browser.get(url(&line)).send().await.unwrap().status(), 200, "{line}");
        let ended = tokio::time::timeout(Duration::from_secs(30), program.wait()).await.unwrap().unwrap();
        assert!(ended.success(), "{ended}");
    }
}

#[tokio::test]
async fn person_logs_in_calls_the_api_and_logs_out() {
    let person = Person::new().await;
    assert_eq!(person.whoami().await, None, "no one is logged in");
    person.log_in(&["login"], |line| line.strip_prefix("Log in at ").unwrap().to_owned()).await;
    assert_eq!(person.whoami().await.unwrap().trim(), r#"{"sub":"test-user"}"#);

    assert!(person.output(&["logout"]).await.status.success());
    assert!(!person.provider.requests_to(Endpoint::Revocation).is_empty());
    assert_eq!(person.whoami().await, None);

    person
        .log_in(&["login", "--device"], |line| {
            let (page, code) = line.strip_prefix("Open ").unwrap().split_once(" and enter ").unwrap();
            format!("{page}?user_code={code}")
        })
        .await;
    assert!(person.whoami().await.is_some());
}

/// The race that logs people out of other programs: several instances find the same expired token.
#[tokio::test]
async fn instances_at_once_refresh_once() {
    let person = Person::new().await;
    person.provider.configure(|settings| settings.access_token_lifetime = Duration::from_secs(1));
    person.log_in(&["login"], |line| line.strip_prefix("Log in at ").unwrap().to_owned()).await;
    person.provider.configure(|settings| settings.access_token_lifetime = Duration::from_secs(3600));
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let (a, b, c, d) = tokio::join!(person.whoami(), person.whoami(), person.whoami(), person.whoami());
    assert!([a, b, c, d].iter().all(Option::is_some));
    let counters = person.provider.counters();
    assert_eq!((counters.refreshes, counters.families_revoked), (1, 0));
}
