use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// No reply is cut.
const NONE: u8 = 0;
/// The next reply is cut.
const NEXT: u8 = 1;
/// Every reply is cut.
const EVERY: u8 = 2;

/// A proxy between storage and server, which counts round trips.
pub struct Proxy {
    pub port: u16,
    cut: Arc<AtomicU8>,
    batches: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Proxy {
    pub async fn before(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (cut, batches) = (Arc::<AtomicU8>::default(), Arc::<AtomicUsize>::default());
        let (cutting, counting) = (Arc::clone(&cut), Arc::clone(&batches));
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (cut, batches) = (Arc::clone(&cutting), Arc::clone(&counting));
                tokio::spawn(async move { serve(client, server, &cut, &batches).await });
            }
        });
        Self { port, cut, batches, task }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// From now on, requests reach the server, and the connection is closed instead of a reply.
    pub fn cut_replies(&self, cut: bool) {
        self.cut.store(if cut { EVERY } else { NONE }, Ordering::SeqCst);
    }

    /// The next request reaches the server, and its connection is closed instead of a reply. Other connections work.
    pub fn cut_next_reply(&self) {
        self.cut.store(NEXT, Ordering::SeqCst);
    }

    /// The number of requests to the server since the last call. For sequential requests, this is the number of
    /// round trips.
    pub fn round_trips(&self) -> usize {
        self.batches.swap(0, Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut client: TcpStream, server: u16, cut: &AtomicU8, batches: &AtomicUsize) {
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", server)).await else { return };
    let (mut from_client, mut from_server) = (vec![0; 65536], vec![0; 65536]);
    // Whether the server has replied since the client last sent data. If so, the next data is a new request.
    let mut answered = true;
    loop {
        tokio::select! {
            read = client.read(&mut from_client) => {
                let Ok(length @ 1..) = read else { return };
                if std::mem::take(&mut answered) {
                    batches.fetch_add(1, Ordering::SeqCst);
                }
                if server.write_all(&from_client[..length]).await.is_err() { return }
            }
            read = server.read(&mut from_server) => {
                let Ok(length @ 1..) = read else { return };
                answered = true;
                let cuts = cut.compare_exchange(NEXT, NONE, Ordering::SeqCst, Ordering::SeqCst);
                if cuts != Err(NONE) { return }
                if client.write_all(&from_server[..length]).await.is_err() { return }
            }
        }
    }
}
