//! Providers that need only your client's credentials.
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
//! All of them are entries of one table, which `docs/providers.md` shows with the documentation that each was checked
//! against.

mod a_to_f;
mod dead_grants;
#[cfg(test)]
mod documentation;
pub(crate) mod file;
mod g_to_n;
mod known;
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

/// The names of all presets, in alphabetical order.
pub fn names() -> impl Iterator<Item = &'static str> {
    all().map(|preset| preset.name)
}

/// The preset with that name, if there is one. If it has no default host, use [`find_at`].
pub fn find(name: &str) -> Option<Provider> {
    all().find(|preset| preset.name == name).map(Preset::provider)
}

/// The preset with that name at this host, or for this tenant or shop, if there is one with such a placeholder.
pub fn find_at(name: &str, host: &str) -> Option<Provider> {
    all().find(|preset| preset.name == name)?.at(host)
}

fn all() -> impl Iterator<Item = &'static Preset> {
    [a_to_f::ALL, g_to_n::ALL, o_to_z::ALL].into_iter().flatten()
}
