mod dead_grants;

use std::collections::HashSet;

use url::Url;

use super::file::ProviderConfig;
use super::table::{Pkce, Preset, Quirk, Refresh};
use super::*;
use crate::config::oauth1::SignatureMethod;
use crate::config::provider::{OfflineAccess, ProviderName};
use crate::config::quirks::{RevocationRequest, TokenHeader};
use crate::error::ConfigError;
use crate::protocol::registered::Registered;

const CALLBACK: &str = "https://app.example/callback";

/// What a provider's endpoints stand under, where that is more than one registrable domain.
const FAMILIES: [&[&str]; 5] = [
    &["dropbox.com", "dropboxapi.com"],
    &["google.com", "googleapis.com"],
    &["hubspot.com", "hubapi.com"],
    &["microsoftonline.com", "microsoft.com"],
    &["zoho.com", "zohoapis.com"],
];

/// A provider of this preset, somewhere.
fn placed(preset: &Preset) -> Provider {
    match preset.place {
        Some(place) if place.default.is_none() => preset.at("somewhere.example").unwrap(),
        _ => preset.provider(),
    }
}

fn check(mut provider: Provider) -> Result<Registered, ConfigError> {
    let secret = match &mut provider.oauth1 {
        Some(oauth1) if oauth1.signature_method == SignatureMethod::RsaSha1 && cfg!(not(feature = "rsa-sha1")) => {
            oauth1.signature_method = SignatureMethod::HmacSha1;
            "secret"
        }
        Some(oauth1) if oauth1.signature_method == SignatureMethod::RsaSha1 => {
            include_str!("../protocol/oauth1/test_keys/pkcs8.pem")
        }
        _ => "secret",
    };
    Registered::check(provider.client("client id", secret).with_redirect_uri(CALLBACK))
}

/// The last two labels, which is the registrable domain of every provider in the table.
fn domain(url: &str) -> String {
    let url = Url::parse(url).unwrap();
    let labels: Vec<&str> = url.host_str().unwrap().rsplit('.').take(2).collect();
    labels.into_iter().rev().collect::<Vec<_>>().join(".")
}

#[test]
fn every_preset_passes_the_checks_of_a_registration() {
    for preset in all() {
        let registered = check(placed(preset)).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(registered.declared.name, preset.name);
        assert!(!registered.declared.title.is_empty() && !registered.declared.title.contains('{'), "{}", preset.name);
    }
}

#[test]
fn names_are_distinct_and_in_order() {
    let names: Vec<_> = names().collect();
    let mut sorted = names.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(names, sorted);
    assert!(names.iter().all(|name| name.chars().all(|c| c.is_ascii_lowercase() || matches!(c, '0'..='9' | '-'))));
    let titles: HashSet<_> = all().map(|preset| placed(preset).title).collect();
    assert_eq!(titles.len(), names.len());
    assert_eq!((GitHub::NAME, OpenStreetMap::NAME, X::NAME), ("github", "osm", "x"));
    assert_eq!(GitHubEnterprise::at("github.example").name, GitHubEnterprise::NAME);
}

#[test]
fn every_entry_has_a_source_and_unverified_ones_a_note() {
    for preset in all() {
        let source = Url::parse(preset.source).unwrap();
        assert_eq!(source.scheme(), "https", "{}", preset.name);
        assert!(preset.verified || !preset.note.is_empty(), "{}: what could not be verified?", preset.name);
        assert!(preset.note.is_empty() || preset.note.ends_with('.'), "{}", preset.name);
    }
    let unverified: Vec<_> = all().filter(|preset| !preset.verified).map(|preset| preset.name).collect();
    assert_eq!(unverified, ["authentiq", "fitbit"]);
}

