//! Okta to Zoom.

use super::table::{Pkce, Place, Preset, Quirk, Refresh, Written, is_fit, presets};
use crate::config::issuer::OPENID_SCOPE;
use crate::config::oauth1::SignatureMethod;
use crate::config::provider::{ClientAuthentication, Provider};
use crate::config::quirks::{Quirks, RevocationRequest};

/// Reddit rejects the names of libraries; the client id makes it the application's own.
const REDDIT_USER_AGENT: &str = concat!("web:{client_id}:", env!("CARGO_PKG_VERSION"), " (oauth-dance)");

presets! {
    /// [Okta](https://developer.okta.com/docs/api/openapi/okta-oauth/oauth/tag/OrgAS/): an organization's own authorization
    /// server, or one of its custom ones.
    Okta(at) {
        name: "okta",
        source: "https://developer.okta.com/docs/api/openapi/okta-oauth/oauth/tag/OrgAS",
        place: Some(Place { name: "host", default: None, sandbox: None }),
        pkce: Pkce::Documented,
        refresh: Refresh::Scope("offline_access"),
    } declares {
        title: "Okta",
        authorization_endpoint: "https://{host}/oauth2/v1/authorize",
        token_endpoint: "https://{host}/oauth2/v1/token",
        revocation_endpoint: "https://{host}/oauth2/v1/revoke",
        userinfo_endpoint: "https://{host}/oauth2/v1/userinfo",
        api_base: "https://{host}/api/v1",
        issuer: "https://{host}",
        scopes: ["openid", "email", "profile"],
    }

    /// [ORCID](https://info.orcid.org/documentation/api-tutorials/api-tutorial-get-and-authenticated-orcid-id/), the API for
    /// members. The token response contains the person's iD as `orcid`.
    Orcid(provider, sandbox) {
        name: "orcid",
        source: "https://info.orcid.org/ufaqs/how-can-i-revoke-tokens",
        unconfirmed: &["userinfo endpoint"],
        note: "The token response contains the person's iD as orcid.",
        place: Some(Place { name: "host", default: Some("orcid.org"), sandbox: Some("sandbox.orcid.org") }),
    } declares {
        title: "ORCID",
        authorization_endpoint: "https://{host}/oauth/authorize",
        token_endpoint: "https://{host}/oauth/token",
        revocation_endpoint: "https://{host}/oauth/revoke",
        userinfo_endpoint: "https://{host}/oauth/userinfo",
        api_base: "https://api.{host}/v3.0",
        issuer: "https://{host}",
        scopes: ["/authenticate"],
        client_authentication: ClientAuthentication::Body,
    }

    /// [OpenStreetMap](https://wiki.openstreetmap.org/wiki/OAuth). The test server is `master.apis.dev.openstreetmap.org`.
    OpenStreetMap(provider, at, sandbox) {
        name: "osm",
        source: "https://wiki.openstreetmap.org/wiki/OAuth",
        unconfirmed: &["revocation endpoint"],
        place: Some(Place {
            name: "host",
            default: Some("www.openstreetmap.org"),
            sandbox: Some("master.apis.dev.openstreetmap.org"),
        }),
        pkce: Pkce::Documented,
        refresh: Refresh::Never,
    } declares {
        title: "OpenStreetMap",
        authorization_endpoint: "https://{host}/oauth2/authorize",
        token_endpoint: "https://{host}/oauth2/token",
        revocation_endpoint: "https://{host}/oauth2/revoke",
        userinfo_endpoint: "https://{host}/api/0.6/user/details.json",
        api_base: "https://{host}/api/0.6",
        scopes: ["read_prefs"],
    }

    /// [Reddit](https://github.com/reddit-archive/reddit/wiki/OAuth2). It requires a `User-Agent` that identifies the
    /// application, and preferably its author: `web:com.example.app:v1 (by /u/name)`, in `api_headers` and in the quirks'
    /// `token_headers`.
    Reddit(provider) {
        name: "reddit",
        source: "https://github.com/reddit-archive/reddit/wiki/OAuth2",
        unconfirmed: &["revocation endpoint"],
        note: "Set a User-Agent that identifies your application.",
        refresh: Refresh::Param("duration", "permanent"),
        quirks: &[Quirk::TokenEndpointHeader("user-agent", REDDIT_USER_AGENT)],
    } declares {
        title: "Reddit",
        authorization_endpoint: "https://www.reddit.com/api/v1/authorize",
        token_endpoint: "https://www.reddit.com/api/v1/access_token",
        revocation_endpoint: "https://www.reddit.com/api/v1/revoke_token",
        userinfo_endpoint: "https://oauth.reddit.com/api/v1/me",
        api_base: "https://oauth.reddit.com",
        scopes: ["identity"],
        api_headers: [("user-agent", REDDIT_USER_AGENT)],
    }

    /// [Salesforce](https://help.salesforce.com/s/articleView?id=xcloud.remoteaccess_oauth_endpoints.htm): paths are
    /// appended to the `instance_url` of each user's token. `at` takes a My Domain host.
    Salesforce(provider, at, sandbox) {
        name: "salesforce",
        source: "https://login.salesforce.com/.well-known/openid-configuration",
        note: "The token response contains the user's API base. The issuer of ID tokens is the organization's own domain: set \
               it with `at`, and as the issuer, to verify them.",
        place: Some(Place {
            name: "host",
            default: Some("login.salesforce.com"),
            sandbox: Some("test.salesforce.com"),
        }),
        pkce: Pkce::Documented,
        refresh: Refresh::Scope("refresh_token"),
        quirks: &[Quirk::ApiBaseMember("instance_url")],
    } declares {
        title: "Salesforce",
        authorization_endpoint: "https://{host}/services/oauth2/authorize",
        token_endpoint: "https://{host}/services/oauth2/token",
        revocation_endpoint: "https://{host}/services/oauth2/revoke",
        userinfo_endpoint: "https://{host}/services/oauth2/userinfo",
        scopes: ["api", "openid"],
        client_authentication: ClientAuthentication::Body,
    }

    /// [Shopify](https://shopify.dev/docs/apps/build/authentication-authorization/authenticate-standalone-apps): one shop's
    /// Admin API. Paths begin with the version: `/2026-10/graphql.json`.
    Shopify(shop) {
        name: "shopify",
        source: "https://shopify.dev/docs/apps/build/authentication-authorization/authenticate-standalone-apps",
        note: "API paths begin with the version. Expiring tokens are requested, as public apps must do.",
        place: Some(Place { name: "shop", default: None, sandbox: None }),
        quirks: &[Quirk::TokenParam("expiring", "1"), Quirk::TokenHeader("x-shopify-access-token")],
    } declares {
        title: "Shopify",
        authorization_endpoint: "https://{shop}.myshopify.com/admin/oauth/authorize",
        token_endpoint: "https://{shop}.myshopify.com/admin/oauth/access_token",
        api_base: "https://{shop}.myshopify.com/admin/api",
        scopes: ["read_products"],
        scope_separator: ',',
        client_authentication: ClientAuthentication::Body,
    }

    /// [Slack](https://docs.slack.dev/authentication/installing-with-oauth): the user's own token. A bot's token is
    /// requested with [`Slack::bot`], or is in the token's `extra` if scopes of both kinds are requested.
    ///
    /// PKCE is for apps that are registered as public clients; for those, set `without_pkce` to `false`.
    Slack(provider) {
        name: "slack",
        source: "https://docs.slack.dev/reference/methods/oauth.v2.access",
        unconfirmed: &["form of the revocation request"],
        note: "PKCE is for apps registered as public clients (docs.slack.dev/authentication/using-pkce).",
        pkce: Pkce::OptIn,
        refresh: Refresh::Registration,
        quirks: &[
            Quirk::ScopeParameter("user_scope"),
            Quirk::TokenMember("authed_user"),
            Quirk::TokenType("user"),
            Quirk::TokenType("bot"),
            Quirk::Revocation(RevocationRequest::Post),
        ],
    } declares {
        title: "Slack",
        authorization_endpoint: "https://slack.com/oauth/v2/authorize",
        token_endpoint: "https://slack.com/api/oauth.v2.access",
        revocation_endpoint: "https://slack.com/api/auth.revoke",
        userinfo_endpoint: "https://slack.com/api/auth.test",
        api_base: "https://slack.com/api",
        scopes: ["users:read"],
        scope_separator: ',',
    }

    /// [Spotify](https://developer.spotify.com/documentation/web-api/tutorials/code-flow).
    Spotify(provider) {
        name: "spotify",
        source: "https://developer.spotify.com/documentation/web-api/tutorials/code-pkce-flow",
        unconfirmed: &["token endpoint"],
        pkce: Pkce::Documented,
    } declares {
        title: "Spotify",
        authorization_endpoint: "https://accounts.spotify.com/authorize",
        token_endpoint: "https://accounts.spotify.com/api/token",
        userinfo_endpoint: "https://api.spotify.com/v1/me",
        api_base: "https://api.spotify.com/v1",
    }

    /// [Strava](https://developers.strava.com/docs/authentication/). The user may grant less than what was requested.
    Strava(provider) {
        name: "strava",
        source: "https://developers.strava.com/docs/authentication/",
        unconfirmed: &["form of the revocation request"],
        quirks: &[Quirk::Revocation(RevocationRequest::Post)],
    } declares {
        title: "Strava",
        authorization_endpoint: "https://www.strava.com/oauth/authorize",
        token_endpoint: "https://www.strava.com/api/v3/oauth/token",
        revocation_endpoint: "https://www.strava.com/oauth/deauthorize",
        userinfo_endpoint: "https://www.strava.com/api/v3/athlete",
        api_base: "https://www.strava.com/api/v3",
        scopes: ["read"],
        scope_separator: ',',
        client_authentication: ClientAuthentication::Body,
        authorization_params: [("approval_prompt", "auto")],
    }

    /// [Trello](https://developer.atlassian.com/cloud/trello/guides/rest-api/authorization/), with OAuth 1.0a. The request
    /// is set in `authorization_params`: `scope`, `expiration`, and the application's `name`.
    Trello(provider) {
        name: "trello",
        source: "https://developer.atlassian.com/cloud/trello/guides/rest-api/authorization",
        unconfirmed: &["signature method"],
        note: "The request is set in authorization_params: scope, with commas, expiration, and the application's \
               name.",
    } declares {
        title: "Trello",
        authorization_endpoint: "https://trello.com/1/OAuthAuthorizeToken",
        token_endpoint: "https://trello.com/1/OAuthGetAccessToken",
        userinfo_endpoint: "https://api.trello.com/1/members/me",
        api_base: "https://api.trello.com/1",
        authorization_params: [("scope", "read"), ("expiration", "never")],
        oauth1: (SignatureMethod::HmacSha1, "https://trello.com/1/OAuthGetRequestToken"),
    }

    /// [Tumblr](https://www.tumblr.com/docs/en/api/v2), with OAuth 1.0a.
    Tumblr(provider) {
        name: "tumblr",
        source: "https://www.tumblr.com/docs/en/api/v2",
        unconfirmed: &["endpoints"],
        quirks: &[Quirk::CallbackFragment],
    } declares {
        title: "Tumblr",
        authorization_endpoint: "https://www.tumblr.com/oauth/authorize",
        token_endpoint: "https://www.tumblr.com/oauth/access_token",
        userinfo_endpoint: "https://api.tumblr.com/v2/user/info",
        api_base: "https://api.tumblr.com/v2",
        oauth1: (SignatureMethod::HmacSha1, "https://www.tumblr.com/oauth/request_token"),
    }

    /// [Twitch](https://dev.twitch.tv/docs/authentication/).
    Twitch(provider) {
        name: "twitch",
        source: "https://dev.twitch.tv/docs/authentication/revoke-tokens",
    } declares {
        title: "Twitch",
        authorization_endpoint: "https://id.twitch.tv/oauth2/authorize",
        token_endpoint: "https://id.twitch.tv/oauth2/token",
        revocation_endpoint: "https://id.twitch.tv/oauth2/revoke",
        userinfo_endpoint: "https://api.twitch.tv/helix/users",
        api_base: "https://api.twitch.tv/helix",
        issuer: "https://id.twitch.tv/oauth2",
        scopes: ["user:read:email"],
        client_authentication: ClientAuthentication::Body,
        api_headers: [("client-id", "{client_id}")],
    }

    /// [X](https://docs.x.com/fundamentals/authentication/oauth-2-0/user-access-token).
    X(provider) {
        name: "x",
        source: "https://docs.x.com/fundamentals/authentication/oauth-2-0/user-access-token",
        unconfirmed: &["revocation endpoint"],
        pkce: Pkce::Documented,
        refresh: Refresh::Scope("offline.access"),
    } declares {
        title: "X",
        authorization_endpoint: "https://x.com/i/oauth2/authorize",
        token_endpoint: "https://api.x.com/2/oauth2/token",
        revocation_endpoint: "https://api.x.com/2/oauth2/revoke",
        userinfo_endpoint: "https://api.x.com/2/users/me",
        api_base: "https://api.x.com/2",
        scopes: ["tweet.read", "users.read"],
    }

    /// [X](https://docs.x.com/fundamentals/authentication/api-reference), with OAuth 1.0a. The token response contains
    /// `user_id` and `screen_name`.
    XOAuth1(provider) {
        name: "x-oauth1",
        source: "https://docs.x.com/fundamentals/authentication/api-reference",
        unconfirmed: &["userinfo endpoint"],
        note: "The token response contains user_id and screen_name.",
    } declares {
        title: "X (OAuth 1.0a)",
        authorization_endpoint: "https://api.x.com/oauth/authorize",
        token_endpoint: "https://api.x.com/oauth/access_token",
        userinfo_endpoint: "https://api.x.com/2/users/me",
        api_base: "https://api.x.com/2",
        oauth1: (SignatureMethod::HmacSha1, "https://api.x.com/oauth/request_token"),
    }

    /// [Xero](https://developer.xero.com/documentation/guides/oauth2/auth-flow/). Calls name the tenant in the header
    /// `xero-tenant-id`; `/connections` lists the tenants.
    Xero(provider) {
        name: "xero",
        source: "https://developer.xero.com/documentation/oauth2/pkce-flow",
        unconfirmed: &["issuer", "revocation endpoint", "userinfo endpoint"],
        note: "Calls name the tenant in the header xero-tenant-id; /connections lists the tenants.",
        pkce: Pkce::Documented,
        refresh: Refresh::Scope("offline_access"),
    } declares {
        title: "Xero",
        authorization_endpoint: "https://login.xero.com/identity/connect/authorize",
        token_endpoint: "https://identity.xero.com/connect/token",
        revocation_endpoint: "https://identity.xero.com/connect/revocation",
        userinfo_endpoint: "https://identity.xero.com/connect/userinfo",
        api_base: "https://api.xero.com",
        issuer: "https://identity.xero.com",
        scopes: ["openid", "profile", "email"],
    }

    /// [Zoho](https://www.zoho.com/accounts/protocol/oauth/web-server-applications.html): accounts of the United States, or
    /// with `at` those of another region, such as `accounts.zoho.eu`. The token response contains the user's API base.
    Zoho(provider, at) {
        name: "zoho",
        source: "https://www.zoho.com/accounts/protocol/oauth/use-access-token.html",
        unconfirmed: &["form of the revocation request"],
        note: "The token response contains the user's API base.",
        place: Some(Place { name: "host", default: Some("accounts.zoho.com"), sandbox: None }),
        refresh: Refresh::Param("access_type", "offline"),
        quirks: &[
            Quirk::TokenType("Zoho-oauthtoken"),
            Quirk::TokenScheme("Zoho-oauthtoken"),
            Quirk::ApiBaseMember("api_domain"),
            Quirk::LifetimeMember("expires_in_sec"),
        ],
    } declares {
        title: "Zoho",
        authorization_endpoint: "https://{host}/oauth/v2/auth",
        token_endpoint: "https://{host}/oauth/v2/token",
        revocation_endpoint: "https://{host}/oauth/v2/token/revoke",
        api_base: "https://www.zohoapis.com",
        scopes: ["ZohoCRM.users.ALL"],
        scope_separator: ',',
        client_authentication: ClientAuthentication::Body,
        authorization_params: [("prompt", "consent")],
    }

    /// [Zoom](https://developers.zoom.us/docs/integrations/oauth/). The scopes are set in the app's registration.
    Zoom(provider) {
        name: "zoom",
        source: "https://developers.zoom.us/docs/integrations/oauth/",
        unconfirmed: &["userinfo endpoint"],
        note: "The scopes are set in the app's registration.",
        pkce: Pkce::Documented,
    } declares {
        title: "Zoom",
        authorization_endpoint: "https://zoom.us/oauth/authorize",
        token_endpoint: "https://zoom.us/oauth/token",
        revocation_endpoint: "https://zoom.us/oauth/revoke",
        userinfo_endpoint: "https://api.zoom.us/v2/users/me",
        api_base: "https://api.zoom.us/v2",
    }
}

