//! Valid responses of real providers, with damage to members that are not needed.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::value::RawValue;

use super::corpus::ANSWERS;
use super::*;

/// Values of a member that is not needed.
const JUNK: [&[u8]; 24] = [
    b"null",
    b"true",
    b"0",
    b"-1",
    b"1e999",
    b"NaN",
    b"undefined",
    b"'x'",
    b"[]",
    b"{}",
    b"\"\"",
    b"\"\xff\"",
    b"\"\xc3\"",
    b"\"\\ud800\"",
    b"\"\\q\"",
    b"\"a\nb\"",
    b"\"\x00\"",
    b"[[[[]]]]",
    b"{\"access\":{\"token\":1}}",
    b"[1,\"}\",{\"]\":\"{\"}]",
    b"99999999999999999999999",
    b"0x1F",
    b"\"\\\"}\"",
    b"\"e\\\\\"",
];
/// Values of `error` in a response that is not an error.
const NO_ERROR: [&[u8]; 10] =
    [b"null", b"false", b"0", b"0.0", b"\"\"", b"\" \"", b"[]", b"{}", b"[\"\"]", b"{\"code\":0,\"message\":null}"];
const AROUND: [(&[u8], &[u8]); 8] = [
    (b"", b""),
    (b"\xef\xbb\xbf", b""),
    (b" \r\n\t", b"\r\n\r\n"),
    (b"", b"\0\0"),
    (b"", b"<!-- served by 7 -->"),
    (b"\n\xef\xbb\xbf\n", b";"),
    (b")]}',\n", b""),
    (b"", b"{\"access_token\":\"another\"}"),
];
const NEEDED: [&str; 4] = ["access_token", "refresh_token", "token_type", "error"];

type Raw = BTreeMap<String, Box<RawValue>>;

fn members(response: &str) -> Vec<(String, Vec<u8>)> {
    let members: Raw = serde_json::from_str(response).unwrap();
    members.into_iter().map(|(name, value)| (name, value.get().as_bytes().to_vec())).collect()
}

fn object(members: &[(String, Vec<u8>)]) -> Vec<u8> {
    let members: Vec<_> =
        members.iter().map(|(name, value)| [format!("\"{name}\":").as_bytes(), value].concat()).collect();
    [b"{", members.join(&b","[..]).as_slice(), b"}"].concat()
}

/// The access token and the refresh token that are read at a login and at a refresh.
fn both(quirks: &Quirks, status: u16, body: &[u8]) -> [Option<(String, Option<String>)>; 2] {
    let old = old();
    [None, Some(&old)].map(|old| {
        let expected = Expectations { quirks, dead_grants: &[], is_bound: false, old, sent: &[], now: NOW };
        let status = StatusCode::from_u16(status).unwrap();
        let received = Received { status, headers: &HeaderMap::new(), body: &Bytes::copy_from_slice(body), cut: None };
        let token = read(&expected, received).ok()?.token;
        Some((token.access_token.expose().to_owned(), token.refresh_token.map(|token| token.expose().to_owned())))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn unneeded_members_never_affect_the_result(
        response in select(&ANSWERS[..]),
        which in any::<Index>(),
        at in any::<Index>(),
        junk in select(&JUNK[..]),
        other in select(&JUNK[..]),
        error in proptest::option::of(select(&NO_ERROR[..])),
        around in select(&AROUND[..]),
        status in select(&[200_u16, 201, 202, 203][..]),
    ) {
        let quirks = Quirks::default();
        let expected = both(&quirks, 200, response.as_bytes());
        prop_assert!(expected.iter().all(Option::is_some), "{response}");
        let mut members = members(response);
        let unneeded: Vec<_> = (0..members.len()).filter(|at| !NEEDED.contains(&members[*at].0.as_str())).collect();
        if !unneeded.is_empty() && !members[unneeded[which.index(unneeded.len())]].1.starts_with(b"{\"access") {
            members[unneeded[which.index(unneeded.len())]].1 = junk.to_vec();
        }
        members.insert(at.index(members.len() + 1), ("nobody_needs_this".to_owned(), other.to_vec()));
        members.extend(error.map(|error| ("error".to_owned(), error.to_vec())));
        let body = [around.0, object(&members).as_slice(), around.1].concat();
        prop_assert_eq!(both(&quirks, status, &body), expected, "{}", String::from_utf8_lossy(&body));
    }

    /// A truncated response yields no token at a login, and the whole token or none at a refresh, but never a part of it.
    #[test]
    fn a_truncated_response_never_truncates_a_token(response in select(&ANSWERS[..]), end in any::<Index>()) {
        let quirks = Quirks::default();
        let [_, Some((access_token, refresh_token))] = both(&quirks, 200, response.as_bytes()) else { panic!("{response}") };
        let end = end.index(response.trim_end().len());
        let [login, refresh] = both(&quirks, 200, &response.as_bytes()[..end]);
        prop_assert_eq!(login, None);
        if let Some((access, refreshing)) = refresh {
            prop_assert!(access == access_token || access == "old-access", "{access}");
            prop_assert!(refreshing.is_none() || refreshing == refresh_token, "{refreshing:?}");
        }
    }

    /// Any bytes: no panic, and no token that they do not contain.
    #[test]
    fn no_token_is_invented(body in proptest::collection::vec(any::<u8>(), 0..200), noise in any::<Index>(), response in select(&ANSWERS[..])) {
        let quirks = Quirks::default();
        let mut damaged = response.as_bytes().to_vec();
        let at = noise.index(damaged.len());
        damaged.splice(at..damaged.len().min(at + body.len() / 8), body.iter().take(3).copied());
        for bytes in [body, damaged] {
            for found in both(&quirks, 200, &bytes).into_iter().flatten() {
                prop_assert!(found.0.bytes().all(|byte| matches!(byte, 0x20..=0x7e)) && !found.0.trim().is_empty());
            }
            let _ = crate::protocol::http::decompress::decompressed(&HeaderMap::new(), bytes.into(), 1 << 16);
        }
    }

    /// The code `invalid_grant` counts whatever surrounds it.
    #[test]
    fn invalid_grant_counts_whatever_surrounds_it(
        word in select(&["invalid_grant", "Invalid_Grant", " invalid_grant\\n", "INVALID_GRANT", "invalid-grant"][..]),
        shape in select(&[
            r#"{"error":"@"}"#, r#"{"error":{"code":"@"}}"#, r#"{"error":{"type":"x","error":"@"}}"#, r#"{"error":["@"]}"#,
            r#"{"error":[{"code":"@"}]}"#, r#"{"errors":[{"code":"x"},{"code":"@"}]}"#, r#"[{"error":"@"}]"#,
            r#"{"data":{"error":"@"}}"#, r#"{"error":400,"error_code":"@"}"#, r#"{"message":"@"}"#, r#"{"error":"@","x":NaN,}"#,
            "error=@&x=%ff", r#"{"fault":{"detail":{"errorCode":"@"}}}"#,
        ][..]),
        junk in select(&JUNK[..]),
        around in select(&AROUND[..7]),
        status in select(&[200_u16, 400, 401, 403, 404, 422, 500][..]),
    ) {
        let shape = shape.replace('@', if shape.starts_with("error=") { "invalid_grant" } else { word });
        let mut body = shape.into_bytes();
        if body.starts_with(b"{") {
            body.splice(1..1, [b"\"x\":", junk, b","].concat());
        }
        let body = [around.0, body.as_slice(), around.1].concat();
        let error = refresh(status, &body).unwrap_err();
        prop_assert!(error.needs_authorization(), "{status} {} {error:?}", String::from_utf8_lossy(&body));
    }
}
