use std::fmt;

use serde_json::{Map, Value};

use crate::dpop_key::DpopKey;
use crate::secret::Secret;
use crate::time::Timestamp;

/// The credentials that a provider issued to act on behalf of a user.
///
/// The type is not `Serialize` on purpose: only [`Tokens`](crate::Tokens) serializes it, sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Token {
    /// An access token of OAuth 2.0 (RFC 6749 section 5.1).
    OAuth2(OAuth2Token),
    /// Token credentials of OAuth 1.0a (RFC 5849 section 2.3).
    OAuth1(OAuth1Token),
}

impl Token {
    /// When the access token expires. `None` if the provider did not report it.
    pub fn expires_at(&self) -> Option<Timestamp> {
        match self {
            Self::OAuth2(token) => token.expires_at,
            Self::OAuth1(_) => None,
        }
    }

    /// The granted scopes. `None` if the provider did not report them, and always for OAuth 1.0a, which has no scopes.
    pub fn scope(&self) -> Option<&[String]> {
        self.as_oauth2()?.scope.as_deref()
    }

    /// The value that API requests carry: `access_token` or `oauth_token`.
    pub fn secret(&self) -> &Secret {
        match self {
            Self::OAuth2(token) => &token.access_token,
            Self::OAuth1(token) => &token.token,
        }
    }

    /// All other members of the token response, such as an id of the user.
    pub fn extra(&self) -> &Extra {
        match self {
            Self::OAuth2(token) => &token.extra,
            Self::OAuth1(token) => &token.extra,
        }
    }

    /// The token, if it is an OAuth 2.0 token.
    pub fn as_oauth2(&self) -> Option<&OAuth2Token> {
        match self {
            Self::OAuth2(token) => Some(token),
            Self::OAuth1(_) => None,
        }
    }

    /// The token, if it is an OAuth 1.0a token.
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

/// An OAuth 2.0 token response (RFC 6749 section 5.1). The relative `expires_in` is converted to an instant.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OAuth2Token {
    /// The access token.
    pub access_token: Secret,
    /// The token type in the notation of the provider: usually `Bearer`, or `DPoP` if the token is bound to a key.
    pub token_type: String,
    /// The refresh token, if the provider issued one.
    pub refresh_token: Option<Secret>,
    /// The OpenID Connect ID token as received. It was not necessarily verified.
    pub id_token: Option<Secret>,
    /// The subject of the verified ID token at the login that started this grant. If the issuer is empty, the account
    /// that the application identified.
    pub subject: Option<Subject>,
    /// The granted scopes. `None` if the provider did not report them.
    pub scope: Option<Vec<String>>,
    /// When the access token expires. `None` if the provider did not report it.
    pub expires_at: Option<Timestamp>,
    /// When the access token was received, on the clock of this application.
    pub issued_at: Option<Timestamp>,
    /// The key that the access token is bound to (RFC 9449). For a client without a secret, the refresh token is bound
    /// to it too.
    pub dpop_key: Option<DpopKey>,
    /// All other members of the token response.
    pub extra: Extra,
}

impl OAuth2Token {
    /// A bearer token without an expiry. Set the other fields as needed.
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

    /// Whether the access token has expired at this instant. `false` if the provider reported no expiry.
    pub fn is_expired_at(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|expiry| expiry <= now)
    }
}

/// A user at an OpenID provider. The pair is unique and is never reassigned (OpenID Connect Core section 5.7). The
/// struct is exhaustive, because these two claims alone identify a user.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Subject {
    /// The issuer (`iss`).
    pub issuer: String,
    /// The identifier of the user at the issuer (`sub`).
    pub subject: String,
}

/// Token credentials of OAuth 1.0a (RFC 5849 section 2.3). They have no expiry.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OAuth1Token {
    /// `oauth_token`.
    pub token: Secret,
    /// `oauth_token_secret`.
    pub token_secret: Secret,
    /// All other members of the token response.
    pub extra: Extra,
}

impl OAuth1Token {
    /// Credentials without extra members.
    pub fn new(token: impl Into<Secret>, token_secret: impl Into<Secret>) -> Self {
        Self { token: token.into(), token_secret: token_secret.into(), extra: Extra::default() }
    }
}

/// The members of a token response that no standard defines, unchanged.
///
/// `Debug` shows only their names, because some providers send further tokens here.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Extra(Map<String, Value>);

impl Extra {
    /// The value of a member.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// The names of all members.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// All members as a JSON object.
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
