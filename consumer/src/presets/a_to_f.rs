//! Apple to Fitbit.

use super::table::{Pkce, Place, Preset, Quirk, Refresh, Written, presets};
use crate::config::provider::{ClientAuthentication, Provider};
use crate::config::quirks::RevocationRequest;

presets! {
    /// [Apple](https://developer.apple.com/documentation/signinwithapplerestapi): identifies the user with an ID token. It
    /// has no API and no userinfo endpoint.
    ///
    /// [`Provider::client_with_key`] registers a client with its private key, from which client secrets are generated.
    ///
    /// Apple reports the name once, at a user's first login: [`Authorized::posted_user`](crate::Authorized::posted_user).
    Apple(provider) {
        name: "apple",
        source: "https://developer.apple.com/documentation/sign_in_with_apple/generate_and_validate_tokens",
        note: "Register the client with its private key: the client secret is a JWT that is generated from it.",
        quirks: &[Quirk::FormPost],
    } declares {
        title: "Apple",
        authorization_endpoint: "https://appleid.apple.com/auth/authorize",
        token_endpoint: "https://appleid.apple.com/auth/token",
        revocation_endpoint: "https://appleid.apple.com/auth/revoke",
        issuer: "https://appleid.apple.com",
        scopes: ["openid", "email", "name"],
        client_authentication: ClientAuthentication::Body,
    }

    /// [Asana](https://developers.asana.com/docs/oauth). The scope `default` is for apps registered with full permissions;
    /// for other apps, set their scopes.
    Asana(provider) {
        name: "asana",
        source: "https://developers.asana.com/docs/oauth",
    } declares {
        title: "Asana",
        authorization_endpoint: "https://app.asana.com/-/oauth_authorize",
        token_endpoint: "https://app.asana.com/-/oauth_token",
        revocation_endpoint: "https://app.asana.com/-/oauth_revoke",
        userinfo_endpoint: "https://app.asana.com/api/1.0/users/me",
        api_base: "https://app.asana.com/api/1.0",
        scopes: ["default"],
        client_authentication: ClientAuthentication::Body,
    }

    /// [Atlassian](https://developer.atlassian.com/cloud/jira/platform/oauth-2-3lo-apps/): Jira, Confluence and other
    /// products. `/oauth/token/accessible-resources` returns the ids of the user's sites; Jira is below `/ex/jira/{id}`.
    Atlassian(provider) {
        name: "atlassian",
        source: "https://developer.atlassian.com/cloud/jira/platform/oauth-2-3lo-apps",
        unconfirmed: &["userinfo endpoint"],
        note: "Includes Jira, whose API is below /ex/jira/{cloud id}.",
        refresh: Refresh::Scope("offline_access"),
        quirks: &[Quirk::TokenJson],
    } declares {
        title: "Atlassian",
        authorization_endpoint: "https://auth.atlassian.com/authorize",
        token_endpoint: "https://auth.atlassian.com/oauth/token",
        userinfo_endpoint: "https://api.atlassian.com/me",
        api_base: "https://api.atlassian.com",
        scopes: ["read:me"],
        client_authentication: ClientAuthentication::Body,
        authorization_params: [("audience", "api.atlassian.com"), ("prompt", "consent")],
    }

    /// [Authentiq](https://developers.authentiq.com/get-started/). **Not verified**: the service may be discontinued.
    Authentiq(provider, at) {
        name: "authentiq",
        source: "https://developers.authentiq.com/get-started/",
        unconfirmed: &["userinfo endpoint"],
        verified: false,
        note: "Its documentation is online; it is not known whether the service still runs.",
        place: Some(Place { name: "host", default: Some("connect.authentiq.io"), sandbox: None }),
        refresh: Refresh::Never,
    } declares {
        title: "Authentiq",
        authorization_endpoint: "https://{host}/authorize",
        token_endpoint: "https://{host}/token",
        userinfo_endpoint: "https://{host}/userinfo",
        api_base: "https://{host}",
        scopes: ["openid", "profile"],
    }

    /// [Bitbucket Cloud](https://developer.atlassian.com/cloud/bitbucket/oauth-2/). The scopes are set in the consumer's
    /// registration.
    Bitbucket(provider) {
        name: "bitbucket",
        source: "https://developer.atlassian.com/cloud/bitbucket/oauth-2",
        note: "The scopes are set in the consumer's registration.",
    } declares {
        title: "Bitbucket",
        authorization_endpoint: "https://bitbucket.org/site/oauth2/authorize",
        token_endpoint: "https://bitbucket.org/site/oauth2/access_token",
        userinfo_endpoint: "https://api.bitbucket.org/2.0/user",
        api_base: "https://api.bitbucket.org/2.0",
    }

    /// [Box](https://developer.box.com/guides/authentication/oauth2/). The scopes are those of the app's registration,
    /// unless some are requested.
    Box(provider) {
        name: "box",
        source: "https://developer.box.com/reference/get-authorize/",
    } declares {
        title: "Box",
        authorization_endpoint: "https://account.box.com/api/oauth2/authorize",
        token_endpoint: "https://api.box.com/oauth2/token",
        revocation_endpoint: "https://api.box.com/oauth2/revoke",
        userinfo_endpoint: "https://api.box.com/2.0/users/me",
        api_base: "https://api.box.com/2.0",
        client_authentication: ClientAuthentication::Body,
    }

    /// [Dexcom](https://developer.dexcom.com/docs/dexcom/authentication/), by default in the United States; other hosts are
    /// `api.dexcom.eu` and `api.dexcom.jp`.
    Dexcom(provider, at, sandbox) {
        name: "dexcom",
        source: "https://developer.dexcom.com/docs/dexcom/authentication/",
        place: Some(Place { name: "host", default: Some("api.dexcom.com"), sandbox: Some("sandbox-api.dexcom.com") }),
        refresh: Refresh::Scope("offline_access"),
    } declares {
        title: "Dexcom",
        authorization_endpoint: "https://{host}/v2/oauth2/login",
        token_endpoint: "https://{host}/v2/oauth2/token",
        api_base: "https://{host}",
        client_authentication: ClientAuthentication::Body,
    }

    /// [DigitalOcean](https://docs.digitalocean.com/reference/api/oauth/).
    DigitalOcean(provider) {
        name: "digitalocean",
        source: "https://docs.digitalocean.com/reference/api/oauth",
        unconfirmed: &["form of the revocation request"],
        pkce: Pkce::Documented,
    } declares {
        title: "DigitalOcean",
        authorization_endpoint: "https://cloud.digitalocean.com/v1/oauth/authorize",
        token_endpoint: "https://cloud.digitalocean.com/v1/oauth/token",
        revocation_endpoint: "https://cloud.digitalocean.com/v1/oauth/revoke",
        userinfo_endpoint: "https://api.digitalocean.com/v2/account",
        api_base: "https://api.digitalocean.com/v2",
        scopes: ["read"],
        client_authentication: ClientAuthentication::Body,
    }

    /// [Discord](https://docs.discord.com/developers/topics/oauth2).
    Discord(provider) {
        name: "discord",
        source: "https://discord.com/.well-known/oauth-authorization-server",
        pkce: Pkce::Documented,
    } declares {
        title: "Discord",
        authorization_endpoint: "https://discord.com/api/oauth2/authorize",
        token_endpoint: "https://discord.com/api/oauth2/token",
        revocation_endpoint: "https://discord.com/api/oauth2/token/revoke",
        userinfo_endpoint: "https://discord.com/api/v10/users/@me",
        api_base: "https://discord.com/api/v10",
        issuer: "https://discord.com",
        scopes: ["identify"],
    }

    /// [Dropbox](https://developers.dropbox.com/oauth-guide). Calls are `POST` requests: `/users/get_current_account` with
    /// the body `null` returns the user. File contents are at another origin, `content.dropboxapi.com`: set it as the API
    /// base of a second provider.
    Dropbox(provider) {
        name: "dropbox",
        source: "https://dropbox.tech/developers/using-oauth-2-0-with-offline-access",
        unconfirmed: &["form of the revocation request"],
        note: "File contents are at another origin: content.dropboxapi.com.",
        pkce: Pkce::Documented,
        refresh: Refresh::Param("token_access_type", "offline"),
        quirks: &[Quirk::Revocation(RevocationRequest::Post)],
    } declares {
        title: "Dropbox",
        authorization_endpoint: "https://www.dropbox.com/oauth2/authorize",
        token_endpoint: "https://api.dropboxapi.com/oauth2/token",
        revocation_endpoint: "https://api.dropboxapi.com/2/auth/token/revoke",
        api_base: "https://api.dropboxapi.com/2",
    }

    /// [Facebook](https://developers.facebook.com/docs/facebook-login/guides/advanced/manual-flow). A path without a version
    /// uses the oldest version that is available to the app; add a version to pin it. There are no refresh tokens.
    Facebook(provider) {
        name: "facebook",
        source: "https://developers.facebook.com/docs/facebook-login/guides/advanced/manual-flow",
        unconfirmed: &["revocation endpoint"],
        note: "A path without a version uses the oldest version that is available to the app.",
        pkce: Pkce::Documented,
        refresh: Refresh::Never,
        quirks: &[Quirk::CallbackFragment, Quirk::Revocation(RevocationRequest::Delete)],
    } declares {
        title: "Facebook",
        authorization_endpoint: "https://www.facebook.com/dialog/oauth",
        token_endpoint: "https://graph.facebook.com/oauth/access_token",
        revocation_endpoint: "https://graph.facebook.com/me/permissions",
        userinfo_endpoint: "https://graph.facebook.com/me?fields=id,name,email",
        api_base: "https://graph.facebook.com",
        scopes: ["public_profile", "email"],
        scope_separator: ',',
        client_authentication: ClientAuthentication::Body,
    }

    /// [Figma](https://developers.figma.com/docs/rest-api/authentication/).
    Figma(provider) {
        name: "figma",
        source: "https://developers.figma.com/docs/rest-api/authentication",
        unconfirmed: &["token endpoint", "refresh endpoint"],
        quirks: &[Quirk::RefreshEndpoint("https://api.figma.com/v1/oauth/refresh")],
    } declares {
        title: "Figma",
        authorization_endpoint: "https://www.figma.com/oauth",
        token_endpoint: "https://api.figma.com/v1/oauth/token",
        userinfo_endpoint: "https://api.figma.com/v1/me",
        api_base: "https://api.figma.com/v1",
        scopes: ["current_user:read"],
        scope_separator: ',',
    }

    /// [Fitbit](https://dev.fitbit.com/build/reference/web-api/authorization/). **Shut down** by its owner on 2 November
    /// 2026. The successor is the Google Health API, with [`Google`](super::Google) and its scopes.
    Fitbit(provider) {
        name: "fitbit",
        source: "https://developers.google.com/health/about",
        verified: false,
        note: "Announced to shut down on 2 November 2026; the successor is the Google Health API, with the preset google.",
        pkce: Pkce::Documented,
    } declares {
        title: "Fitbit",
        authorization_endpoint: "https://www.fitbit.com/oauth2/authorize",
        token_endpoint: "https://api.fitbit.com/oauth2/token",
        revocation_endpoint: "https://api.fitbit.com/oauth2/revoke",
        userinfo_endpoint: "https://api.fitbit.com/1/user/-/profile.json",
        api_base: "https://api.fitbit.com",
        scopes: ["profile"],
    }
}
