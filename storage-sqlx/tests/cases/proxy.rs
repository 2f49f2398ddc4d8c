use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, tcp};
use tokio::sync::watch;

/// The state of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Normal.
    Open,
    /// Requests arrive, and responses never do. Neither side notices.
    Unanswered,
    /// Requests arrive, and the connection breaks instead of a response.
    Cut,
    /// Nothing arrives and nothing breaks.
    Silent,
    /// The same for existing connections, permanently. New connections work.
    Abandoned,
    /// All connections break, and new ones break immediately.
    Down,
}

/// A proxy with which tests block the network to a server.
pub struct Proxy {
    way: watch::Sender<Way>,
    connections: Arc<Mutex<usize>>,
    open: Arc<()>,
}

impl Proxy {
    /// Listens in front of the server of a URL, and returns the URL of the proxy.
    pub async fn before(url: &str) -> (Self, String) {
        let (start, rest) = url.rsplit_once("@127.0.0.1:").expect("a server of this machine");
        let (port, end) = rest.split_once('/').unwrap();
        let server: u16 = port.parse().unwrap();

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (way, watched) = watch::channel(Way::Open);
        let connections = Arc::new(Mutex::new(0));
        let count = Arc::clone(&connections);
        let open = Arc::new(());
        let each = Arc::clone(&open);
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                *count.lock().unwrap() += 1;
                let since = *watched.borrow();
                let (way, open) = (watched.clone(), Arc::clone(&each));
                tokio::spawn(async move {
                    carry(client, server, since, way).await;
                    drop(open);
                });
            }
        });
        (Self { way, connections, open }, format!("{start}@127.0.0.1:{port}/{end}"))
    }

    pub fn set(&self, way: Way) {
        self.way.send(way).unwrap();
    }

    /// The number of open connections.
    pub fn open(&self) -> usize {
        // Without this one and that of the listener.
        Arc::strong_count(&self.open) - 2
    }

    /// The number of connections so far.
    pub fn connections(&self) -> usize {
        *self.connections.lock().unwrap()
    }
}

async fn carry(client: TcpStream, server: u16, since: Way, mut way: watch::Receiver<Way>) {
    if since == Way::Down {
        return;
    }
    let silent: &[Way] = if since == Way::Abandoned { &[Way::Silent] } else { &[Way::Silent, Way::Abandoned] };
    let unanswered = [silent, &[Way::Unanswered]].concat();
    let server = TcpStream::connect(("127.0.0.1", server)).await.unwrap();
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        () = copy(from_client, to_server, way.clone(), silent, &[]) => {}
        () = copy(from_server, to_client, way.clone(), &unanswered, &[Way::Cut]) => {}
        _ = way.wait_for(|way| *way == Way::Down) => {}
    }
}

/// Forwards bytes, or holds them back, or ends, depending on the state of the network.
async fn copy(
    mut from: tcp::OwnedReadHalf,
    mut to: tcp::OwnedWriteHalf,
    mut way: watch::Receiver<Way>,
    hold: &[Way],
    end: &[Way],
) {
    let mut bytes = vec![0; 65_536];
    while let Ok(length @ 1..) = from.read(&mut bytes).await {
        if way.wait_for(|way| !hold.contains(way)).await.is_err() || end.contains(&way.borrow()) {
            return;
        }
        if to.write_all(&bytes[..length]).await.is_err() {
            return;
        }
    }
}
