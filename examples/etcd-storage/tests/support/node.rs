use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use etcd_client::{Client, ConnectOptions, Error, Permission};
use oauth_dance_conformance::{HarnessError, HarnessResult};
use tempfile::TempDir;

use super::{free_port, signal};

/// The user of the storage, who may read and write the keys with the prefix [`PREFIX`].
pub const USER: (&str, &str) = ("app", "the password of app");
/// The prefix of every storage on a private server.
pub const PREFIX: &str = "tokens";
const ROOT: (&str, &str) = ("root", "the password of root");
const ROLE: &str = "tokens";

/// A private server, which requires a login.
pub struct Node {
    child: Option<Child>,
    options: Vec<String>,
    folder: TempDir,
    pub port: u16,
    peer: u16,
}

impl Node {
    /// A server with further options.
    pub async fn start_with(options: &[&str]) -> HarnessResult<Self> {
        let is_installed = Command::new("etcd").arg("--version").stdout(Stdio::null()).status().is_ok();
        if !is_installed {
            return Err(HarnessError::Missing("there is no etcd; install Debian's etcd-server".to_owned()));
        }
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        let mut node =
            Self { child: None, options, folder: tempfile::tempdir()?, port: free_port(), peer: free_port() };
        node.start_again()?;
        node.require_login().await?;
        Ok(node)
    }

    pub fn start_again(&mut self) -> HarnessResult<()> {
        let [client, peer] = [self.port, self.peer].map(|port| format!("http://127.0.0.1:{port}"));
        let log = std::fs::File::options().create(true).append(true).open(self.folder.path().join("log"))?;
        let mut command = Command::new("etcd");
        command.arg("--data-dir").arg(self.folder.path().join("data"));
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &format!("default={peer}")]);
        // Alone, it needs no time to elect itself. The cheapest hash of passwords saves time as well.
        command.args(["--heartbeat-interval", "10", "--election-timeout", "100", "--bcrypt-cost", "4"]);
        command.args(&self.options);
        self.child = Some(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()?);
        Ok(())
    }

    async fn require_login(&self) -> HarnessResult<()> {
        let mut client = Client::connect([self.url()], None).await?;
        let start = Instant::now();
        while let Err(error) = client.get("x", None).await {
            pause(start, error).await?;
        }
        for (user, password) in [ROOT, USER] {
            client.user_add(user, password, None).await?;
        }
        client.user_grant_role(ROOT.0, "root").await?;
        client.role_add(ROLE).await?;
        client.user_grant_role(USER.0, ROLE).await?;
        client.role_grant_permission(ROLE, Permission::read_write(PREFIX).with_prefix()).await?;
        Ok(client.auth_enable().await.map(drop)?)
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// A client that may do everything.
    pub async fn root(&self) -> Result<Client, Error> {
        Client::connect([self.url()], Some(ConnectOptions::new().with_user(ROOT.0, ROOT.1))).await
    }

    /// Lets the user of the storage read only, or also write.
    pub async fn allow_writes(&self, writes: bool) -> HarnessResult<()> {
        let mut root = self.root().await?;
        let permission = if writes { Permission::read_write(PREFIX) } else { Permission::read(PREFIX) };
        Ok(root.role_grant_permission(ROLE, permission.with_prefix()).await.map(drop)?)
    }

    /// Waits until the server works.
    pub async fn responds(&self) -> HarnessResult<()> {
        let start = Instant::now();
        loop {
            let found = match self.root().await {
                Ok(mut root) => root.get("x", None).await,
                Err(error) => Err(error),
            };
            match found {
                Ok(_) => return Ok(()),
                Err(error) => pause(start, error).await?,
            }
        }
    }

    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// Kills the server with `kill -9`.
    pub fn kill(&mut self) -> HarnessResult<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Sends the server a signal, such as `STOP`.
    pub fn signal(&self, name: &str) -> HarnessResult<()> {
        self.child.as_ref().map_or(Ok(()), |child| signal(&child.id().to_string(), name))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// Waits before the next attempt, for at most 30 seconds in total.
async fn pause(start: Instant, error: Error) -> HarnessResult<()> {
    if start.elapsed() > Duration::from_secs(30) {
        return Err(HarnessError::Failed(Box::new(error)));
    }
    tokio::time::sleep(Duration::from_millis(10)).await;
    Ok(())
}
