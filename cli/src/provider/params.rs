use std::collections::HashMap;

use url::form_urlencoded;

/// Form-encoded parameters read by the rules of RFC 6749 sections 3.1 and 3.2: one without a value
/// counts as omitted, unknown ones are ignored, and none may come twice.
pub(super) struct Params {
    values: HashMap<String, String>,
    repeated: Vec<String>,
}

impl Params {
    pub(super) fn parse(encoded: &str) -> Self {
        let mut values = HashMap::new();
        let mut repeated = Vec::new();
        for (name, value) in form_urlencoded::parse(encoded.as_bytes()).into_owned() {
            if values.insert(name.clone(), value).is_some() {
                repeated.push(name);
            }
        }
        for name in &repeated {
            values.remove(name);
        }
        Self { values, repeated }
    }

    /// The parameter's value, unless it is missing, empty or repeated.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        let value = self.values.get(name)?;
        (!value.is_empty()).then_some(value)
    }

    /// Whether any of `names` came more than once.
    pub(super) fn repeats(&self, names: &[&str]) -> bool {
        self.repeated.iter().any(|name| names.contains(&name.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_and_treats_empty_as_omitted() {
        let params = Params::parse("a=1+2%263&empty=&flag");
        assert_eq!(params.value("a"), Some("1 2&3"));
        assert_eq!(params.value("empty"), None);
        assert_eq!(params.value("flag"), None);
    }

    #[test]
    fn a_repeated_parameter_has_no_value() {
        let params = Params::parse("a=1&b=2&a=3&a=4");
        assert_eq!(params.value("a"), None);
        assert_eq!(params.value("b"), Some("2"));
        assert!(params.repeats(&["b", "a"]));
        assert!(!params.repeats(&["b"]));
    }
}
