use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// Shorter values might be found by chance.
const SHORTEST: usize = 8;

/// Secret values, and the search for them in every encoding in which they might leak.
#[derive(Default)]
pub struct Canaries {
    values: Vec<(String, String)>,
}

impl Canaries {
    /// Adds a value. A match is reported as `kind`, so that the value is not printed.
    pub fn add(&mut self, kind: &str, value: &str) {
        assert!(value.len() >= SHORTEST, "a {kind} of {} bytes is too short to search for", value.len());
        self.values.push((kind.to_owned(), value.to_owned()));
    }

    /// The number of values of this kind.
    pub fn count(&self, kind: &str) -> usize {
        self.values.iter().filter(|(found, _)| found == kind).count()
    }

    /// The values that `bytes` contain: plain, percent-encoded, in base64, in hexadecimal or reversed.
    pub fn found_in(&self, bytes: &[u8]) -> Vec<String> {
        let text = String::from_utf8_lossy(bytes);
        let mut found = Vec::new();
        for (kind, value) in &self.values {
            for (form, pattern) in forms(value) {
                if text.contains(&pattern) {
                    found.push(format!("{kind}, {form}"));
                }
            }
        }
        found
    }
}

fn forms(value: &str) -> Vec<(&'static str, String)> {
    let encoded: String = url::form_urlencoded::byte_serialize(value.as_bytes()).collect();
    let mut forms = vec![
        ("plain", value.to_owned()),
        ("form-encoded", encoded.clone()),
        ("percent-encoded", encoded.replace('+', "%20")),
        ("hexadecimal", value.bytes().map(|byte| format!("{byte:02x}")).collect()),
        ("backwards", value.chars().rev().collect()),
        ("as a list of bytes", format!("{:?}", value.as_bytes()).trim_matches(['[', ']']).to_owned()),
    ];
    // In base64, a value has three possible encodings, depending on its position in the text.
    for skipped in 0..3 {
        let inner = &value.as_bytes()[skipped..];
        let whole = &inner[..inner.len() / 3 * 3];
        forms.push(("base64", STANDARD_NO_PAD.encode(whole)));
        forms.push(("base64url", URL_SAFE_NO_PAD.encode(whole)));
    }
    forms
}
