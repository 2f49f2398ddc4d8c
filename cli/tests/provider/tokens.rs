use reqwest::header;

use crate::harness::{CLIENT_ID, Provider, VERIFIER, basic, code_grant, encode, send, text};

#[tokio::test]
async fn a_code_is_redeemed_with_its_verifier() {
    let provider = Provider::start().await;
    let code = provider.code().await;
    let response = provider.redeem(&code).await;
    assert_eq!(response.status, 200, "{}", response.body);
    assert_eq!(response.header("cache-control"), "no-store");
    assert_eq!(response.header("content-type"), "application/json");
    let tokens = response.json();
    assert_eq!(tokens["token_type"], "Bearer");
    assert_eq!(tokens["expires_in"], 120);
    assert_eq!(tokens["scope"], "profile email");

    let info = provider.userinfo(text(&tokens["access_token"])).await;
    assert_eq!(info.status, 200);
    assert_eq!(
        info.json(),
        serde_json::json!({
            "sub": "local-1001",
            "name": "Alice Adams",
            "email": "alice@example.com",
        })
    );
}

#[tokio::test]
async fn a_wrong_verifier_spends_the_code() {
    let provider = Provider::start().await;
    let code = provider.code().await;
    let mut form = code_grant(&code);
    let wrong = VERIFIER.replace('d', "e");
    form[3].1 = &wrong;
    provider.token(&form).await.assert_error(400, "invalid_grant");
    provider.redeem(&code).await.assert_error(400, "invalid_grant");
}

#[tokio::test]
async fn a_code_is_bound_to_its_redirect_uri() {
    let provider = Provider::start().await;
    let code = provider.code().await;
    let mut form = code_grant(&code);
    form[2].1 = "http://127.0.0.1:1/login/local/authorized";
    provider.token(&form).await.assert_error(400, "invalid_grant");
}

#[tokio::test]
async fn a_code_is_valid_for_a_minute() {
    let provider = Provider::start().await;
    let code = provider.code().await;
    provider.advance(59);
    let late = provider.code().await;
    assert_eq!(provider.redeem(&code).await.status, 200);
    provider.advance(60);
    provider.redeem(&late).await.assert_error(400, "invalid_grant");
}

#[tokio::test]
async fn a_reused_code_revokes_its_tokens() {
    let provider = Provider::start().await;
    let code = provider.code().await;
    let tokens = provider.redeem(&code).await.json();
    let other = provider.tokens().await;
    let access_token = text(&tokens["access_token"]);
    provider.advance(90);
    assert_eq!(provider.userinfo(access_token).await.status, 200);

    provider.redeem(&code).await.assert_error(400, "invalid_grant");
    assert_eq!(provider.userinfo(access_token).await.status, 401);
    let refreshed = provider.refresh(text(&tokens["refresh_token"])).await;
    refreshed.assert_error(400, "invalid_grant");
    let unrelated = provider.userinfo(text(&other["access_token"])).await;
    assert_eq!(unrelated.status, 200);
}

#[tokio::test]
async fn concurrent_redemptions_succeed_once() {
    let provider = Provider::start().await;
    let code = provider.code().await;
    let form = code_grant(&code);
    let (a, b, c) = tokio::join!(provider.token(&form), provider.token(&form), provider.token(&form));
    let granted = [a, b, c].iter().filter(|response| response.status == 200).count();
    assert_eq!(granted, 1);
}

#[tokio::test]
async fn a_refresh_rotates_the_refresh_token() {
    let provider = Provider::start().await;
    let first = provider.tokens().await;
    provider.advance(121);
    let response = provider.refresh(text(&first["refresh_token"])).await;
    assert_eq!(response.status, 200, "{}", response.body);
    let second = response.json();
    assert_ne!(second["access_token"], first["access_token"]);
    assert_ne!(second["refresh_token"], first["refresh_token"]);
    assert_eq!(second["scope"], "profile email");
    let info = provider.userinfo(text(&second["access_token"])).await;
    assert_eq!(info.status, 200);
    let third = provider.refresh(text(&second["refresh_token"])).await;
    assert_eq!(third.status, 200);
}

#[tokio::test]
async fn a_reused_refresh_token_ends_the_family() {
    let provider = Provider::start().await;
    let first = provider.tokens().await;
    let other = provider.tokens().await;
    let second = provider.refresh(text(&first["refresh_token"])).await.json();
    let stolen = provider.refresh(text(&first["refresh_token"])).await;
    stolen.assert_error(400, "invalid_grant");

    for tokens in [&first, &second] {
        let info = provider.userinfo(text(&tokens["access_token"])).await;
        assert_eq!(info.status, 401);
    }
    let refreshed = provider.refresh(text(&second["refresh_token"])).await;
    refreshed.assert_error(400, "invalid_grant");
    let unrelated = provider.refresh(text(&other["refresh_token"])).await;
    assert_eq!(unrelated.status, 200);
}

#[tokio::test]
async fn a_refresh_may_narrow_the_scope_but_not_widen_it() {
    let provider = Provider::start().await;
    let tokens = provider.tokens().await;
    let refresh_token = text(&tokens["refresh_token"]);
    let mut form = [("grant_type", "refresh_token"), ("refresh_token", refresh_token), ("scope", "profile admin")];
    provider.token(&form).await.assert_error(400, "invalid_scope");
    form[2].1 = "email";
    let narrowed = provider.token(&form).await.json();
    assert_eq!(narrowed["scope"], "email");
    let info = provider.userinfo(text(&narrowed["access_token"])).await.json();
    assert_eq!(info["email"], "alice@example.com");
    assert!(info.get("name").is_none());
    let full = provider.refresh(text(&narrowed["refresh_token"])).await.json();
    assert_eq!(full["scope"], "profile email");
}

