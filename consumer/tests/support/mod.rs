//! An application that uses the library, a browser, and a storage that fails on demand.
#![allow(dead_code, unreachable_pub, unused_imports)]

mod browser;
mod log;
#[cfg(feature = "oidc")]
mod openid;
mod site;
mod storage;

pub use browser::{Browser, Page};
pub use log::Log;
#[cfg(feature = "oidc")]
pub use openid::{Notes, openid_site, openid_site_with};
pub use site::{Acme, Setup, Site, code_of, state_of, with_parameter};
pub use storage::FragileStorage;

use oauth_dance::testing::TestProvider;

/// A provider, and an application that knows it as `acme`.
pub async fn world() -> (TestProvider, Site) {
    let provider = TestProvider::start().await.unwrap();
    let site = Site::of(&provider).await;
    (provider, site)
}

/// Listens on a port, counts the connections, and records everything that is sent.
pub struct Ear {
    pub url: String,
    heard: std::sync::Arc<std::sync::Mutex<Vec<u8>>>,
    connections: std::sync::Arc<std::sync::atomic::AtomicUsize>,
}

impl Ear {
    pub async fn listen() -> Self {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ear = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            heard: Default::default(),
            connections: Default::default(),
        };
        let (heard, connections) = (ear.heard.clone(), ear.connections.clone());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                connections.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                let heard = heard.clone();
                tokio::spawn(async move {
                    let mut buffer = [0; 4096];
                    let read = stream.read(&mut buffer).await.unwrap_or(0);
                    heard.lock().unwrap().extend_from_slice(&buffer[..read]);
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await;
                });
            }
        });
        ear
    }

    pub fn connections(&self) -> usize {
        self.connections.load(std::sync::atomic::Ordering::SeqCst)
    }
}
