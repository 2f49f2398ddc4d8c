use oauth_dance_core::BoxError;

/// Why [`OAuthBuilder::build`](crate::OAuthBuilder::build) refuses a configuration.
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
    /// A field of a provider has a value that cannot be used.
    #[error("provider {provider}: {field} {problem}")]
    Invalid {
        /// The provider's name.
        provider: String,
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Two registrations have one name.
    #[error("two providers are called {provider}; name one of them differently")]
    DuplicateProvider {
        /// The name.
        provider: String,
    },
    /// There is no preset of that name.
    #[error("provider {provider}: there is no preset {preset:?}")]
    UnknownPreset {
        /// The provider's name.
        provider: String,
        /// The preset asked for.
        preset: String,
    },
    /// An environment variable that should hold a credential is not set.
    #[error("the environment variable {variable} is not set")]
    MissingVariable {
        /// Its name.
        variable: String,
    },
    /// The storage given as a ledger cannot keep two requests apart.
    #[error("{storage} cannot be a ledger, for it has no atomic writes")]
    Ledger {
        /// Its name.
        storage: &'static str,
    },
    /// The application's own base URL cannot be used.
    #[error("the base URL {problem}")]
    BaseUrl {
        /// What is wrong with it.
        problem: &'static str,
    },
    /// What was given to [`OAuthBuilder::dangerously_allow_http`](crate::OAuthBuilder::dangerously_allow_http) is no host.
    #[error(
        "{host:?} cannot be allowed plain http; give the name or address of one host, without scheme, port and path"
    )]
    PlainHttpHost {
        /// What was given.
        host: String,
    },
    /// A path setting cannot be used.
    #[error(
        "the {which} path must start with / and have {{provider}} as one of its segments, and nothing else in braces"
    )]
    Path {
        /// Which path.
        which: &'static str,
    },
    /// Two routes would have the same path.
    #[error("the callback path {path} is another route's already")]
    SamePath {
        /// The path.
        path: String,
    },
    /// No source of users is configured.
    #[error("no user source is configured; call `user`, `users` or `anonymous_users` on the builder")]
    NoUsers,
    /// The HTTP client could not be set up.
    #[error("the HTTP client could not be set up")]
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
