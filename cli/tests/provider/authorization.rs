use reqwest::header;

use crate::harness::{CHALLENGE, PageResponse, Provider, REDIRECT_URI, STATE, authorize, send, text};

fn assert_shown_to_user(response: &PageResponse) {
    assert_eq!(response.status, 400, "{}", response.body);
    assert!(!response.headers.contains_key(header::LOCATION));
    assert!(response.header("content-type").starts_with("text/html"));
}

fn assert_sent_to_client(response: &PageResponse, provider: &Provider, error: &str) {
    assert_eq!(response.status, 303, "{}", response.body);
    assert!(response.location().starts_with(&format!("{REDIRECT_URI}&")));
    assert_eq!(response.query("error").as_deref(), Some(error));
    assert_eq!(response.query("state").as_deref(), Some(STATE));
    assert_eq!(response.query("iss").as_deref(), Some(&*provider.issuer));
    assert_eq!(response.query("code"), None);
}

#[tokio::test]
async fn a_login_and_a_consent_issue_a_code() {
    let provider = Provider::start().await;
    let mut browser = provider.browser();

    let login = browser.get(&authorize(&[])).await;
    assert_eq!(login.status, 200);
    assert!(login.body.contains("<h1>Sign in</h1>"));
    browser.sign_in("bob").await;
    let consent = browser.get(&authorize(&[])).await;
    assert!(consent.body.contains("Bob Brown"));
    assert!(consent.body.contains("bob@example.com"));

    let response = browser.decide("allow").await;
    assert_eq!(response.status, 303);
    assert!(response.location().starts_with(&format!("{REDIRECT_URI}&")));
    assert_eq!(response.query("retained").as_deref(), Some("yes"));
    assert_eq!(response.query("state").as_deref(), Some(STATE));
    assert_eq!(response.query("iss").as_deref(), Some(&*provider.issuer));
    assert_eq!(response.query("error"), None);

    let tokens = provider.redeem(&response.query("code").unwrap()).await.json();
    let info = provider.userinfo(text(&tokens["access_token"])).await;
    assert_eq!(info.json()["name"], "Bob Brown");
}

#[tokio::test]
async fn the_client_gets_an_error_when_the_user_denies() {
    let provider = Provider::start().await;
    let mut browser = provider.browser();
    browser.sign_in("alice").await;
    let response = browser.decide("deny").await;
    assert_sent_to_client(&response, &provider, "access_denied");
}

#[tokio::test]
async fn a_wrong_redirect_uri_is_never_redirected_to() {
    let provider = Provider::start().await;
    let shorter = &REDIRECT_URI[..REDIRECT_URI.len() - 1];
    let longer = format!("{REDIRECT_URI}/../evil");
    for wrong in ["", "https://evil.example/", shorter, &longer] {
        let response = send(provider.get(&authorize(&[("redirect_uri", wrong)]))).await;
        assert_shown_to_user(&response);
        let broken = authorize(&[("redirect_uri", wrong), ("response_type", "token")]);
        assert_shown_to_user(&send(provider.get(&broken)).await);
    }
    let twice = authorize(&[("redirect_uri", REDIRECT_URI), ("redirect_uri", "https://e/")]);
    assert_shown_to_user(&send(provider.get(&twice)).await);
}

#[tokio::test]
async fn an_unknown_client_is_an_error_for_the_user_only() {
    let provider = Provider::start().await;
    for wrong in ["", "someone-else"] {
        let response = send(provider.get(&authorize(&[("client_id", wrong)]))).await;
        assert_shown_to_user(&response);
    }
}

#[tokio::test]
async fn other_errors_go_back_to_the_client() {
    let provider = Provider::start().await;
    let upper = CHALLENGE.replace('-', "+");
    let cases: [(&str, &[(&str, &str)]); 9] = [
        ("invalid_request", &[("response_type", "")]),
        ("unsupported_response_type", &[("response_type", "token")]),
        ("invalid_request", &[("code_challenge", "")]),
        ("invalid_request", &[("code_challenge", "tooshort")]),
        ("invalid_request", &[("code_challenge", &upper)]),
        ("invalid_request", &[("code_challenge_method", "plain")]),
        ("invalid_request", &[("code_challenge_method", "")]),
        ("invalid_request", &[("scope", "email"), ("scope", "profile")]),
        ("invalid_scope", &[("scope", "profile admin")]),
    ];
    for (error, changes) in cases {
        let response = send(provider.get(&authorize(changes))).await;
        assert_sent_to_client(&response, &provider, error);
    }
}

