//! What a response without a token means for the refresh token, from its bytes to the effect on the refresh.

use super::*;
use crate::client::stored::meaning;

/// The meaning of a response, with or without a challenge.
fn means(status: u16, challenge: &str, body: &str) -> String {
    let quirks = Quirks::default();
    let old = old();
    let expected = Expectations {
        quirks: &quirks,
        dead_grants: &[],
        is_bound: false,
        old: Some(&old),
        sent: &["old-refresh"],
        now: NOW,
    };
    let mut headers = HeaderMap::new();
    if !challenge.is_empty() {
        headers.insert(http::header::WWW_AUTHENTICATE, challenge.parse().unwrap());
    }
    let status = StatusCode::from_u16(status).unwrap();
    let received = Received { status, headers: &headers, body: &body.to_owned().into(), cut: None };
    let error = meaning(&read(&expected, received).unwrap_err());
    format!("{error:?}").split(' ').next().unwrap().to_owned()
}

fn all_mean(expected: &str, responses: &[(u16, &str)]) {
    for (status, body) in responses {
        assert_eq!(means(*status, "", body), expected, "{status} {body}");
    }
}

#[test]
fn invalid_grant_counts_inside_other_text() {
    all_mean(
        "Dead",
        &[
            (400, r#"{"error":"invalid_grant: Token is expired or invalid."}"#),
            (400, r#"{"error":"Error: invalid_grant (expired)"}"#),
            (400, r#"{"error":"invalidGrant"}"#),
            (400, r#"{"error":"Invalid grant."}"#),
            (400, r#"{"message":"oauth2: \"invalid_grant\" \"token revoked\""}"#),
            (404, r#"{"error":"invalid_grant"}"#),
            (500, r#"{"error":"invalid_grant"}"#),
            (400, "invalid_grant: gone"),
            (200, r#"callback( {"error":"invalid_grant"} );"#),
        ],
    );
    all_mean(
        "Refused",
        &[
            (400, r#"{"error":"invalid_request","error_description":"invalid grant_type"}"#),
            (400, r#"{"error":"invalid_request","error_description":"Invalid grant type: x"}"#),
            (400, r#"{"error":"invalid_grant_type"}"#),
        ],
    );
    assert_eq!(means(400, "Bearer error=\"invalid_grant\"", ""), "Dead");
    assert_eq!(means(400, "", "<?xml version=\"1.0\"?><OAuth><error>invalid_grant</error></OAuth>"), "Dead");
    // The documentation, to which a moved endpoint leads.
    let page =
        "<!DOCTYPE html>\n<html><table><tr><td>invalid_client</td></tr><tr><td>invalid_grant</td></tr></table></html>";
    assert_eq!(means(200, "", page), "Unusable");
    assert_eq!(means(404, "", page), "Misconfigured");
}

/// Salesforce, while it processes an earlier request with the same refresh token, and others at a rate limit.
#[test]
fn invalid_grant_for_the_moment_ends_no_connection() {
    all_mean(
        "Refused",
        &[
            (400, r#"{"error":"invalid_grant","error_description":"token request is already being processed"}"#),
            (400, r#"{"error":"invalid_grant","error_description":"A refresh of this token is in progress"}"#),
            (400, r#"{"error":"invalid_grant","error_description":"Too many requests."}"#),
            (400, r#"{"error":"invalid_grant","message":"The service is busy. Please try again later."}"#),
            (200, "error=invalid_grant&error_description=Rate+limit+exceeded"),
        ],
    );
    all_mean(
        "Dead",
        &[
            (400, r#"{"error":"invalid_grant","error_description":"expired access/refresh token"}"#),
            (400, r#"{"error":"invalid_grant","error_description":"The session has expired. Try again later."}"#),
            (400, r#"{"error":"invalid_grant","error_description":"Token revoked","hint":"Please try again later."}"#),
        ],
    );
}

/// A wrong client id in the configuration ends no connection. RFC 6749 mentions this case last in its sentence.
#[test]
fn a_grant_of_another_client_is_a_misconfiguration() {
    all_mean(
        "Misconfigured",
        &[
            (400, r#"{"error":"invalid_grant","error_description":"Token client and authorized client don't match"}"#),
            (400, r#"{"error":"invalid_grant","error_description":"refresh token was not issued to this client"}"#),
            (400, r#"{"error":"invalid_grant","error_description":"The refresh token was issued to another client"}"#),
            (400, r#"{"error":"invalid_grant","error_description":"client_id mismatch"}"#),
            (400, r#"{"status":"BAD_REFRESH_TOKEN","message":"Refresh token does not belong to this client"}"#),
            // The server library of Laravel and Drupal.
            (
                401,
                r#"{"error":"invalid_request","message":"The refresh token is invalid.","hint":"Token is not linked to client"}"#,
            ),
            (
                400,
                r#"{"error":"invalid_grant","error_description":"The grant is invalid, expired, revoked, or was issued to another client. The OAuth 2.0 Client ID from this request does not match the ID during the initial token issuance."}"#,
            ),
        ],
    );
    let of_the_standard = "The provided authorization grant is invalid, expired, revoked, does not match the redirection \
                           URI used in the authorization request, or was issued to another client.";
    all_mean(
        "Dead",
        &[
            (400, &format!(r#"{{"error":"invalid_grant","error_description":"{of_the_standard}"}}"#)),
            (400, r#"{"error":"invalid_grant","error_description":"Token has been expired or revoked."}"#),
            (400, r#"{"error":"invalid_grant","error_description":"Token is not active"}"#),
            // EBay, for every refresh token that is no longer valid.
            (
                400,
                r#"{"error":"invalid_grant","error_description":"the provided authorization refresh token is invalid or was issued to another client"}"#,
            ),
            (400, r#"{"error":"invalid_grant","message":"Token not found or it belongs to a different client"}"#),
            (
                401,
                r#"{"error":"invalid_request","message":"The refresh token is invalid.","hint":"Token has been revoked"}"#,
            ),
        ],
    );
    let without_a_code = r#"{"message":"the refresh token is invalid or was issued to another client"}"#;
    assert_eq!(means(400, "", without_a_code), "Refused");
}

#[test]
fn a_fault_of_the_client_is_found_in_any_spelling() {
    all_mean(
        "Misconfigured",
        &[
            (
                401,
                r#"{"message":"Authorization Error","errors":[{"resource":"Application","field":"","code":"invalid"}]}"#,
            ),
            (
                400,
                r#"{"message":"Bad Request","errors":[{"resource":"Application","field":"client_id","code":"invalid"}]}"#,
            ),
            (403, r#"{"status":403,"message":"invalid client secret"}"#),
            (400, r#"{"status":400,"message":"missing client secret"}"#),
            (401, r#"{"error":"disabled_client","error_description":"The OAuth client was disabled."}"#),
            (401, r#"{"error":"deleted_client"}"#),
            (401, r#"{"message":"Unauthorized","error":401}"#),
            (401, r#"{"error":"access_denied","error_description":"Unauthorized"}"#),
            (401, r#"{"status":401,"error":"Unauthorized","message":"Bad credentials"}"#),
            (400, r#"{"error":"INVALID_CLIENT"}"#),
            (400, r#"{"error":"invalidClient"}"#),
            (400, r#"{"status":"BAD_CLIENT_SECRET"}"#),
            (400, r#"{"status":"BAD_CLIENT_ID","message":"missing or unknown client id"}"#),
            (200, r#"{"ok":false,"error":"bad_client_secret"}"#),
            (200, r#"{"errcode":40013,"errmsg":"invalid appid"}"#),
            (200, r#"{"error":"incorrect_client_credentials"}"#),
            (400, r#"{"error":"invalid_request","error_description":"Could not find Shopify API application"}"#),
            (400, r#"{"error":"unsupported_grant_type","error_description":"refresh_token is not supported"}"#),
            (403, r#"{"error":"unauthorized_client","error_description":"refresh_token is invalid"}"#),
            (400, r#"{"error":{"code":190,"message":"Error validating application. Cannot get application info"}}"#),
            (415, r#"{"message":"Content type not supported"}"#),
            (401, ""),
            (401, "<html>Unauthorized</html>"),
            (404, ""),
            (404, r#"{"status":404,"error":"Not Found","path":"/token"}"#),
            (405, r#"{"error":"Method Not Allowed"}"#),
        ],
    );
    for body in ["", r#"{"error":"Unauthorized"}"#, r#"{"error":"odd","message":"the token endpoint says no"}"#] {
        assert_eq!(means(401, "Basic realm=\"oauth\"", body), "Misconfigured", "{body}");
    }
    assert_eq!(means(401, "basic", r#"{"error":"invalid_grant"}"#), "Dead");
    assert_eq!(means(401, "Bearer error=\"invalid_client\"", ""), "Misconfigured");
}

/// These count, so that retries end eventually: they concern the grant, or an unknown cause.
#[test]
fn other_refusals_count() {
    all_mean(
        "Refused",
        &[
            (400, ""),
            (403, r#"{"error":"access_denied"}"#),
            (401, r#"{"error":"invalid_token"}"#),
            (401, r#"{"message":"The user's session is over"}"#),
            (400, r#"{"error":"access_denied","error_description":"The user has deauthorized the application"}"#),
            (400, r#"{"message":"400 Client Error: Bad Request"}"#),
            (404, r#"{"message":"User not found"}"#),
            (404, r#"{"error":"token_not_found"}"#),
            (400, r#"{"message":"Invalid refresh token or client id"}"#),
            (200, r#"{"errcode":40030,"errmsg":"bad refresh"}"#),
            (200, r#"{"errcode":40030}"#),
            (200, r#"{"code":"E17","message":"no"}"#),
            (200, r#"callback( {"error":100016,"error_description":"access token check failed"} );"#),
            (200, "error=odd"),
        ],
    );
}

#[test]
fn temporary_refusals_do_not_count() {
    all_mean(
        "NotRedeemed",
        &[
            (400, r#"{"error":"temporarily_unavailable"}"#),
            (400, r#"{"error":"slow_down"}"#),
            (403, r#"{"error":"rate_limit_exceeded"}"#),
            (400, r#"{"error":"Access Denied","error_description":"You have made too many requests continuously."}"#),
            (429, r#"{"message":"Invalid refresh token"}"#),
            (200, r#"{"errcode":45011,"errmsg":"client reached the rate limit"}"#),
        ],
    );
}

/// A failing server, or a success without a token, counts more slowly.
#[test]
fn an_unusable_response_counts_slowly() {
    all_mean(
        "Unusable",
        &[
            (200, ""),
            (204, ""),
            (200, "{}"),
            (200, r#"{"status":"success"}"#),
            (200, r#"{"message":"OK"}"#),
            (200, "<html>welcome</html>"),
            (200, r#"{"one":{"access_token":"a"},"two":{"access_token":"b"},"error":"invalid_grant"}"#),
            (302, ""),
            (400, r#"{"error":"server_error"}"#),
            (200, r#"{"ok":false,"error":"internal_error"}"#),
            (200, r#"{"ok":false,"error":"fatal_error"}"#),
            (400, r#"{"error":"internal_failure"}"#),
            (500, r#"{"message":"Invalid refresh token"}"#),
            (500, r#"{"error":"invalid_client"}"#),
            (503, r#"{"error":"temporarily_unavailable"}"#),
        ],
    );
}
