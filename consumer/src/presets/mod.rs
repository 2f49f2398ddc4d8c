//! Providers that need only your client's credentials.
//!
//! A preset contains what a provider's documentation says and what other clients do in practice: its endpoints, the scope or
//! parameter that requests a refresh token, its departures from the standards ([`Quirks`](crate::Quirks)), and the errors
//! with which it reports a dead grant or a rejected token. It requests as few scopes as identify the user: set what your
//! application needs.
//!
//! Each type is both the preset and the type argument of an extractor:
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
//!
//! Some have a host of your own, a tenant or a sandbox. Each is plain data that you can change field by field, and can be
//! used twice, with two names:
//!
//! ```
//! use oauth_dance::presets::{GitLab, Microsoft, Salesforce};
//!
//! let public = GitLab::provider().client("id", "secret");
//! let work = GitLab::at("gitlab.example.com").named("work").with_scopes(["api"]).client("id", "secret");
//! let microsoft = Microsoft::tenant("contoso.onmicrosoft.com");
//! let mut sandbox = Salesforce::sandbox();
//! sandbox.authorization_params.insert("prompt".to_owned(), "login".to_owned());
//! # let _ = (public, work, microsoft, sandbox);
//! ```
//!
//! # If something differs
//!
//! Every field can be changed before the client is registered. If a provider has changed an endpoint, correct it in the
//! application, and report it:
//!
//! ```
//! use oauth_dance::presets::GitHub;
//!
//! let mut github = GitHub::provider().with_scopes(["repo", "read:org"]);
//! assert_eq!(github.token_endpoint, "https://github.com/login/oauth/access_token");
//! github.token_endpoint = "https://github.example/login/oauth/access_token".to_owned();
//! github.api_headers.insert("x-github-api-version".to_owned(), "2022-11-28".to_owned());
//! ```
//!
//! # By name
//!
//! If the provider is known only at run time, as in a configuration file or a command line, use [`find`] and
//! [`ProviderConfig`](crate::ProviderConfig).
//!
//! All presets are entries of one table, which
//! [Providers](https://github.com/oauth-dance/oauth-dance/blob/main/docs/providers.md) shows with the documentation that
//! each was checked against, and what that documentation does not confirm.

mod a_to_f;
mod dead_grants;
#[cfg(test)]
mod documentation;
pub(crate) mod file;
mod g_to_n;
mod known;
mod native;
mod o_to_z;
mod rejected_tokens;
mod table;
#[cfg(test)]
mod tests;

use self::table::Preset;
use crate::config::provider::Provider;

pub use self::a_to_f::{
    Apple, Asana, Atlassian, Authentiq, Bitbucket, Box, Dexcom, DigitalOcean, Discord, Dropbox, Facebook, Figma, Fitbit,
};
pub use self::g_to_n::{
    GitHub, GitHubEnterprise, GitLab, Google, Heroku, HubSpot, Intuit, Jira, Linear, LinkedIn, Mastodon, Meetup,
    Microsoft, Notion, Nylas,
};
pub use self::o_to_z::{
    Okta, OpenStreetMap, Orcid, Reddit, Salesforce, Shopify, Slack, Spotify, Strava, Trello, Tumblr, Twitch, X,
    XOAuth1, Xero, Zoho, Zoom,
};

/// The names of all presets, in alphabetical order, for a list in a configuration tool or an error message.
///
/// ```
/// use oauth_dance::presets;
///
/// let names: Vec<_> = presets::names().collect();
/// assert!(names.contains(&"github") && names.is_sorted());
/// assert!(names.iter().all(|name| presets::find(name).is_some()));
/// ```
pub fn names() -> impl Iterator<Item = &'static str> {
    all().map(|preset| preset.name)
}

/// The preset with that name, if there is one. If it has no default host, use [`find_at`].
///
/// ```
/// use oauth_dance::presets;
///
/// let github = presets::find("github").ok_or("no such preset")?;
/// assert_eq!(github, presets::GitHub::provider());
/// assert!(presets::find("git-hub").is_none());
/// # Ok::<(), &str>(())
/// ```
pub fn find(name: &str) -> Option<Provider> {
    all().find(|preset| preset.name == name).map(Preset::provider)
}

/// The preset with that name at this host, or for this tenant or shop, if there is one with such a placeholder. An invalid
/// host is rejected when the registration is checked.
///
/// ```
/// use oauth_dance::presets;
///
/// let gitlab = presets::find_at("gitlab", "gitlab.example.com").ok_or("no such preset")?;
/// assert_eq!(gitlab.token_endpoint, "https://gitlab.example.com/oauth/token");
/// // There is only one GitHub with this preset; GitHub Enterprise is another one.
/// assert!(presets::find_at("github", "github.example.com").is_none());
/// # Ok::<(), &str>(())
/// ```
pub fn find_at(name: &str, host: &str) -> Option<Provider> {
    all().find(|preset| preset.name == name)?.at(host)
}

fn all() -> impl Iterator<Item = &'static Preset> {
    [a_to_f::ALL, g_to_n::ALL, o_to_z::ALL].into_iter().flatten()
}
