//! How each provider says that a refresh token is of no use any more, and where that is written.
//!
//! `invalid_grant` (RFC 6749 section 5.2) counts with every provider, so only what differs has to be here. A provider whose
//! documentation was searched and says nothing of it is marked so: what it answers is not known.

use crate::config::dead_grant::DeadGrant;

/// What is known of one provider.
#[derive(Clone, Copy)]
pub(super) struct Known {
    /// The preset's name.
    pub(super) preset: &'static str,
    #[cfg_attr(not(test), expect(dead_code, reason = "read by the page that is made from the table"))]
    pub(super) evidence: Evidence,
    /// The answers that differ from `invalid_grant`.
    pub(super) answers: &'static [Shape],
}

/// Where it is known from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Evidence {
    /// The provider's documentation says it.
    Documented(&'static str),
    /// A user of the provider has published the answer.
    Reported(&'static str),
    /// Other clients compare it like this; neither a page of the provider nor a report was found that shows it.
    Clients,
    /// No page was found that shows the answer; this documentation of the provider does not.
    Unknown(&'static str),
    /// There are no refresh tokens.
    NoRefreshToken,
}

/// An answer: its status, and what its members say.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub(super) status: Option<u16>,
    pub(super) members: &'static [(&'static str, &'static str)],
}

/// The answers of a preset that differ from `invalid_grant`.
pub(super) fn of(preset: &str) -> Vec<DeadGrant> {
    let known = ALL.iter().filter(|known| known.preset == preset);
    known.flat_map(|known| known.answers).map(Shape::dead_grant).collect()
}

impl Shape {
    pub(super) fn dead_grant(&self) -> DeadGrant {
        let any = DeadGrant::new(self.members.iter().copied());
        self.status.map_or(any.clone(), |status| any.with_status(status))
    }
}

const fn standard(preset: &'static str, evidence: Evidence) -> Known {
    Known { preset, evidence, answers: &[] }
}

const GITHUB: &[Shape] = &[Shape { status: None, members: &[("error", "bad_refresh_token")] }];

use Evidence::{Clients, Documented, NoRefreshToken, Reported, Unknown};

/// In the order of the presets.
pub(super) const ALL: &[Known] = &[
    standard("apple", Documented("https://developer.apple.com/documentation/signinwithapplerestapi/errorresponse")),
    standard("asana", Unknown("https://developers.asana.com/docs/oauth")),
    // "refresh_token is invalid" comes with it; its documentation has `invalid_grant` with the same status.
    Known {
        preset: "atlassian",
        evidence: Reported("https://github.com/raycast/extensions/issues/11836"),
        answers: &[Shape { status: Some(403), members: &[("error", "unauthorized_client")] }],
    },
    standard("authentiq", NoRefreshToken),
    Known {
        preset: "bitbucket",
        evidence: Reported("https://github.com/readthedocs/readthedocs.org/issues/2992"),
        answers: &[Shape {
            status: None,
            members: &[("error", "invalid_request"), ("error_description", "Invalid refresh_token*")],
        }],
    },
    standard("box", Reported("https://support.box.com/hc/en-us/community/posts/360049133654")),
    standard("dexcom", Unknown("https://developer.dexcom.com/docs/dexcom/authentication/")),
    standard("digitalocean", Unknown("https://docs.digitalocean.com/reference/api/oauth")),
    // `invalid_grant` too: https://github.com/discord/discord-api-docs/issues/5942
    Known {
        preset: "discord",
        evidence: Reported("https://github.com/member-gentei/member-gentei/issues/18"),
        answers: &[Shape {
            status: Some(400),
            members: &[("error", "invalid_request"), ("error_description", "Invalid \"refresh_token\" in request*")],
        }],
    },
    standard("dropbox", Reported("https://www.volcengine.com/article/3179500")),
    standard("facebook", NoRefreshToken),
    standard("figma", Unknown("https://developers.figma.com/docs/rest-api/authentication")),
    // The code is in `errors[].errorType`, where it is found.
    standard("fitbit", Reported("https://github.com/home-assistant/core/issues/141223")),
    Known {
        preset: "github",
        evidence: Reported("https://github.com/orgs/community/discussions/24745"),
        answers: GITHUB,
    },
    Known {
        preset: "github-enterprise",
        evidence: Reported("https://github.com/orgs/community/discussions/24745"),
        answers: GITHUB,
    },
    standard("gitlab", Reported("https://github.com/oauth2-proxy/oauth2-proxy/issues/1473")),
    standard("google", Reported("https://workos.com/blog/invalid-grant-oauth-errors-by-provider")),
    standard("heroku", Unknown("https://devcenter.heroku.com/articles/oauth")),
    Known {
        preset: "hubspot",
        evidence: Reported("https://nango.dev/blog/hubspot-oauth-bad-refresh-token"),
        answers: &[
            Shape { status: None, members: &[("status", "BAD_REFRESH_TOKEN")] },
            Shape { status: Some(400), members: &[("message", "missing or invalid refresh token*")] },
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
    // A refresh cannot do what the tenant asks of the user; a login can.
    Known {
        preset: "microsoft",
        evidence: Documented(
            "https://learn.microsoft.com/en-us/javascript/api/@azure/msal-node/interactionrequiredautherrorcodes",
        ),
        answers: &[
            Shape { status: None, members: &[("error", "interaction_required")] },
            Shape { status: None, members: &[("error", "consent_required")] },
            Shape { status: None, members: &[("error", "login_required")] },
        ],
    },
    standard("notion", Unknown("https://developers.notion.com/reference/refresh-a-token")),
    standard("nylas", Unknown("https://developer.nylas.com/docs/cookbook/use-cases/build/fix-invalid-grant-errors/")),
    standard("okta", Reported("https://github.com/okta/okta-react-native/issues/109")),
    standard("orcid", Unknown("https://info.orcid.org/ufaqs/how-can-i-revoke-tokens")),
    standard("osm", NoRefreshToken),
    // Of the client it says 401 in the same way.
    Known {
        preset: "reddit",
        evidence: Reported("https://github.com/michael-lazar/rtv/pull/377"),
        answers: &[Shape { status: Some(400), members: &[("message", "Bad Request"), ("error", "400")] }],
    },
    standard("salesforce", Reported("https://workos.com/blog/invalid-grant-oauth-errors-by-provider")),
    Known {
        preset: "shopify",
        evidence: Clients,
        answers: &[Shape {
            status: Some(401),
            members: &[
                ("error", "invalid_request"),
                ("error_description", "This request requires an active refresh_token*"),
            ],
        }],
    },
    Known {
        preset: "slack",
        evidence: Reported("https://github.com/slackapi/bolt-python/issues/685"),
        answers: &[Shape { status: None, members: &[("error", "invalid_refresh_token")] }],
    },
    standard("spotify", Reported("https://github.com/home-assistant/core/issues/124333")),
    Known {
        preset: "strava",
        evidence: Reported("https://github.com/dreeveapp/dreeve/issues/1449"),
        answers: &[
            Shape { status: None, members: &[("errors.resource", "RefreshToken"), ("errors.code", "invalid")] },
            Shape { status: None, members: &[("errors.field", "refresh_token"), ("errors.code", "invalid")] },
        ],
    },
    standard("trello", NoRefreshToken),
    standard("tumblr", NoRefreshToken),
    Known {
        preset: "twitch",
        evidence: Reported("https://github.com/teekeks/pytwitchapi/issues/37"),
        answers: &[Shape { status: None, members: &[("message", "Invalid refresh token")] }],
    },
    Known {
        preset: "x",
        evidence: Clients,
        answers: &[Shape {
            status: Some(400),
            members: &[("error", "invalid_request"), ("error_description", "Value passed for the token was invalid*")],
        }],
    },
    standard("x-oauth1", NoRefreshToken),
    standard("xero", Reported("https://github.com/XeroAPI/Xero-NetStandard/issues/257")),
    // With status 200, and of a code as well as of a refresh token.
    Known {
        preset: "zoho",
        evidence: Reported("https://github.com/Weble/ZohoBooksApi/issues/84"),
        answers: &[Shape { status: None, members: &[("error", "invalid_code")] }],
    },
    // Since some time it is `invalid_grant`, and `invalid_request` before.
    Known {
        preset: "zoom",
        evidence: Reported("https://github.com/raycast/extensions/issues/10896"),
        answers: &[Shape { status: None, members: &[("reason", "Invalid Token!")] }],
    },
];
