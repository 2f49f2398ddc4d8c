use serde_json::json;

use super::*;
use crate::config::endpoint::PlainHttp;

const ISSUER: &str = "https://issuer.example";

fn hosts() -> KnownHosts {
    KnownHosts::new(&PlainHttp::default(), [&Url::parse(ISSUER).unwrap()])
}

/// Valid metadata with these members in place of the default ones, from a host in this zone.
fn read_from(source: Zone, members: &Value) -> Result<Metadata, DiscoveryError> {
    let mut metadata = json!({
        "issuer": ISSUER,
        "authorization_endpoint": "https://issuer.example/authorize",
        "token_endpoint": "https://issuer.example/token",
        "userinfo_endpoint": "https://issuer.example/userinfo",
        "revocation_endpoint": "https://issuer.example/revoke",
        "end_session_endpoint": "https://issuer.example/end",
        "jwks_uri": "https://issuer.example/jwks",
    });
    metadata.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    Metadata::read(metadata.to_string().as_bytes(), &Issuer::new(ISSUER), &hosts(), source)
}

fn read(members: &Value) -> Metadata {
    read_from(Zone::Internet, members).unwrap()
}

#[test]
fn an_invalid_optional_member_is_ignored() {
    for bad in
        [json!(""), json!(null), json!("http://issuer.example/x"), json!("/x"), json!("TBD"), json!(7), json!([])]
    {
        for member in ["userinfo_endpoint", "revocation_endpoint", "end_session_endpoint"] {
            let metadata = read(&json!({ member: bad }));
            let found = [
                &metadata.discovered.userinfo_endpoint,
                &metadata.discovered.revocation_endpoint,
                &metadata.end_session_endpoint,
            ];
            assert_eq!(found.into_iter().flatten().count(), 2, "{member}: {bad}");
        }
        for member in REQUIRED {
            let metadata = read(&json!({ member: bad }));
            let error = metadata.endpoint(member).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{member} in the metadata ")), "{error}");
            assert!(metadata.endpoint(if member == "jwks_uri" { "token_endpoint" } else { "jwks_uri" }).is_ok());
        }
        for member in [
            "require_pushed_authorization_requests",
            "authorization_response_iss_parameter_supported",
            "id_token_signing_alg_values_supported",
            "token_endpoint_auth_methods_supported",
            "revocation_endpoint_auth_methods_supported",
            "code_challenge_methods_supported",
            "service_documentation",
            "scopes_supported",
        ] {
            let metadata = read(&json!({ member: bad }));
            assert!(
                !metadata.requires_pushed_requests && !metadata.discovered.names_itself_in_callbacks,
                "{member}: {bad}"
            );
            assert!(!metadata.refuses_s256(), "{member}: {bad}");
        }
    }
    let lists = json!({ "id_token_signing_alg_values_supported": ["RS256", 7, null], "code_challenge_methods_supported": [1, "S256"] });
    let metadata = read(&lists);
    assert_eq!((metadata.id_token_algorithms.as_slice(), metadata.refuses_s256()), (&["RS256".to_owned()][..], false));
}

#[test]
fn a_flag_may_be_a_string() {
    for (value, expected) in
        [(json!(true), true), (json!("true"), true), (json!("True"), true), (json!("false"), false)]
    {
        let metadata = read(&json!({ "require_pushed_authorization_requests": value }));
        assert_eq!(metadata.requires_pushed_requests, expected, "{value}");
    }
}

#[test]
fn the_client_authenticates_as_each_endpoint_offers() {
    use crate::config::provider::ClientAuthentication::{Basic, Body};
    for (token, revocation, expected) in [
        (json!(null), json!(null), (Basic, Basic)),
        (json!(["client_secret_post"]), json!(null), (Body, Body)),
        (json!(["client_secret_post"]), json!(["client_secret_basic"]), (Body, Basic)),
        (json!(["client_secret_basic"]), json!(["client_secret_post"]), (Basic, Body)),
        (json!(["client_secret_basic"]), json!(["client_secret_post", "client_secret_basic"]), (Basic, Basic)),
        (json!(["private_key_jwt", "none"]), json!(["tls_client_auth", 7]), (Basic, Basic)),
        (json!("client_secret_post"), json!({}), (Body, Body)),
    ] {
        let metadata = read(&json!({
            "token_endpoint_auth_methods_supported": token, "revocation_endpoint_auth_methods_supported": revocation,
        }));
        let usual = metadata.discovered.token_endpoint_authentication(Basic);
        assert_eq!(
            (usual, metadata.discovered.revocation_endpoint_authentication(usual)),
            expected,
            "{token} {revocation}"
        );
        assert_eq!(metadata.discovered.token_endpoint_authentication(Body), Body, "it is configured");
    }
}

