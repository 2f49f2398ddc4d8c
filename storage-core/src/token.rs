use std::fmt;

use serde_json::{Map, Value};

use crate::dpop_key::DpopKey;
use crate::secret::Secret;
use crate::time::Timestamp;

/// What a provider gave us to act for a user.
///
/// It is deliberately not `Serialize`: only [`Tokens`](crate::Tokens) writes it out, sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Token {
    /// An access token of OAuth 2.0 (RFC 6749 section 5.1).
    OAuth2(OAuth2Token),
    /// Token credentials of OAuth 1.0a (RFC 5849 section 2.3).
    OAuth1(OAuth1Token),
}

impl Token {
    /// When the access token expires, as far as the provider said.
    pub fn expires_at(&self) -> Option<Timestamp> {
        match self {
            Self::OAuth2(token) => token.expires_at,
            Self::OAuth1(_) => None,
        }
    }

    /// The scopes that were granted; `None` if the provider did not say, and always for OAuth 1.0a, which has none.
    pub fn scope(&self) -> Option<&[String]> {
        self.as_oauth2()?.scope.as_deref()
    }

    /// What is sent to act for the user: `access_token` or `oauth_token`.
    pub fn secret(&self) -> &Secret {
        match self {
            Self::OAuth2(token) => &token.access_token,
            Self::OAuth1(token) => &token.token,
        }
    }

    /// Everything else the provider sent with the token, such as who the user is.
    pub fn extra(&self) -> &Extra {
        match self {
            Self::OAuth2(token) => &token.extra,
            Self::OAuth1(token) => &token.extra,
        }
    }

    /// The OAuth 2.0 token, if it is one.
    pub fn as_oauth2(&self) -> Option<&OAuth2Token> {
        match self {
            Self::OAuth2(token) => Some(token),
            Self::OAuth1(_) => None,
        }
    }

    /// The OAuth 1.0a token, if it is one.
    pub fn as_oauth1(&self) -> Option<&OAuth1Token> {
        match self {
            Self::OAuth1(token) => Some(token),
            Self::OAuth2(_) => None,
        }
    }
}

impl From<OAuth2Token> for Token {
    fn from(token: OAuth2Token) -> Self {
        Self::OAuth2(token)
    }
}

impl From<OAuth1Token> for Token {
    fn from(token: OAuth1Token) -> Self {
        Self::OAuth1(token)
    }
}

/// An OAuth 2.0 token response, with the relative `expires_in` turned into an instant (RFC 6749 section 5.1).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OAuth2Token {
    /// The access token.
    pub access_token: Secret,
    /// How to present it, as the provider wrote it; usually `Bearer`, and `DPoP` where it is bound to a key.
    pub token_type: String,
    /// What to refresh it with, where the provider gave one.
    pub refresh_token: Option<Secret>,
    /// The OpenID Connect ID token, as received. Nothing here says that it was verified.
    pub id_token: Option<Secret>,
    /// Whom an ID token that was verified named when this token's grant began; or, with an empty issuer, the account that
    /// the application named.
    pub subject: Option<Subject>,
    /// The scopes that were granted; `None` if the provider did not say.
    pub scope: Option<Vec<String>>,
    /// When the access token expires; `None` if the provider did not say.
    pub expires_at: Option<Timestamp>,
    /// When the access token was received, on this application's clock.
    pub issued_at: Option<Timestamp>,
    /// The key that the access token is bound to (RFC 9449), and the refresh token of a client without a secret.
    pub dpop_key: Option<DpopKey>,
    /// Everything else the provider sent.
    pub extra: Extra,
}

impl OAuth2Token {
    /// A bearer token that does not expire, to be filled in field by field.
    pub fn bearer(access_token: impl Into<Secret>) -> Self {
        Self {
            access_token: access_token.into(),
            token_type: "Bearer".to_owned(),
            refresh_token: None,
            id_token: None,
            subject: None,
            scope: None,
            expires_at: None,
            issued_at: None,
            dpop_key: None,
            extra: Extra::default(),
        }
    }

    /// Whether the access token has expired at this instant, as far as the provider said.
    pub fn is_expired_at(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|expiry| expiry <= now)
    }
}

/// Somebody at a provider: the two together are never given to anybody else (OpenID Connect Core section 5.7).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Subject {
    /// The issuer, `iss`.
    pub issuer: String,
    /// Who it is there, `sub`.
    pub subject: String,
}

/// Token credentials of OAuth 1.0a (RFC 5849 section 2.3). They do not expire by themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OAuth1Token {
    /// `oauth_token`.
    pub token: Secret,
    /// `oauth_token_secret`.
    pub token_secret: Secret,
    /// Everything else the provider sent.
    pub extra: Extra,
}

impl OAuth1Token {
    /// The credentials alone.
    pub fn new(token: impl Into<Secret>, token_secret: impl Into<Secret>) -> Self {
        Self { token: token.into(), token_secret: token_secret.into(), extra: Extra::default() }
    }
}

/// Members of a token response that no standard names, kept as they came.
///
/// `Debug` shows their names only: providers put tokens of other kinds in here.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Extra(Map<String, Value>);

impl Extra {
    /// The value of one member.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// The names of all members.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// All members as the JSON object they are.
    pub fn as_map(&self) -> &Map<String, Value> {
        &self.0
    }
}

impl From<Map<String, Value>> for Extra {
    fn from(members: Map<String, Value>) -> Self {
        Self(members)
    }
}

impl fmt::Debug for Extra {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}
