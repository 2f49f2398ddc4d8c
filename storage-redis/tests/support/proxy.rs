use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Stands between storage and server, and counts what goes through.
pub struct Proxy {
    pub port: u16,
    cut: Arc<AtomicBool>,
    batches: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Proxy {
    pub async fn before(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (cut, batches) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
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

    /// From now on the server gets what is sent and the client gets no answer: its connection is closed instead.
    pub fn cut_replies(&self, cut: bool) {
        self.cut.store(cut, Ordering::SeqCst);
    }

    /// How often something was sent to the server since this was last asked: one after the other, that is how many
    /// round trips there were.
    pub fn round_trips(&self) -> usize {
        self.batches.swap(0, Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut client: TcpStream, server: u16, cut: &AtomicBool, batches: &AtomicUsize) {
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", server)).await else { return };
    let (mut from_client, mut from_server) = (vec![0; 65536], vec![0; 65536]);
    // Whether the server has been heard since the client last sent something: then what the client sends is new.
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
                if cut.load(Ordering::SeqCst) { return }
                if client.write_all(&from_server[..length]).await.is_err() { return }
            }
        }
    }
}
