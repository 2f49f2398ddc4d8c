/// Returns random bytes from the operating system's cryptographic generator. Only for the crates of this workspace.
///
/// # Panics
/// Panics if the operating system cannot generate random bytes, because no secret can be created without them.
#[expect(clippy::expect_used, reason = "no key, state or nonce can be created without randomness")]
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system's random generator works");
    bytes
}
