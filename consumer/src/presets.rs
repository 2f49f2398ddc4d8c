//! Providers that need no more than your client's credentials.
//!
//! Each type is both the preset and the name to ask an extractor for:
//!
//! ```no_run
//! use oauth_dance::presets::GitHub;
//! use oauth_dance::{ApiError, Connected};
//!
//! let registration = GitHub::provider().client_from_env()?;
//!
//! async fn handler(github: Connected<GitHub>) -> Result<String, ApiError> {
//!     github.get("/user").send().await?.text()
//! }
//! # let _ = (registration, handler);
//! # Ok::<(), oauth_dance::ConfigError>(())
//! ```

use crate::provider::{ClientAuthentication, Provider, ProviderName};

/// What differs between providers, as a table can hold it.
struct Preset {
    name: &'static str,
    title: &'static str,
    authorization_endpoint: &'static str,
    token_endpoint: &'static str,
    revocation_endpoint: Option<&'static str>,
    userinfo_endpoint: Option<&'static str>,
    api_base: &'static str,
    issuer: Option<&'static str>,
    scopes: &'static [&'static str],
    scope_separator: char,
    client_authentication: ClientAuthentication,
    authorization_params: &'static [(&'static str, &'static str)],
    api_headers: &'static [(&'static str, &'static str)],
}

impl Preset {
    const DEFAULT: Self = Self {
        name: "",
        title: "",
        authorization_endpoint: "",
        token_endpoint: "",
        revocation_endpoint: None,
        userinfo_endpoint: None,
        api_base: "",
        issuer: None,
        scopes: &[],
        scope_separator: ' ',
        client_authentication: ClientAuthentication::Basic,
        authorization_params: &[],
        api_headers: &[],
    };

    fn provider(&self) -> Provider {
        let mut provider = Provider::new(self.name, self.authorization_endpoint, self.token_endpoint);
        let pairs = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        provider.title = self.title.to_owned();
        provider.revocation_endpoint = self.revocation_endpoint.map(str::to_owned);
        provider.userinfo_endpoint = self.userinfo_endpoint.map(str::to_owned);
        provider.api_base = Some(self.api_base.to_owned());
        provider.issuer = self.issuer.map(str::to_owned);
        provider.scopes = self.scopes.iter().map(|scope| (*scope).to_owned()).collect();
        provider.scope_separator = self.scope_separator;
        provider.client_authentication = self.client_authentication;
        provider.authorization_params = pairs(self.authorization_params);
        provider.api_headers = pairs(self.api_headers);
        provider
    }
}

macro_rules! presets {
    ($($(#[$doc:meta])* $preset:ident { $($field:ident: $value:expr),* $(,)? })*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug)]
            pub struct $preset;

            impl $preset {
                const PRESET: Preset = Preset { $($field: $value,)* ..Preset::DEFAULT };

                /// The provider's data, to register a client with or to change first.
                pub fn provider() -> Provider {
                    Self::PRESET.provider()
                }
            }

            impl ProviderName for $preset {
                const NAME: &'static str = Self::PRESET.name;
            }
        )*

        const ALL: &[Preset] = &[$($preset::PRESET),*];
    };
}

presets! {
    /// [GitHub](https://docs.github.com/en/apps/oauth-apps/building-oauth-apps/authorizing-oauth-apps), OAuth apps and
    /// GitHub apps. Tokens of OAuth apps do not expire.
    GitHub {
        name: "github",
        title: "GitHub",
        authorization_endpoint: "https://github.com/login/oauth/authorize",
        token_endpoint: "https://github.com/login/oauth/access_token",
        userinfo_endpoint: Some("https://api.github.com/user"),
        api_base: "https://api.github.com",
        client_authentication: ClientAuthentication::Body,
        api_headers: &[("accept", "application/vnd.github+json")],
    }

    /// [Google](https://developers.google.com/identity/protocols/oauth2/web-server). It gives a refresh token only where
    /// `access_type=offline` is asked for, and again only where `prompt=consent` is; both are set here.
    Google {
        name: "google",
        title: "Google",
        authorization_endpoint: "https://accounts.google.com/o/oauth2/v2/auth",
        token_endpoint: "https://oauth2.googleapis.com/token",
        revocation_endpoint: Some("https://oauth2.googleapis.com/revoke"),
        userinfo_endpoint: Some("https://openidconnect.googleapis.com/v1/userinfo"),
        api_base: "https://www.googleapis.com",
        issuer: Some("https://accounts.google.com"),
        scopes: &["openid", "email", "profile"],
        authorization_params: &[("access_type", "offline"), ("prompt", "consent")],
    }
}

/// The names of all presets.
pub fn names() -> impl Iterator<Item = &'static str> {
    ALL.iter().map(|preset| preset.name)
}

/// The preset of that name, if there is one.
pub fn find(name: &str) -> Option<Provider> {
    ALL.iter().find(|preset| preset.name == name).map(Preset::provider)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use crate::registered::Registered;

    use super::*;

    #[test]
    fn every_preset_passes_the_checks_of_a_registration() {
        assert_eq!(names().collect::<HashSet<_>>().len(), ALL.len(), "names are unique");
        for preset in ALL {
            assert!(!preset.title.is_empty() && !preset.api_base.is_empty(), "{}", preset.name);
            let registration = preset.provider().client("id", "secret");
            Registered::check(registration, "https://app.example/callback").unwrap();
        }
    }
}
