use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::net::TcpListener;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// A free port, for programs whose address has to be known before they start. No two calls of a process return the same port.
///
/// It is below the range from which the system assigns ports, so that no other program gets it in the meantime. The next port
/// is for the demo's own provider.
pub fn free_port() -> u16 {
    static NEXT: LazyLock<AtomicU64> = LazyLock::new(|| RandomState::new().build_hasher().finish().into());
    loop {
        let port = 12_000 + 2 * (NEXT.fetch_add(1, Ordering::Relaxed) % 4_000) as u16;
        if [port, port + 1].iter().all(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()) {
            return port;
        }
    }
}
