//! The error responses of each provider to a dead refresh token, with sources.
//!
//! `invalid_grant` (RFC 6749 section 5.2) counts for every provider, so this table lists only other responses. If the
//! provider's documentation was searched without result, the row is marked so: the response is unknown.

use super::known::{Known, Pattern};

/// The source of a row.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Evidence {
    /// The provider's documentation shows the response.
    Documented(&'static str),
    /// A user of the provider has published the response.
    Reported(&'static str),
    /// Other clients check for it; neither a page of the provider nor a report that shows it was found.
    Clients,
    /// No page that shows the response was found; this documentation of the provider does not.
    Unknown(&'static str),
    /// There are no refresh tokens.
    NoRefreshToken,
}

const fn standard(preset: &'static str, source: Evidence) -> Known<Evidence> {
    Known { preset, source, patterns: &[] }
}

const GITHUB: &[Pattern] = &[Pattern { status: None, members: &[("error", "bad_refresh_token")] }];

use Evidence::{Clients, Documented, NoRefreshToken, Reported, Unknown};

/// In the order of the presets.
pub(super) const ALL: &[Known<Evidence>] = &[
    standard("apple", Documented("https://developer.apple.com/documentation/signinwithapplerestapi/errorresponse")),
    standard("asana", Unknown("https://developers.asana.com/docs/oauth")),
    // The description is "refresh_token is invalid"; the documentation has `invalid_grant` with the same status.
    Known {
        preset: "atlassian",
        source: Reported("https://github.com/raycast/extensions/issues/11836"),
        patterns: &[Pattern { status: Some(403), members: &[("error", "unauthorized_client")] }],
    },
    standard("authentiq", NoRefreshToken),
    Known {
        preset: "bitbucket",
        source: Reported("https://github.com/readthedocs/readthedocs.org/issues/2992"),
        patterns: &[Pattern {
            status: None,
            members: &[("error", "invalid_request"), ("error_description", "Invalid refresh_token*")],
        }],
    },
    standard("box", Reported("https://support.box.com/hc/en-us/community/posts/360049133654")),
    standard("dexcom", Unknown("https://developer.dexcom.com/docs/dexcom/authentication/")),
    standard("digitalocean", Unknown("https://docs.digitalocean.com/reference/api/oauth")),
    // Also `invalid_grant`: https://github.com/discord/discord-api-docs/issues/5942
    Known {
        preset: "discord",
        source: Reported("https://github.com/member-gentei/member-gentei/issues/18"),
        patterns: &[Pattern {
            status: Some(400),
            members: &[("error", "invalid_request"), ("error_description", "Invalid \"refresh_token\" in request*")],
        }],
    },
    standard("dropbox", Reported("https://www.volcengine.com/article/3179500")),
    standard("facebook", NoRefreshToken),
    standard("figma", Unknown("https://developers.figma.com/docs/rest-api/authentication")),
    // The code is in `errors[].errorType`, where it is found without a pattern.
    standard("fitbit", Reported("https://github.com/home-assistant/core/issues/141223")),
    Known {
        preset: "github",
        source: Reported("https://github.com/orgs/community/discussions/24745"),
        patterns: GITHUB,
    },
    Known {
        preset: "github-enterprise",
        source: Reported("https://github.com/orgs/community/discussions/24745"),
        patterns: GITHUB,
    },
    standard("gitlab", Reported("https://github.com/oauth2-proxy/oauth2-proxy/issues/1473")),
    standard("google", Reported("https://workos.com/blog/invalid-grant-oauth-errors-by-provider")),
    standard("heroku", Unknown("https://devcenter.heroku.com/articles/oauth")),
    Known {
        preset: "hubspot",
        source: Reported("https://nango.dev/blog/hubspot-oauth-bad-refresh-token"),
        patterns: &[
            Pattern { status: None, members: &[("status", "BAD_REFRESH_TOKEN")] },
            Pattern { status: Some(400), members: &[("message", "missing or invalid refresh token*")] },
        ],
    },
    standard("intuit", Reported("https://github.com/intuit/oauth-jsclient/issues/77")),
    standard("jira", NoRefreshToken),
    standard("linear", Unknown("https://linear.app/developers/oauth-2-0-authentication")),
    standard(
        "linkedin",
        Unknown("https://learn.microsoft.com/en-us/linkedin/shared/authentication/programmatic-refresh-tokens"),
    ),
    standard("mastodon", NoRefreshToken),
    standard("meetup", Unknown("https://www.meetup.com/api/authentication/")),
    // A refresh cannot fulfil the tenant's requirements for the user; a login can.
    Known {
        preset: "microsoft",
        source: Documented(
            "https://learn.microsoft.com/en-us/javascript/api/@azure/msal-node/interactionrequiredautherrorcodes",
        ),
        patterns: &[
            Pattern { status: None, members: &[("error", "interaction_required")] },
            Pattern { status: None, members: &[("error", "consent_required")] },
            Pattern { status: None, members: &[("error", "login_required")] },
        ],
    },
    standard("notion", Unknown("https://developers.notion.com/reference/refresh-a-token")),
    standard("nylas", Unknown("https://developer.nylas.com/docs/cookbook/use-cases/build/fix-invalid-grant-errors/")),
    standard("okta", Reported("https://github.com/okta/okta-react-native/issues/109")),
    standard("orcid", Unknown("https://info.orcid.org/ufaqs/how-can-i-revoke-tokens")),
    standard("osm", NoRefreshToken),
    // For a fault of the client, it responds in the same way with 401.
    Known {
        preset: "reddit",
        source: Reported("https://github.com/michael-lazar/rtv/pull/377"),
        patterns: &[Pattern { status: Some(400), members: &[("message", "Bad Request"), ("error", "400")] }],
    },
    standard("salesforce", Reported("https://workos.com/blog/invalid-grant-oauth-errors-by-provider")),
    Known {
        preset: "shopify",
        source: Clients,
        patterns: &[Pattern {
            status: Some(401),
            members: &[
                ("error", "invalid_request"),
                ("error_description", "This request requires an active refresh_token*"),
            ],
        }],
    },
    Known {
        preset: "slack",
        source: Reported("https://github.com/slackapi/bolt-python/issues/685"),
        patterns: &[Pattern { status: None, members: &[("error", "invalid_refresh_token")] }],
    },
    standard("spotify", Reported("https://github.com/home-assistant/core/issues/124333")),
    Known {
        preset: "strava",
        source: Reported("https://github.com/dreeveapp/dreeve/issues/1449"),
        patterns: &[
            Pattern { status: None, members: &[("errors.resource", "RefreshToken"), ("errors.code", "invalid")] },
            Pattern { status: None, members: &[("errors.field", "refresh_token"), ("errors.code", "invalid")] },
        ],
    },
    standard("trello", NoRefreshToken),
    standard("tumblr", NoRefreshToken),
    Known {
        preset: "twitch",
        source: Reported("https://github.com/teekeks/pytwitchapi/issues/37"),
        patterns: &[Pattern { status: None, members: &[("message", "Invalid refresh token")] }],
    },
    Known {
        preset: "x",
        source: Clients,
        patterns: &[Pattern {
            status: Some(400),
            members: &[("error", "invalid_request"), ("error_description", "Value passed for the token was invalid*")],
        }],
    },
    standard("x-oauth1", NoRefreshToken),
    standard("xero", Reported("https://github.com/XeroAPI/Xero-NetStandard/issues/257")),
    // With status 200, and for a code as well as for a refresh token.
    Known {
        preset: "zoho",
        source: Reported("https://github.com/Weble/ZohoBooksApi/issues/84"),
        patterns: &[Pattern { status: None, members: &[("error", "invalid_code")] }],
    },
    // It has recently become `invalid_grant`; before, it was `invalid_request`.
    Known {
        preset: "zoom",
        source: Reported("https://github.com/raycast/extensions/issues/10896"),
        patterns: &[Pattern { status: None, members: &[("reason", "Invalid Token!")] }],
    },
];
