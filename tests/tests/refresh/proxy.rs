use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What the way to the server is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Open,
    /// All connections are broken, and new ones are at once.
    Down,
}

/// A way to a server that can be blocked.
pub struct Proxy {
    way: watch::Sender<Way>,
    losing: Losing,
    url: String,
}

/// The bytes that mark the one request whose answer gets lost.
type Losing = Arc<Mutex<Option<Vec<u8>>>>;

impl Proxy {
    /// Listens before the server of a URL.
    pub async fn before(url: &str) -> Self {
        let (start, rest) = url.rsplit_once("127.0.0.1:").expect("a server of this machine");
        let (server, end) = rest.split_once('/').unwrap();
        let server: u16 = server.parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (way, watched) = watch::channel(Way::Open);
        let losing = Losing::default();
        let loses = Arc::clone(&losing);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, server, watched.clone(), Arc::clone(&loses)));
            }
        });
        Self { way, losing, url: format!("{start}127.0.0.1:{port}/{end}") }
    }

    /// The URL that leads through here.
    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn set(&self, way: Way) {
        self.way.send_replace(way);
    }

    /// The next request with these bytes in it arrives, and its connection breaks instead of an answer.
    pub fn lose_answer_to(&self, bytes: &[u8]) {
        *self.losing.lock().unwrap() = Some(bytes.to_vec());
    }

    /// Whether that has happened.
    pub fn has_lost_it(&self) -> bool {
        self.losing.lock().unwrap().is_none()
    }
}

async fn carry(mut client: TcpStream, server: u16, mut way: watch::Receiver<Way>, losing: Losing) {
    if *way.borrow() == Way::Down {
        return;
    }
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", server)).await else { return };
    let (mut asked, mut answered) = (vec![0; 65_536], vec![0; 65_536]);
    let mut is_lost = false;
    loop {
        tokio::select! {
            read = client.read(&mut asked) => {
                let Ok(length @ 1..) = read else { return };
                is_lost |= take_if_in(&losing, &asked[..length]);
                if server.write_all(&asked[..length]).await.is_err() { return }
            }
            read = server.read(&mut answered) => {
                let Ok(length @ 1..) = read else { return };
                if is_lost || client.write_all(&answered[..length]).await.is_err() { return }
            }
            () = down(&mut way) => return,
        }
    }
}

fn take_if_in(losing: &Losing, sent: &[u8]) -> bool {
    let mut losing = losing.lock().unwrap();
    losing.take_if(|bytes| sent.windows(bytes.len()).any(|window| window == bytes)).is_some()
}

async fn down(way: &mut watch::Receiver<Way>) {
    // An error says that the test has ended.
    let _ = way.wait_for(|way| *way == Way::Down).await;
}
