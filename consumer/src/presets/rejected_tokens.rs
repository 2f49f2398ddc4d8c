//! The error responses of APIs to an invalid access token that differ from status 401, with sources.

use super::known::{Known, Pattern};

const fn pattern(status: u16, members: &'static [(&'static str, &'static str)]) -> Pattern {
    Pattern { status: Some(status), members }
}

pub(super) const ALL: &[Known<&str>] = &[
    Known {
        preset: "facebook",
        source: "https://developers.facebook.com/docs/graph-api/guides/error-handling",
        patterns: &[pattern(400, &[("error.type", "OAuthException"), ("error.code", "190")])],
    },
    Known {
        preset: "figma",
        source: "https://developers.figma.com/docs/rest-api/errors/",
        patterns: &[pattern(403, &[("err", "Invalid token")]), pattern(403, &[("err", "Token expired")])],
    },
    Known {
        preset: "salesforce",
        source: "https://help.salesforce.com/s/articleView?id=xcloud.remoteaccess_using_userinfo_endpoint.htm",
        patterns: &[pattern(403, &[("body", "Bad_OAuth_Token")])],
    },
    Known {
        preset: "slack",
        source: "https://docs.slack.dev/reference/methods/auth.test",
        patterns: &[
            pattern(200, &[("ok", "false"), ("error", "invalid_auth")]),
            pattern(200, &[("ok", "false"), ("error", "token_expired")]),
            pattern(200, &[("ok", "false"), ("error", "token_revoked")]),
            pattern(200, &[("ok", "false"), ("error", "account_inactive")]),
        ],
    },
];

#[cfg(test)]
mod tests {
    use url::Url;

    use super::*;
    use crate::presets::known::patterns_of;

    #[test]
    fn every_row_has_a_preset_and_a_source() {
        for known in ALL {
            assert!(crate::presets::names().any(|name| name == known.preset), "{}", known.preset);
            assert_eq!(Url::parse(known.source).unwrap().scheme(), "https");
            assert!(!known.patterns.is_empty());
        }
        assert_eq!(patterns_of(ALL, "slack").len(), 4);
        assert!(patterns_of(ALL, "github").is_empty());
    }
}
