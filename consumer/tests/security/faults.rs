//! All kinds of responses of a token endpoint, at the code exchange and at a refresh.
//!
//! The result is always a typed error or a token, within the timeout and without a panic. No token is stored or lost
//! wrongly, no part of the response is shown unescaped, and the next login works.

mod runner;

use std::time::Duration;

use http::StatusCode;
use oauth_dance::testing::{CLIENT, Endpoint, ScriptedResponse, TestProvider};
use oauth_dance::{Provider, Secret, User};
use serde_json::{Value, json};

use self::runner::{Expected, Leg, Noted, any_token, as_form, edited, kept, run, token};
use crate::support::{Browser, Setup, world};

#[tokio::test]
async fn ft_01_a_failing_provider_is_a_typed_error() {
    let html = "<html><script>alert(1)</script></html>";
    run([
        ("status_500_html", ScriptedResponse::status(500).body(html), Expected::Error("status 500")),
        ("status_502_empty", ScriptedResponse::status(502), Expected::Error("status 502")),
        (
            "status_503_retry_after",
            ScriptedResponse::status(503).header("retry-after", "7"),
            Expected::Error("status 503"),
        ),
        ("status_429", ScriptedResponse::status(429), Expected::Error("status 429")),
        (
            "error_temporarily_unavailable",
            ScriptedResponse::error(503, "temporarily_unavailable"),
            Expected::Error("refused: temporarily_unavailable"),
        ),
        ("token_with_500", ScriptedResponse::normal().with_status(500), kept("status 500")),
        ("token_with_302", ScriptedResponse::normal().with_status(302), kept("status 302")),
    ])
    .await;
}

#[tokio::test]
async fn ft_02_tr_15_a_response_without_a_token_is_an_error() {
    run([
        ("html_200", ScriptedResponse::status(200).body("<html>access_token=x</html>"), Expected::Error("answer")),
        ("empty_200", ScriptedResponse::status(200), Expected::Error("answer")),
        ("status_204", ScriptedResponse::status(204), Expected::Error("answer")),
        ("truncated_json", ScriptedResponse::normal().map_body(|body| body[..body.len() - 5].to_vec()), kept("answer")),
        (
            "json_array",
            ScriptedResponse::json(json!([{"access_token": "x"}, {"access_token": "y"}])),
            Expected::Error("answer"),
        ),
        ("json_null", ScriptedResponse::json(Value::Null), Expected::Error("answer")),
        ("json_string", ScriptedResponse::json("access_token".into()), Expected::Error("answer")),
        ("two_documents", ScriptedResponse::normal().map_body(|body| body.repeat(2)), any_token()),
        (
            "invalid_utf8",
            ScriptedResponse::normal().map_body(|body| [&body[..body.len() - 1], b",\"x\":\"\xff\"}"].concat()),
            any_token(),
        ),
    ])
    .await;
}

#[tokio::test]
async fn ft_03_a_slow_or_lost_response_ends_in_time() {
    run([
        ("hang", ScriptedResponse::normal().hanging(), Expected::Error("timeout")),
        ("drip", ScriptedResponse::normal().dripping(Duration::from_millis(20)), Expected::Error("timeout")),
        ("close_before_answer", ScriptedResponse::closed(), Expected::Error("transport")),
        ("lost_answer", ScriptedResponse::normal().lost(), Expected::Error("transport")),
        (
            "cut_off",
            ScriptedResponse::normal().map_body(|body| body[..20].to_vec()).truncated(),
            Expected::Error("transport"),
        ),
        ("slow", ScriptedResponse::normal().after(Duration::from_millis(100)), any_token()),
    ])
    .await;
}

#[tokio::test]
async fn ft_04_a_response_that_is_too_large_is_an_error() {
    let nested = |levels| format!("{{\"x\":{}{},", "[".repeat(levels), "]".repeat(levels));
    run([
        ("huge", ScriptedResponse::huge(64 << 20), Expected::Error("answer")),
        ("endless", ScriptedResponse::endless(), Expected::Error("answer")),
        (
            "huge_with_length",
            ScriptedResponse::huge(64 << 20).header("content-length", "67108864"),
            Expected::Error("answer"),
        ),
        ("json_deep", edited("{", nested(100_000)), any_token()),
        ("json_as_deep_as_a_parser_accepts", edited("{", nested(126)), any_token()),
        ("padded", ScriptedResponse::normal().map_body(|body| [body, vec![b' '; 2 << 20]].concat()), any_token()),
        (
            "json_deep_unclosed",
            ScriptedResponse::status(200).body("{\"a\":".repeat(100_000)),
            Expected::Error("answer"),
        ),
        ("just_fits", edited("{", format!("{{\"x\":\"{}\",", "y".repeat(1_000_000))), any_token()),
    ])
    .await;
}