#[test]
fn endpoints_of_a_provider_are_under_its_own_domain() {
    for preset in all() {
        let provider = placed(preset);
        let home = domain(&provider.token_endpoint);
        let family: HashSet<String> = FAMILIES
            .iter()
            .filter(|family| family.contains(&home.as_str()))
            .flat_map(|family| family.iter().map(|domain| (*domain).to_owned()))
            .chain([home.clone()])
            .collect();
        let urls = [
            Some(&provider.authorization_endpoint),
            provider.revocation_endpoint.as_ref(),
            provider.userinfo_endpoint.as_ref(),
            provider.api_base.as_ref(),
            provider.issuer.as_ref(),
            provider.metadata_url.as_ref(),
            provider.quirks.refresh_endpoint.as_ref(),
            provider.oauth1.as_ref().map(|oauth1| &oauth1.temporary_credentials_endpoint),
        ];
        for url in urls.into_iter().flatten() {
            assert!(url.starts_with("https://"), "{url}");
            assert!(family.contains(&domain(url)), "{}: {url} is not under {home}", preset.name);
            assert!(!url.contains('{') || url.contains("{client_id}") || url.contains("{tenantid}"), "{url}");
        }
        let base = provider.api_base.unwrap_or_default();
        assert!(!base.ends_with('/'), "{base}: paths are appended with a slash");
    }
}

#[test]
fn scopes_and_parameters_are_valid() {
    for preset in all() {
        let provider = placed(preset);
        for scope in &provider.scopes {
            assert!(!scope.contains(provider.scope_separator) && !scope.is_empty(), "{}: {scope}", preset.name);
        }
        let distinct: HashSet<_> = provider.scopes.iter().collect();
        assert_eq!(distinct.len(), provider.scopes.len(), "{}", preset.name);
        if let Refresh::Scope(scope) = preset.refresh {
            assert!(!provider.scopes.iter().any(|found| found == scope), "{}: requested twice", preset.name);
        }
        if let Refresh::Param(name, _) = preset.refresh {
            assert!(!provider.authorization_params.contains_key(name), "{}", preset.name);
        }
        let revokes = preset.quirks.iter().any(|quirk| matches!(quirk, Quirk::Revocation(_)));
        assert!(!revokes || provider.revocation_endpoint.is_some(), "{}", preset.name);
        assert!(matches!(provider.scope_separator, ' ' | ','), "{}", preset.name);
    }
}

#[test]
fn offline_access_is_requested_whatever_the_scopes() {
    for preset in all() {
        let registered = check(placed(preset)).unwrap();
        match preset.refresh {
            Refresh::Scope(scope) => assert!(registered.declared.scopes.iter().any(|s| s == scope), "{}", preset.name),
            Refresh::Param(name, value) => {
                assert_eq!(registered.declared.authorization_params[name], value, "{}", preset.name);
            }
            _ => {}
        }
    }
    let other_scopes = check(Microsoft::provider().with_scopes(["Mail.Read"])).unwrap();
    assert_eq!(other_scopes.declared.scopes, ["Mail.Read", "offline_access"]);
    let mut online = Google::provider();
    online.offline_access = OfflineAccess::NotRequested;
    assert!(!check(online).unwrap().declared.authorization_params.contains_key("access_type"));
    let mut chosen = Dropbox::provider();
    chosen.authorization_params.insert("token_access_type".to_owned(), "online".to_owned());
    assert_eq!(check(chosen).unwrap().declared.authorization_params["token_access_type"], "online");
}

/// A preset that requests an ID token by default has an issuer.
#[test]
fn a_preset_that_requests_an_id_token_has_an_issuer() {
    // Their issuers are unknown: one service may be gone, and the other has an issuer for each customer.
    let unknown = ["authentiq", "salesforce"];
    for preset in all() {
        let provider = placed(preset);
        let requests = provider.scopes.iter().any(|scope| scope == "openid");
        assert!(!requests || provider.issuer.is_some() != unknown.contains(&preset.name), "{}", preset.name);
    }
    let contoso = check(Microsoft::tenant("contoso.onmicrosoft.com")).unwrap();
    let issuer = contoso.issuer.as_ref().unwrap();
    assert!(issuer.is("https://login.microsoftonline.com/9188040d-6c67-4c5b-b112-36a304b66dad/v2.0"));
    assert!(!issuer.is("https://login.microsoftonline.com/common/v2.0"));
    assert_eq!(Slack::openid().issuer.as_deref(), Some("https://slack.com"));
    check(Slack::openid()).unwrap();
}

