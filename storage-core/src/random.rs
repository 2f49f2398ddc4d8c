/// Fills an array from the operating system's cryptographic generator.
///
/// # Panics
/// If the operating system has no working generator: nothing that needs a secret may go on without one.
#[expect(clippy::expect_used, reason = "no key, state or nonce can be made without randomness")]
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system's random generator works");
    bytes
}
