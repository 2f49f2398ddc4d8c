/// Returns random bytes from the operating system's cryptographic generator. For the crates of this workspace only.
///
/// # Panics
/// Panics if the operating system has no working generator, because no secret can be made without one.
#[expect(clippy::expect_used, reason = "no key, state or nonce can be made without randomness")]
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system's random generator works");
    bytes
}
