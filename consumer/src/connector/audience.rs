//! What a token is requested for.

use std::collections::BTreeSet;
use std::sync::Arc;

use url::Url;

use crate::config::endpoint::{PlainHttp, parse_endpoint};
use crate::error::ConfigError;

/// What a token is requested for, as an argument of [`Connector::client_credentials_for`] and [`Connector::exchange`]: an
/// audience, resources and scopes, of which a server may need any, and the API to call with it.
///
/// The default names nothing, so the server decides. Tokens for different audiences, resources and scopes are stored
/// separately. The order of the scopes does not matter.
///
/// ```
/// use oauth_dance::Audience;
///
/// let billing = Audience::new("billing").with_scopes(["invoices:read"]).with_api_base("https://billing.example/v1");
/// // A server that names APIs by their URLs (RFC 8707):
/// let reports = Audience::default().with_resource("https://reports.example/");
/// # let _ = (billing, reports);
/// ```
///
/// [`Connector::client_credentials_for`]: crate::Connector::client_credentials_for
/// [`Connector::exchange`]: crate::Connector::exchange
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Audience {
    name: Option<String>,
    resources: Vec<String>,
    scopes: BTreeSet<String>,
    api_base: Option<String>,
}

impl Audience {
    /// The audience with this name: the logical name of a service, as the server knows it (RFC 8693 section 2.1). It is the
    /// parameter `audience`, which several servers also have for client credentials.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: Some(name.into()), ..Self::default() }
    }

    /// Adds a resource: the absolute URL of a service (RFC 8707 section 2).
    pub fn with_resource(mut self, url: impl Into<String>) -> Self {
        self.resources.push(url.into());
        self
    }

    /// Sets the scopes. Without any, the server decides (RFC 6749 section 3.3).
    pub fn with_scopes<S: Into<String>>(self, scopes: impl IntoIterator<Item = S>) -> Self {
        Self { scopes: scopes.into_iter().map(Into::into).collect(), ..self }
    }

    /// Sets the URL that paths of calls are appended to, instead of the provider's [API
    /// base](crate::Provider::api_base). The token is then sent to this origin only, and not to the provider's, and
    /// this origin does not receive the provider's [usual headers](crate::Provider::api_headers).
    pub fn with_api_base(self, url: impl Into<String>) -> Self {
        Self { api_base: Some(url.into()), ..self }
    }

    /// The parameters of a token request.
    pub(super) fn parameters<'a>(&'a self, scope: &'a str) -> impl Iterator<Item = (&'static str, &'a str)> {
        let name = self.name.iter().map(|name| ("audience", name.as_str()));
        let resources = self.resources.iter().map(|resource| ("resource", resource.as_str()));
        name.chain(resources).chain(Some(("scope", scope)).filter(|_| !scope.is_empty()))
    }

    /// The scopes, joined.
    pub(super) fn scope(&self, separator: char) -> String {
        let scopes: Vec<&str> = self.scopes.iter().map(String::as_str).collect();
        scopes.join(&separator.to_string())
    }

    /// Everything that distinguishes tokens, each part with its length.
    pub(super) fn encoded(&self) -> Vec<u8> {
        let scopes: Vec<&str> = self.scopes.iter().map(String::as_str).collect();
        let resources: Vec<&str> = self.resources.iter().map(String::as_str).collect();
        let mut encoded = Vec::new();
        for list in [self.name.as_deref().as_slice(), &resources, &scopes] {
            encoded.extend((list.len() as u64).to_be_bytes());
            for text in list {
                encoded.extend((text.len() as u64).to_be_bytes());
                encoded.extend(text.as_bytes());
            }
        }
        encoded
    }

    /// The API base, if there is one.
    pub(super) fn checked_api_base(
        &self,
        provider: &str,
        plain_http: &PlainHttp,
    ) -> Result<Option<Arc<Url>>, ConfigError> {
        let parsed = self.api_base.as_deref().map(|url| parse_endpoint(url, plain_http)).transpose();
        let parsed = parsed.map_err(|problem| ConfigError::invalid(provider, "api_base", problem))?;
        Ok(parsed.map(Arc::new))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_difference_in_a_request_is_another_token() {
        let all = [
            Audience::default(),
            Audience::new(""),
            Audience::new("a"),
            Audience::new("ab"),
            Audience::new("a").with_scopes(["b"]),
            Audience::new("a").with_resource("b"),
            Audience::default().with_resource("a"),
            Audience::default().with_resource("a").with_resource("b"),
            Audience::default().with_resource("ab"),
            Audience::default().with_scopes(["a"]),
            Audience::default().with_scopes(["a", "b"]),
            Audience::default().with_scopes(["a b"]),
        ];
        let encoded: BTreeSet<_> = all.iter().map(Audience::encoded).collect();
        assert_eq!(encoded.len(), all.len());
        let [one, other] = [["a", "b"], ["b", "a"]].map(|scopes| Audience::default().with_scopes(scopes));
        assert_eq!(one.encoded(), other.encoded());
        assert_eq!(one.encoded(), one.with_api_base("https://a.example").encoded());
    }

    #[test]
    fn an_api_base_must_be_safe_for_tokens() {
        let check = |url: &str| Audience::default().with_api_base(url).checked_api_base("acme", &PlainHttp::default());
        assert!(check("https://billing.example/v1").unwrap().is_some());
        for bad in ["", "billing", "http://billing.example", "https://u:p@billing.example", "ftp://billing.example"] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
