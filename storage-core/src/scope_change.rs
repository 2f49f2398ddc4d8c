//! Scopes that differ from the requested ones.

/// The difference between the granted and the requested scopes (RFC 6749 section 3.3).
///
/// Users may deselect a scope, and providers may grant more or fewer scopes than requested. Scopes are compared as
/// texts. If a provider reports a scope under another name than the requested one, the requested name is missing and
/// the reported name is additional.
///
/// ```
/// use oauth_dance_core::ScopeChange;
///
/// let requested = ["repo".to_owned(), "user".to_owned()];
/// let change = ScopeChange::between(&requested, Some(&["repo".to_owned(), "gist".to_owned()]));
/// assert_eq!(change.missing, ["user"]);
/// assert_eq!(change.additional, ["gist"]);
///
/// // A provider that reports no scope has granted the requested ones (RFC 6749 section 5.1).
/// assert!(ScopeChange::between(&requested, None).is_empty());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScopeChange {
    /// The scopes that were requested but not granted, in the order of the request.
    pub missing: Vec<String>,
    /// The scopes that were granted but not requested, in the order of the response.
    pub additional: Vec<String>,
}

impl ScopeChange {
    /// Computes the difference. `granted` is `None` if the provider did not report the scopes, which means that it
    /// granted the requested ones (RFC 6749 section 5.1).
    pub fn between(requested: &[String], granted: Option<&[String]>) -> Self {
        let Some(granted) = granted else { return Self::default() };
        let without = |scopes: &[String], others: &[String]| -> Vec<String> {
            scopes.iter().filter(|scope| !others.contains(scope)).cloned().collect()
        };
        Self { missing: without(requested, granted), additional: without(granted, requested) }
    }

    /// Whether there is no difference.
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.additional.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_compared_as_sets_of_texts() {
        let scopes = |text: &str| -> Vec<String> { text.split_whitespace().map(str::to_owned).collect() };
        for (requested, granted, missing, additional) in [
            ("a b", "a b", "", ""),
            ("a b", "b a a", "", ""),
            ("a b", "a", "b", ""),
            ("a", "a b c", "", "b c"),
            ("a b", "", "a b", ""),
            ("", "a", "", "a"),
            ("", "", "", ""),
            ("a b", "A b", "a", "A"),
        ] {
            let change = ScopeChange::between(&scopes(requested), Some(&scopes(granted)));
            assert_eq!((change.missing.join(" "), change.additional.join(" ")), (missing.into(), additional.into()));
            assert_eq!(change.is_empty(), missing.is_empty() && additional.is_empty());
        }
        assert!(ScopeChange::between(&scopes("a b"), None).is_empty());
    }
}
