use std::any::type_name;
use std::future::Future;
use std::marker::PhantomData;

use async_trait::async_trait;
use axum::extract::FromRequestParts;
use axum::response::IntoResponse;
use http::request::Parts;
use oauth_dance_core::{BoxError, KeyError, TokenKey};

/// Whose tokens: the application's own identifier of a user, and the tenant where it has several.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct User {
    id: String,
    tenant: Option<String>,
    account: Option<String>,
}

impl User {
    /// The user with this identifier. It is part of the storage key: use one that never changes and is never given
    /// to another user, such as a primary key; not an e-mail address.
    pub fn new(id: impl Into<String>) -> Self {
        Self { id: id.into(), tenant: None, account: None }
    }

    /// The user of that name in one tenant.
    #[must_use]
    pub fn in_tenant(self, tenant: impl Into<String>) -> Self {
        Self { tenant: Some(tenant.into()), ..self }
    }

    /// The same user with one of several accounts at a provider, under a name of the application's choice, such as the
    /// provider's own identifier of the account. Without one it is the only account.
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

    /// The tenant, where there is one.
    pub fn tenant(&self) -> Option<&str> {
        self.tenant.as_deref()
    }

    /// The account, where one of several is meant.
    pub fn account(&self) -> Option<&str> {
        self.account.as_deref()
    }

    /// Where this user's token of a provider is stored.
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

    /// Whose token a key is for.
    pub(crate) fn of(key: &TokenKey) -> Self {
        let [tenant, account] = [key.tenant(), key.account()].map(|part| part.map(str::to_owned));
        Self { id: key.user().to_owned(), tenant, account }
    }
}

/// Tells who is signed in to the application.
///
/// [`OAuthBuilder::user`](crate::OAuthBuilder::user) makes one from any axum extractor; implement it where that is not
/// enough.
#[async_trait]
pub trait Users: Send + Sync + 'static {
    /// The user of this request, or `None` for a visitor who is not signed in.
    ///
    /// # Errors
    /// If it cannot be told, because a session store is down for instance: the request fails, and is never taken for
    /// one of a visitor.
    async fn current(&self, parts: &mut Parts) -> Result<Option<User>, BoxError>;
}

/// The [`Users`] of an application whose authentication comes as an axum extractor.
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
impl<E, F, Answer> Users for ByExtractor<E, F>
where
    E: FromRequestParts<()> + Send + 'static,
    F: Fn(E) -> Answer + Send + Sync + 'static,
    Answer: Future<Output = Option<User>> + Send + 'static,
{
    async fn current(&self, parts: &mut Parts) -> Result<Option<User>, BoxError> {
        let refused = |rejection: E::Rejection| {
            let status = rejection.into_response().status();
            format!("the extractor {} refused the request with {status}", type_name::<E>())
        };
        let extracted = E::from_request_parts(parts, &()).await.map_err(refused)?;
        Ok((self.resolve)(extracted).await)
    }
}