#[tokio::test]
async fn ft_05_a_redirect_is_an_error() {
    run([
        ("redirect_302", ScriptedResponse::redirect(302, "http://127.0.0.1:9/"), Expected::Error("status 302")),
        ("redirect_303", ScriptedResponse::redirect(303, "/token"), Expected::Error("status 303")),
        ("redirect_307", ScriptedResponse::redirect(307, "/token"), Expected::Error("status 307")),
        (
            "redirect_308_protocol_relative",
            ScriptedResponse::redirect(308, "//127.0.0.1:9/"),
            Expected::Error("status 308"),
        ),
        ("redirect_nowhere", ScriptedResponse::status(302), Expected::Error("status 302")),
    ])
    .await;
}

#[tokio::test]
async fn ft_06_tr_12_a_token_is_read_in_any_format() {
    let typed = |content_type| ScriptedResponse::normal().header("content-type", content_type);
    let form = ScriptedResponse::normal().map_body(|body| as_form(&body));
    let whole = || {
        token(|token, _, now| {
            token.refresh_token.is_some() && token.expires_at == Some(now.saturating_add(Duration::from_secs(3600)))
        })
    };
    run([
        ("form_encoded", form.clone().header("content-type", "application/x-www-form-urlencoded"), whole()),
        ("form_encoded_as_json", form.clone(), whole()),
        ("form_without_content_type", form.header("content-type", ""), whole()),
        ("json_as_text_html", typed("text/html; charset=utf-8"), whole()),
        ("json_as_text_plain", typed("text/plain"), whole()),
        ("json_as_form", typed("application/x-www-form-urlencoded"), whole()),
        ("json_without_content_type", typed(""), whole()),
        ("json_upper_case_content_type", typed("APPLICATION/JSON; CHARSET=UTF-8"), whole()),
        ("json_with_bom", ScriptedResponse::normal().map_body(|body| [b"\xef\xbb\xbf", &body[..]].concat()), whole()),
        (
            "json_with_white_space",
            ScriptedResponse::normal().map_body(|body| [b"\r\n\t ", &body[..], b"\n\n"].concat()),
            whole(),
        ),
        ("status_201", ScriptedResponse::normal().with_status(201), whole()),
    ])
    .await;
}

#[tokio::test]
async fn ft_07_tr_08_tr_14_access_tokens_are_checked() {
    let with = |value: Value| ScriptedResponse::normal().member("access_token", value);
    let of_length =
        |length: usize| token(move |token, _, _| token.access_token == Secret::new("t~".repeat(length / 2)));
    run([
        ("access_token_missing", ScriptedResponse::normal().without("access_token"), kept("answer")),
        ("access_token_empty", with("".into()), kept("answer")),
        ("access_token_blank", with("  ".into()), kept("answer")),
        ("access_token_null", with(Value::Null), kept("answer")),
        ("access_token_number", with(7.into()), token(|token, _, _| token.access_token == Secret::new("7"))),
        ("access_token_zero", with(0.into()), kept("answer")),
        ("access_token_object", with(json!({})), kept("answer")),
        ("access_token_crlf", with("a\r\nX-Evil: 1".into()), kept("answer")),
        ("access_token_nul", with("a\0b".into()), kept("answer")),
        ("access_token_non_ascii", with("tökén".into()), kept("answer")),
        ("access_token_16_kib", with("t~".repeat(8 << 10).into()), of_length(16 << 10)),
        ("access_token_64_kib", with("t~".repeat(32 << 10).into()), of_length(64 << 10)),
    ])
    .await;
}

#[tokio::test]
async fn ft_08_tr_09_token_types_are_checked() {
    let with = |value: Value| ScriptedResponse::normal().member("token_type", value);
    let is = |kind: &'static str| token(move |token, _, _| token.token_type == kind);
    run([
        ("token_type_missing", ScriptedResponse::normal().without("token_type"), is("Bearer")),
        ("token_type_null", with(Value::Null), is("Bearer")),
        ("token_type_lower", with("bearer".into()), is("bearer")),
        ("token_type_upper", with("BEARER".into()), is("BEARER")),
        ("token_type_mac", with("mac".into()), kept("answer")),
        ("token_type_dpop_unasked", with("DPoP".into()), kept("answer")),
        ("token_type_empty", with("".into()), is("Bearer")),
        ("token_type_of_its_own", with("JWT".into()), is("JWT")),
        ("token_type_number", with(1.into()), is("Bearer")),
    ])
    .await;
}

