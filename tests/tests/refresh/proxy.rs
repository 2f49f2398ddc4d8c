use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// The state of the link to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    Open,
    /// All connections are closed, including new ones.
    Down,
}

/// A proxy in front of a server, which can be blocked.
pub struct Proxy {
    state: watch::Sender<LinkState>,
    losing: Losing,
    url: String,
}

/// The bytes that identify the request whose reply is to be lost.
type Losing = Arc<Mutex<Option<Vec<u8>>>>;

impl Proxy {
    /// Listens in front of the server of this URL.
    pub async fn before(url: &str) -> Self {
        let (start, rest) = url.rsplit_once("127.0.0.1:").expect("the server has to be on this machine");
        let (server, end) = rest.split_once('/').unwrap();
        let server: u16 = server.parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (state, watched) = watch::channel(LinkState::Open);
        let losing = Losing::default();
        let loses = Arc::clone(&losing);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, server, watched.clone(), Arc::clone(&loses)));
            }
        });
        Self { state, losing, url: format!("{start}127.0.0.1:{port}/{end}") }
    }

    /// The URL of the proxy.
    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn set(&self, state: LinkState) {
        self.state.send_replace(state);
    }

    /// Loses the reply to the next request that contains these bytes: the request arrives, and the connection breaks.
    pub fn lose_reply_to(&self, bytes: &[u8]) {
        *self.losing.lock().unwrap() = Some(bytes.to_vec());
    }

    /// Whether a reply was lost.
    pub fn has_lost_reply(&self) -> bool {
        self.losing.lock().unwrap().is_none()
    }
}

async fn carry(mut client: TcpStream, server: u16, mut state: watch::Receiver<LinkState>, losing: Losing) {
    if *state.borrow() == LinkState::Down {
        return;
    }
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", server)).await else { return };
    let (mut sent, mut replied) = (vec![0; 65_536], vec![0; 65_536]);
    let mut is_lost = false;
    loop {
        tokio::select! {
            read = client.read(&mut sent) => {
                let Ok(length @ 1..) = read else { return };
                is_lost |= take_if_in(&losing, &sent[..length]);
                if server.write_all(&sent[..length]).await.is_err() { return }
            }
            read = server.read(&mut replied) => {
                let Ok(length @ 1..) = read else { return };
                if is_lost || client.write_all(&replied[..length]).await.is_err() { return }
            }
            () = down(&mut state) => return,
        }
    }
}

fn take_if_in(losing: &Losing, sent: &[u8]) -> bool {
    let mut losing = losing.lock().unwrap();
    losing.take_if(|bytes| sent.windows(bytes.len()).any(|window| window == bytes)).is_some()
}

async fn down(state: &mut watch::Receiver<LinkState>) {
    // An error means that the test has ended.
    let _ = state.wait_for(|state| *state == LinkState::Down).await;
}
