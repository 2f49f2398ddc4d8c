use std::collections::BTreeMap;

use oauth_dance_core::Secret;
use serde::Deserialize;

use crate::config::client_key::ClientKey;
use crate::config::dead_grant::DeadGrant;
use crate::config::oauth1::{OAuth1, SignatureMethod};
use crate::config::provider::{ClientAuthentication, OfflineAccess, Provider};
use crate::config::quirks::Quirks;
use crate::config::registration::{Registration, required_variable};
use crate::error::ConfigError;

/// A [`Registration`] as a configuration file has it, in any format that serde reads.
///
/// With `preset` the other fields change that preset; without it, `authorization_endpoint` and `token_endpoint` are
/// required, or for an OpenID provider `issuer` alone. Credentials stand in the file or, better, in environment variables
/// that the file names.
///
/// ```
/// use oauth_dance::ProviderConfig;
///
/// let config: ProviderConfig = serde_json::from_str(r#"{
///     "preset": "github", "scopes": ["repo"], "client_id": "id", "client_secret": "secret"
/// }"#)?;
/// assert_eq!(config.registration("work")?.name(), "work");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct ProviderConfig {
    /// The [preset](crate::presets) to start from.
    pub preset: Option<String>,
    /// What fills in the preset's `{host}` or `{tenant}`, where it has one.
    #[serde(alias = "tenant")]
    pub host: Option<String>,
    /// See [`Provider::title`].
    pub title: Option<String>,
    /// See [`OAuth1::temporary_credentials_endpoint`]; with it, or such a preset, it is a provider of OAuth 1.0a.
    #[serde(alias = "request_token_url")]
    pub temporary_credentials_endpoint: Option<String>,
    /// See [`OAuth1::signature_method`].
    pub signature_method: Option<SignatureMethod>,
    /// See [`OAuth1::realm`].
    pub realm: Option<String>,
    /// See [`Provider::authorization_endpoint`].
    #[serde(alias = "authorization_url")]
    pub authorization_endpoint: Option<String>,
    /// See [`Provider::token_endpoint`].
    #[serde(alias = "token_url", alias = "access_token_url")]
    pub token_endpoint: Option<String>,
    /// See [`Provider::pushed_authorization_request_endpoint`].
    pub pushed_authorization_request_endpoint: Option<String>,
    /// See [`Provider::revocation_endpoint`].
    #[serde(alias = "revocation_url")]
    pub revocation_endpoint: Option<String>,
    /// See [`Provider::userinfo_endpoint`].
    #[serde(alias = "userinfo_url")]
    pub userinfo_endpoint: Option<String>,
    /// See [`Provider::api_base`].
    #[serde(alias = "base_url")]
    pub api_base: Option<String>,
    /// See [`Provider::end_session_endpoint`].
    pub end_session_endpoint: Option<String>,
    /// See [`Provider::issuer`].
    pub issuer: Option<String>,
    /// See [`Provider::metadata_url`].
    pub metadata_url: Option<String>,
    /// See [`Provider::keep_id_token`].
    pub keep_id_token: Option<bool>,
    /// See [`Provider::requires_issuer`].
    pub requires_issuer: Option<bool>,
    /// See [`Provider::dpop`].
    pub dpop: Option<bool>,
    /// See [`Provider::scopes`].
    pub scopes: Option<Vec<String>>,
    /// See [`Provider::scope_separator`].
    pub scope_separator: Option<char>,
    /// See [`Provider::client_authentication`].
    pub client_authentication: Option<ClientAuthentication>,
    /// See [`Provider::authorization_params`]; added to those of the preset.
    pub authorization_params: BTreeMap<String, String>,
    /// See [`Provider::login_params`].
    pub login_params: Option<Vec<String>>,
    /// See [`Provider::offline_access`].
    pub offline_access: Option<OfflineAccess>,
    /// See [`Provider::api_headers`]; added to those of the preset.
    pub api_headers: BTreeMap<String, String>,
    /// See [`Provider::dead_grants`]; added to those of the preset.
    pub dead_grants: Vec<DeadGrant>,
    /// See [`Provider::quirks`]; in place of those of the preset, all of them.
    pub quirks: Option<Quirks>,
    /// The client id, or the client key of OAuth 1.0a.
    #[serde(alias = "client_key")]
    pub client_id: Option<String>,
    /// The environment variable that holds the client id.
    pub client_id_env: Option<String>,
    /// The client secret; without one, and without `client_secret_env`, it is a public client.
    #[serde(deserialize_with = "secret")]
    pub client_secret: Option<Secret>,
    /// The environment variable that holds the client secret.
    pub client_secret_env: Option<String>,
    /// The key that Apple has in place of a secret: see [`ClientKey::apple`].
    pub apple_key: Option<AppleKey>,
    /// See [`Registration::with_redirect_uri`].
    pub redirect_uri: Option<String>,
}

