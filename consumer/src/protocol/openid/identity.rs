//! The verified identity of a user, as applications see it.

use std::fmt;

use oauth_dance_core::Subject;
use serde_json::{Map, Value};

/// The identity of a user at an OpenID provider, from a verified ID token (OpenID Connect Core section 2).
///
/// The issuer and the subject together identify the user: neither of them ever changes or is reassigned to another user
/// (section 5.7). Other claims, in particular the email address, may be reassigned, so do not look up accounts by them.
///
/// ```
/// use oauth_dance::{Authorized, BoxError, Decision, Hooks, User};
///
/// struct SignIn;
///
/// #[async_trait::async_trait]
/// impl Hooks for SignIn {
///     async fn authorized(&self, login: Authorized<'_>) -> Result<Decision, BoxError> {
///         let identity = login.identity.ok_or("the provider did not identify the user")?;
///         let account = identity.account();
///         // ... find or create the local user of this account, and sign them in ...
///         Ok(Decision::store().for_user(User::new(account)))
///     }
/// }
/// ```
#[cfg_attr(docsrs, doc(cfg(feature = "oidc")))]
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Identity {
    /// The issuer: the claim `iss`.
    pub issuer: String,
    /// The user's identifier at the issuer: the claim `sub`.
    pub subject: String,
    /// All claims of the ID token.
    pub claims: Map<String, Value>,
}

impl Identity {
    #[cfg(any(feature = "oidc", test))]
    pub(crate) fn new(issuer: String, subject: String, claims: Map<String, Value>) -> Self {
        Self { issuer, subject, claims }
    }

    /// The issuer and the subject as one text, which is unique to this identity: use it to look up an account. The issuer
    /// comes first and contains no space, so no two identities have the same text.
    pub fn account(&self) -> String {
        // An issuer is a URL, which has no space.
        format!("{} {}", self.issuer, self.subject)
    }

    /// The email address, if the issuer has verified that it belongs to this user, and if it is unambiguous: plain ASCII
    /// with a single `@`. `None` if `email_verified` is missing, as at issuers that do not verify addresses.
    ///
    /// Use it to fill in a profile or to send mail. To connect the identity to an existing account with the same address is
    /// safe only if you trust every configured issuer to verify addresses, and if the existing account's address was
    /// verified too.
    pub fn verified_email(&self) -> Option<&str> {
        let verified = match self.claims.get("email_verified")? {
            Value::Bool(verified) => *verified,
            // Apple and others send it as a string.
            Value::String(verified) => verified.eq_ignore_ascii_case("true"),
            _ => false,
        };
        let email = self.email().filter(|_| verified)?;
        let plain =
            email.bytes().all(|byte| byte.is_ascii_graphic()) && !email.contains(['"', '(', ')', ',', '<', '>']);
        let (local, domain) = email.split_once('@')?;
        (plain && !local.is_empty() && !domain.is_empty() && !domain.contains('@')).then_some(email)
    }

    /// The email address, which may not be verified: the user may have typed it. Show it, and decide nothing by it.
    pub fn email(&self) -> Option<&str> {
        self.text("email")
    }

    /// The name to display: the claim `name`, which most issuers include only with the scope `profile`. The user chooses it,
    /// so it is neither unique nor constant.
    pub fn name(&self) -> Option<&str> {
        self.text("name")
    }

    /// The issuer and the subject, without the claims.
    pub fn subject(&self) -> Subject {
        Subject { issuer: self.issuer.clone(), subject: self.subject.clone() }
    }

    fn text(&self, claim: &str) -> Option<&str> {
        self.claims.get(claim).and_then(Value::as_str)
    }
}

/// The subject in a claim. Some issuers have numeric identifiers, and send them as numbers.
pub(crate) fn subject_in(claim: &Value) -> Option<String> {
    match claim {
        Value::Number(number) if number.is_u64() => Some(number.to_string()),
        claim => claim.as_str().map(str::to_owned),
    }
}

/// Shows only the names of the claims.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("issuer", &self.issuer)
            .field("subject", &self.subject)
            .field("claims", &self.claims.keys().collect::<Vec<_>>())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_ambiguous_email_address_is_not_verified() {
        for (email, verified, expected) in [
            (json!("a@b.example"), json!(true), true),
            (json!("a@b.example"), json!("true"), true),
            (json!("a@b.example"), json!("True"), true),
            (json!("a@b.example"), json!("yes"), false),
            (json!("a@b.example"), json!({}), false),
            (json!("a@b.example"), json!("false"), false),
            (json!("a@b.example"), json!(false), false),
            (json!("a@b.example"), json!(1), false),
            (json!("a@b.example"), json!(null), false),
            (json!("a@evil.example@b.example"), json!(true), false),
            (json!("ａ@b.example"), json!(true), false),
            (json!("a@b.example "), json!(true), false),
            (json!("\"a\"@b.example"), json!(true), false),
            (json!("@b.example"), json!(true), false),
            (json!(["a@b.example"]), json!(true), false),
        ] {
            let claims = json!({ "email": email, "email_verified": verified });
            let Value::Object(claims) = claims else { panic!() };
            let identity = Identity::new("https://i.example".to_owned(), "s".to_owned(), claims);
            assert_eq!(identity.verified_email().is_some(), expected, "{email} {verified}");
            assert!(!format!("{identity:?}").contains("b.example"));
        }
    }
}
