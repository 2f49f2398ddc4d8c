//! The settings of the demo, from the command line and the config file.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::time::Duration;

use oauth_dance::{ProviderConfig, Registration};
use serde::Deserialize;

use super::{DemoError, Options};
use crate::keys::AgeArgs;

/// The settings of the demo, with defaults filled in.
pub(super) struct Config {
    pub(super) storage: String,
    pub(super) listen: SocketAddr,
    pub(super) base_url: Option<String>,
    pub(super) key_file: PathBuf,
    pub(super) age: AgeArgs,
    pub(super) timeout: Option<Duration>,
    pub(super) dangerously_allow_http: Vec<String>,
    pub(super) providers: Vec<Registration>,
}

/// The config file. Options of the command line override it.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    storage: Option<String>,
    listen: Option<SocketAddr>,
    base_url: Option<String>,
    key_file: Option<PathBuf>,
    /// The timeout in seconds.
    timeout: Option<NonZero<u32>>,
    dangerously_allow_http: Vec<String>,
    providers: BTreeMap<String, ProviderConfig>,
}

impl Config {
    /// Reads the config file, and applies the options of the command line.
    pub(super) fn load(options: Options) -> Result<Self, DemoError> {
        let file = match &options.config {
            Some(path) => File::read(path)?,
            None => File::default(),
        };
        let providers = file.providers.into_iter().map(|(name, provider)| provider.registration(&name));
        Ok(Self {
            storage: options.storage.or(file.storage).unwrap_or_else(|| "sqlite:oauth-dance.sqlite".to_owned()),
            listen: options.listen.or(file.listen).unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 3000))),
            base_url: options.base_url.or(file.base_url),
            key_file: options.key_file.or(file.key_file).unwrap_or_else(|| PathBuf::from("oauth-dance.key")),
            age: options.age,
            timeout: options.timeout.or(file.timeout).map(seconds),
            dangerously_allow_http: [options.dangerously_allow_http, file.dangerously_allow_http].concat(),
            providers: providers.collect::<Result<_, _>>()?,
        })
    }
}

fn seconds(seconds: NonZero<u32>) -> Duration {
    Duration::from_secs(seconds.get().into())
}

impl File {
    fn read(path: &Path) -> Result<Self, DemoError> {
        let wrong = |problem: String| DemoError::Config { path: path.to_owned(), problem };
        let text = fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        let file: Self = toml::from_str(&text).map_err(|error| {
            // The full message of the parser quotes the line, which may contain a client secret.
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            wrong(format!("line {}: {}", before.matches('\n').count() + 1, error.message()))
        })?;
        if file.providers.is_empty() {
            return Err(wrong("the config names no provider; add a table [providers.NAME]".to_owned()));
        }
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn load(text: &str) -> Result<Config, DemoError> {
        let path = std::env::temp_dir()
            .join(format!("oauth-dance-config-{:x}", u128::from_le_bytes(oauth_dance_core::random_bytes())));
        fs::File::create(&path).unwrap().write_all(text.as_bytes()).unwrap();
        let loaded = Config::load(Options { config: Some(path.clone()), ..Options::default() });
        fs::remove_file(path).unwrap();
        loaded
    }

    #[test]
    fn providers_and_settings_are_read() {
        let config = load(
            "listen = \"127.0.0.1:0\"\nstorage = \"memory:\"\n[providers.github]\npreset = \"github\"\n\
             client_id = \"id\"\nclient_secret = \"s\"\n[providers.acme]\nauthorization_endpoint = \"https://a.example/a\"\n\
             token_endpoint = \"https://a.example/t\"\nclient_id = \"id\"\n[providers.acme.authorization_params]\nprompt = \"x\"\n",
        )
        .unwrap();
        assert_eq!(config.storage, "memory:");
        assert_eq!(config.providers.iter().map(Registration::name).collect::<Vec<_>>(), ["acme", "github"]);
    }

    #[test]
    fn timeouts_and_plain_http_can_be_set() {
        let text = "timeout = 7\ndangerously_allow_http = [\"keycloak\"]\n[providers.x]\npreset = \"github\"\nclient_id = \"i\"\n";
        let config = load(text).unwrap();
        assert_eq!(config.timeout, Some(Duration::from_secs(7)));
        assert_eq!(config.dangerously_allow_http, ["keycloak"]);

        let timeout = NonZero::new(3);
        let options = Options { timeout, dangerously_allow_http: vec!["nas".to_owned()], ..Options::default() };
        let config = Config::load(options).unwrap();
        assert_eq!(config.timeout, Some(Duration::from_secs(3)));
        assert_eq!(config.dangerously_allow_http, ["nas"]);
    }

    #[test]
    fn errors_are_one_line_without_secrets_if_config_is_wrong() {
        for (text, cause) in [
            ("", "names no provider"),
            ("[providers.x]\npreset = \"github\"\n", "client_id is missing"),
            ("[providers.x]\npreset = 7\n", "line 2: invalid type"),
            ("[providers.x]\nclient_secert = \"CANARY\"\n", "unknown field `client_secert`"),
            ("[providers.x]\nclient_secret = CANARY\n", "line 2:"),
            ("listen = \"here\"\n", "line 1:"),
            ("timeout = 0\n", "line 1: invalid value"),
            ("timeout = \"soon\"\n", "line 1: invalid type"),
            ("timeout = -1\n", "line 1: invalid value"),
            ("[providers", "line 1:"),
        ] {
            let error = load(text).err().expect(text).to_string();
            assert!(error.contains(cause), "{error}");
            assert!(!error.contains('\n') && !error.contains("CANARY"), "{error}");
        }
    }

    #[test]
    fn every_config_is_valid_or_an_error_of_one_line() {
        oauth_dance_fuzz::check_some("demo_config", 200, Vec::new(), |bytes| {
            if let Err(error) = load(&String::from_utf8_lossy(bytes)) {
                assert!(!error.to_string().contains('\n'), "{error}");
            }
        });
    }
}
