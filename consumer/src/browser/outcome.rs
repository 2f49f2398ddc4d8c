//! The outcome of a login, for callbacks that repeat it.
//!
//! Browsers and the pages of providers repeat callbacks: a double click, a restored tab, a connection that broke before the
//! response. The code is then spent, and redeeming it a second time would make the provider revoke the token. The outcome of
//! the first callback is therefore stored, sealed, and repeated instead. It contains what the browser needs and no token.

use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};

use super::anonymous::AnonymousUser;
use super::user::User;
use crate::error::LoginError;

/// If the cookies of a hook's response are longer than this together, they are not sent a second time.
const MAX_COOKIES: usize = 8 * 1024;

/// The outcome of a login, which is stored sealed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum LoginOutcome {
    Ended(Ended),
    Failed(Failed),
}

/// A successful login.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Ended {
    /// Where the browser is redirected.
    pub(crate) location: String,
    /// The `Set-Cookie` headers of the hook's response.
    pub(crate) cookies: Vec<String>,
    /// The anonymous user that the login created.
    pub(crate) browser: Option<AnonymousUser>,
    /// The owner of the token: identifier, tenant and account.
    pub(crate) user: Option<(String, Option<String>, Option<String>)>,
    pub(crate) is_stored: bool,
}

/// A failed login, with what its error page shows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Failed {
    Denied,
    IssuerMismatch { expected: String, found: Option<String> },
    NoUser,
    Provider { code: String, description: Option<String> },
    UserChanged,
    Other { message: String, status: u16 },
}

impl LoginOutcome {
    pub(crate) fn failed(error: &LoginError) -> Self {
        Self::Failed(match error {
            LoginError::Denied => Failed::Denied,
            LoginError::IssuerMismatch { expected, found } => {
                Failed::IssuerMismatch { expected: expected.clone(), found: found.clone() }
            }
            LoginError::NoUser => Failed::NoUser,
            LoginError::Provider { code, description } => {
                Failed::Provider { code: code.clone(), description: description.clone() }
            }
            LoginError::UserChanged => Failed::UserChanged,
            error => Failed::Other { message: error.to_string(), status: error.status().as_u16() },
        })
    }

    /// The error, if the login failed.
    #[cfg(test)]
    pub(crate) fn into_error(self) -> Option<LoginError> {
        match self {
            Self::Ended(_) => None,
            Self::Failed(failed) => Some(failed.into()),
        }
    }
}

impl From<Failed> for LoginError {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Denied => Self::Denied,
            Failed::IssuerMismatch { expected, found } => Self::IssuerMismatch { expected, found },
            Failed::NoUser => Self::NoUser,
            Failed::Provider { code, description } => Self::Provider { code, description },
            Failed::UserChanged => Self::UserChanged,
            Failed::Other { message, status } => {
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                Self::FailedBefore { message, status }
            }
        }
    }
}

impl Ended {
    /// The outcome of a login with this owner and response. A response other than a redirect cannot be repeated; then the
    /// browser is redirected to `next`.
    pub(crate) fn new(response: &Response, next: &str, user: Option<&User>) -> Self {
        let location = response.headers().get(header::LOCATION).filter(|_| response.status().is_redirection());
        let location = location.and_then(|location| location.to_str().ok()).unwrap_or(next).to_owned();
        let cookies = response.headers().get_all(header::SET_COOKIE).iter();
        let cookies: Vec<String> = cookies.filter_map(|cookie| cookie.to_str().ok().map(str::to_owned)).collect();
        let fits = cookies.iter().map(String::len).sum::<usize>() <= MAX_COOKIES;
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Self {
            location,
            cookies: if fits { cookies } else { Vec::new() },
            browser: None,
            user: user.map(|user| (user.id().to_owned(), owned(user.tenant()), owned(user.account()))),
            is_stored: false,
        }
    }

    /// The owner of the token.
    pub(crate) fn user(&self) -> Option<User> {
        let (id, tenant, account) = self.user.as_ref()?;
        let user = User::new(id);
        let user = tenant.iter().fold(user, User::in_tenant);
        Some(account.iter().fold(user, User::with_account))
    }

    /// The cookies of the hook's response, as headers.
    pub(crate) fn hook_cookies(&self) -> impl Iterator<Item = HeaderValue> {
        self.cookies.iter().filter_map(|cookie| HeaderValue::try_from(cookie).ok())
    }
}
