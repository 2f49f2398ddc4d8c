//! Apple to Fitbit.

use super::table::{Pkce, Place, Preset, Quirk, Refresh, presets};
use crate::config::provider::{ClientAuthentication, Provider};
use crate::config::quirks::RevocationRequest;

presets! {
    /// [Apple](https://developer.apple.com/documentation/signinwithapplerestapi): who the user is, in an ID token; there is
    /// no API behind it, and no userinfo endpoint.
    ///
    /// [`Provider::client_with_key`] registers a client by its key, of which the client secret is made whenever one is needed.
    ///
    /// Apple tells the name once, at a user's first login: [`Authorized::posted_user`](crate::Authorized::posted_user).
    Apple(provider) {
        name: "apple",
        title: "Apple",
        source: "https://developer.apple.com/documentation/sign_in_with_apple/generate_and_validate_tokens",
        note: "Register the client with its key: the client secret is a JWT that is made of it.",
        authorization_endpoint: "https://appleid.apple.com/auth/authorize",
        token_endpoint: "https://appleid.apple.com/auth/token",
        revocation_endpoint: Some("https://appleid.apple.com/auth/revoke"),
        issuer: Some("https://appleid.apple.com"),
        scopes: &["openid", "email", "name"],
        client_authentication: ClientAuthentication::Body,
        quirks: &[Quirk::FormPost],
    }

    /// [Asana](https://developers.asana.com/docs/oauth). The scope `default` is for apps registered with full permissions;
    /// name the scopes of others.
    Asana(provider) {
        name: "asana",
        title: "Asana",
        source: "https://developers.asana.com/docs/oauth",
        authorization_endpoint: "https://app.asana.com/-/oauth_authorize",
        token_endpoint: "https://app.asana.com/-/oauth_token",
        revocation_endpoint: Some("https://app.asana.com/-/oauth_revoke"),
        userinfo_endpoint: Some("https://app.asana.com/api/1.0/users/me"),
        api_base: Some("https://app.asana.com/api/1.0"),
        scopes: &["default"],
        client_authentication: ClientAuthentication::Body,
    }

    /// [Atlassian](https://developer.atlassian.com/cloud/jira/platform/oauth-2-3lo-apps/): Jira, Confluence and the rest.
    /// `/oauth/token/accessible-resources` tells the ids of the user's sites; Jira is below `/ex/jira/{id}`.
    Atlassian(provider) {
        name: "atlassian",
        title: "Atlassian",
        source: "https://developer.atlassian.com/cloud/jira/platform/oauth-2-3lo-apps",
        unconfirmed: &["userinfo endpoint"],
        note: "Jira too: its API is below /ex/jira/{cloud id}.",
        authorization_endpoint: "https://auth.atlassian.com/authorize",
        token_endpoint: "https://auth.atlassian.com/oauth/token",
        userinfo_endpoint: Some("https://api.atlassian.com/me"),
        api_base: Some("https://api.atlassian.com"),
        scopes: &["read:me"],
        client_authentication: ClientAuthentication::Body,
        refresh: Refresh::Scope("offline_access"),
        authorization_params: &[("audience", "api.atlassian.com"), ("prompt", "consent")],
        quirks: &[Quirk::TokenJson],
    }

    /// [Authentiq](https://developers.authentiq.com/get-started/). **Not verified**: whether the service still runs.
    Authentiq(provider, at) {
        name: "authentiq",
        title: "Authentiq",
        source: "https://developers.authentiq.com/get-started/",
        unconfirmed: &["userinfo endpoint"],
        verified: false,
        note: "Its documentation stands; whether the service still runs could not be told.",
        place: Some(Place { name: "host", default: Some("connect.authentiq.io"), sandbox: None }),
        authorization_endpoint: "https://{host}/authorize",
        token_endpoint: "https://{host}/token",
        userinfo_endpoint: Some("https://{host}/userinfo"),
        api_base: Some("https://{host}"),
        scopes: &["openid", "profile"],
        refresh: Refresh::Never,
    }

    /// [Bitbucket Cloud](https://developer.atlassian.com/cloud/bitbucket/oauth-2/). The consumer's registration names the
    /// scopes.
    Bitbucket(provider) {
        name: "bitbucket",
        title: "Bitbucket",
        source: "https://developer.atlassian.com/cloud/bitbucket/oauth-2",
        note: "The consumer's registration names the scopes.",
        authorization_endpoint: "https://bitbucket.org/site/oauth2/authorize",
        token_endpoint: "https://bitbucket.org/site/oauth2/access_token",
        userinfo_endpoint: Some("https://api.bitbucket.org/2.0/user"),
        api_base: Some("https://api.bitbucket.org/2.0"),
    }

    /// [Box](https://developer.box.com/guides/authentication/oauth2/). The app's registration names the scopes, unless some
    /// are asked for.
    Box(provider) {
        name: "box",
        title: "Box",
        source: "https://developer.box.com/reference/get-authorize/",
        authorization_endpoint: "https://account.box.com/api/oauth2/authorize",
        token_endpoint: "https://api.box.com/oauth2/token",
        revocation_endpoint: Some("https://api.box.com/oauth2/revoke"),
        userinfo_endpoint: Some("https://api.box.com/2.0/users/me"),
        api_base: Some("https://api.box.com/2.0"),
        client_authentication: ClientAuthentication::Body,
    }

    /// [Dexcom](https://developer.dexcom.com/docs/dexcom/authentication/): in the United States; `api.dexcom.eu` and
    /// `api.dexcom.jp` are hosts too.
    Dexcom(provider, at, sandbox) {
        name: "dexcom",
        title: "Dexcom",
        source: "https://developer.dexcom.com/docs/dexcom/authentication/",
        place: Some(Place { name: "host", default: Some("api.dexcom.com"), sandbox: Some("sandbox-api.dexcom.com") }),
        authorization_endpoint: "https://{host}/v2/oauth2/login",
        token_endpoint: "https://{host}/v2/oauth2/token",
        api_base: Some("https://{host}"),
        client_authentication: ClientAuthentication::Body,
        refresh: Refresh::Scope("offline_access"),
    }

    /// [DigitalOcean](https://docs.digitalocean.com/reference/api/oauth/).
    DigitalOcean(provider) {
        name: "digitalocean",
        title: "DigitalOcean",
        source: "https://docs.digitalocean.com/reference/api/oauth",
        unconfirmed: &["form of the revocation request"],
        authorization_endpoint: "https://cloud.digitalocean.com/v1/oauth/authorize",
        token_endpoint: "https://cloud.digitalocean.com/v1/oauth/token",
        revocation_endpoint: Some("https://cloud.digitalocean.com/v1/oauth/revoke"),
        userinfo_endpoint: Some("https://api.digitalocean.com/v2/account"),
        api_base: Some("https://api.digitalocean.com/v2"),
        scopes: &["read"],
        client_authentication: ClientAuthentication::Body,
        pkce: Pkce::Documented,
    }

    /// [Discord](https://docs.discord.com/developers/topics/oauth2).
    Discord(provider) {
        name: "discord",
        title: "Discord",
        source: "https://discord.com/.well-known/oauth-authorization-server",
        authorization_endpoint: "https://discord.com/api/oauth2/authorize",
        token_endpoint: "https://discord.com/api/oauth2/token",
        revocation_endpoint: Some("https://discord.com/api/oauth2/token/revoke"),
        userinfo_endpoint: Some("https://discord.com/api/v10/users/@me"),
        api_base: Some("https://discord.com/api/v10"),
        issuer: Some("https://discord.com"),
        scopes: &["identify"],
        pkce: Pkce::Documented,
    }

    /// [Dropbox](https://developers.dropbox.com/oauth-guide). Calls are `POST`s: who the user is, `/users/get_current_account`
    /// tells, with the body `null`. The content of files is at another origin, `content.dropboxapi.com`: set it as the API
    /// base of a second provider.
    Dropbox(provider) {
        name: "dropbox",
        title: "Dropbox",
        source: "https://dropbox.tech/developers/using-oauth-2-0-with-offline-access",
        unconfirmed: &["form of the revocation request"],
        note: "File contents are at another origin: content.dropboxapi.com.",
        authorization_endpoint: "https://www.dropbox.com/oauth2/authorize",
        token_endpoint: "https://api.dropboxapi.com/oauth2/token",
        revocation_endpoint: Some("https://api.dropboxapi.com/2/auth/token/revoke"),
        api_base: Some("https://api.dropboxapi.com/2"),
        pkce: Pkce::Documented,
        refresh: Refresh::Param("token_access_type", "offline"),
        quirks: &[Quirk::Revocation(RevocationRequest::Post)],
    }

    /// [Facebook](https://developers.facebook.com/docs/facebook-login/guides/advanced/manual-flow). Without a version in the
    /// paths, the oldest one that the app may use answers; put one there to be sure. There are no refresh tokens.
    Facebook(provider) {
        name: "facebook",
        title: "Facebook",
        source: "https://developers.facebook.com/docs/facebook-login/guides/advanced/manual-flow",
        unconfirmed: &["revocation endpoint"],
        note: "Without a version in the paths, the oldest one that the app may use answers.",
        authorization_endpoint: "https://www.facebook.com/dialog/oauth",
        token_endpoint: "https://graph.facebook.com/oauth/access_token",
        revocation_endpoint: Some("https://graph.facebook.com/me/permissions"),
        userinfo_endpoint: Some("https://graph.facebook.com/me?fields=id,name,email"),
        api_base: Some("https://graph.facebook.com"),
        scopes: &["public_profile", "email"],
        scope_separator: ',',
        client_authentication: ClientAuthentication::Body,
        pkce: Pkce::Documented,
        refresh: Refresh::Never,
        quirks: &[Quirk::CallbackFragment, Quirk::Revocation(RevocationRequest::Delete)],
    }

    /// [Figma](https://developers.figma.com/docs/rest-api/authentication/).
    Figma(provider) {
        name: "figma",
        title: "Figma",
        source: "https://developers.figma.com/docs/rest-api/authentication",
        unconfirmed: &["token endpoint", "refresh endpoint"],
        authorization_endpoint: "https://www.figma.com/oauth",
        token_endpoint: "https://api.figma.com/v1/oauth/token",
        userinfo_endpoint: Some("https://api.figma.com/v1/me"),
        api_base: Some("https://api.figma.com/v1"),
        scopes: &["current_user:read"],
        scope_separator: ',',
        quirks: &[Quirk::RefreshEndpoint("https://api.figma.com/v1/oauth/refresh")],
    }

    /// [Fitbit](https://dev.fitbit.com/build/reference/web-api/authorization/). **Switched off** by its owner on 2 November
    /// 2026: the Google Health API, with [`Google`](super::Google) and its scopes, is what came after.
    Fitbit(provider) {
        name: "fitbit",
        title: "Fitbit",
        source: "https://developers.google.com/health/about",
        verified: false,
        note: "Announced to be switched off on 2 November 2026; the Google Health API, by the preset google, follows it.",
        authorization_endpoint: "https://www.fitbit.com/oauth2/authorize",
        token_endpoint: "https://api.fitbit.com/oauth2/token",
        revocation_endpoint: Some("https://api.fitbit.com/oauth2/revoke"),
        userinfo_endpoint: Some("https://api.fitbit.com/1/user/-/profile.json"),
        api_base: Some("https://api.fitbit.com"),
        scopes: &["profile"],
        pkce: Pkce::Documented,
    }
}
