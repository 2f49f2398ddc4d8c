//! Providers in a configuration file.
//!
//! The fields of a file are those of [`Provider`], so that a new field is available in files at once. A file is read in two
//! steps: its fields are applied to the preset as JSON values, and the result is parsed as a provider, which reports unknown
//! fields and values of the wrong type.

use oauth_dance_core::Secret;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::config::client_key::ClientKey;
use crate::config::provider::Provider;
use crate::config::registration::{Registration, required_variable};
use crate::error::ConfigError;

/// Aliases of fields that a file may use.
const ALIASES: [(&str, &str); 7] = [
    ("request_token_url", "temporary_credentials_endpoint"),
    ("authorization_url", "authorization_endpoint"),
    ("token_url", "token_endpoint"),
    ("access_token_url", "token_endpoint"),
    ("revocation_url", "revocation_endpoint"),
    ("userinfo_url", "userinfo_endpoint"),
    ("base_url", "api_base"),
];
/// Fields of [`Provider::oauth1`], which are at the top level in a file.
const OF_OAUTH1: [&str; 3] = ["temporary_credentials_endpoint", "signature_method", "realm"];
/// Fields whose values in the file are added to those of the preset.
const ADDED: [&str; 5] = ["authorization_params", "api_headers", "dead_grants", "rejected_tokens", "oauth1"];

/// A [`Registration`] in a configuration file, in any format that serde reads. Use it to let operators add providers or
/// change clients without a new build.
///
/// It has the fields here, those of [`Provider`] with the same names, and `temporary_credentials_endpoint`,
/// `signature_method` and `realm` for OAuth 1.0a. With `preset`, they change that preset: `authorization_params`,
/// `api_headers`, `dead_grants` and `rejected_tokens` are added to its own, and all others replace its own. Without a
/// preset, `authorization_endpoint` and `token_endpoint` are required, or only `issuer` for an OpenID provider. Credentials
/// are in the file or, better, in environment variables that the file names.
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
///
/// A whole file is usually a map from the names of providers to their configuration:
///
/// ```
/// use std::collections::BTreeMap;
/// use oauth_dance::{KeyRing, MemoryStorage, OAuth, ProviderConfig};
///
/// let file = r#"{
///     "github": { "preset": "github", "client_id": "id", "client_secret": "secret" },
///     "acme": {
///         "authorization_endpoint": "https://acme.example/authorize",
///         "token_endpoint": "https://acme.example/token",
///         "api_base": "https://acme.example/api",
///         "client_id": "id"
///     }
/// }"#;
/// let mut builder = OAuth::builder("https://app.example", MemoryStorage::new(), KeyRing::generate()).anonymous_users();
/// for (name, config) in serde_json::from_str::<BTreeMap<String, ProviderConfig>>(file)? {
///     builder = builder.provider(config.registration(&name)?);
/// }
/// assert_eq!(builder.build()?.providers().count(), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct ProviderConfig {
    /// The [preset](crate::presets) to start from.
    pub preset: Option<String>,
    /// The value of the preset's placeholder `{host}` or `{tenant}`, if it has one.
    #[serde(alias = "tenant")]
    pub host: Option<String>,
    /// The client id, or the client key of OAuth 1.0a.
    #[serde(alias = "client_key")]
    pub client_id: Option<String>,
    /// The environment variable with the client id.
    pub client_id_env: Option<String>,
    /// The client secret. Without it and `client_secret_env`, the client is public.
    #[serde(deserialize_with = "secret")]
    pub client_secret: Option<Secret>,
    /// The environment variable with the client secret.
    pub client_secret_env: Option<String>,
    /// The key that Apple uses instead of a secret; see [`ClientKey::apple`].
    pub apple_key: Option<AppleKey>,
    /// See [`Registration::with_redirect_uri`].
    pub redirect_uri: Option<String>,
    /// The fields of the provider. Each of them has been parsed as a field of [`Provider`] once.
    #[serde(flatten, deserialize_with = "provider_fields")]
    fields: Map<String, Value>,
}