#[tokio::test]
async fn a_grant_ends_after_thirty_days() {
    let provider = Provider::start().await;
    let tokens = provider.tokens().await;
    provider.advance(30 * 24 * 60 * 60);
    let response = provider.refresh(text(&tokens["refresh_token"])).await;
    response.assert_error(400, "invalid_grant");
}

#[tokio::test]
async fn an_expired_access_token_is_refused() {
    let provider = Provider::start().await;
    let tokens = provider.tokens().await;
    let access_token = text(&tokens["access_token"]);
    provider.advance(119);
    assert_eq!(provider.userinfo(access_token).await.status, 200);
    provider.advance(1);
    let response = provider.userinfo(access_token).await;
    assert_eq!(response.status, 401);
    assert!(response.header("www-authenticate").contains("error=\"invalid_token\""));
}

#[tokio::test]
async fn userinfo_needs_a_bearer_token() {
    let provider = Provider::start().await;
    let response = send(provider.get("/userinfo")).await;
    assert_eq!(response.status, 401);
    assert_eq!(response.header("www-authenticate"), "Bearer realm=\"test provider\"");
    let tokens = provider.tokens().await;
    let in_url = format!("/userinfo?access_token={}", text(&tokens["access_token"]));
    assert_eq!(send(provider.get(&in_url)).await.status, 401);
    let refresh_token = text(&tokens["refresh_token"]);
    assert_eq!(provider.userinfo(refresh_token).await.status, 401);
}

#[tokio::test]
async fn the_grant_stays_when_an_access_token_is_revoked() {
    let provider = Provider::start().await;
    let tokens = provider.tokens().await;
    let access_token = text(&tokens["access_token"]);
    assert_eq!(provider.revoke(access_token).await.status, 200);
    assert_eq!(provider.userinfo(access_token).await.status, 401);
    let refreshed = provider.refresh(text(&tokens["refresh_token"])).await;
    assert_eq!(refreshed.status, 200);
}

#[tokio::test]
async fn a_revoked_refresh_token_ends_the_grant() {
    let provider = Provider::start().await;
    let tokens = provider.tokens().await;
    let refresh_token = text(&tokens["refresh_token"]);
    assert_eq!(provider.revoke(refresh_token).await.status, 200);
    let info = provider.userinfo(text(&tokens["access_token"])).await;
    assert_eq!(info.status, 401);
    provider.refresh(refresh_token).await.assert_error(400, "invalid_grant");
    assert_eq!(provider.revoke(refresh_token).await.status, 200);
    assert_eq!(provider.revoke("never seen").await.status, 200);
}

#[tokio::test]
async fn only_the_client_revokes() {
    let provider = Provider::start().await;
    let tokens = provider.tokens().await;
    let access_token = text(&tokens["access_token"]);
    let response = send(provider.post("/revoke", &[("token", access_token)])).await;
    response.assert_error(401, "invalid_client");
    assert_eq!(provider.userinfo(access_token).await.status, 200);
    provider.revoke("").await.assert_error(400, "invalid_request");
}

#[tokio::test]
async fn a_client_authenticates_by_body_too() {
    let provider = Provider::start().await;
    let code = provider.code().await;
    let mut form = code_grant(&code).to_vec();
    form.extend([("client_id", CLIENT_ID), ("client_secret", &provider.secret)]);
    assert_eq!(send(provider.post("/token", &form)).await.status, 200);
}

#[tokio::test]
async fn a_code_stays_unspent_when_authentication_fails() {
    let provider = Provider::start().await;
    let code = provider.code().await;
    let form = code_grant(&code);
    send(provider.post("/token", &form)).await.assert_error(401, "invalid_client");

    for header in [basic(CLIENT_ID, "wrong"), basic("wrong", &provider.secret), "Basic ***".to_owned()] {
        let request = provider.post("/token", &form);
        let response = send(request.header(header::AUTHORIZATION, header)).await;
        response.assert_error(401, "invalid_client");
        assert!(response.header("www-authenticate").starts_with("Basic "));
    }

    let mut both = form.to_vec();
    both.push(("client_secret", &provider.secret));
    provider.token(&both).await.assert_error(400, "invalid_request");
    let mut another = form.to_vec();
    another.push(("client_id", "another"));
    provider.token(&another).await.assert_error(401, "invalid_client");

    assert_eq!(provider.redeem(&code).await.status, 200);
}

#[tokio::test]
async fn malformed_token_requests_get_typed_errors() {
    let provider = Provider::start().await;
    provider.token(&[]).await.assert_error(400, "invalid_request");
    let password = [("grant_type", "password")];
    provider.token(&password).await.assert_error(400, "unsupported_grant_type");
    let code = provider.code().await;
    for missing in 1..4 {
        let mut form = code_grant(&code).to_vec();
        form.remove(missing);
        provider.token(&form).await.assert_error(400, "invalid_request");
    }
    let mut twice = code_grant(&code).to_vec();
    twice.extend([("scope", "email"), ("scope", "profile")]);
    provider.token(&twice).await.assert_error(400, "invalid_request");

    let body = encode(&code_grant(&code));
    let request = provider.post_as("text/plain", "/token", body);
    let authorization = basic(CLIENT_ID, &provider.secret);
    let response = send(request.header(header::AUTHORIZATION, authorization)).await;
    response.assert_error(400, "invalid_request");
    let huge = provider.post("/token", &[("x", &"x".repeat(20_000))]);
    assert_eq!(send(huge).await.status, 413);
    assert_eq!(provider.redeem(&code).await.status, 200);
}