/// A [key for Sign in with Apple](ClientKey::apple) as a configuration file has it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct AppleKey {
    /// The identifier of the team.
    pub team_id: String,
    /// The identifier of the key.
    pub key_id: String,
    /// The environment variable that holds the content of the `.p8` file.
    pub private_key_env: String,
}

impl ProviderConfig {
    /// The registration of the provider that this application calls `name`.
    ///
    /// # Errors
    /// [`ConfigError`], which names the provider and what is wrong or missing.
    pub fn registration(self, name: &str) -> Result<Registration, ConfigError> {
        let client_id = match (self.client_id, &self.client_id_env) {
            (Some(client_id), _) => client_id,
            (None, Some(variable)) => required_variable(variable)?,
            (None, None) => return Err(ConfigError::missing(name, "client_id")),
        };
        let client_secret = match (self.client_secret, &self.client_secret_env) {
            (Some(secret), _) => Some(secret),
            (None, Some(variable)) => Some(required_variable(variable)?.into()),
            (None, None) => None,
        };

        let is_issuer_alone =
            self.preset.is_none() && self.authorization_endpoint.is_none() && self.token_endpoint.is_none();
        let mut provider = match (&self.issuer, &self.host) {
            (Some(issuer), None) if is_issuer_alone => Provider::openid(name, issuer),
            _ => preset(name, self.preset, self.host)?,
        };
        provider.name = name.to_owned();
        let discovers = self.issuer.is_some();
        let required = |value: Option<String>, preset: String, field| match value {
            Some(value) => Ok(value),
            None if preset.is_empty() && !discovers => Err(ConfigError::missing(name, field)),
            None => Ok(preset),
        };
        provider.authorization_endpoint =
            required(self.authorization_endpoint, provider.authorization_endpoint, "authorization_endpoint")?;
        provider.token_endpoint = required(self.token_endpoint, provider.token_endpoint, "token_endpoint")?;
        provider.title = self.title.unwrap_or(provider.title);
        provider.pushed_authorization_request_endpoint =
            self.pushed_authorization_request_endpoint.or(provider.pushed_authorization_request_endpoint);
        provider.revocation_endpoint = self.revocation_endpoint.or(provider.revocation_endpoint);
        provider.userinfo_endpoint = self.userinfo_endpoint.or(provider.userinfo_endpoint);
        provider.api_base = self.api_base.or(provider.api_base);
        provider.end_session_endpoint = self.end_session_endpoint.or(provider.end_session_endpoint);
        provider.issuer = self.issuer.or(provider.issuer);
        provider.metadata_url = self.metadata_url.or(provider.metadata_url);
        provider.keep_id_token = self.keep_id_token.unwrap_or(provider.keep_id_token);
        provider.requires_issuer = self.requires_issuer.unwrap_or(provider.requires_issuer);
        provider.dpop = self.dpop.unwrap_or(provider.dpop);
        provider.scopes = self.scopes.unwrap_or(provider.scopes);
        provider.scope_separator = self.scope_separator.unwrap_or(provider.scope_separator);
        provider.client_authentication = self.client_authentication.unwrap_or(provider.client_authentication);
        provider.authorization_params.extend(self.authorization_params);
        provider.login_params = self.login_params.unwrap_or(provider.login_params);
        provider.offline_access = self.offline_access.unwrap_or(provider.offline_access);
        provider.api_headers.extend(self.api_headers);
        provider.dead_grants.extend(self.dead_grants);
        provider.quirks = self.quirks.unwrap_or(provider.quirks);
        let endpoint = self.temporary_credentials_endpoint;
        provider.oauth1 = OAuth1::configured(name, provider.oauth1, endpoint, self.signature_method, self.realm)?;
        let client_key = self.apple_key.map(|key| {
            let private_key = required_variable(&key.private_key_env)?;
            Ok(ClientKey::apple(key.team_id, key.key_id, private_key))
        });
        let client_key = client_key.transpose()?;
        let registration = provider.public_client(client_id);
        Ok(Registration { client_secret, client_key, redirect_uri: self.redirect_uri, ..registration })
    }
}

/// What a configuration starts from.
fn preset(name: &str, preset: Option<String>, host: Option<String>) -> Result<Provider, ConfigError> {
    let no_place = ConfigError::invalid(name, "host", "has no place in this preset, or there is no preset");
    match (preset, host) {
        (None, None) => Ok(Provider::new(name, "", "")),
        (None, Some(_)) => Err(no_place),
        (Some(preset), None) => {
            super::find(&preset).ok_or_else(|| ConfigError::UnknownPreset { provider: name.to_owned(), preset })
        }
        (Some(preset), Some(host)) if super::find(&preset).is_some() => super::find_at(&preset, &host).ok_or(no_place),
        (Some(preset), Some(_)) => Err(ConfigError::UnknownPreset { provider: name.to_owned(), preset }),
    }
}

