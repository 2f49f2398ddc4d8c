use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use super::free_port;

/// No reply is cut. A smaller number is how many replies arrive before one is cut.
const NONE: usize = usize::MAX;
/// Every reply is cut.
const EVERY: usize = NONE - 1;
/// The types of the frames that make up a reply (RFC 9113 section 6). The others belong to the connection.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
/// The flag of the last frame of a reply.
const END_STREAM: u8 = 1;

/// A proxy in front of a server, which can cut the connection instead of a reply, and refuse connections.
pub struct Proxy {
    pub port: u16,
    server: u16,
    cut: Arc<AtomicUsize>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Proxy {
    pub async fn before(server: u16) -> std::io::Result<Self> {
        let port = free_port();
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        let proxy = Self { port, server, cut: Arc::new(AtomicUsize::new(NONE)), task: Mutex::default() };
        proxy.serve(listener);
        Ok(proxy)
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn cut_replies(&self) {
        self.cut.store(EVERY, Ordering::SeqCst);
    }

    /// Cuts one reply, after this many have arrived.
    pub fn cut_reply_after(&self, replies: usize) {
        self.cut.store(replies, Ordering::SeqCst);
    }

    /// Closes all connections, and refuses new ones. A client must be able to see that it has sent nothing.
    pub async fn refuse(&self) {
        let task = self.task.lock().unwrap().take();
        if let Some(task) = task {
            task.abort();
            let _ = task.await;
        }
    }

    /// Ends every fault.
    pub async fn heal(&self) -> std::io::Result<()> {
        self.cut.store(NONE, Ordering::SeqCst);
        if self.task.lock().unwrap().is_none() {
            self.serve(TcpListener::bind(("127.0.0.1", self.port)).await?);
        }
        Ok(())
    }

    fn serve(&self, listener: TcpListener) {
        let (server, cut) = (self.server, Arc::clone(&self.cut));
        *self.task.lock().unwrap() = Some(tokio::spawn(async move {
            // The connections end with this task.
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let cut = Arc::clone(&cut);
                connections.spawn(async move { carry(client, server, &cut).await });
            }
        }));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(task) = self.task.lock().unwrap().take() {
            task.abort();
        }
    }
}

async fn carry(mut client: TcpStream, server: u16, cut: &AtomicUsize) {
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", server)).await else { return };
    let (mut sent, mut replied, mut frames) = (vec![0; 65_536], vec![0; 65_536], Vec::new());
    loop {
        tokio::select! {
            read = client.read(&mut sent) => {
                let Ok(length @ 1..) = read else { return };
                if server.write_all(&sent[..length]).await.is_err() { return }
            }
            read = server.read(&mut replied) => {
                let Ok(length @ 1..) = read else { return };
                frames.extend_from_slice(&replied[..length]);
                let Some(whole) = whole_frames(&frames, cut) else { return };
                if client.write_all(&frames[..whole]).await.is_err() { return }
                frames.drain(..whole);
            }
        }
    }
}

/// The length of all complete frames, or `None` if one of them belongs to a reply that is to be cut. The client must get the
/// other frames, such as the settings of a new connection. Otherwise it never sends its request.
fn whole_frames(bytes: &[u8], cut: &AtomicUsize) -> Option<usize> {
    let mut whole = 0;
    while let Some([a, b, c, kind, flags, ..]) = bytes.get(whole..whole + 9) {
        let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
        if bytes.len() < whole + 9 + length {
            break;
        }
        if matches!(*kind, DATA | HEADERS) {
            match cut.load(Ordering::SeqCst) {
                NONE => {}
                EVERY => return None,
                0 => {
                    cut.store(NONE, Ordering::SeqCst);
                    return None;
                }
                replies if flags & END_STREAM != 0 => cut.store(replies - 1, Ordering::SeqCst),
                _ => {}
            }
        }
        whole += 9 + length;
    }
    Some(whole)
}