#[tokio::test]
async fn a_wrong_password_shows_the_form_again() {
    let provider = Provider::start().await;
    let mut browser = provider.browser();
    let csrf = browser.get(&authorize(&[])).await.csrf();
    for (username, password) in [("alice", "wrong"), ("<b>mallory", "dance"), ("alice", "")] {
        let form = [("csrf", &*csrf), ("action", "login"), ("username", username), ("password", password)];
        let response = browser.post(&authorize(&[]), &form).await;
        assert_eq!(response.status, 422);
        assert!(response.body.contains("role=\"alert\""));
        assert!(!response.body.contains("<b>"));
        assert!(!response.headers.contains_key(header::SET_COOKIE));
    }
    let again = browser.get(&authorize(&[])).await;
    assert!(again.body.contains("<h1>Sign in</h1>"));
}

#[tokio::test]
async fn forms_need_the_token_of_their_own_browser() {
    let provider = Provider::start().await;
    let mut other = provider.browser();
    let foreign = other.get(&authorize(&[])).await.csrf();

    let mut browser = provider.browser();
    browser.sign_in("alice").await;
    for csrf in ["", "guess", &foreign] {
        for action in ["login", "allow", "logout"] {
            let form = [("csrf", csrf), ("action", action), ("username", "bob"), ("password", "dance")];
            let response = browser.post(&authorize(&[]), &form).await;
            assert_eq!(response.status, 403, "{action} with {csrf:?}");
            assert!(!response.headers.contains_key(header::LOCATION));
        }
    }
    let consent = browser.get(&authorize(&[])).await;
    assert!(consent.body.contains("Alice Adams"));
}

#[tokio::test]
async fn a_stale_form_leads_to_the_next_step() {
    let provider = Provider::start().await;
    let mut browser = provider.browser();
    let stale = browser.get(&authorize(&[])).await.csrf();
    browser.sign_in("alice").await;
    let issuer = &*provider.issuer;
    for action in ["login", "allow", "logout"] {
        let form = [("csrf", &*stale), ("action", action), ("username", "bob"), ("password", "dance")];
        for sign in [("sec-fetch-site", "same-origin"), ("origin", issuer)] {
            let response = browser.post_with(&authorize(&[]), &form, &[sign]).await;
            assert_eq!(response.status, 303, "{action} with {sign:?}");
            assert_eq!(response.location(), authorize(&[]));
            assert!(!response.headers.contains_key(header::SET_COOKIE));
        }
        for signs in [
            &[("sec-fetch-site", "cross-site")][..],
            &[("sec-fetch-site", "same-site")],
            &[("sec-fetch-site", "cross-site"), ("origin", issuer)],
            &[("origin", "null")],
            &[("origin", "https://evil.example")],
        ] {
            let response = browser.post_with(&authorize(&[]), &form, signs).await;
            assert_eq!(response.status, 403, "{action} with {signs:?}");
            assert!(!response.headers.contains_key(header::LOCATION));
        }
    }
    let consent = browser.get(&authorize(&[])).await;
    assert!(consent.body.contains("Alice Adams"), "nothing has changed");
}

#[tokio::test]
async fn a_page_explains_when_a_browser_sends_no_cookie() {
    let provider = Provider::start().await;
    let csrf = provider.browser().get(&authorize(&[])).await.csrf();
    let form = [("csrf", &*csrf), ("action", "login"), ("username", "alice"), ("password", "dance")];
    let response = provider.browser().post_with(&authorize(&[]), &form, &[("sec-fetch-site", "same-origin")]).await;
    assert_eq!(response.status, 403);
    assert!(response.body.contains("no cookie"), "{}", response.body);
}