fn secret<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Secret>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.map(Secret::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(json: &str) -> ProviderConfig {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn an_issuer_alone_is_an_openid_provider() {
        let corp = config(r#"{"issuer": "https://id.corp.example", "client_id": "id"}"#).registration("corp").unwrap();
        assert_eq!(corp.provider, Provider::openid("corp", "https://id.corp.example"));
        let plain = config(
            r#"{"issuer": "https://id.corp.example", "client_id": "id", "authorization_endpoint": "https://a.example",
                "token_endpoint": "https://t.example"}"#,
        );
        assert!(plain.registration("corp").unwrap().provider.scopes.is_empty(), "it names the issuer of callbacks");
    }

    #[test]
    fn a_key_of_apple_s_is_in_the_environment() {
        let key = r#"{"team_id": "T", "key_id": "K", "private_key_env": "OAUTH_DANCE_TEST_UNSET"}"#;
        let apple = config(&format!(r#"{{"preset": "apple", "client_id": "id", "apple_key": {key}}}"#));
        assert!(apple.registration("apple").unwrap_err().to_string().contains("OAUTH_DANCE_TEST_UNSET"));
    }

    #[test]
    fn a_config_changes_a_preset_field_by_field() {
        let registration = config(
            r#"{"preset": "google", "client_id": "id", "scopes": ["openid"], "client_authentication": "body",
                "token_url": "https://example.com/token", "authorization_params": {"hd": "example.com"}}"#,
        )
        .registration("work")
        .unwrap();
        let preset = super::super::Google::provider();
        let provider = &registration.provider;
        assert_eq!(provider.name, "work");
        assert_eq!(provider.authorization_endpoint, preset.authorization_endpoint);
        assert_eq!(provider.token_endpoint, "https://example.com/token");
        assert_eq!(provider.scopes, ["openid"]);
        assert_eq!(provider.client_authentication, ClientAuthentication::Body);
        assert_eq!(provider.authorization_params["hd"], "example.com");
        assert_eq!(registration.client_secret, None);
    }

    #[test]
    fn a_wrong_config_names_the_provider_and_the_field() {
        for (json, cause) in [
            (r#"{"client_id": "id"}"#, "provider acme: authorization_endpoint is missing"),
            (r#"{"client_id": "id", "authorization_endpoint": "https://a.example"}"#, "token_endpoint is missing"),
            (r#"{"preset": "github"}"#, "provider acme: client_id is missing"),
            (r#"{"preset": "nobody", "client_id": "id"}"#, "\"nobody\""),
            (r#"{"client_id_env": "OAUTH_DANCE_TEST_UNSET"}"#, "OAUTH_DANCE_TEST_UNSET"),
        ] {
            let error = config(json).registration("acme").unwrap_err().to_string();
            assert!(error.contains(cause), "{error}");
        }
        assert!(serde_json::from_str::<ProviderConfig>(r#"{"token_endpiont": "x"}"#).is_err());
    }

    #[test]
    fn a_config_of_oauth_1_names_its_endpoint_and_method() {
        let registration = config(
            r#"{"client_key": "key", "client_secret": "secret", "request_token_url": "https://a.example/request",
                "authorization_url": "https://a.example/authorize", "access_token_url": "https://a.example/access",
                "signature_method": "PLAINTEXT", "realm": "here"}"#,
        )
        .registration("acme")
        .unwrap();
        let oauth1 = registration.provider.oauth1.unwrap();
        assert_eq!(oauth1.temporary_credentials_endpoint, "https://a.example/request");
        assert_eq!((oauth1.signature_method, oauth1.realm.as_deref()), (SignatureMethod::Plaintext, Some("here")));
        assert_eq!(registration.provider.token_endpoint, "https://a.example/access");

        let error = config(r#"{"preset": "github", "client_id": "id", "signature_method": "HMAC-SHA1"}"#);
        let error = error.registration("acme").unwrap_err().to_string();
        assert!(error.contains("temporary_credentials_endpoint is missing"), "{error}");
        assert!(serde_json::from_str::<ProviderConfig>(r#"{"signature_method": "NONE"}"#).is_err());
    }

    #[test]
    fn a_config_adds_how_a_dead_grant_looks() {
        let dead = r#"[{"status": 403, "members": {"error": "gone", "details.reason": "revoked*"}}]"#;
        let registration = |preset: &str| {
            let json = format!(r#"{{"preset": "{preset}", "client_id": "id", "dead_grants": {dead}}}"#);
            config(&json).registration("acme").unwrap()
        };
        let expected = DeadGrant::new([("error", "gone"), ("details.reason", "revoked*")]).with_status(403);
        assert_eq!(registration("google").provider.dead_grants, std::slice::from_ref(&expected));
        let github = registration("github").provider.dead_grants;
        assert!(github.len() == 2 && github.contains(&expected), "besides what the preset knows");
        assert!(serde_json::from_str::<ProviderConfig>(r#"{"dead_grants": [{"member": {}}]}"#).is_err());
    }

    #[test]
    fn secrets_in_a_config_do_not_print() {
        let config = config(r#"{"preset": "github", "client_id": "id", "client_secret": "CANARY"}"#);
        assert!(!format!("{config:?} {:?}", config.clone().registration("github").unwrap()).contains("CANARY"));
    }
}
