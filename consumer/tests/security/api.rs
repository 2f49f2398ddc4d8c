//! Calls of the provider's API: where the token goes, and where it does not.

use std::time::{Duration, Instant};

use http::{HeaderValue, StatusCode, header};
use oauth_dance::testing::{Endpoint, ScriptedResponse, TestProvider};
use oauth_dance::{ApiClient, ApiError, OAuth2Token, User};
use oauth_dance_core::{Precondition, Token};

use crate::support::{Browser, Ear, Site, world};

async fn client(provider: &TestProvider, site: &Site, user: &str) -> ApiClient {
    provider.connect(&site.oauth, "acme", &User::new(user)).await.unwrap();
    site.oauth.client("acme", &User::new(user)).await.unwrap()
}

#[tokio::test]
async fn ac_01_the_token_stays_with_its_provider() {
    let (provider, site) = world().await;
    let client = client(&provider, &site, "alice").await;
    let ear = Ear::listen().await;
    for url in [
        ear.url.clone(),
        format!("{}/api/notes", ear.url),
        ear.url.replace("http://", "HTTP://"),
        provider.url().replace("http", "https"),
        provider.url().replace("127.0.0.1", "localhost"),
        provider.url().replace("127.0.0.1", "[::1]"),
        "file:///etc/passwd".to_owned(),
        "data:,x".to_owned(),
    ] {
        assert!(matches!(client.get(&url).send().await, Err(ApiError::ForeignOrigin)), "{url}");
    }
    assert_eq!(ear.connections(), 0);
    assert!(provider.requests().is_empty());
    let own = format!("{}/api/notes?page=2", provider.url());
    assert_eq!(client.get(&own).send().await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn ac_02_a_path_cannot_leave_the_origin() {
    let (provider, site) = world().await;
    let client = client(&provider, &site, "alice").await;
    let ear = Ear::listen().await;
    let evil = ear.url.strip_prefix("http://").unwrap();
    for path in [
        format!("//{evil}/"),
        format!("/\\{evil}/"),
        format!("\\\\{evil}/"),
        format!("http:{evil}/"),
        format!("@{evil}/"),
        format!(":80@{evil}/"),
        format!(".{evil}/"),
        format!("\t//{evil}/"),
        format!("/\t/{evil}/"),
        format!("/..//{evil}/"),
        format!("../../..//{evil}/"),
        format!("?@{evil}"),
        format!("#@{evil}"),
    ] {
        match client.get(&path).send().await {
            Ok(_) | Err(ApiError::ForeignOrigin | ApiError::Url) => {}
            Err(error) => panic!("{path}: {error:?}"),
        }
    }
    assert_eq!(ear.connections(), 0);
    for request in provider.requests() {
        assert_eq!(request.header("host"), provider.url().strip_prefix("http://"));
    }
}

#[tokio::test]
async fn paths_are_appended_to_the_base() {
    let (provider, site) = world().await;
    let client = client(&provider, &site, "alice").await;
    for (path, expected) in [("notes", "/api/notes"), ("/notes", "/api/notes"), ("/a%2Fb/ü?x=1", "/api/a%2Fb/%C3%BC")]
    {
        let response = client.get(path).query(&[("page", "2"), ("q", "a&b")]).send().await.unwrap().success().unwrap();
        let echo: serde_json::Value = response.json().unwrap();
        assert_eq!(echo["path"], expected);
        let query = echo["query"].as_array().unwrap();
        assert!(query.contains(&serde_json::json!(["q", "a&b"])), "{query:?}");
        assert_eq!(echo["user"], "alice");
    }
    let echo: serde_json::Value = client.post("/x").json(&["y"]).send().await.unwrap().json().unwrap();
    assert_eq!((&echo["method"], &echo["body"]), (&"POST".into(), &"[\"y\"]".into()));
    let echo: serde_json::Value = client.put("/x").form(&[("a", "b c")]).send().await.unwrap().json().unwrap();
    assert_eq!(echo["form"], serde_json::json!([["a", "b c"]]));
    let error = client.get("/x").send().await.unwrap().json::<u8>().unwrap_err();
    assert!(matches!(error, ApiError::Body { expected: "JSON", .. }));
}

#[tokio::test]
async fn ac_03_redirects_never_carry_the_token_elsewhere() {
    let (provider, site) = world().await;
    let client = client(&provider, &site, "alice").await;
    let ear = Ear::listen().await;
    for status in [301, 302, 303, 307, 308] {
        for location in [ear.url.clone(), ear.url.replace("http:", ""), "https://acme.invalid/".to_owned()] {
            provider.next_response(Endpoint::Api, ScriptedResponse::redirect(status, &location));
            let response = client.post("/notes").body("x").send().await.unwrap();
            assert_eq!(response.status(), status);
            assert!(response.success().is_err());
        }
    }
    assert_eq!(ear.connections(), 0);

    provider.next_response(Endpoint::Api, ScriptedResponse::redirect(302, "/api/moved"));
    let response = client.get("/old").send().await.unwrap();
    assert_eq!(response.json::<serde_json::Value>().unwrap()["path"], "/api/moved");
    // A redirect leaves the origin in the second step.
    provider.next_response(Endpoint::Api, ScriptedResponse::redirect(302, "/api/moved"));
    provider.next_response(Endpoint::Api, ScriptedResponse::redirect(302, &ear.url));
    assert_eq!(client.get("/old").send().await.unwrap().status(), StatusCode::FOUND);
    assert_eq!(ear.connections(), 0);
    // A redirect loop.
    for _ in 0..50 {
        provider.next_response(Endpoint::Api, ScriptedResponse::redirect(307, "/api/again"));
    }
    provider.clear_requests();
    assert_eq!(client.get("/again").send().await.unwrap().status(), StatusCode::TEMPORARY_REDIRECT);
    assert!(provider.requests().len() < 12);
}

#[tokio::test]
async fn ac_04_the_token_travels_in_a_header_only() {
    let (provider, site) = world().await;
    let client = client(&provider, &site, "alice").await;
    client.get("/notes").query(&[("a", "b")]).send().await.unwrap();
    client.post("/notes").form(&[("a", "b")]).send().await.unwrap();
    let token = client.token().secret().expose();
    for request in provider.requests() {
        assert_eq!(request.header("authorization"), Some(format!("Bearer {token}").as_str()));
        assert!(!format!("{:?} {:?} {}", request.query, request.body, request.path).contains(token));
    }
}

#[tokio::test]
async fn ac_07_a_missing_scope_is_reported_to_the_caller() {
    let (provider, site) = world().await;
    let client = client(&provider, &site, "alice").await;
    let refusal = ScriptedResponse::error(403, "insufficient_scope")
        .header("www-authenticate", "Bearer error=\"insufficient_scope\", scope=\"admin\"");
    provider.next_response(Endpoint::Api, refusal);
    let response = client.get("/admin").send().await.unwrap();
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    assert!(response.headers()["www-authenticate"].to_str().unwrap().contains("admin"));
    assert!(matches!(response.success(), Err(ApiError::Status { status }) if status == 403));
    assert_eq!(provider.requests().len(), 1);
}

#[tokio::test]
async fn ac_08_a_write_is_not_repeated_after_a_failure() {
    let (provider, site) = world().await;
    let client = client(&provider, &site, "alice").await;
    client.get("/warm").send().await.unwrap();
    provider.clear_requests();
    for response in
        [ScriptedResponse::normal().hanging(), ScriptedResponse::normal().lost(), ScriptedResponse::closed()]
    {
        provider.next_response(Endpoint::Api, response);
        let sent = client.post("/orders").body("1 piano").timeout(Duration::from_millis(250)).send().await;
        assert!(matches!(sent, Err(ApiError::Timeout | ApiError::Transport(_))), "{sent:?}");
    }
    assert_eq!(provider.requests_to(Endpoint::Api).len(), 3);
}

#[tokio::test]
async fn ac_09_a_response_is_limited_in_time_and_size() {
    let (provider, site) = world().await;
    let client = client(&provider, &site, "alice").await;
    for response in
        [ScriptedResponse::normal().hanging(), ScriptedResponse::normal().dripping(Duration::from_millis(50))]
    {
        provider.next_response(Endpoint::Api, response);
        let since = Instant::now();
        let sent = client.get("/slow").timeout(Duration::from_millis(250)).send().await;
        assert!(matches!(sent, Err(ApiError::Timeout)), "{sent:?}");
        assert!(since.elapsed() < Duration::from_secs(2));
    }
    for response in [ScriptedResponse::huge(64 << 20), ScriptedResponse::endless()] {
        let before = provider.bytes_streamed();
        provider.next_response(Endpoint::Api, response);
        let sent = client.get("/large").max_response(1 << 20).send().await;
        assert!(matches!(sent, Err(ApiError::TooLarge { limit: 1_048_576 })), "{sent:?}");
        assert!(provider.bytes_streamed() - before < 16 << 20);
    }
    provider.next_response(Endpoint::Api, ScriptedResponse::status(200).body(vec![b'x'; 100]));
    assert_eq!(client.get("/exact").max_response(100).send().await.unwrap().bytes().len(), 100);
    provider.next_response(Endpoint::Api, ScriptedResponse::huge(101));
    assert!(client.get("/more").max_response(100).send().await.is_err());
}

#[tokio::test]
async fn ac_10_a_request_has_one_authorization_header() {
    let (provider, site) = world().await;
    let client = client(&provider, &site, "alice").await;
    let own = client.get("/x").header(header::AUTHORIZATION, HeaderValue::from_static("Basic eDp5"));
    assert!(matches!(own.send().await, Err(ApiError::Request(_))));
    client.get("/x").header(header::ACCEPT, HeaderValue::from_static("text/plain")).send().await.unwrap();
    let requests = provider.requests();
    assert_eq!(requests.len(), 1);
    assert!(requests[0].header("authorization").is_some(), "exactly one");
    assert_eq!(requests[0].header("accept"), Some("text/plain"));
}

#[tokio::test]
async fn ac_11_a_token_invalid_in_a_header_is_an_error() {
    let (provider, site) = world().await;
    let user = User::new("alice");
    let mut mac = OAuth2Token::bearer("x");
    mac.token_type = "mac".to_owned();
    for token in [OAuth2Token::bearer("a\r\nX-Evil: 1"), OAuth2Token::bearer("a\0"), OAuth2Token::bearer("a\n"), mac] {
        let key = user.key("acme").unwrap();
        site.oauth.tokens().put(&key, &Token::from(token), Precondition::Always).await.unwrap();
        let client = site.oauth.client("acme", &user).await.unwrap();
        assert!(matches!(client.get("/x").send().await, Err(ApiError::TokenType)));
    }
    assert!(provider.requests().is_empty());
}

#[tokio::test]
async fn ac_12_users_share_no_cookies() {
    let (provider, site) = world().await;
    let (alice, bob) = (client(&provider, &site, "alice").await, client(&provider, &site, "bob").await);
    provider.next_response(Endpoint::Api, ScriptedResponse::normal().header("set-cookie", "who=alice; Path=/"));
    alice.get("/x").send().await.unwrap();
    bob.get("/x").send().await.unwrap();
    alice.get("/x").send().await.unwrap();
    assert!(provider.requests().iter().all(|request| request.header("cookie").is_none()));
}

#[tokio::test]
async fn ac_13_origins_are_compared_after_parsing() {
    let provider = TestProvider::start().await.unwrap();
    let mut named = provider.provider("acme");
    named.api_base = Some(format!("{}/api", provider.url().replace("127.0.0.1", "localhost")));
    named.userinfo_endpoint = None;
    let registration = named.client("test-client", "test-secret");
    let site = crate::support::Setup::default().start(|builder| builder.provider(registration)).await;
    let client = client(&provider, &site, "alice").await;
    let port = provider.address().unwrap().port();
    for (host, ours) in [
        ("localhost", true),
        ("LOCALHOST", true),
        ("LocalHost", true),
        ("%6cocalhost", true),
        ("ｌocalhost", true),
        ("localhost.", false),
        ("127.0.0.1", false),
        ("localhost@127.0.0.1", false),
        ("localhost:80@127.0.0.1", false),
        ("user@localhost", false),
        ("user:pw@localhost", false),
        ("xn--lcalhost-y5a", false),
        ("localhost.evil.test", false),
    ] {
        let sent = client.get(&format!("http://{host}:{port}/api/x")).send().await;
        match sent {
            Ok(response) if ours => assert_eq!(response.status(), StatusCode::OK, "{host}"),
            Err(ApiError::ForeignOrigin | ApiError::Url) if !ours => {}
            other => panic!("{host}: {other:?}"),
        }
    }
    assert!(matches!(client.get("http://localhost/api/x").send().await, Err(ApiError::ForeignOrigin)), "another port");
    assert!(matches!(client.userinfo().send().await, Err(ApiError::Url)));
}

#[tokio::test]
async fn a_failed_call_is_a_plain_response() {
    let (provider, site) = world().await;
    let alice = Browser::signed_in(&site, "alice");
    alice.login("acme").await;
    let secret = site.access_token("alice").await.unwrap();
    for (response, expected) in
        [(ScriptedResponse::closed(), 502), (ScriptedResponse::status(500).body(secret.clone()), 502)]
    {
        provider.next_response(Endpoint::Userinfo, response);
        let page = alice.get("/required").await;
        assert_eq!(page.status, expected);
        assert!(!page.text().contains(&secret));
    }
}