#[test]
fn hosts_tenants_and_sandboxes_fill_the_templates() {
    for (provider, token_endpoint, api_base) in [
        (GitLab::at("git.example:8443"), "https://git.example:8443/oauth/token", "https://git.example:8443/api/v4"),
        (
            GitHubEnterprise::at("ghe.example"),
            "https://ghe.example/login/oauth/access_token",
            "https://ghe.example/api/v3",
        ),
        (Mastodon::at("fosstodon.org"), "https://fosstodon.org/oauth/token", "https://fosstodon.org/api/v1"),
        (
            Microsoft::tenant("contoso.onmicrosoft.com"),
            "https://login.microsoftonline.com/contoso.onmicrosoft.com/oauth2/v2.0/token",
            "https://graph.microsoft.com/v1.0",
        ),
        (
            Shopify::shop("my-shop"),
            "https://my-shop.myshopify.com/admin/oauth/access_token",
            "https://my-shop.myshopify.com/admin/api",
        ),
        (
            Okta::authorization_server("dev-1.okta.com", "default"),
            "https://dev-1.okta.com/oauth2/default/v1/token",
            "https://dev-1.okta.com/api/v1",
        ),
        (Dexcom::sandbox(), "https://sandbox-api.dexcom.com/v2/oauth2/token", "https://sandbox-api.dexcom.com"),
        (Orcid::sandbox(), "https://sandbox.orcid.org/oauth/token", "https://api.sandbox.orcid.org/v3.0"),
        (
            Intuit::sandbox(),
            "https://oauth.platform.intuit.com/oauth2/v1/tokens/bearer",
            "https://sandbox-quickbooks.api.intuit.com/v3",
        ),
        (
            Intuit::provider(),
            "https://oauth.platform.intuit.com/oauth2/v1/tokens/bearer",
            "https://quickbooks.api.intuit.com/v3",
        ),
        (Zoho::at("accounts.zoho.eu"), "https://accounts.zoho.eu/oauth/v2/token", "https://www.zohoapis.com"),
    ] {
        assert_eq!(provider.token_endpoint, token_endpoint);
        assert_eq!(provider.api_base.as_deref(), Some(api_base));
        check(provider).unwrap();
    }
    let sandbox = check(Salesforce::sandbox()).unwrap();
    assert_eq!(sandbox.authorization_endpoint().host_str(), Some("test.salesforce.com"));
    assert_eq!(
        Okta::authorization_server("dev-1.okta.com", "default").issuer.as_deref(),
        Some("https://dev-1.okta.com/oauth2/default")
    );
}

#[test]
fn an_invalid_value_for_a_placeholder_is_rejected() {
    for host in ["", "evil.example/", "evil.example?", "a@b", "evil.example#", "a b", "{host}", "ä.example", "..%2f"] {
        assert!(matches!(check(GitLab::at(host)), Err(ConfigError::Invalid { .. })), "{host}");
        assert!(check(Microsoft::tenant(host)).is_err(), "{host}");
        assert!(check(Shopify::shop(host)).is_err(), "{host}");
        assert!(check(Okta::authorization_server("dev-1.okta.com", host)).is_err(), "{host}");
    }
    let inside = check(Shopify::shop("evil.example:99")).is_err();
    assert!(inside, "a port in the middle of a host");
    assert!(find("mastodon").is_some_and(|template| check(template).is_err()), "no host was given");
}

