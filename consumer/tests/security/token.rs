//! Requests to the token endpoint, and the limits of its responses.

use std::io::Write as _;
use std::time::{Duration, Instant};

use http::StatusCode;
use oauth_dance::testing::{Client, Endpoint, ScriptedResponse, TestProvider};
use oauth_dance::{ClientAuthentication, User};

use crate::support::{Browser, Ear, Setup, Site, code_of, world};

#[tokio::test]
async fn tr_01_basic_credentials_are_form_encoded() {
    let provider = TestProvider::start().await.unwrap();
    let secrets = [("a b:c", "p@ss+%é&="), ("plain", "a:b:c"), ("sl/ash", "%41%"), ("ü", "~-._*")];
    provider.configure(|settings| {
        settings.clients.extend(secrets.map(|(id, secret)| (id.to_owned(), Client::confidential(secret))));
    });
    for (id, secret) in secrets {
        let registration = provider.provider("acme").client(id, secret);
        let site = Setup::default().start(|builder| builder.provider(registration)).await;
        let page = Browser::signed_in(&site, "alice").login("acme").await;
        assert_eq!(page.status, StatusCode::SEE_OTHER, "{id} {secret}");
    }
}

#[tokio::test]
async fn tr_02_the_client_authenticates_in_one_way() {
    let provider = TestProvider::start().await.unwrap();
    provider.configure(|settings| {
        settings.clients.insert("public".to_owned(), Client::public());
    });
    let mut body = provider.provider("body");
    body.client_authentication = ClientAuthentication::Body;
    let body = body.client("test-client", "test-secret");
    let public = provider.provider("public").public_client("public");
    let site = Site::with(&provider, |builder| builder.provider(body).provider(public)).await;
    let alice = Browser::signed_in(&site, "alice");
    for (name, header, id, secret) in [
        ("acme", true, None, None),
        ("body", false, Some("test-client"), Some("test-secret")),
        ("public", false, Some("public"), None),
    ] {
        assert_eq!(alice.login(name).await.status, StatusCode::SEE_OTHER);
        site.clock.advance(Duration::from_secs(3601));
        site.oauth.client(name, &User::new("alice")).await.unwrap();
        site.oauth.disconnect(name, &User::new("alice")).await.unwrap();
        let (tokens, revocations) = (provider.requests_to(Endpoint::Token), provider.requests_to(Endpoint::Revocation));
        assert_eq!(tokens.len(), 2);
        for request in tokens.iter().chain(&revocations) {
            assert_eq!(request.header("authorization").is_some(), header, "{name}");
            assert_eq!((request.field("client_id"), request.field("client_secret")), (id, secret), "{name}");
        }
        provider.clear_requests();
    }
}

#[tokio::test]
async fn tr_03_the_exchange_repeats_the_redirect_uri() {
    let (provider, site) = world().await;
    let alice = Browser::signed_in(&site, "alice");
    let callback = alice.stopped_at_callback("acme").await;
    alice.get(callback.as_str()).await;
    let requested = provider.requests_to(Endpoint::Authorization).pop().unwrap();
    let sent = provider.requests_to(Endpoint::Token).pop().unwrap();
    assert_eq!(sent.field("grant_type"), Some("authorization_code"));
    assert_eq!(sent.field("redirect_uri"), requested.parameter("redirect_uri"));
    assert_eq!(sent.field("code"), Some(code_of(&callback).as_str()));
    assert!(sent.field("code_verifier").is_some());
    assert_eq!(sent.header("accept"), Some("application/json"));
    assert_eq!(sent.header("content-type"), Some("application/x-www-form-urlencoded"));
    assert!(sent.query.is_empty());
}

#[tokio::test]
async fn tr_04_no_request_follows_a_redirect() {
    let (provider, site) = world().await;
    let ear = Ear::listen().await;
    let elsewhere = [ear.url.clone(), ear.url.replace("http:", ""), format!("{}/token", provider.url())];
    for status in [301, 302, 303, 307, 308] {
        for location in &elsewhere {
            let alice = Browser::signed_in(&site, "alice");
            provider.next_token_response(ScriptedResponse::redirect(status, location));
            assert_eq!(alice.login("acme").await.status, StatusCode::BAD_GATEWAY, "{status} {location}");

            let user = User::new("bob");
            provider.connect(&site.oauth, "acme", &user).await.unwrap();
            site.clock.advance(Duration::from_secs(3601));
            provider.next_token_response(ScriptedResponse::redirect(status, location));
            assert!(site.oauth.client("acme", &user).await.is_err());
            provider.next_response(Endpoint::Revocation, ScriptedResponse::redirect(status, location));
            let done = site.oauth.disconnect("acme", &user).await.unwrap();
            assert_eq!(done.revocation, oauth_dance::Revocation::Failed);
            assert_eq!(provider.requests_to(Endpoint::Token).len(), 2);
            provider.clear_requests();
        }
    }
    assert_eq!(ear.connections(), 0);
}

