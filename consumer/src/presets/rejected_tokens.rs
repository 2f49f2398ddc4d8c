//! How an API says that an access token is no longer valid, if not by status 401, and where that is written.

use super::dead_grants::Shape;
use crate::config::dead_grant::DeadGrant;

/// The answers of one provider's API.
struct Known {
    preset: &'static str,
    #[cfg_attr(not(test), expect(dead_code, reason = "for readers, and checked by a test"))]
    source: &'static str,
    answers: &'static [Shape],
}

/// The answers of a preset's API that differ from status 401.
pub(super) fn of(preset: &str) -> Vec<DeadGrant> {
    let known = ALL.iter().filter(|known| known.preset == preset);
    known.flat_map(|known| known.answers).map(Shape::dead_grant).collect()
}

const fn shape(status: u16, members: &'static [(&'static str, &'static str)]) -> Shape {
    Shape { status: Some(status), members }
}

const ALL: &[Known] = &[
    Known {
        preset: "facebook",
        source: "https://developers.facebook.com/docs/graph-api/guides/error-handling",
        answers: &[shape(400, &[("error.type", "OAuthException"), ("error.code", "190")])],
    },
    Known {
        preset: "figma",
        source: "https://developers.figma.com/docs/rest-api/errors/",
        answers: &[shape(403, &[("err", "Invalid token")]), shape(403, &[("err", "Token expired")])],
    },
    Known {
        preset: "salesforce",
        source: "https://help.salesforce.com/s/articleView?id=xcloud.remoteaccess_using_userinfo_endpoint.htm",
        answers: &[shape(403, &[("body", "Bad_OAuth_Token")])],
    },
    Known {
        preset: "slack",
        source: "https://docs.slack.dev/reference/methods/auth.test",
        answers: &[
            shape(200, &[("ok", "false"), ("error", "invalid_auth")]),
            shape(200, &[("ok", "false"), ("error", "token_expired")]),
            shape(200, &[("ok", "false"), ("error", "token_revoked")]),
            shape(200, &[("ok", "false"), ("error", "account_inactive")]),
        ],
    },
];

#[cfg(test)]
mod tests {
    use url::Url;

    use super::*;

    #[test]
    fn every_row_has_a_preset_and_a_source() {
        for known in ALL {
            assert!(crate::presets::names().any(|name| name == known.preset), "{}", known.preset);
            assert_eq!(Url::parse(known.source).unwrap().scheme(), "https");
            assert!(!known.answers.is_empty());
        }
        assert_eq!(of("slack").len(), 4);
        assert!(of("github").is_empty());
    }
}
