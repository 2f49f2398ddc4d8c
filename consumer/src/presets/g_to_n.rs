//! GitHub to Nylas.

use super::table::{Pkce, Place, Preset, Quirk, Refresh, Written, presets};
use crate::config::oauth1::SignatureMethod;
use crate::config::provider::{ClientAuthentication, Provider};
use crate::config::quirks::RevocationRequest;

presets! {
    /// [GitHub](https://docs.github.com/en/apps/oauth-apps/building-oauth-apps/authorizing-oauth-apps), OAuth apps and
    /// GitHub apps. Tokens of OAuth apps do not expire.
    GitHub(provider) {
        name: "github",
        source: "https://github.blog/changelog/2025-07-14-pkce-support-for-oauth-and-github-app-authentication",
        note: "Tokens of GitHub apps expire and are refreshed, those of OAuth apps do not.",
        pkce: Pkce::Documented,
        refresh: Refresh::Registration,
        quirks: &[Quirk::Revocation(RevocationRequest::DeleteAsClient)],
    } declares {
        title: "GitHub",
        authorization_endpoint: "https://github.com/login/oauth/authorize",
        token_endpoint: "https://github.com/login/oauth/access_token",
        revocation_endpoint: "https://api.github.com/applications/{client_id}/token",
        userinfo_endpoint: "https://api.github.com/user",
        api_base: "https://api.github.com",
        client_authentication: ClientAuthentication::Body,
        api_headers: [("accept", "application/vnd.github+json")],
    }

    /// [GitHub Enterprise Server](https://docs.github.com/en/enterprise-server@latest/apps/oauth-apps), at your own host.
    GitHubEnterprise(at) {
        name: "github-enterprise",
        source: "https://docs.github.com/en/enterprise-server@3.15/apps/oauth-apps/building-oauth-apps/authorizing-oauth-apps",
        unconfirmed: &["authorization endpoint", "token endpoint"],
        place: Some(Place { name: "host", default: None, sandbox: None }),
        refresh: Refresh::Registration,
        quirks: &[Quirk::Revocation(RevocationRequest::DeleteAsClient)],
    } declares {
        title: "GitHub Enterprise",
        authorization_endpoint: "https://{host}/login/oauth/authorize",
        token_endpoint: "https://{host}/login/oauth/access_token",
        revocation_endpoint: "https://{host}/api/v3/applications/{client_id}/token",
        userinfo_endpoint: "https://{host}/api/v3/user",
        api_base: "https://{host}/api/v3",
        client_authentication: ClientAuthentication::Body,
        api_headers: [("accept", "application/vnd.github+json")],
    }

    /// [GitLab](https://docs.gitlab.com/api/oauth2/): gitlab.com, or your own host.
    GitLab(provider, at) {
        name: "gitlab",
        source: "https://gitlab.com/.well-known/openid-configuration",
        place: Some(Place { name: "host", default: Some("gitlab.com"), sandbox: None }),
        pkce: Pkce::Documented,
    } declares {
        title: "GitLab",
        authorization_endpoint: "https://{host}/oauth/authorize",
        token_endpoint: "https://{host}/oauth/token",
        revocation_endpoint: "https://{host}/oauth/revoke",
        userinfo_endpoint: "https://{host}/api/v4/user",
        api_base: "https://{host}/api/v4",
        issuer: "https://{host}",
        scopes: ["read_user"],
    }

    /// [Google](https://developers.google.com/identity/protocols/oauth2/web-server). It issues a refresh token only if
    /// `access_type=offline` is requested, and another one only with `prompt=consent`; both are set here.
    Google(provider) {
        name: "google",
        source: "https://accounts.google.com/.well-known/openid-configuration",
        pkce: Pkce::Documented,
        refresh: Refresh::Param("access_type", "offline"),
    } declares {
        title: "Google",
        authorization_endpoint: "https://accounts.google.com/o/oauth2/v2/auth",
        token_endpoint: "https://oauth2.googleapis.com/token",
        revocation_endpoint: "https://oauth2.googleapis.com/revoke",
        userinfo_endpoint: "https://openidconnect.googleapis.com/v1/userinfo",
        api_base: "https://www.googleapis.com",
        issuer: "https://accounts.google.com",
        scopes: ["openid", "email", "profile"],
        authorization_params: [("prompt", "consent")],
    }

    /// [Heroku](https://devcenter.heroku.com/articles/oauth).
    Heroku(provider) {
        name: "heroku",
        source: "https://devcenter.heroku.com/articles/oauth",
    } declares {
        title: "Heroku",
        authorization_endpoint: "https://id.heroku.com/oauth/authorize",
        token_endpoint: "https://id.heroku.com/oauth/token",
        userinfo_endpoint: "https://api.heroku.com/account",
        api_base: "https://api.heroku.com",
        scopes: ["identity"],
        client_authentication: ClientAuthentication::Body,
        api_headers: [("accept", "application/vnd.heroku+json; version=3")],
    }

    /// [HubSpot](https://developers.hubspot.com/docs/api-reference/latest/authentication/manage-oauth-tokens).
    HubSpot(provider) {
        name: "hubspot",
        source: "https://developers.hubspot.com/changelog/v1-oauth-api-deprecation",
        pkce: Pkce::Documented,
    } declares {
        title: "HubSpot",
        authorization_endpoint: "https://app.hubspot.com/oauth/authorize",
        token_endpoint: "https://api.hubapi.com/oauth/2026-03/token",
        revocation_endpoint: "https://api.hubapi.com/oauth/2026-03/token/revoke",
        api_base: "https://api.hubapi.com",
        scopes: ["oauth"],
        client_authentication: ClientAuthentication::Body,
    }

    /// [Intuit](https://developer.intuit.com/app/developer/qbo/docs/develop/authentication-and-authorization/oauth-2.0):
    /// QuickBooks. The callback contains the company's id as `realmId`, which a [hook](crate::Hooks) finds in the request.
    Intuit(provider, sandbox) {
        name: "intuit",
        source: "https://developer.intuit.com/app/developer/qbo/docs/develop/authentication-and-authorization/oauth-2.0",
        unconfirmed: &["form of the revocation request"],
        note: "The callback contains the company's id as realmId.",
        place: Some(Place { name: "environment", default: Some(""), sandbox: Some("sandbox-") }),
        quirks: &[Quirk::Revocation(RevocationRequest::Json)],
    } declares {
        title: "Intuit",
        authorization_endpoint: "https://appcenter.intuit.com/connect/oauth2",
        token_endpoint: "https://oauth.platform.intuit.com/oauth2/v1/tokens/bearer",
        revocation_endpoint: "https://developer.api.intuit.com/v2/oauth2/tokens/revoke",
        api_base: "https://{environment}quickbooks.api.intuit.com/v3",
        issuer: "https://oauth.platform.intuit.com/op/v1",
        metadata_url: "https://developer.api.intuit.com/.well-known/openid_configuration",
        scopes: ["com.intuit.quickbooks.accounting"],
    }

    /// [Jira](https://developer.atlassian.com/server/jira/platform/oauth/) Data Center, with OAuth 1.0a. The client secret
    /// is the private key in PEM, and the cargo feature `rsa-sha1` is needed.
    Jira(at) {
        name: "jira",
        source: "https://developer.atlassian.com/server/jira/platform/oauth",
        unconfirmed: &["endpoints"],
        note: "The client secret is the private key in PEM, and the cargo feature rsa-sha1 is needed. For Jira Cloud, use \
               atlassian; OAuth 1.0a is deprecated there.",
        place: Some(Place { name: "host", default: None, sandbox: None }),
    } declares {
        title: "Jira Data Center",
        authorization_endpoint: "https://{host}/plugins/servlet/oauth/authorize",
        token_endpoint: "https://{host}/plugins/servlet/oauth/access-token",
        userinfo_endpoint: "https://{host}/rest/api/2/myself",
        api_base: "https://{host}/rest/api/2",
        oauth1: (SignatureMethod::RsaSha1, "https://{host}/plugins/servlet/oauth/request-token"),
    }

    /// [Linear](https://linear.app/developers/oauth-2-0-authentication). Its API is GraphQL: `POST /graphql`.
    Linear(provider) {
        name: "linear",
        source: "https://linear.app/developers/oauth-2-0-authentication",
        unconfirmed: &["revocation endpoint"],
        note: "Its API is GraphQL.",
    } declares {
        title: "Linear",
        authorization_endpoint: "https://linear.app/oauth/authorize",
        token_endpoint: "https://api.linear.app/oauth/token",
        revocation_endpoint: "https://api.linear.app/oauth/revoke",
        api_base: "https://api.linear.app",
        scopes: ["read"],
        scope_separator: ',',
        client_authentication: ClientAuthentication::Body,
    }

    /// [LinkedIn](https://learn.microsoft.com/en-us/linkedin/shared/authentication/authorization-code-flow). It responds to
    /// a token request with PKCE as if the client were invalid, so PKCE is omitted, and it does not repeat a nonce in its ID
    /// tokens. Only approved apps get refresh tokens.
    LinkedIn(provider) {
        name: "linkedin",
        source: "https://learn.microsoft.com/en-us/linkedin/shared/authentication/authorization-code-flow",
        unconfirmed: &["issuer"],
        note: "That it rejects PKCE was measured in github.com/UsefulSoftwareCo/executor/issues/2087; that it supports no \
               nonce is reported in github.com/linkedin-developers/linkedin-api-js-client/issues/34.",
        pkce: Pkce::Refused,
        refresh: Refresh::Registration,
        quirks: &[Quirk::WithoutNonce],
    } declares {
        title: "LinkedIn",
        authorization_endpoint: "https://www.linkedin.com/oauth/v2/authorization",
        token_endpoint: "https://www.linkedin.com/oauth/v2/accessToken",
        userinfo_endpoint: "https://api.linkedin.com/v2/userinfo",
        api_base: "https://api.linkedin.com/v2",
        issuer: "https://www.linkedin.com/oauth",
        scopes: ["openid", "profile", "email"],
        client_authentication: ClientAuthentication::Body,
    }

    /// [Mastodon](https://docs.joinmastodon.org/methods/oauth/), at any instance. First register the application at the
    /// instance, with `POST /api/v1/apps`.
    Mastodon(at) {
        name: "mastodon",
        source: "https://docs.joinmastodon.org/methods/oauth",
        note: "Register the application at each instance.",
        place: Some(Place { name: "host", default: None, sandbox: None }),
        pkce: Pkce::Documented,
        refresh: Refresh::Never,
    } declares {
        title: "Mastodon",
        authorization_endpoint: "https://{host}/oauth/authorize",
        token_endpoint: "https://{host}/oauth/token",
        revocation_endpoint: "https://{host}/oauth/revoke",
        userinfo_endpoint: "https://{host}/api/v1/accounts/verify_credentials",
        api_base: "https://{host}/api/v1",
        scopes: ["read"],
        client_authentication: ClientAuthentication::Body,
    }

    /// [Meetup](https://www.meetup.com/api/authentication/). Its API is GraphQL: `POST /gql-ext`.
    Meetup(provider) {
        name: "meetup",
        source: "https://meetup.com/api/authentication/",
        unconfirmed: &["default scopes", "refresh"],
        note: "Its API is GraphQL.",
    } declares {
        title: "Meetup",
        authorization_endpoint: "https://secure.meetup.com/oauth2/authorize",
        token_endpoint: "https://secure.meetup.com/oauth2/access",
        api_base: "https://api.meetup.com",
        scopes: ["basic"],
        client_authentication: ClientAuthentication::Body,
    }

    /// [Microsoft Entra](https://learn.microsoft.com/en-us/entra/identity-platform/v2-oauth2-auth-code-flow): Microsoft
    /// Graph, for any account, or for those of one tenant. Each tenant is its own issuer: with `provider()`, an
    /// [`Identity`](crate::Identity) may belong to any tenant, whose administrator controls its `email`.
    Microsoft(provider, tenant) {
        name: "microsoft",
        source: "https://learn.microsoft.com/en-us/entra/identity-platform/v2-oauth2-auth-code-flow",
        unconfirmed: &["userinfo endpoint"],
        place: Some(Place { name: "tenant", default: Some("common"), sandbox: None }),
        pkce: Pkce::Documented,
        refresh: Refresh::Scope("offline_access"),
    } declares {
        title: "Microsoft",
        authorization_endpoint: "https://login.microsoftonline.com/{tenant}/oauth2/v2.0/authorize",
        token_endpoint: "https://login.microsoftonline.com/{tenant}/oauth2/v2.0/token",
        userinfo_endpoint: "https://graph.microsoft.com/oidc/userinfo",
        api_base: "https://graph.microsoft.com/v1.0",
        issuer: "https://login.microsoftonline.com/{tenantid}/v2.0",
        metadata_url: "https://login.microsoftonline.com/{tenant}/v2.0/.well-known/openid-configuration",
        scopes: ["openid", "email", "profile", "User.Read"],
        client_authentication: ClientAuthentication::Body,
    }

    /// [Notion](https://developers.notion.com/guides/get-started/authorization). Every request contains the API version. For
    /// another version, set the header `notion-version` in `api_headers` and in the quirks' `token_headers`.
    Notion(provider) {
        name: "notion",
        source: "https://developers.notion.com/reference/revoke-token",
        quirks: &[
            Quirk::TokenJson,
            Quirk::TokenEndpointHeader("notion-version", "2025-09-03"),
            Quirk::Revocation(RevocationRequest::Json),
        ],
    } declares {
        title: "Notion",
        authorization_endpoint: "https://api.notion.com/v1/oauth/authorize",
        token_endpoint: "https://api.notion.com/v1/oauth/token",
        revocation_endpoint: "https://api.notion.com/v1/oauth/revoke",
        userinfo_endpoint: "https://api.notion.com/v1/users/me",
        api_base: "https://api.notion.com/v1",
        authorization_params: [("owner", "user")],
        api_headers: [("notion-version", "2025-09-03")],
    }

    /// [Nylas](https://developer.nylas.com/docs/v3/auth/hosted-oauth-accesstoken/), version 3, by default in the United
    /// States; the other host is `api.eu.nylas.com`. The client secret is the API key. It accepts a token to revoke only in
    /// a URL, so tokens are not revoked.
    Nylas(provider, at) {
        name: "nylas",
        source: "https://developer.nylas.com/docs/v3/auth/hosted-oauth-accesstoken/",
        note: "The client secret is the API key. Tokens are not revoked, because that would put them into a URL.",
        place: Some(Place { name: "host", default: Some("api.us.nylas.com"), sandbox: None }),
        pkce: Pkce::Documented,
        refresh: Refresh::Param("access_type", "offline"),
    } declares {
        title: "Nylas",
        authorization_endpoint: "https://{host}/v3/connect/auth",
        token_endpoint: "https://{host}/v3/connect/token",
        api_base: "https://{host}/v3",
        client_authentication: ClientAuthentication::Body,
    }
}