#[test]
fn urls_in_metadata_lead_no_nearer_than_its_source() {
    for (nearest, url) in [
        (Zone::Internet, "https://elsewhere.example/x"),
        (Zone::Network, "https://10.0.0.1/x"),
        (Zone::Network, "https://[fd00::1]/x"),
        (Zone::Network, "https://vault.internal/x"),
        (Zone::Machine, "https://127.0.0.1/x"),
        (Zone::Machine, "http://127.0.0.1:8080/x"),
        (Zone::Machine, "https://[::ffff:127.0.0.1]/x"),
        (Zone::Machine, "https://0.0.0.0/x"),
        (Zone::Machine, "https://169.254.169.254/latest/meta-data"),
        (Zone::Machine, "https://localhost/x"),
        (Zone::Machine, "https://a.localhost/x"),
    ] {
        for source in [Zone::Internet, Zone::Network, Zone::Machine] {
            for member in REQUIRED {
                let metadata = read_from(source, &json!({ member: url })).unwrap();
                assert_eq!(metadata.endpoint(member).is_ok(), source >= nearest, "{member}: {url} from {source:?}");
            }
            let members = json!({ "userinfo_endpoint": url, "revocation_endpoint": url, "end_session_endpoint": url });
            let metadata = read_from(source, &members).unwrap();
            for found in [
                &metadata.discovered.userinfo_endpoint,
                &metadata.discovered.revocation_endpoint,
                &metadata.end_session_endpoint,
            ] {
                assert_eq!(found.is_some(), source >= nearest, "{url} from {source:?}");
            }
        }
    }
}

#[test]
fn the_error_names_the_found_and_configured_issuer() {
    let error = read_from(Zone::Internet, &json!({ "issuer": "https://issuer.example/" })).unwrap_err().to_string();
    assert!(error.contains("\"https://issuer.example/\"") && error.contains("\"https://issuer.example\""), "{error}");
    for bad in [json!(7), json!(null), json!([])] {
        assert!(read_from(Zone::Internet, &json!({ "issuer": bad })).is_err(), "{bad}");
    }
    let marked = format!("\u{feff}{}", json!({ "issuer": ISSUER }));
    assert!(Metadata::read(marked.as_bytes(), &Issuer::new(ISSUER), &hosts(), Zone::Internet).is_ok());
    for bad in ["", "null", "[]", "<html>"] {
        assert!(Metadata::read(bad.as_bytes(), &Issuer::new(ISSUER), &hosts(), Zone::Internet).is_err(), "{bad}");
    }
}

#[test]
fn any_document_is_read() {
    let usual = json!({
        "issuer": ISSUER,
        "authorization_endpoint": "https://issuer.example/authorize",
        "token_endpoint": "https://issuer.example/token",
        "jwks_uri": "https://issuer.example/jwks",
        "revocation_endpoint": null,
        "code_challenge_methods_supported": ["plain", "S256"],
    });
    oauth_dance_fuzz::check_with("metadata", vec![usual.to_string().into_bytes()], |bytes| {
        match Metadata::read(bytes, &Issuer::new(ISSUER), &hosts(), Zone::Internet) {
            Ok(metadata) => {
                let required = REQUIRED.iter().filter_map(|name| metadata.endpoint(name).ok());
                let optional = [
                    &metadata.discovered.userinfo_endpoint,
                    &metadata.discovered.revocation_endpoint,
                    &metadata.end_session_endpoint,
                ];
                let mut all = required.chain(optional.into_iter().flatten().cloned());
                assert!(all.all(|url| url.scheme() == "https" && url.username().is_empty()), "{metadata:?}");
            }
            Err(error) => assert!(!error.to_string().contains(char::is_control), "{error}"),
        }
    });
}
