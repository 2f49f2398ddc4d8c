//! The error responses to a dead refresh token, for each preset.

use super::*;
use crate::presets::dead_grants::{self, Evidence};

/// Responses that differ from `invalid_grant` are data, from a public source.
#[test]
fn every_preset_has_a_row_for_a_dead_grant() {
    let known: Vec<_> = dead_grants::ALL.iter().map(|known| known.preset).collect();
    assert_eq!(known, names().collect::<Vec<_>>(), "one row for each preset");
    for (known, preset) in dead_grants::ALL.iter().zip(all()) {
        let has_none = preset.refresh == Refresh::Never || placed(preset).oauth1.is_some();
        match known.source {
            Evidence::NoRefreshToken => assert!(has_none && known.patterns.is_empty(), "{}", preset.name),
            Evidence::Clients => assert!(!known.patterns.is_empty(), "{}", preset.name),
            Evidence::Unknown(source) => {
                assert!(Url::parse(source).is_ok() && known.patterns.is_empty(), "{}", preset.name);
            }
            Evidence::Documented(source) | Evidence::Reported(source) => {
                assert!(!has_none && Url::parse(source).unwrap().scheme() == "https", "{}", preset.name);
            }
        }
        assert_eq!(placed(preset).dead_grants.len(), known.patterns.len(), "{}", preset.name);
    }
}

/// Documented or reported responses, and others of the same providers that have another cause.
#[test]
fn a_dead_grant_is_recognised_by_the_provider_s_pattern() {
    use http::{HeaderMap, StatusCode};
    use oauth_dance_core::{OAuth2Token, Timestamp};

    use crate::protocol::oauth2::token_response::{Expectations, Received, read};

    let is_dead = |preset: &str, status: u16, body: &str| {
        let preset = all().find(|found| found.name == preset).unwrap();
        let registered = check(placed(preset)).unwrap();
        let (old, now) = (OAuth2Token::bearer("a"), Timestamp::from_unix_seconds(0));
        let (quirks, dead_grants) = (&registered.declared.quirks, &registered.declared.dead_grants);
        let expected = Expectations { quirks, dead_grants, is_bound: false, old: Some(&old), sent: &["secret"], now };
        let status = StatusCode::from_u16(status).unwrap();
        let body = body.to_owned().into();
        read(&expected, Received { status, headers: &HeaderMap::new(), body: &body, cut: None })
            .unwrap_err()
            .needs_authorization()
    };
    for (preset, status, body) in [
        ("atlassian", 403, r#"{"error":"unauthorized_client","error_description":"refresh_token is invalid"}"#),
        ("atlassian", 403, r#"{"error":"invalid_grant","error_description":"Unknown or invalid refresh token."}"#),
        (
            "fitbit",
            400,
            r#"{"errors":[{"errorType":"invalid_grant","message":"Refresh token invalid: x."}],"success":false}"#,
        ),
        (
            "github",
            200,
            r#"{"error":"bad_refresh_token","error_description":"The refresh token passed is incorrect or expired."}"#,
        ),
        ("github", 200, "error=bad_refresh_token&error_uri=%2F"),
        (
            "hubspot",
            400,
            r#"{"status":"BAD_REFRESH_TOKEN","message":"missing or invalid refresh token","correlationId":"c"}"#,
        ),
        ("hubspot", 400, r#"{"status":"BAD_REFRESH_TOKEN","error":"invalid_request"}"#),
        ("microsoft", 400, r#"{"error":"interaction_required","error_codes":[50076],"suberror":"basic_action"}"#),
        ("microsoft", 400, r#"{"error":"invalid_grant","error_codes":[70008]}"#),
        ("reddit", 400, r#"{"message":"Bad Request","error":400}"#),
        (
            "shopify",
            401,
            r#"{"error":"invalid_request","error_description":"This request requires an active refresh_token"}"#,
        ),
        ("slack", 200, r#"{"ok":false,"error":"invalid_refresh_token"}"#),
        ("spotify", 400, r#"{"error":"invalid_grant","error_description":"Refresh token revoked"}"#),
        (
            "strava",
            400,
            r#"{"message":"Bad Request","errors":[{"resource":"RefreshToken","field":"refresh_token","code":"invalid"}]}"#,
        ),
        ("twitch", 400, r#"{"error":"Bad Request","status":400,"message":"Invalid refresh token"}"#),
        ("twitch", 401, r#"{"status":401,"message":"invalid refresh token"}"#),
        ("x", 400, r#"{"error":"invalid_request","error_description":"Value passed for the token was invalid."}"#),
        ("zoho", 200, r#"{"error":"invalid_code"}"#),
        ("zoom", 400, r#"{"reason":"Invalid Token!","error":"invalid_grant"}"#),
        ("zoom", 401, r#"{"reason":"Invalid Token!","error":"invalid_request"}"#),
    ] {
        assert!(is_dead(preset, status, body), "{preset} {body}");
    }
    for (preset, status, body) in [
        ("atlassian", 401, r#"{"error":"access_denied","error_description":"Unauthorized"}"#),
        ("github", 200, r#"{"error":"incorrect_client_credentials"}"#),
        ("hubspot", 400, r#"{"status":"BAD_CLIENT_ID","message":"missing or unknown client id"}"#),
        ("reddit", 401, r#"{"message":"Unauthorized","error":401}"#),
        ("shopify", 400, r#"{"error":"invalid_request","error_description":"Could not find Shopify API application"}"#),
        ("slack", 200, r#"{"ok":false,"error":"bad_client_secret"}"#),
        (
            "strava",
            400,
            r#"{"message":"Bad Request","errors":[{"resource":"Application","field":"client_id","code":"invalid"}]}"#,
        ),
        ("twitch", 403, r#"{"status":403,"message":"invalid client secret"}"#),
        ("x", 401, r#"{"error":"unauthorized_client","error_description":"Missing valid authorization header"}"#),
        ("zoho", 200, r#"{"error":"invalid_client"}"#),
        ("zoom", 400, r#"{"reason":"Invalid client_id or client_secret","error":"invalid_client"}"#),
        ("gitlab", 403, r#"{"error":"unauthorized_client"}"#),
        ("hubspot", 400, r#"{"status":"BAD_REFRESH_TOKEN","message":"refresh token was not issued to this client"}"#),
        ("google", 401, r#"{"error":"disabled_client","error_description":"The OAuth client was disabled."}"#),
    ] {
        assert!(!is_dead(preset, status, body), "{preset} {body}");
    }
}
