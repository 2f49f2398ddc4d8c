use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::net::TcpListener;

/// A free port, for programs whose address has to be known before they start.
///
/// It is below the range from which the system assigns ports, so that no other program gets it in the meantime. The next port
/// is for the demo's own provider.
pub fn free_port() -> u16 {
    let random = || (RandomState::new().build_hasher().finish() % 4_000) as u16;
    let mut ports = std::iter::repeat_with(|| 12_000 + 2 * random());
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap()
}
