use std::fmt;

use oauth_dance_core::Subject;
use serde_json::{Map, Value};

/// Who a user is at an OpenID provider, as a verified ID token says (OpenID Connect Core section 2).
///
/// The issuer and the subject together are who it is: both never change and are never given to another user (section
/// 5.7). Everything else may change hands, an e-mail address above all, so it is nothing to find an account by.
///
/// ```
/// use oauth_dance::{Authorized, BoxError, Decision, Hooks, User};
///
/// struct SignIn;
///
/// #[async_trait::async_trait]
/// impl Hooks for SignIn {
///     async fn authorized(&self, login: Authorized<'_>) -> Result<Decision, BoxError> {
///         let identity = login.identity.ok_or("the provider did not say who it is")?;
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
    /// Who says so: the claim `iss`.
    pub issuer: String,
    /// Who it is there: the claim `sub`.
    pub subject: String,
    /// All claims of the ID token.
    pub claims: Map<String, Value>,
}

impl Identity {
    #[cfg(any(feature = "oidc", test))]
    pub(crate) fn new(issuer: String, subject: String, claims: Map<String, Value>) -> Self {
        Self { issuer, subject, claims }
    }

    /// Issuer and subject in one text, which two identities never share: what to find an account by.
    pub fn account(&self) -> String {
        // An issuer is a URL, which has no space.
        format!("{} {}", self.issuer, self.subject)
    }

    /// The e-mail address, if the issuer says that it was seen to be this person's, and if it is one beyond doubt: plain
    /// ASCII with a single `@`.
    pub fn verified_email(&self) -> Option<&str> {
        let verified = match self.claims.get("email_verified")? {
            Value::Bool(verified) => *verified,
            // Apple and others write it as a text.
            Value::String(verified) => verified.eq_ignore_ascii_case("true"),
            _ => false,
        };
        let email = self.email().filter(|_| verified)?;
        let plain =
            email.bytes().all(|byte| byte.is_ascii_graphic()) && !email.contains(['"', '(', ')', ',', '<', '>']);
        let (local, domain) = email.split_once('@')?;
        (plain && !local.is_empty() && !domain.is_empty() && !domain.contains('@')).then_some(email)
    }

    /// The e-mail address as it came, which is not verified.
    pub fn email(&self) -> Option<&str> {
        self.text("email")
    }

    /// The name to show.
    pub fn name(&self) -> Option<&str> {
        self.text("name")
    }

    /// Who it is, without the claims.
    pub fn subject(&self) -> Subject {
        Subject { issuer: self.issuer.clone(), subject: self.subject.clone() }
    }

    fn text(&self, claim: &str) -> Option<&str> {
        self.claims.get(claim).and_then(Value::as_str)
    }
}

/// The subject in a claim. Some issuers number their users, and write it so.
pub(crate) fn subject_in(claim: &Value) -> Option<String> {
    match claim {
        Value::Number(number) if number.is_u64() => Some(number.to_string()),
        claim => claim.as_str().map(str::to_owned),
    }
}

/// Shows the names of the claims only.
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
    fn an_email_address_is_verified_beyond_doubt_or_not_at_all() {
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