#[tokio::test]
async fn tr_06_a_call_ends_in_time() {
    let provider = TestProvider::start().await.unwrap();
    let site = Site::with(&provider, |builder| builder.timeout(Duration::from_millis(250))).await;
    let alice = Browser::signed_in(&site, "alice");
    for response in
        [ScriptedResponse::normal().hanging(), ScriptedResponse::normal().dripping(Duration::from_millis(20))]
    {
        let callback = alice.stopped_at_callback("acme").await;
        provider.next_token_response(response);
        let since = Instant::now();
        let slow = alice.get(callback.as_str());
        let (page, ()) = tokio::join!(slow, async {
            // Other requests are served in the meantime.
            let page = Browser::signed_in(&site, "bob").login("acme").await;
            assert!(since.elapsed() < Duration::from_millis(240) || page.status == StatusCode::SEE_OTHER);
        });
        assert_eq!(page.status, StatusCode::GATEWAY_TIMEOUT);
        assert!(since.elapsed() < Duration::from_secs(2), "{:?}", since.elapsed());
        provider.clear_responses();
    }
}

#[tokio::test]
async fn tr_07_a_body_is_read_up_to_the_limit() {
    let (provider, site) = world().await;
    let alice = Browser::signed_in(&site, "alice");
    for response in [
        ScriptedResponse::huge(64 << 20),
        ScriptedResponse::endless(),
        ScriptedResponse::huge(64 << 20).header("content-length", "67108864"),
    ] {
        let before = provider.bytes_streamed();
        provider.next_token_response(response);
        assert_eq!(alice.login("acme").await.status, StatusCode::BAD_GATEWAY);
        let read = provider.bytes_streamed() - before;
        assert!(read < 16 << 20, "{read}");
    }
    assert_eq!(site.access_token("alice").await, None);
}

#[tokio::test]
async fn tr_07_nothing_is_decompressed_beyond_the_limit() {
    let (provider, site) = world().await;
    let alice = Browser::signed_in(&site, "alice");
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&vec![b' '; 4 << 20]).unwrap();
    gzip.write_all(br#"{"access_token":"bomb","token_type":"Bearer"}"#).unwrap();
    let bomb = gzip.finish().unwrap();
    assert!(bomb.len() < 64 << 10);

    let response = ScriptedResponse::json(serde_json::json!({})).header("content-encoding", "gzip").body(bomb);
    provider.next_token_response(response.clone());
    assert_eq!(alice.login("acme").await.status, StatusCode::BAD_GATEWAY);
    assert_eq!(provider.requests_to(Endpoint::Token)[0].header("accept-encoding"), None);

    alice.login("acme").await;
    provider.next_response(Endpoint::Api, response);
    let client = site.oauth.client("acme", &User::new("alice")).await.unwrap();
    let response = client.get("/bomb").max_response(1 << 20).send().await.unwrap();
    assert!(response.bytes().len() < 64 << 10);
    assert_eq!(provider.requests_to(Endpoint::Api)[0].header("accept-encoding"), None);
}

/// A server that announces a longer body than it sends, and then closes the connection or leaves it open.
async fn that_breaks_off(closes: bool) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/token", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut answered = 0;
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 4096]).await;
            answered += 1;
            let body = format!(r#"{{"access_token":"a{answered}","refresh_token":"r{answered}","expires_in":60}}"#);
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len() + 100);
            let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
            if !closes {
                std::future::pending::<()>().await;
            }
        }
    });
    url
}

/// The token is complete, and the rest is not needed. At a refresh, the old refresh token is already spent.
#[tokio::test]
async fn a_response_truncated_after_its_token_is_read() {
    let provider = TestProvider::start().await.unwrap();
    for closes in [true, false] {
        let mut broken = provider.provider("acme");
        broken.token_endpoint = that_breaks_off(closes).await;
        let registration = broken.client("test-client", "test-secret");
        let configure =
            |builder: oauth_dance::OAuthBuilder| builder.provider(registration).timeout(Duration::from_millis(500));
        let site = Setup::default().start(configure).await;
        assert_eq!(Browser::signed_in(&site, "alice").login("acme").await.status, StatusCode::SEE_OTHER, "{closes}");
        assert_eq!(site.refresh_token("alice").await.as_deref(), Some("r1"));
        if closes {
            site.clock.advance(Duration::from_secs(61));
            site.oauth.client("acme", &User::new("alice")).await.unwrap();
            assert_eq!(site.refresh_token("alice").await.as_deref(), Some("r2"));
        }
    }
}