#[test]
fn a_configuration_sets_the_preset_and_its_placeholder() {
    let config = |json: &str| serde_json::from_str::<ProviderConfig>(json).unwrap().registration("here");
    let registration = config(r#"{"preset": "mastodon", "host": "fosstodon.org", "client_id": "id"}"#).unwrap();
    assert_eq!(registration.provider.token_endpoint, "https://fosstodon.org/oauth/token");
    let registration = config(r#"{"preset": "microsoft", "tenant": "consumers", "client_id": "id"}"#).unwrap();
    assert!(registration.provider.token_endpoint.contains("/consumers/"));
    for json in [
        r#"{"preset": "github", "host": "github.example", "client_id": "id"}"#,
        r#"{"preset": "unknown", "host": "a.example", "client_id": "id"}"#,
        r#"{"host": "a.example", "client_id": "id"}"#,
    ] {
        assert!(config(json).is_err(), "{json}");
    }
    let online = config(
        r#"{"preset": "google", "client_id": "id", "offline_access": "not_requested",
            "quirks": {"without_pkce": true, "revocation": "post"}}"#,
    )
    .unwrap()
    .provider;
    assert_eq!(online.offline_access, OfflineAccess::NotRequested);
    assert!(online.quirks.without_pkce && online.quirks.revocation == RevocationRequest::Post);
}

#[test]
fn quirks_are_set_as_the_documentation_requires() {
    assert_eq!(Zoho::provider().quirks.token_header, TokenHeader::Scheme("Zoho-oauthtoken".to_owned()));
    assert_eq!(Salesforce::provider().quirks.api_base_member.as_deref(), Some("instance_url"));
    assert!(Slack::provider().quirks.token_member.is_some() && Slack::bot().quirks.token_member.is_none());
    assert!(Slack::openid().quirks.scope_parameter.is_none() && Slack::openid().scope_separator == ' ');
    assert!(Slack::bot().quirks.scope_parameter.is_none() && Slack::bot().quirks.accepts("bot"));
    let without_pkce: Vec<_> =
        all().filter(|preset| placed(preset).quirks.without_pkce).map(|preset| preset.name).collect();
    assert_eq!(without_pkce, ["linkedin", "slack"], "PKCE is only omitted where it is known to fail");
    assert!(all().all(
        |preset| matches!(preset.pkce, Pkce::Documented | Pkce::Undocumented) != placed(preset).quirks.without_pkce
    ));

    let twitch = check(Twitch::provider()).unwrap();
    assert_eq!(twitch.api_headers["client-id"], "client id");
    let github = check(GitHub::provider()).unwrap();
    let revocation = github.revocation_endpoint().unwrap();
    assert_eq!(revocation.as_str(), "https://api.github.com/applications/client%20id/token");
    let reddit = check(Reddit::provider()).unwrap();
    assert!(reddit.token_headers["user-agent"].to_str().unwrap().starts_with("web:client id:"));
    assert_eq!(reddit.token_headers["user-agent"], reddit.api_headers["user-agent"]);
    let figma = check(Figma::provider()).unwrap();
    assert!(figma.refresh_endpoint() != figma.token_endpoint());
    let heroku = check(Heroku::provider()).unwrap();
    assert_eq!(heroku.api_headers["accept"], "application/vnd.heroku+json; version=3");
}

#[test]
fn jira_signs_with_rsa_at_any_host() {
    let jira = Jira::at("jira.example:8443");
    let oauth1 = jira.oauth1.clone().unwrap();
    let endpoint = "https://jira.example:8443/plugins/servlet/oauth/request-token";
    assert_eq!(
        (oauth1.temporary_credentials_endpoint.as_str(), oauth1.signature_method.as_str()),
        (endpoint, "RSA-SHA1")
    );
    assert!(check(jira).is_ok() && check(Jira::at("evil.example/")).is_err());
    let config = r#"{"preset": "jira", "host": "jira.example", "client_key": "key", "client_secret": "pem"}"#;
    let registration = serde_json::from_str::<ProviderConfig>(config).unwrap().registration("work").unwrap();
    assert_eq!(registration.provider.api_base.as_deref(), Some("https://jira.example/rest/api/2"));
    let signed: Vec<_> = all().filter(|preset| placed(preset).oauth1.is_some()).map(|preset| preset.name).collect();
    assert_eq!(signed, ["jira", "trello", "tumblr", "x-oauth1"]);
}

#[test]
fn a_public_client_without_pkce_is_rejected() {
    let public = Registered::check(LinkedIn::provider().public_client("id")).unwrap_err().to_string();
    assert!(public.contains("PKCE"), "{public}");
}

#[test]
fn a_preset_is_used_twice_under_two_names() {
    let work = check(GitLab::at("gitlab.example.com").named("work")).unwrap();
    let public = check(GitLab::provider()).unwrap();
    assert_eq!((work.declared.name.as_str(), public.declared.name.as_str()), ("work", "gitlab"));
}

/// Flask-Dance's module names, and their names here.
#[test]
fn every_preset_of_flask_dance_has_an_equivalent() {
    for name in [
        "atlassian",
        "authentiq",
        "microsoft",
        "dexcom",
        "digitalocean",
        "discord",
        "dropbox",
        "facebook",
        "fitbit",
        "github",
        "gitlab",
        "google",
        "heroku",
        "jira",
        "linkedin",
        "meetup",
        "nylas",
        "orcid",
        "osm",
        "reddit",
        "salesforce",
        "slack",
        "spotify",
        "strava",
        "twitch",
        "zoho",
    ] {
        assert!(find(name).is_some(), "{name}");
    }
}
