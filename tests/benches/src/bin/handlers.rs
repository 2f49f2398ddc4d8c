//! What a token costs a handler: the same application with a handler that needs no token, with [`Connected`], and with a
//! cache in front of the storage, over HTTP; the steps of [`Connected`], one after the other; and what sealing, opening and
//! decoding take.
//!
//! ```sh
//! cargo run --release --manifest-path tests/benches/Cargo.toml --bin handlers -- [SECONDS [ROUNDS]]
//! ```
//!
//! The handlers run in turn, each for some seconds, for some rounds, with 16 connections of this process. A figure is the
//! median of the requests per second. The ratio to the handler without a token is computed for each round, and printed
//! with its minimum and maximum. The tokens are in SQLite, sealed, and each of 2,048 users has one.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::{MethodRouter, get};
use oauth_dance::presets::GitHub;
use oauth_dance::{
    Cache, Connected, KeyRing, MemoryStorage, OAuth, OAuth2Token, Precondition, Token, TokenStorage as _, Tokens, User,
};
use oauth_dance_sqlx::SqliteStorage;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

type BenchResult<T> = Result<T, Box<dyn Error + Send + Sync>>;

const USERS: u64 = 2048;
const CONNECTIONS: usize = 16;

#[tokio::main]
async fn main() -> BenchResult<()> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |usual| arguments.next().map_or(Ok(usual), |text| text.parse());
    let (seconds, rounds) = (Duration::from_secs(number(2)?), number(5)?);

    let folder = tempfile::tempdir()?;
    let url = format!("sqlite:{}?mode=rwc", folder.path().join("tokens").display());
    let storage = SqliteStorage::connect(&url).await?;
    storage.migrate().await?;
    let keys = KeyRing::generate();
    let oauth = oauth(&storage, &keys, false)?;
    for user in 0..USERS {
        oauth.tokens().put(&user_of(user).key("github")?, &token(), Precondition::Always).await?;
    }

    let handlers = [
        ("without a token", serve(app(&oauth, get(without_token))).await?),
        ("Connected", serve(app(&oauth, get(with_token))).await?),
        ("Connected, with a cache", serve(app(&self::oauth(&storage, &keys, true)?, get(with_token))).await?),
    ];
    let mut rates = vec![Vec::new(); handlers.len()];
    for _ in 0..rounds {
        for ((_, address), rates) in handlers.iter().zip(&mut rates) {
            rates.push(rate(address, seconds).await?);
        }
    }
    println!("requests per second, {CONNECTIONS} connections");
    for ((name, _), own) in handlers.iter().zip(&rates) {
        let [least, middle, most] = spread(own.iter().zip(&rates[0]).map(|(own, first)| own / first).collect());
        println!("{:>8.0}  x{middle:.2} ({least:.2}-{most:.2})  {name}", spread(own.clone())[1]);
    }

    println!("\nmicroseconds, one call after the other");
    let cached = self::oauth(&storage, &keys, true)?;
    let key = |user| user_of(user).key("github");
    let steps = [
        ("read the record", per_call(async |user| Ok(drop(storage.get(&key(user)?).await?))).await?),
        (
            "read, open and decode the token",
            per_call(async |user| Ok(drop(oauth.tokens().get(&key(user)?).await?))).await?,
        ),
        ("client", per_call(async |user| Ok(drop(oauth.client("github", &user_of(user)).await?))).await?),
        (
            "client, with a cache",
            per_call(async |user| Ok(drop(cached.client("github", &user_of(user)).await?))).await?,
        ),
    ];
    let in_memory = [
        ("seal 1 KiB", seal(&keys).await?),
        ("open and decode a token of 900 bytes", after_read(Tokens::sealed(MemoryStorage::new(), keys)).await?),
        ("decode it, without opening", after_read(Tokens::dangerous_plaintext(MemoryStorage::new())).await?),
    ];
    for (name, cost) in steps.into_iter().chain(in_memory) {
        println!("{:>8.2}  {name}", cost.as_secs_f64() * 1e6);
    }
    Ok(())
}

fn token() -> Token {
    OAuth2Token::bearer("x".repeat(900)).into()
}

async fn seal(keys: &KeyRing) -> BenchResult<Duration> {
    let (key, encoded) = (user_of(0).key("github")?.to_bytes(), vec![b'x'; 1024]);
    per_call(async |_| Ok(drop(keys.seal("bench", &key, &encoded)))).await
}

/// What reading a token takes after its record was read.
async fn after_read(tokens: Tokens) -> BenchResult<Duration> {
    let key = user_of(0).key("github")?;
    tokens.put(&key, &token(), Precondition::Always).await?;
    let whole = per_call(async |_| Ok(drop(tokens.get(&key).await?))).await?;
    Ok(whole.saturating_sub(per_call(async |_| Ok(drop(tokens.storage().get(&key).await?))).await?))
}

fn oauth(storage: &SqliteStorage, keys: &KeyRing, has_cache: bool) -> BenchResult<OAuth> {
    let next = AtomicU64::new(0);
    let mut builder = OAuth::builder("http://localhost:3000", storage.clone(), keys.clone())
        .provider(GitHub::provider().client("id", "secret"))
        .user(move |()| {
            let user = user_of(next.fetch_add(1, Ordering::Relaxed) % USERS);
            async move { Some(user) }
        });
    if has_cache {
        builder = builder.cache(Cache::new(Duration::from_secs(3600)));
    }
    Ok(builder.build()?)
}

fn user_of(user: u64) -> User {
    User::new(format!("user-{user}"))
}

async fn without_token() -> &'static str {
    "Hello"
}

async fn with_token(_github: Connected<GitHub>) -> &'static str {
    "Hello"
}

fn app(oauth: &OAuth, handler: MethodRouter<OAuth>) -> Router {
    Router::new().route("/", handler).layer(oauth.layer()).with_state(oauth.clone())
}

async fn serve(app: Router) -> BenchResult<std::net::SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(address)
}

/// Requests per second.
async fn rate(address: &std::net::SocketAddr, time: Duration) -> BenchResult<f64> {
    let (start, total) = (Instant::now(), Arc::new(AtomicU64::new(0)));
    let mut tasks = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let (total, mut stream) = (Arc::clone(&total), TcpStream::connect(address).await?);
        stream.set_nodelay(true)?;
        tasks.spawn(async move {
            while start.elapsed() < time {
                request(&mut stream).await?;
                total.fetch_add(1, Ordering::Relaxed);
            }
            BenchResult::Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(total.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64())
}

/// Sends a request and reads its response, whose body is `Hello`.
async fn request(stream: &mut TcpStream) -> BenchResult<()> {
    stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await?;
    let (mut response, mut length) = ([0; 1024], 0);
    while !response[..length].ends_with(b"\r\n\r\nHello") {
        let read = stream.read(&mut response[length..]).await?;
        if read == 0 {
            return Err("the connection was closed".into());
        }
        length += read;
    }
    if response.starts_with(b"HTTP/1.1 200 ") { Ok(()) } else { Err("the request failed".into()) }
}

/// The time of one call.
async fn per_call(call: impl AsyncFn(u64) -> BenchResult<()>) -> BenchResult<Duration> {
    const CALLS: u64 = 8 * USERS;

    for user in 0..USERS {
        call(user).await?;
    }
    let start = Instant::now();
    for call_number in 0..CALLS {
        call(call_number % USERS).await?;
    }
    Ok(start.elapsed() / CALLS as u32)
}

/// The minimum, the median and the maximum.
fn spread(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [values[0], values[values.len() / 2], values[values.len() - 1]]
}