#[tokio::test]
async fn ft_09_tr_10_lifetimes_are_read_in_any_format() {
    let with = |value: Value| ScriptedResponse::normal().member("expires_in", value);
    let raw = |text: &str| edited("\"expires_in\":3600", format!("\"expires_in\":{text}"));
    let after = |seconds: u64| {
        token(move |token, _, now| token.expires_at == Some(now.saturating_add(Duration::from_secs(seconds))))
    };
    let last = u64::MAX;
    run([
        ("expires_in_missing", ScriptedResponse::normal().without("expires_in"), after(3600)),
        ("expires_in_null", with(Value::Null), after(3600)),
        ("expires_in_string", with("60".into()), after(60)),
        ("expires_in_float", with(json!(60.9)), after(60)),
        ("expires_in_zero", with(0.into()), after(3600)),
        ("expires_in_negative", with((-1).into()), after(3600)),
        ("expires_in_huge", with(i64::MAX.into()), after(last)),
        ("expires_in_beyond_u64", raw("99999999999999999999"), after(last)),
        ("expires_in_1e400", raw("1e400"), after(3600)),
        ("expires_in_minus_1e400", raw("-1e400"), after(3600)),
        ("expires_in_text", with("tomorrow".into()), after(3600)),
        ("expires_in_nan", with("NaN".into()), after(3600)),
        ("expires_in_bool", with(true.into()), after(3600)),
        ("expires_in_array", with(json!([60])), after(3600)),
    ])
    .await;
}

#[tokio::test]
async fn ft_10_tr_11_scopes_are_those_of_the_response() {
    let with = |value: Value| ScriptedResponse::normal().member("scope", value);
    let is = |scope: &'static [&'static str]| {
        token(move |token, _, _| token.scope.as_ref().is_some_and(|found| found == scope))
    };
    // Requested scopes are never treated as granted; a refresh retains the granted scopes.
    let unsaid = || token(|token, leg, _| token.scope.is_some() == (leg == Leg::Refresh));
    run([
        ("scope_missing", ScriptedResponse::normal().without("scope"), unsaid()),
        ("scope_null", with(Value::Null), unsaid()),
        ("scope_number", with(7.into()), unsaid()),
        ("scope_empty", with("".into()), is(&[])),
        ("scope_array", with(json!(["read", "write"])), is(&["read", "write"])),
        ("scope_commas", with("read,write".into()), is(&["read", "write"])),
        ("scope_narrower", with("read".into()), is(&["read"])),
        ("scope_wider", with("read write admin".into()), is(&["read", "write", "admin"])),
    ])
    .await;
}

#[tokio::test]
async fn ft_11_refresh_tokens_are_retained_if_missing() {
    let with = |value: Value| ScriptedResponse::normal().member("refresh_token", value);
    let none = || token(|token, leg, _| token.refresh_token.is_some() == (leg == Leg::Refresh));
    run([
        ("refresh_token_missing", ScriptedResponse::normal().without("refresh_token"), none()),
        ("refresh_token_null", with(Value::Null), none()),
        ("refresh_token_empty", with("".into()), none()),
        ("refresh_token_number", with(7.into()), token(|token, _, _| token.refresh_token == Some("7".into()))),
    ])
    .await;
}

#[tokio::test]
async fn ft_12_unrequested_id_tokens_are_dropped() {
    let dropped = || token(|token, _, _| token.id_token.is_none() && token.subject.is_none());
    run([
        ("id_token_missing", ScriptedResponse::normal(), dropped()),
        ("id_token_garbage", ScriptedResponse::normal().member("id_token", "garbage"), dropped()),
        ("id_token_alg_none", ScriptedResponse::normal().member("id_token", "e30.e30."), dropped()),
    ])
    .await;
}