impl Okta {
    /// A custom authorization server of the organization at this host, such as `default`.
    pub fn authorization_server(host: &str, id: &str) -> Provider {
        let mut provider = Self::at(host);
        let id = if is_fit(id) { id } else { "{id}" };
        let path = format!("/oauth2/{id}/v1/");
        let endpoints = [&mut provider.authorization_endpoint, &mut provider.token_endpoint].into_iter();
        let optional = [&mut provider.revocation_endpoint, &mut provider.userinfo_endpoint].into_iter().flatten();
        endpoints.chain(optional).for_each(|url| *url = url.replace("/oauth2/v1/", &path));
        provider.issuer = provider.issuer.map(|issuer| format!("{issuer}/oauth2/{id}"));
        provider
    }
}

impl Slack {
    /// [Sign in with Slack](https://docs.slack.dev/authentication/sign-in-with-slack/), which identifies the user with an ID
    /// token.
    pub fn openid() -> Provider {
        let mut provider = Self::provider().with_scopes([OPENID_SCOPE, "email", "profile"]);
        provider.authorization_endpoint = "https://slack.com/openid/connect/authorize".to_owned();
        provider.token_endpoint = "https://slack.com/api/openid.connect.token".to_owned();
        provider.userinfo_endpoint = Some("https://slack.com/api/openid.connect.userInfo".to_owned());
        provider.issuer = Some("https://slack.com".to_owned());
        provider.scope_separator = ' ';
        let quirks = Quirks { scope_parameter: None, token_member: None, ..provider.quirks };
        Provider { quirks, ..provider }
    }

    /// A bot's token instead of the user's. Set its scopes with [`Provider::with_scopes`].
    pub fn bot() -> Provider {
        let provider = Self::provider().with_scopes(["chat:write"]);
        let quirks = Quirks { scope_parameter: None, token_member: None, ..provider.quirks };
        Provider { quirks, ..provider }
    }
}
