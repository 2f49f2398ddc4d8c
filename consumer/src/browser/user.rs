//! Who owns a token, and how an application says who is signed in.
//!
//! This crate has no user accounts. It needs one fact from the application, the identifier of the current user, and gets it
//! through one trait, so that sessions, frameworks and proxies are all the same to it.

use std::any::type_name;
use std::future::Future;
use std::marker::PhantomData;

use async_trait::async_trait;
use axum::extract::FromRequestParts;
use axum::response::IntoResponse;
use http::request::Parts;
use oauth_dance_core::{BoxError, KeyError, TokenKey};

/// The owner of a token: the application's own identifier of a user, and a tenant if the application has several.
///
/// ```
/// use oauth_dance::User;
///
/// let alice = User::new("42").in_tenant("acme-inc").with_account("alice@work");
/// assert_eq!((alice.id(), alice.tenant(), alice.account()), ("42", Some("acme-inc"), Some("alice@work")));
/// // Two users are the same if all three parts are. There is no hierarchy and no wildcard.
/// assert_ne!(alice, User::new("42").in_tenant("acme-inc"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct User {
    id: String,
    tenant: Option<String>,
    account: Option<String>,
}

impl User {
    /// The user with this identifier. It is part of the storage key: use an identifier that never changes and is never
    /// reused for another user, such as a primary key, not an email address.
    pub fn new(id: impl Into<String>) -> Self {
        Self { id: id.into(), tenant: None, account: None }
    }

    /// The user in one tenant, for an application in which identifiers are unique only within a tenant. Use the tenant's
    /// primary key, for the same reason as the user's.
    #[must_use]
    pub fn in_tenant(self, tenant: impl Into<String>) -> Self {
        Self { tenant: Some(tenant.into()), ..self }
    }

    /// The same user with one of several accounts at a provider, under a name that the application chooses, such as the
    /// provider's own identifier of the account. Without a name, it is the user's only account.
    ///
    /// ```
    /// # async fn example(oauth: oauth_dance::OAuth) -> Result<(), Box<dyn std::error::Error>> {
    /// use oauth_dance::User;
    ///
    /// let alice = User::new("alice");
    /// for account in oauth.accounts(&alice).await? {
    ///     let client = oauth.client(&account.provider, &account.user).await?;
    ///     let me: serde_json::Value = client.userinfo().send().await?.json()?;
    ///     println!("{} {:?}: {me}", account.provider, account.user.account());
    /// }
    /// let work = oauth.client("github", &alice.with_account("583231")).await?;
    /// # let _ = work;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_account(self, account: impl Into<String>) -> Self {
        Self { account: Some(account.into()), ..self }
    }

    /// The identifier.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The tenant, if any.
    pub fn tenant(&self) -> Option<&str> {
        self.tenant.as_deref()
    }

    /// The account, if one of several is meant.
    pub fn account(&self) -> Option<&str> {
        self.account.as_deref()
    }

    /// The key of this user's token at a provider, for calls of [`OAuth::tokens`](crate::OAuth::tokens) and of a storage.
    ///
    /// ```
    /// use oauth_dance::User;
    ///
    /// let key = User::new("alice").with_account("work").key("github")?;
    /// assert_eq!((key.user(), key.provider(), key.account()), ("alice", "github", Some("work")));
    /// assert!(User::new("").key("github").is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`KeyError::Empty`] if the identifier, the tenant or the account is empty.
    pub fn key(&self, provider: &str) -> Result<TokenKey, KeyError> {
        let mut key = TokenKey::new(provider, &self.id)?;
        if let Some(tenant) = &self.tenant {
            key = key.with_tenant(tenant)?;
        }
        if let Some(account) = &self.account {
            key = key.with_account(account)?;
        }
        Ok(key)
    }

    /// The owner of the token under a key.
    pub(crate) fn of(key: &TokenKey) -> Self {
        let [tenant, account] = [key.tenant(), key.account()].map(|part| part.map(str::to_owned));
        Self { id: key.user().to_owned(), tenant, account }
    }
}

/// Determines the signed-in user.
///
/// [`OAuthBuilder::user`](crate::OAuthBuilder::user) creates one from any axum extractor; implement it yourself if the
/// lookup can fail, or has state of its own:
///
/// ```
/// use std::collections::HashMap;
/// use http::request::Parts;
/// use oauth_dance::presets::GitHub;
/// use oauth_dance::{BoxError, KeyRing, MemoryStorage, OAuth, User, Users};
///
/// /// Identifies programs by their API keys.
/// struct ApiKeys(HashMap<String, String>);
///
/// #[async_trait::async_trait]
/// impl Users for ApiKeys {
///     async fn current(&self, parts: &mut Parts) -> Result<Option<User>, BoxError> {
///         let Some(key) = parts.headers.get("x-api-key") else { return Ok(None) };
///         // An error, so that a request with a wrong key is not handled as one of a visitor.
///         let owner = self.0.get(key.to_str()?).ok_or("unknown API key")?;
///         Ok(Some(User::new(owner)))
///     }
/// }
///
/// let keys = ApiKeys(HashMap::from([("k-1".to_owned(), "alice".to_owned())]));
/// let oauth = OAuth::builder("https://app.example", MemoryStorage::new(), KeyRing::generate())
///     .provider(GitHub::provider().client("id", "secret"))
///     .users(keys)
///     .build();
/// assert!(oauth.is_ok());
/// ```
#[async_trait]
pub trait Users: Send + Sync + 'static {
    /// The user of this request, or `None` for a visitor who is not signed in.
    ///
    /// It is called for every request to a login or callback route, and for every handler with a
    /// [`Connected`](crate::Connected) or [`Connections`](crate::Connections) argument. A login calls it twice, at its start
    /// and at its callback, and fails if the user has changed in between.
    ///
    /// # Errors
    /// If the user cannot be determined, for instance because a session store is unavailable. The request then fails; it is
    /// never handled as one of a visitor.
    async fn current(&self, parts: &mut Parts) -> Result<Option<User>, BoxError>;
}

/// The [`Users`] of an application that authenticates with an axum extractor.
pub(crate) struct ByExtractor<E, F> {
    resolve: F,
    extractor: PhantomData<fn(E)>,
}

impl<E, F> ByExtractor<E, F> {
    pub(crate) fn new(resolve: F) -> Self {
        Self { resolve, extractor: PhantomData }
    }
}

#[async_trait]
impl<E, F, Resolved> Users for ByExtractor<E, F>
where
    E: FromRequestParts<()> + Send + 'static,
    F: Fn(E) -> Resolved + Send + Sync + 'static,
    Resolved: Future<Output = Option<User>> + Send + 'static,
{
    async fn current(&self, parts: &mut Parts) -> Result<Option<User>, BoxError> {
        let refused = |rejection: E::Rejection| {
            let status = rejection.into_response().status();
            format!("the extractor {} rejected the request with status {status}", type_name::<E>())
        };
        let extracted = E::from_request_parts(parts, &()).await.map_err(refused)?;
        Ok((self.resolve)(extracted).await)
    }
}
