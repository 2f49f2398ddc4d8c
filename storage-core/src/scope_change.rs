/// How the scopes that were granted differ from those that were asked for (RFC 6749 section 3.3).
///
/// Users may untick a scope, and providers grant more or less than asked. Scopes are compared as they are written: a provider
/// that answers with other names for the same scopes differs in both ways.
///
/// ```
/// use oauth_dance_core::ScopeChange;
///
/// let asked = ["repo".to_owned(), "user".to_owned()];
/// let change = ScopeChange::between(&asked, Some(&["repo".to_owned(), "gist".to_owned()]));
/// assert_eq!(change.missing, ["user"]);
/// assert_eq!(change.additional, ["gist"]);
///
/// // A provider that does not say has granted what was asked for (RFC 6749 section 5.1).
/// assert!(ScopeChange::between(&asked, None).is_empty());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScopeChange {
    /// What was asked for and not granted, in the order it was asked for.
    pub missing: Vec<String>,
    /// What was granted and not asked for, in the order it was granted.
    pub additional: Vec<String>,
}

impl ScopeChange {
    /// What differs. `granted` is `None` where the provider did not say, and then nothing does.
    pub fn between(asked: &[String], granted: Option<&[String]>) -> Self {
        let Some(granted) = granted else { return Self::default() };
        let without = |scopes: &[String], others: &[String]| -> Vec<String> {
            scopes.iter().filter(|scope| !others.contains(scope)).cloned().collect()
        };
        Self { missing: without(asked, granted), additional: without(granted, asked) }
    }

    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.additional.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_compared_as_sets_of_what_is_written() {
        let scopes = |text: &str| -> Vec<String> { text.split_whitespace().map(str::to_owned).collect() };
        for (asked, granted, missing, additional) in [
            ("a b", "a b", "", ""),
            ("a b", "b a a", "", ""),
            ("a b", "a", "b", ""),
            ("a", "a b c", "", "b c"),
            ("a b", "", "a b", ""),
            ("", "a", "", "a"),
            ("", "", "", ""),
            ("a b", "A b", "a", "A"),
        ] {
            let change = ScopeChange::between(&scopes(asked), Some(&scopes(granted)));
            assert_eq!((change.missing.join(" "), change.additional.join(" ")), (missing.into(), additional.into()));
            assert_eq!(change.is_empty(), missing.is_empty() && additional.is_empty());
        }
        assert!(ScopeChange::between(&scopes("a b"), None).is_empty());
    }
}