/// A [key for Sign in with Apple](ClientKey::apple) in a configuration file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct AppleKey {
    /// The team's identifier.
    pub team_id: String,
    /// The key's identifier.
    pub key_id: String,
    /// The environment variable with the content of the `.p8` file.
    pub private_key_env: String,
}

impl ProviderConfig {
    /// The registration of the provider that this application names `name`. The environment variables that the file names
    /// are read now.
    ///
    /// ```
    /// use oauth_dance::{ConfigError, ProviderConfig};
    ///
    /// let config: ProviderConfig = serde_json::from_str(r#"{ "preset": "git-hub", "client_id": "id" }"#)?;
    /// assert!(matches!(config.registration("work"), Err(ConfigError::UnknownPreset { preset, .. }) if preset == "git-hub"));
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ConfigError`], which names the provider and the field: a field is missing or invalid, there is no such preset, or
    /// an environment variable is not set.
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
        let client_key = self.apple_key.map(|key| {
            let private_key = required_variable(&key.private_key_env)?;
            Ok(ClientKey::apple(key.team_id, key.key_id, private_key))
        });
        let client_key = client_key.transpose()?;
        let provider = declared(name, self.preset, self.host, self.fields)?;
        Ok(Registration {
            client_secret,
            client_key,
            redirect_uri: self.redirect_uri,
            ..provider.public_client(client_id)
        })
    }
}

/// The provider with that name, as the file changes it.
fn declared(
    name: &str,
    preset: Option<String>,
    host: Option<String>,
    fields: Map<String, Value>,
) -> Result<Provider, ConfigError> {
    let has = |field: &str| fields.contains_key(field);
    let has_issuer = has("issuer");
    let is_issuer_alone = has_issuer && preset.is_none() && !has("authorization_endpoint") && !has("token_endpoint");
    let base = if is_issuer_alone && host.is_none() {
        Provider::openid(name, "")
    } else {
        Provider { name: name.to_owned(), ..base(name, preset, host)? }
    };
    let unreadable = |_| ConfigError::invalid(name, "provider", "has a field with a value of the wrong type");
    let provider = changed(base, fields).map_err(unreadable)?;
    let endpoints =
        [("authorization_endpoint", &provider.authorization_endpoint), ("token_endpoint", &provider.token_endpoint)];
    let of_oauth1 = provider.oauth1.as_ref().map(|oauth1| (OF_OAUTH1[0], &oauth1.temporary_credentials_endpoint));
    let required = endpoints.into_iter().filter(|_| !has_issuer).chain(of_oauth1);
    let missing = required.into_iter().find(|(_, endpoint)| endpoint.is_empty()).map(|(field, _)| field);
    missing.map_or(Ok(provider), |field| Err(ConfigError::missing(name, field)))
}

/// The provider with these fields in place of its own, or in addition to them.
fn changed(provider: Provider, fields: Map<String, Value>) -> serde_json::Result<Provider> {
    let mut changed = serde_json::to_value(provider)?;
    for (field, value) in fields {
        let is_added = ADDED.contains(&field.as_str());
        match (&mut changed[&field], value) {
            (Value::Object(own), Value::Object(more)) if is_added => own.extend(more),
            (Value::Array(own), Value::Array(more)) if is_added => own.extend(more),
            (own, value) => *own = value,
        }
    }
    serde_json::from_value(changed)
}

/// The provider to start from.
fn base(name: &str, preset: Option<String>, host: Option<String>) -> Result<Provider, ConfigError> {
    let no_place = ConfigError::invalid(name, "host", "has no placeholder in this preset, or there is no preset");
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

/// Reads the fields that are not the file's own, by their canonical names, each in the format of [`Provider`].
fn provider_fields<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Map<String, Value>, D::Error> {
    let (mut fields, mut oauth1) = (Map::new(), Map::new());
    for (name, value) in
        Map::<String, Value>::deserialize(deserializer)?.into_iter().filter(|(_, value)| !value.is_null())
    {
        let field = ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name.as_str(), |(_, field)| field);
        let fields = if OF_OAUTH1.contains(&field) { &mut oauth1 } else { &mut fields };
        if ["name", "oauth1"].contains(&field) {
            return Err(D::Error::custom(format_args!("unknown field `{field}`")));
        }
        if fields.insert(field.to_owned(), value).is_some() {
            return Err(D::Error::custom(format_args!("duplicate field `{field}`")));
        }
    }
    if !oauth1.is_empty() {
        fields.insert("oauth1".to_owned(), oauth1.into());
    }
    Provider::deserialize(Value::Object(fields.clone())).map_err(D::Error::custom)?;
    Ok(fields)
}

fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Secret>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.map(Secret::from))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::error_pattern::ErrorPattern;
    use crate::config::oauth1::SignatureMethod;
    use crate::config::provider::ClientAuthentication;

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
    fn the_key_for_apple_is_read_from_the_environment() {
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
    fn the_error_names_the_provider_and_the_field() {
        for (json, cause) in [
            (r#"{"client_id": "id"}"#, "provider acme: authorization_endpoint is missing"),
            (r#"{"client_id": "id", "authorization_endpoint": "https://a.example"}"#, "token_endpoint is missing"),
            (r#"{"preset": "github"}"#, "provider acme: client_id is missing"),
            (r#"{"preset": "unknown", "client_id": "id"}"#, "\"unknown\""),
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
    fn a_config_adds_patterns_of_a_dead_grant() {
        let dead = r#"[{"status": 403, "members": {"error": "gone", "details.reason": "revoked*"}}]"#;
        let registration = |preset: &str| {
            let json = format!(r#"{{"preset": "{preset}", "client_id": "id", "dead_grants": {dead}}}"#);
            config(&json).registration("acme").unwrap()
        };
        let expected = ErrorPattern::new([("error", "gone"), ("details.reason", "revoked*")]).with_status(403);
        assert_eq!(registration("google").provider.dead_grants, std::slice::from_ref(&expected));
        let github = registration("github").provider.dead_grants;
        assert!(github.len() == 2 && github.contains(&expected), "in addition to the preset's pattern");
        assert!(serde_json::from_str::<ProviderConfig>(r#"{"dead_grants": [{"member": {}}]}"#).is_err());
    }

    #[test]
    fn a_field_may_have_an_alias_but_occurs_once() {
        let twitch = |more: &str| {
            let json = format!(r#"{{"preset": "twitch", "client_id": "id", {more}}}"#);
            serde_json::from_str::<ProviderConfig>(&json).map(|config| config.registration("twitch").unwrap().provider)
        };
        let named =
            twitch(r#""base_url": "https://a.example", "scopes": null, "api_headers": {"x-more": "1"}"#).unwrap();
        assert_eq!(named.api_base.as_deref(), Some("https://a.example"));
        assert_eq!(named.scopes, crate::presets::Twitch::provider().scopes, "null leaves it unchanged");
        assert_eq!(named.api_headers.len(), crate::presets::Twitch::provider().api_headers.len() + 1);
        for wrong in [
            r#""base_url": "https://a.example", "api_base": "https://b.example""#,
            r#""name": "other""#,
            r#""oauth1": {"realm": "r"}"#,
            r#""scopes": "read""#,
            r#""quirks": {"unknown": true}"#,
        ] {
            assert!(twitch(wrong).is_err(), "{wrong}");
        }
    }

    /// A file can declare everything that a preset declares, without any difference.
    #[test]
    fn a_file_can_declare_every_field_of_a_provider() {
        for preset in crate::presets::names().filter_map(crate::presets::find) {
            let mut fields = serde_json::to_value(&preset).unwrap();
            let object = fields.as_object_mut().unwrap();
            let (name, oauth1) = (object.remove("name").unwrap(), object.remove("oauth1").unwrap());
            object.extend(oauth1.as_object().cloned().unwrap_or_default());
            object.insert("client_id".to_owned(), "id".into());
            let config: ProviderConfig = serde_json::from_value(fields).unwrap();
            assert_eq!(config.registration(name.as_str().unwrap()).unwrap().provider, preset);
        }
    }

    #[test]
    fn secrets_in_a_config_are_not_printed() {
        let config = config(r#"{"preset": "github", "client_id": "id", "client_secret": "CANARY"}"#);
        assert!(!format!("{config:?} {:?}", config.clone().registration("github").unwrap()).contains("CANARY"));
    }
}
