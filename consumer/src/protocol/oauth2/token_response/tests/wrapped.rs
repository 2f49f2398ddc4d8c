//! Tokens in any place and with any name that servers use.

use proptest::prelude::*;
use proptest::sample::select;

use super::*;

/// The access token and the refresh token that are read at a login and at a refresh.
fn both(body: &str) -> [Option<(String, Option<String>)>; 2] {
    let text = |secret: &Secret| secret.expose().to_owned();
    [login(200, body.as_bytes()), refresh(200, body.as_bytes()).map(|reading| reading.token)]
        .map(|read| read.ok().map(|token| (text(&token.access_token), token.refresh_token.as_ref().map(text))))
}

fn pair(access: &str, refresh: &str) -> [Option<(String, Option<String>)>; 2] {
    let found = Some((access.to_owned(), Some(refresh.to_owned())));
    [found.clone(), found]
}

#[test]
fn both_tokens_are_found_in_any_place() {
    for body in [
        r#"{"data":{"access_token":"new"},"refresh_token":"r2"}"#,
        r#"{"access_token":"new","data":{"refresh_token":"r2"}}"#,
        r#"{"tokens":[{"access_token":"new"},{"refresh_token":"r2"}]}"#,
        r#"{"access_token":"new","refreshToken":"r2"}"#,
        r#"{"accessToken":"new","refresh_token":"r2"}"#,
        r#"{"AccessToken":"new","RefreshToken":"r2"}"#,
        r#"{"ACCESS_TOKEN":"new","REFRESH_TOKEN":"r2"}"#,
        r#"{"access-token":"new","refresh-token":"r2"}"#,
        r#"{"data":[{"access_token":"new","refresh_token":"r2"}]}"#,
        r#"[[{"access_token":"new","refresh_token":"r2"}]]"#,
        r#"{"statusCode":200,"body":"{\"access_token\":\"new\",\"refresh_token\":\"r2\"}"}"#,
        r#"{"body":"access_token=new&refresh_token=r2"}"#,
        r#"{"body":"{\"data\":\"{\\\"access_token\\\":\\\"new\\\",\\\"refresh_token\\\":\\\"r2\\\"}\"}"}"#,
        r#"{"access_token":null,"data":{"access_token":"new","refresh_token":"r2"}}"#,
        r#"{"access_token":"","refresh_token":"","result":{"accessToken":"new","refreshToken":"r2"}}"#,
        r#"{"value":"new","tokenType":"bearer","refreshToken":{"value":"r2"}}"#,
        r#"{"token":"new","refresh_token":"r2"}"#,
        r#"{"access_token":{"token":"new","expires_in":60},"refresh_token":{"token":"r2"}}"#,
        r#"{"Access_Token":{"Token":"new","Refresh_Token":"r2"}}"#,
        r#"{"access_token":"new","refresh_token":"r2","user":{"access_token":"of-another","refresh_token":"r3"}}"#,
        r#"{"one":{"access_token":"app"},"two":{"access_token":"new","refresh_token":"r2"}}"#,
        r#"{"deep":{"access_token":"inner"},"access_token":"new","refresh_token":"r2"}"#,
        r#"callback( {"access_token":"new","refresh_token":"r2"} );"#,
        "accessToken=new&refreshToken=r2",
    ] {
        assert_eq!(both(body), pair("new", "r2"), "{body}");
    }
}

