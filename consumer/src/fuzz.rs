//! Targets for bytes from outside that are read in private. Each panics if a property does not hold.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use http::{HeaderMap, HeaderValue, header};
use url::Url;

use crate::app::paths::Paths;
use crate::config::endpoint::PlainHttp;
use crate::protocol::http::challenge;

/// A header value that can be sent, out of whatever bytes.
fn header_value(bytes: &[u8]) -> HeaderValue {
    let kept: Vec<u8> = bytes.iter().copied().filter(|byte| *byte == b'\t' || !byte.is_ascii_control()).collect();
    HeaderValue::from_bytes(&kept).unwrap()
}

fn errors(value: &[u8]) -> Vec<String> {
    let mut headers = HeaderMap::new();
    headers.insert(header::WWW_AUTHENTICATE, header_value(value));
    challenge::errors(&headers).collect()
}

/// Anything is read, and what is quoted is never taken for an error of its own.
pub fn challenges(bytes: &[u8]) {
    errors(bytes);
    let quoted: Vec<u8> = bytes.iter().flat_map(|byte| [b'\\', *byte]).collect();
    let challenge = [b"Bearer realm=\"", &quoted[..], b"\", error=\"one\", scope=\"", &quoted[..], b"\""].concat();
    // A control character is not sent, and its backslash would then quote the next one.
    if !bytes.iter().any(u8::is_ascii_control) && bytes.is_ascii() {
        assert_eq!(errors(&challenge), ["one"]);
    }
}

/// Wherever a login is asked to lead, it leads to a path of this origin.
pub fn next_paths(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for base in ["https://app.example", "https://app.example/prefix"] {
        let paths = Paths::new(
            base,
            &PlainHttp::default(),
            "/login/{provider}".to_owned(),
            "/login/{provider}/authorized".to_owned(),
        )
        .unwrap();
        let next = paths.local(Some(&text));
        let led = Url::parse(base).unwrap().join(&next).unwrap();
        assert_eq!(led.origin(), Url::parse(base).unwrap().origin(), "{next:?}");
        assert!(next.starts_with('/') && HeaderValue::from_str(&next).is_ok(), "{next:?}");
    }
}

#[cfg(test)]
mod tests {
    use oauth_dance_fuzz::check;

    use super::*;

    #[test]
    fn challenges_are_read() {
        check("challenges", challenges);
    }

    #[test]
    fn next_paths_are_read() {
        check("next_paths", next_paths);
    }
}
