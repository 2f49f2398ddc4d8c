//! Tokens, as a provider issues them and an application uses them.
//!
//! Each secret is a [`Secret`], so that `Debug` of a token can be logged. The fields are public and the structs
//! non-exhaustive: an application can change a token, and a later release can add a field.

use std::fmt;

use serde_json::{Map, Value};

use crate::dpop_key::DpopKey;
use crate::secret::Secret;
use crate::time::Timestamp;

/// The credentials that a provider issued to act on behalf of a user.
///
/// The type is not `Serialize` on purpose: only [`Tokens`](crate::Tokens) serializes it, sealed.
///
/// ```
/// use oauth_dance_core::{OAuth1Token, OAuth2Token, Token};
///
/// let token = Token::from(OAuth2Token::bearer("gho_16C7e42F"));
/// assert_eq!(token.secret().expose(), "gho_16C7e42F");
/// assert!(token.as_oauth2().is_some());
/// assert!(!format!("{token:?}").contains("gho_"));
///
/// let token = Token::from(OAuth1Token::new("6253282-eWud", "kZ7u0uDK"));
/// assert_eq!(token.expires_at(), None);
/// ```
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

    /// The value that identifies the token in API requests: `access_token` or `oauth_token`. With OAuth 1.0a, a request
    /// also needs the token secret.
    pub fn secret(&self) -> &Secret {
        match self {
            Self::OAuth2(token) => &token.access_token,
            Self::OAuth1(token) => &token.token,
        }
    }

    /// The other members of the token response, such as an id of the user.
    pub fn extra(&self) -> &Extra {
        match self {
            Self::OAuth2(token) => &token.extra,
            Self::OAuth1(token) => &token.extra,
        }
    }

    /// The token of OAuth 2.0. `None` if it is a token of OAuth 1.0a.
    pub fn as_oauth2(&self) -> Option<&OAuth2Token> {
        match self {
            Self::OAuth2(token) => Some(token),
            Self::OAuth1(_) => None,
        }
    }

    /// The token credentials of OAuth 1.0a. `None` if it is a token of OAuth 2.0.
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

/// A token response of OAuth 2.0 (RFC 6749 section 5.1). The relative `expires_in` is converted to an instant.
///
/// ```
/// use std::time::Duration;
///
/// use oauth_dance_core::{Clock, OAuth2Token};
///
/// let now = Clock::system().now();
/// let mut token = OAuth2Token::bearer("ya29.a0AfH6SM");
/// token.refresh_token = Some("1//0gK8".into());
/// token.issued_at = Some(now);
/// token.expires_at = Some(now.saturating_add(Duration::from_secs(3599)));
/// assert!(!token.is_expired_at(now));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OAuth2Token {
    /// The access token.
    pub access_token: Secret,
    /// The token type in the notation of the provider: usually `Bearer`, or `DPoP` if the token is bound to a key.
    pub token_type: String,
    /// The refresh token, if the provider issued one.
    pub refresh_token: Option<Secret>,
    /// The ID token of OpenID Connect as it was received. It has not necessarily been verified, so use
    /// [`subject`](Self::subject) to identify the user.
    pub id_token: Option<Secret>,
    /// The subject of the verified ID token at the login that started this grant. If the issuer is empty, it is the
    /// account that the application has identified.
    pub subject: Option<Subject>,
    /// The granted scopes. `None` if the provider did not report them.
    pub scope: Option<Vec<String>>,
    /// When the access token expires. `None` if the provider did not report it.
    pub expires_at: Option<Timestamp>,
    /// When the access token was received, on the clock of this application.
    pub issued_at: Option<Timestamp>,
    /// The key that the access token is bound to (RFC 9449). The refresh token of a client without a secret is bound to
    /// the same key.
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
/// An application may add members of its own. A refresh retains them, unless the provider's response replaces them. A
/// member that is nested more than 120 levels deep is not stored.
/// `Debug` shows only the names of the members, because some providers send further tokens in them.
///
/// ```
/// use oauth_dance_core::Extra;
///
/// let response = serde_json::json!({"instance_url": "https://eu1.example.com", "bot_token": "xoxb-17653"});
/// let extra = Extra::from(response.as_object().expect("an object").clone());
/// assert_eq!(extra.get("instance_url").and_then(|url| url.as_str()), Some("https://eu1.example.com"));
/// assert!(!format!("{extra:?}").contains("xoxb"));
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Extra(Map<String, Value>);

impl Extra {
    /// The value of a member. `None` if the response did not contain it.
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