#[tokio::test]
async fn a_form_cannot_change_the_request_into_a_bad_one() {
    let provider = Provider::start().await;
    let mut browser = provider.browser();
    browser.sign_in("alice").await;
    let csrf = browser.get(&authorize(&[])).await.csrf();
    let form = [("csrf", &*csrf), ("action", "allow")];
    let response = browser.post(&authorize(&[("redirect_uri", "https://evil.example/")]), &form).await;
    assert_shown_to_user(&response);
    let response = browser.post(&authorize(&[("code_challenge_method", "plain")]), &form).await;
    assert_sent_to_client(&response, &provider, "invalid_request");
}

#[tokio::test]
async fn signing_in_replaces_the_session_and_signing_out_ends_it() {
    let provider = Provider::start().await;
    let mut browser = provider.browser();
    browser.get(&authorize(&[])).await;
    let before = browser.cookie.clone();
    browser.sign_in("alice").await;
    assert_ne!(browser.cookie, before);

    let mut planted = provider.browser();
    planted.cookie = before;
    let page_before = planted.get(&authorize(&[])).await;
    assert!(page_before.body.contains("<h1>Sign in</h1>"));

    let csrf = browser.get(&authorize(&[])).await.csrf();
    let response = browser.post(&authorize(&[]), &[("csrf", &csrf), ("action", "logout")]).await;
    assert_eq!(response.status, 303);
    let login = browser.get(&authorize(&[])).await;
    assert!(login.body.contains("<h1>Sign in</h1>"));
}

#[tokio::test]
async fn a_session_ends_after_twelve_hours() {
    let provider = Provider::start().await;
    let mut browser = provider.browser();
    browser.sign_in("alice").await;
    provider.advance(12 * 60 * 60 - 1);
    assert!(browser.get(&authorize(&[])).await.body.contains("Alice"));
    provider.advance(1);
    assert!(!browser.get(&authorize(&[])).await.body.contains("Alice"));
}

#[tokio::test]
async fn the_cookie_is_named_by_port_and_unreadable_by_scripts() {
    let provider = Provider::start().await;
    let response = send(provider.get(&authorize(&[]))).await;
    let port = provider.issuer.rsplit(':').next().unwrap();
    let cookie = response.header("set-cookie");
    assert!(cookie.starts_with(&format!("oauth_dance_local_provider_{port}=")));
    assert!(cookie.ends_with("; Path=/; HttpOnly; SameSite=Lax"), "{cookie}");
}

#[tokio::test]
async fn pages_carry_the_security_headers() {
    let provider = Provider::start().await;
    for path in [&authorize(&[]), "/authorize", "/no/such/page"] {
        let response = send(provider.get(path)).await;
        let policy = response.header("content-security-policy");
        assert!(policy.contains("default-src 'none'"));
        assert!(policy.contains("frame-ancestors 'none'"));
        assert!(policy.contains("form-action 'self' http://127.0.0.1:1"));
        assert_eq!(response.header("x-frame-options"), "DENY");
        assert_eq!(response.header("x-content-type-options"), "nosniff");
        assert_eq!(response.header("cache-control"), "no-store");
        assert_eq!(response.header("referrer-policy"), "no-referrer");
    }
}

#[tokio::test]
async fn markup_in_the_request_stays_text() {
    let provider = Provider::start().await;
    let evil = "\"><script>alert(1)</script>";
    let response = send(provider.get(&authorize(&[("state", evil)]))).await;
    assert_eq!(response.status, 200);
    assert!(!response.body.contains("<script"));
    let raw = format!("{}&x='><b>", authorize(&[]));
    let response = send(provider.get(&raw)).await;
    assert!(!response.body.contains("<b>"));
}

#[tokio::test]
async fn the_metadata_describes_what_is_served() {
    let provider = Provider::start().await;
    let response = send(provider.get("/.well-known/oauth-authorization-server")).await;
    let metadata = response.json();
    assert_eq!(metadata["issuer"], *provider.issuer);
    assert_eq!(metadata["code_challenge_methods_supported"][0], "S256");
    assert_eq!(metadata["authorization_response_iss_parameter_supported"], true);
    for name in ["authorization", "token", "userinfo", "revocation"] {
        let endpoint = text(&metadata[format!("{name}_endpoint")]).to_owned();
        let path = endpoint.strip_prefix(&provider.issuer).unwrap();
        assert_ne!(send(provider.get(path)).await.status, 404, "{path}");
    }
}