#[test]
fn numbers_are_tokens() {
    assert_eq!(both(r#"{"access_token":12345,"refresh_token":67890}"#), pair("12345", "67890"));
    assert_eq!(refresh(200, br#"{"access_token":"new","refresh_token":0}"#).unwrap().token.refresh_token, None);
    let last = r#"{"access_token":18446744073709551615,"refresh_token":"r2"}"#;
    assert_eq!(both(last), pair("18446744073709551615", "r2"));
}

/// A refresh token of another access token, or one of several, is not used; neither is the one that was sent.
#[test]
fn a_refresh_token_elsewhere_must_be_unambiguous() {
    for body in [
        r#"{"access_token":"new","a":{"refresh_token":"r2"},"b":{"refresh_token":"r3"}}"#,
        r#"{"access_token":"new","bot":{"access_token":"other","refresh_token":"r2"}}"#,
        r#"{"access_token":"new","request":{"refresh_token":"old-refresh"}}"#,
        r#"{"access_token":"new","refresh_token":null}"#,
        r#"{"access_token":"new","refresh_token":""}"#,
        r#"{"access_token":"new","refresh_token":{}}"#,
    ] {
        let token = refresh(200, body.as_bytes()).unwrap().token;
        assert_eq!((token.access_token.expose(), token.refresh_token), ("new", None), "{body}");
    }
    let same = r#"{"access_token":"new","a":{"refresh_token":"r2"},"b":{"refresh_token":"r2"}}"#;
    assert_eq!(both(same), pair("new", "r2"));
    let other = r#"{"access_token":"new","request":{"refresh_token":"old-refresh"},"x":{"refresh_token":"r2"}}"#;
    assert_eq!(refresh(200, other.as_bytes()).unwrap().token.refresh_token, Some("r2".into()));
}

#[test]
fn a_lifetime_is_read_beside_or_outside_the_token() {
    for body in [
        r#"{"data":{"access_token":"new","expires_at":4600}}"#,
        r#"{"data":{"access_token":"new"},"expires_in":3600}"#,
        r#"{"data":{"accessToken":"new"},"expiresIn":3600}"#,
        r#"{"data":{"access_token":"new","expiresIn":"3600"}}"#,
        r#"{"access_token":{"token":"new","expires_in":3600},"refresh_token":"r2"}"#,
    ] {
        let found = ok(body).expires_at;
        // The first is taken for an instant only from the year 2000 on.
        let expected = if body.contains("expires_at") { 5_600 } else { 4_600 };
        assert_eq!(found, Some(Timestamp::from_unix_seconds(expected)), "{body}");
    }
}

/// The token is removed, and the rest is stored.
#[test]
fn members_around_a_token_are_stored() {
    let token = ok(r#"{"statusCode":200,"body":"{\"access_token\":\"new\",\"team\":7}"}"#);
    assert_eq!(token.extra.get("statusCode"), Some(&200.into()));
    assert_eq!(token.extra.get("body"), Some(&serde_json::json!({"team": 7})));
    let text = r#"{"access_token":"new","note":"{\"token\":1","settings":"{\"a\":1}"}"#;
    assert_eq!(ok(text).extra.get("note"), Some(&r#"{"token":1"#.into()));
    assert_eq!(ok(text).extra.get("settings"), Some(&r#"{"a":1}"#.into()));
}

#[test]
fn members_that_resemble_a_token_are_ignored() {
    for body in [
        r#"{"token":"csrf"}"#,
        r#"{"value":"x"}"#,
        r#"{"token":{"refresh":"r2"}}"#,
        r#"{"access_token_url":"https://x"}"#,
        r#"{"one":{"access_token":"a"},"two":{"access_token":"b"}}"#,
        r#"{"html":"<p>access_token=x</p>"}"#,
        r#"{"x":{"x":{"x":{"x":{"x":{"x":{"access_token":"too deep"}}}}}}}"#,
        "<script>{\"access_token\":\"a\"}</script>",
    ] {
        assert_eq!(both(body), [None, None], "{body}");
    }
}

/// Large or deep responses are searched quickly.
#[test]
fn a_large_response_is_searched_in_time() {
    let many = format!(r#"{{"{}":[{}{{}}]}}"#, "n".repeat(300_000), r#"{"refresh_token":"x"},"#.repeat(3_000));
    let several = format!("[{}{{}}]", r#"{"access_token":"x"},{"access_token":"y"},"#.repeat(3_000));
    let nested = (0..10).fold("{}".to_owned(), |text, _| format!(r#"{{"token":{}}}"#, serde_json::json!(text)));
    let since = std::time::Instant::now();
    for body in [many, several, nested] {
        assert!(login(200, body.as_bytes()).is_err());
    }
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
}

fn noise() -> impl Strategy<Value = &'static str> {
    select(
        &[
            r#""error":"invalid_grant""#,
            r#""error":{"code":"invalid_grant","message":"gone"}"#,
            r#""errors":[{"error":"invalid_grant"}]"#,
            r#""message":"Refresh token revoked""#,
            r#""error":"invalid_client""#,
            r#""error_description":"the client secret is wrong""#,
            r#""errcode":40029"#,
            r#""status":"error""#,
            r#""success":false"#,
            r#""x":null"#,
        ][..],
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// A success that contains a token is never a refusal, and never a dead grant, neither at a login nor at a refresh.
    #[test]
    fn a_success_with_a_token_is_no_refusal(
        (access, refreshing) in select(&[
            ("access_token", "refresh_token"), ("accessToken", "refreshToken"), ("access_token", "refreshToken"),
            ("AccessToken", "RefreshToken"), ("ACCESS_TOKEN", "refresh_token"), ("token", "refresh_token"),
        ][..]),
        wraps in proptest::collection::vec(select(&[
            r#"{"data":@}"#, r#"[@]"#, r#"{"data":[@]}"#, r#"{"ok":true,"a/b~c":@}"#, "text",
        ][..]), 0..3),
        is_number in any::<bool>(),
        inner in noise(),
        outer in noise(),
        status in select(&[200_u16, 201, 202][..]),
    ) {
        let (one, two) = if is_number { ("12345", "67890") } else { ("\"12345\"", "\"67890\"") };
        let token = format!(r#"{{"{access}":{one},{inner},"{refreshing}":{two}}}"#);
        let wrapped = wraps.iter().fold(token, |body, wrap| match *wrap {
            "text" => format!(r#"{{"body":{}}}"#, serde_json::json!(body)),
            wrap => wrap.replace('@', &body),
        });
        let body = format!(r#"{{"wrapped":{wrapped},{outer}}}"#);
        for read in [login(status, body.as_bytes()), refresh(status, body.as_bytes()).map(|reading| reading.token)] {
            prop_assert!(read.is_ok(), "{read:?} {body}");
            let token = read.unwrap();
            prop_assert_eq!(token.access_token.expose(), "12345", "{}", body);
            prop_assert_eq!(token.refresh_token.as_ref().map(Secret::expose), Some("67890"), "{}", body);
        }
    }
}