/// Some gateways compress responses without a request. At a refresh, the old refresh token is already spent.
#[tokio::test]
async fn an_unrequested_compression_is_decoded() {
    let gzip = |body: Vec<u8>| {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&body).unwrap();
        gzip.finish().unwrap()
    };
    let (provider, site) = world().await;
    let alice = Browser::signed_in(&site, "alice");
    for label in ["gzip", "br", "identity", ""] {
        let response = ScriptedResponse::normal().map_body(gzip).header("content-encoding", label);
        provider.next_token_response(response.clone());
        assert_eq!(alice.login("acme").await.status, StatusCode::SEE_OTHER, "{label}");
        let before = site.refresh_token("alice").await.unwrap();
        site.clock.advance(Duration::from_secs(3601));
        provider.next_token_response(response);
        site.oauth.client("acme", &User::new("alice")).await.unwrap();
        assert_ne!(site.refresh_token("alice").await.unwrap(), before, "{label}");
    }
    assert_eq!(provider.counters().families_revoked, 0);
}

#[tokio::test]
async fn tr_16_a_code_is_sent_once() {
    let (provider, site) = world().await;
    let alice = Browser::signed_in(&site, "alice");
    for (response, status) in [
        (ScriptedResponse::normal().lost(), 502),
        (ScriptedResponse::closed(), 502),
        (ScriptedResponse::status(503).header("retry-after", "0"), 502),
        (ScriptedResponse::status(429), 502),
        (ScriptedResponse::error(400, "invalid_grant"), 502),
    ] {
        provider.next_token_response(response);
        let page = alice.login("acme").await;
        assert_eq!(page.status, status);
        assert!(page.body.contains("href=\"/login/acme\""), "it says how to go on: {}", page.body);
        assert_eq!(provider.requests_to(Endpoint::Token).len(), 1);
        provider.clear_requests();
    }
    assert_eq!(provider.counters().families_revoked, 0);
    assert_eq!(alice.login("acme").await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn tr_17_no_cookie_is_stored_for_the_next_user() {
    let (provider, site) = world().await;
    for user in ["alice", "bob"] {
        provider.next_token_response(ScriptedResponse::normal().header("set-cookie", "session=alice; Path=/"));
        provider.next_response(
            Endpoint::Userinfo,
            ScriptedResponse::normal().header("set-cookie", "session=alice; Path=/"),
        );
        let browser = Browser::signed_in(&site, user);
        browser.login("acme").await;
        let page = browser.get("/me/acme").await;
        assert_eq!((page.status, page.header("set-cookie")), (StatusCode::OK, ""));
    }
    let back = [Endpoint::Token, Endpoint::Userinfo].map(|endpoint| provider.requests_to(endpoint)).concat();
    assert_eq!(back.len(), 4);
    assert!(back.iter().all(|request| request.header("cookie").is_none()));
}

/// A server with an untrusted certificate, and the data that it received over TLS.
async fn self_signed() -> (String, std::sync::Arc<std::sync::Mutex<Vec<u8>>>) {
    use tokio::io::AsyncReadExt as _;
    use tokio_rustls::rustls::pki_types::PrivateKeyDer;
    use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};

    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = std::sync::Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    let acceptor = TlsAcceptor::from(std::sync::Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}/token", listener.local_addr().unwrap().port());
    let heard = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let record = heard.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut buffer = [0; 4096];
            let read = stream.read(&mut buffer).await.unwrap_or(0);
            record.lock().unwrap().extend_from_slice(&buffer[..read]);
        }
    });
    (url, heard)
}

#[tokio::test]
async fn tr_05_an_untrusted_certificate_is_rejected() {
    let (url, heard) = self_signed().await;
    let provider = TestProvider::start().await.unwrap();
    let mut fake = provider.provider("acme");
    fake.token_endpoint = url.clone();
    let registration = fake.client("test-client", "test-secret");
    let site = Setup::default().start(|builder| builder.provider(registration)).await;
    assert_eq!(Browser::signed_in(&site, "alice").login("acme").await.status, StatusCode::BAD_GATEWAY);
    assert!(heard.lock().unwrap().is_empty(), "the code was not sent");

    let careless = reqwest::Client::builder().tls_danger_accept_invalid_certs(true).build().unwrap();
    let _ = careless.post(&url).body("x").send().await;
    assert!(!heard.lock().unwrap().is_empty(), "it would have listened");
}