#[tokio::test]
async fn ft_13_tr_15_refusals_are_typed_errors() {
    let secret = CLIENT.1;
    let html = json!({"error": "<script>alert(1)</script>", "error_description": "<img src=x onerror=alert(1)>"});
    let status = |status, body: &str| ScriptedResponse::status(status).body(body.to_owned());
    run([
        (
            "error_in_200",
            ScriptedResponse::error(200, "bad_verification_code"),
            Expected::Error("refused: bad_verification_code"),
        ),
        ("error_in_200_form", status(200, "error=bad&error_description=x"), Expected::Error("refused: bad")),
        (
            "error_invalid_grant",
            ScriptedResponse::error(400, "invalid_grant"),
            Expected::Error("refused: invalid_grant"),
        ),
        (
            "error_invalid_client_401",
            ScriptedResponse::error(401, "invalid_client"),
            Expected::Error("refused: invalid_client"),
        ),
        (
            "error_object",
            ScriptedResponse::json(json!({"error": {"type": "OAuthException", "message": "no", "code": 100}})),
            Expected::Error("refused: OAuthException"),
        ),
        ("error_number", ScriptedResponse::json(json!({"error": 7})), Expected::Error("refused: unspecified")),
        ("error_with_token", ScriptedResponse::normal().member("error", "denied"), any_token()),
        ("error_that_is_dead_with_token", ScriptedResponse::normal().member("error", "invalid_grant"), any_token()),
        ("error_that_is_none", ScriptedResponse::normal().member("error", ""), any_token()),
        ("error_that_is_zero", ScriptedResponse::normal().member("error", 0), any_token()),
        ("error_that_is_a_list", ScriptedResponse::normal().member("error", json!([])), any_token()),
        ("error_that_is_an_object", ScriptedResponse::normal().member("error", json!({})), any_token()),
        (
            "error_of_a_form",
            ScriptedResponse::normal().map_body(|body| [as_form(&body), b"&error=".to_vec()].concat()),
            any_token(),
        ),
        ("error_with_html", ScriptedResponse::json(html), Expected::Error("refused: <script>alert(1)</script>")),
        (
            "error_with_line_breaks",
            ScriptedResponse::error(400, "a\r\nINFO ok\u{1b}[0m"),
            Expected::Error("refused: a??INFO ok?[0m"),
        ),
        (
            "error_with_secret_echo",
            ScriptedResponse::json(
                json!({"error": format!("bad {secret}"), "error_description": format!("{secret} {secret}")}),
            ),
            Expected::Error("refused: bad [secret]"),
        ),
        ("error_400_no_body", ScriptedResponse::status(400), Expected::Error("status 400")),
        (
            "error_401_bearer",
            ScriptedResponse::status(401).header("www-authenticate", "Bearer error=\"invalid_client\""),
            Expected::Error("refused: invalid_client"),
        ),
        ("error_403_json", status(403, "{\"message\":\"blocked\"}"), Expected::Error("refused: unspecified")),
    ])
    .await;
}

#[tokio::test]
async fn ft_14_tr_13_unknown_members_are_retained() {
    run([
        (
            "extra_members",
            ScriptedResponse::normal().member("team", json!({"id": 7, "deep": [{"er": null}]})).member("x", 1.5),
            token(|token, _, _| token.extra.get("team").unwrap()["deep"][0] == json!({"er": null})),
        ),
        (
            "duplicate_keys",
            edited("{", "{\"access_token\":\"first\","),
            token(|token, _, _| token.access_token != Secret::new("first")),
        ),
    ])
    .await;
}

#[tokio::test]
async fn ft_15_an_unreachable_provider_is_an_error() {
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let provider = TestProvider::start().await.unwrap();
    let plain = provider.url().replace("http:", "https:");
    for (name, endpoint) in [
        ("port closed", format!("http://{closed}/token")),
        ("no such host", "https://provider.invalid/token".to_owned()),
        ("no TLS there", format!("{plain}/token")),
    ] {
        let noted = Noted::default();
        let mut unreachable: Provider = provider.provider("acme");
        unreachable.token_endpoint = endpoint;
        let registration = unreachable.client(CLIENT.0, CLIENT.1);
        let hooks = noted.clone();
        let site = Setup::default().start(|builder| builder.provider(registration).hooks(hooks)).await;
        let page = Browser::signed_in(&site, "alice").login("acme").await;
        assert_eq!(page.status, StatusCode::BAD_GATEWAY, "{name}");
        assert_eq!(noted.0.lock().unwrap().take().as_deref(), Some("transport"), "{name}");

        let user = User::new("alice");
        provider.connect(&site.oauth, "acme", &user).await.unwrap();
        site.clock.advance(Duration::from_secs(3601));
        let error = site.oauth.client("acme", &user).await.unwrap_err();
        assert!(!error.needs_login() && error.status().is_server_error(), "{name}: {error:?}");
        assert!(site.refresh_token("alice").await.is_some());
    }
}

#[tokio::test]
async fn ft_15_a_forgotten_code_is_an_error() {
    let (provider, site) = world().await;
    let alice = Browser::signed_in(&site, "alice");
    let callback = alice.stopped_at_callback("acme").await;
    let forgotten = crate::support::with_parameter(&callback, "code", Some("from before the restart"));
    assert_eq!(alice.get(forgotten.as_str()).await.status, StatusCode::BAD_GATEWAY);
    assert_eq!(provider.requests_to(Endpoint::Token).len(), 1);
    assert_eq!(alice.login("acme").await.status, StatusCode::SEE_OTHER);
}
