//! Several processes that refresh the same token: what compare-and-swap is for.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use oauth_dance_core::{
    Lease, OAuth2Token, Precondition, Redeem, RedeemError, RefreshError, Refresher, Timestamp, TokenStorage, Tokens,
};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::{JOB, needs_shared};
use crate::faults::heal;
use crate::harness::Fault;
use crate::outcome::{PropertyResult, Stop, ensure, ensure_eq};
use crate::tested_storage::{TestedStorage, key};

/// The user of the token.
const USER: &str = "refreshed";
/// How many processes there are, and tasks in each of them.
const PROCESSES: usize = 3;
const TASKS: usize = 8;
/// How long a token request may take. A lease is ten seconds longer.
const TIMEOUT: Duration = Duration::from_secs(20);
/// How many refreshes are tested at least.
const ENOUGH: usize = 4;
/// How long the provider takes, and a task between two uses of the token.
const DELAY: Duration = Duration::from_millis(2);

/// Processes that use the same token redeem each of its refresh tokens once, also while one of several servers fails.
///
/// Each access token has expired when it is issued, so that the processes contend for every refresh. The provider, which is
/// the test, issues a new refresh token each time, and the old one is spent (RFC 9700 section 4.14.2). A storage whose preconditions hold in one process only fails this, and so
/// does one that reports a write as failed although it took effect.
pub async fn each_refresh_token_is_redeemed_once(on: Arc<TestedStorage>) -> PropertyResult {
    on.needs_atomic()?;
    needs_shared(&on)?;
    // Before anything is written, because not every harness can start a process.
    let mut commands = Vec::new();
    for _ in 0..PROCESSES {
        commands.push(on.harness().process().await?);
    }
    let provider = Provider::start()?;
    let tokens = Tokens::dangerous_plaintext(Arc::clone(on.storage()));
    let key = key(USER)?;
    tokens.put(&key, &token("token 0").into(), Precondition::Always).await?;
    let mut processes = JoinSet::new();
    for mut command in commands {
        command.env(JOB, format!("refresh {}", provider.port)).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut child = command.spawn()?;
        // A process ends when its input does.
        let input = child.stdin.take();
        processes.spawn_blocking(move || child.wait());
        provider.keep(input);
    }
    on.set_permit(None);
    let start = Instant::now();
    let injected = during_faults(&on).await;
    // Slow processes, or a slow storage, need more time.
    let (begun, mut ended) = (Instant::now(), processes.try_join_next());
    let is_short = || provider.presented().len() < ENOUGH && begun.elapsed() < on.harness().time_limit();
    while injected.is_ok() && ended.is_none() && is_short() {
        sleep(Duration::from_millis(50)).await;
        ended = processes.try_join_next();
    }
    let took = start.elapsed();
    provider.let_go();
    if ended.is_none() {
        ended = processes.join_next().await;
    }
    while let Some(status) = ended {
        ended = processes.join_next().await;
        let status = status??;
        ensure!(status.success(), "another process could not use the token: {status}");
    }
    injected?;
    let presented = provider.presented();
    let repeated: Vec<_> = presented.iter().filter(|(_, count)| **count > 1).collect();
    ensure!(repeated.is_empty(), "{PROCESSES} processes have redeemed refresh tokens more than once: {repeated:?}");
    ensure!(
        presented.len() >= ENOUGH,
        "{PROCESSES} processes have refreshed the token only {} times in {took:?}",
        presented.len()
    );
    let stored = tokens.get(&key).await?.and_then(|found| found.value.as_oauth2()?.refresh_token.clone());
    let stored = stored.map(|token| token.expose().to_owned());
    ensure_eq!(stored, Some(provider.current()), "the stored refresh token, after all refreshes");
    Ok(())
}

/// Lets time pass. If the harness can make one of several servers fail, that happens twice.
async fn during_faults(on: &TestedStorage) -> PropertyResult {
    sleep(Duration::from_millis(1500)).await;
    for fault in [Fault::Failover, Fault::Isolated] {
        match on.harness().inject(fault).await.map_err(Stop::from) {
            Err(Stop::NotApplicable(_)) => continue,
            injected => injected?,
        }
        sleep(Duration::from_secs(3)).await;
        heal(on).await?;
    }
    sleep(Duration::from_millis(1500)).await;
    Ok(())
}

