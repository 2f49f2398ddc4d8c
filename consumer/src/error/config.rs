//! Errors of the configuration, for the person who starts the application.
//!
//! Each names the provider and the field, in the words of the configuration, so that the text is enough to correct it.

use oauth_dance_core::BoxError;

/// Why [`OAuthBuilder::build`](crate::OAuthBuilder::build) rejects a configuration. Exit and show the message: a
/// configuration with one of these errors cannot work.
///
/// ```
/// use oauth_dance::presets::GitHub;
/// use oauth_dance::{KeyRing, MemoryStorage, OAuth};
///
/// let error = OAuth::builder("https://app.example", MemoryStorage::new(), KeyRing::generate())
///     .provider(GitHub::provider().client("", "secret"))
///     .anonymous_users()
///     .build()
///     .unwrap_err();
/// assert_eq!(error.to_string(), "provider github: client_id is missing");
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A required field of a provider is missing.
    #[error("provider {provider}: {field} is missing")]
    Missing {
        /// The provider's name.
        provider: String,
        /// The field.
        field: &'static str,
    },
    /// A field of a provider has an invalid value.
    #[error("provider {provider}: {field} {problem}")]
    Invalid {
        /// The provider's name.
        provider: String,
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Two registrations have the same name.
    #[error("two providers are named {provider}; rename one of them")]
    DuplicateProvider {
        /// The name.
        provider: String,
    },
    /// There is no preset with that name.
    #[error("provider {provider}: there is no preset {preset:?}")]
    UnknownPreset {
        /// The provider's name.
        provider: String,
        /// The name of the preset.
        preset: String,
    },
    /// An environment variable for a credential is not set.
    #[error("the environment variable {variable} is not set")]
    MissingVariable {
        /// Its name.
        variable: String,
    },
    /// The storage that was given as a ledger has no atomic writes, so it cannot determine which of two requests was
    /// first.
    #[error("{storage} cannot be a ledger, because it has no atomic writes")]
    Ledger {
        /// Its name.
        storage: &'static str,
    },
    /// The application's own base URL is invalid.
    #[error("the base URL {problem}")]
    BaseUrl {
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A host that was given to [`OAuthBuilder::dangerously_allow_http`](crate::OAuthBuilder::dangerously_allow_http) is
    /// invalid.
    #[error(
        "{host:?} is not a host that can be reached by plain http; give the name or address of one host, without scheme, port or path"
    )]
    PlainHttpHost {
        /// What was given.
        host: String,
    },
    /// A path setting is invalid.
    #[error(
        "the {which} path must start with / and contain {{provider}} as a whole segment, and nothing else in braces"
    )]
    Path {
        /// Which path.
        which: &'static str,
    },
    /// Two routes would have the same path.
    #[error("the callback path {path} is already the path of another route")]
    SamePath {
        /// The path.
        path: String,
    },
    /// No source of users is configured.
    #[error("no user source is configured; call `user`, `users` or `anonymous_users` on the builder")]
    NoUsers,
    /// The HTTP client could not be created.
    #[error("the HTTP client could not be created")]
    Http(#[source] BoxError),
}

impl ConfigError {
    pub(crate) fn missing(provider: &str, field: &'static str) -> Self {
        Self::Missing { provider: provider.to_owned(), field }
    }

    pub(crate) fn invalid(provider: &str, field: &'static str, problem: &'static str) -> Self {
        Self::Invalid { provider: provider.to_owned(), field, problem }
    }
}