/// The job of the other process: uses the token until the standard input ends.
pub(super) async fn work(storage: Arc<dyn TokenStorage>, port: u16) -> PropertyResult {
    let ended = Arc::new(tokio::task::spawn_blocking(|| std::io::stdin().lock().lines().count()));
    let tokens = Tokens::dangerous_plaintext(storage);
    let refresher = Refresher::new().with_request_timeout(TIMEOUT).with_margin(Duration::ZERO);
    let provider: Arc<dyn Redeem> = Arc::new(Client { port });
    let mut tasks = JoinSet::new();
    for _ in 0..TASKS {
        let (tokens, refresher, provider) = (tokens.clone(), refresher.clone(), Arc::clone(&provider));
        let ended = Arc::clone(&ended);
        tasks.spawn(async move {
            while !ended.is_finished() {
                match refresher.usable(&tokens, &key(USER)?, &provider).await {
                    // The storage may fail for a while, and then a refresh is retried.
                    Ok(_) | Err(RefreshError::Storage(_) | RefreshError::BackingOff { .. } | RefreshError::Busy) => {}
                    Err(error) => return Err(Stop::from(error)),
                }
                sleep(DELAY).await;
            }
            PropertyResult::Ok(())
        });
    }
    while let Some(task) = tasks.join_next().await {
        task??;
    }
    refresher.finish().await;
    Ok(())
}

/// A token that has expired, with this refresh token.
fn token(refresh_token: &str) -> OAuth2Token {
    let mut token = OAuth2Token::bearer("an access token");
    token.refresh_token = Some(refresh_token.into());
    token.expires_at = Some(Timestamp::from_unix_seconds(0));
    token
}

/// A provider that rotates refresh tokens. A request is a line with a refresh token, and the response a line with the next.
struct Provider {
    port: u16,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// The number of the refresh token that is not spent.
    current: usize,
    /// How often each refresh token was sent.
    presented: HashMap<String, usize>,
    /// The inputs of the processes, which end when these are dropped.
    inputs: Vec<Option<std::process::ChildStdin>>,
    is_over: bool,
}

impl Provider {
    fn start() -> PropertyResult<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let (port, state) = (listener.local_addr()?.port(), Arc::<Mutex<State>>::default());
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if lock(&shared).is_over {
                    break;
                }
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || respond(&client, &shared));
            }
        });
        Ok(Self { port, state })
    }

    fn keep(&self, input: Option<std::process::ChildStdin>) {
        lock(&self.state).inputs.push(input);
    }

    fn let_go(&self) {
        lock(&self.state).inputs.clear();
    }

    fn presented(&self) -> HashMap<String, usize> {
        lock(&self.state).presented.clone()
    }

    fn current(&self) -> String {
        format!("token {}", lock(&self.state).current)
    }
}

/// Ends the thread that listens.
impl Drop for Provider {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        state.is_over = true;
        state.inputs.clear();
        drop(state);
        drop(TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)));
    }
}

fn respond(mut client: &TcpStream, state: &Mutex<State>) {
    let mut line = String::new();
    if BufReader::new(client).read_line(&mut line).is_err() {
        return;
    }
    let sent = line.trim_end();
    std::thread::sleep(DELAY);
    let response = {
        let mut state = lock(state);
        *state.presented.entry(sent.to_owned()).or_default() += 1;
        if sent == format!("token {}", state.current) {
            state.current += 1;
            format!("token {}\n", state.current)
        } else {
            "spent\n".to_owned()
        }
    };
    // The process may have ended.
    let _ = client.write_all(response.as_bytes());
}

fn lock(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The provider, as another process sees it.
struct Client {
    port: u16,
}

#[async_trait::async_trait]
impl Redeem for Client {
    async fn redeem(&self, old: &OAuth2Token, lease: &Lease) -> Result<OAuth2Token, RedeemError> {
        if lease.is_expired() {
            return Err(RedeemError::LeaseExpired);
        }
        let sent = old.refresh_token.as_ref().map(|token| token.expose().to_owned()).unwrap_or_default();
        let port = self.port;
        let response = tokio::task::spawn_blocking(move || request(port, &sent)).await;
        let unknown = |cause: String| RedeemError::Unknown { cause, retry_after: None };
        match response.map_err(|error| unknown(error.to_string()))?.map_err(|error| unknown(error.to_string()))? {
            next if next == "spent" => Err(RedeemError::Dead { cause: "the refresh token is spent".to_owned() }),
            next => Ok(token(&next)),
        }
    }

    async fn revoke(&self, _: &OAuth2Token) {}
}

fn request(port: u16, refresh_token: &str) -> std::io::Result<String> {
    let mut provider = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    writeln!(provider, "{refresh_token}")?;
    provider.set_read_timeout(Some(TIMEOUT))?;
    let mut line = String::new();
    BufReader::new(provider).read_line(&mut line)?;
    Ok(line.trim_end().to_owned())
}
