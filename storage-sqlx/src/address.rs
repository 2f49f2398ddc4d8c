//! Checks the URL of a database server before sqlx parses it.
//!
//! sqlx ignores a parameter that it does not know, and logs its value. A misspelled `sslmode` would therefore leave TLS
//! optional without any error. [`Address::parse`] accepts three kinds of parameters: those that sqlx supports, those
//! that describe what the storage does in any case, and `connect_timeout`, which this crate implements. Any other
//! parameter is an error.
//!
//! An error names the parameter and never quotes a value. An unescaped `?`, `#` or `/` in a password moves the rest of
//! the password into the path or the parameters, so even a name is quoted only if it looks like one.

use std::time::Duration;

use url::Url;

/// The URL parameters of one kind of database.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parameters {
    /// The parameters that sqlx supports.
    pub(crate) sqlx: &'static [&'static str],
    /// Parameters with the values that describe what the storage does in any case. They are accepted and removed, so
    /// that an application can use the URL that its other libraries use.
    pub(crate) implied: &'static [(&'static str, &'static [&'static str])],
}

/// A URL that contains only parameters that sqlx supports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) url: String,
    /// How long to wait for a connection, from the parameter `connect_timeout`. `None` if it is absent or 0.
    pub(crate) connect_timeout: Option<Duration>,
}

/// Why a URL is rejected. The error quotes no value, because a malformed URL may contain the password anywhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AddressError {
    #[error("the URL names several hosts")]
    SeveralHosts,
    #[error("the URL parameter `{0}` is unknown to this storage")]
    Unknown(String),
    #[error("this storage does not support the value of the URL parameter `{0}`")]
    Value(String),
    #[error("the URL contains a `?` or `#` that is not followed by a parameter")]
    NoParameter,
    #[error("the URL is malformed: {0}")]
    Malformed(#[from] url::ParseError),
}

impl AddressError {
    /// What to do, for [`StorageError::Misconfigured`](oauth_dance_core::StorageError::Misconfigured).
    pub(crate) const fn advice(&self) -> &'static str {
        match self {
            Self::SeveralHosts => {
                "name one host in the database URL: a host name or a proxy that follows the primary, or a pooler"
            }
            Self::Unknown(_) | Self::Value(_) => "remove the parameter from the database URL, or correct it",
            Self::NoParameter | Self::Malformed(_) => {
                "correct the database URL; write `?`, `#`, `@` and `/` in a password as %3F, %23, %40 and %2F"
            }
        }
    }
}

impl Address {
    /// Parses a URL, and removes the parameters that sqlx does not support.
    ///
    /// # Errors
    /// [`AddressError`], even for parameters that sqlx would ignore.
    pub(crate) fn parse(text: &str, parameters: Parameters) -> Result<Self, AddressError> {
        if hosts(text).contains(',') {
            return Err(AddressError::SeveralHosts);
        }
        let mut url = Url::parse(text)?;
        if url.fragment().is_some() {
            return Err(AddressError::NoParameter);
        }
        let mut passed_on = Vec::new();
        let mut connect_timeout = None;
        for (name, value) in url.query_pairs() {
            match (&*name, &*value) {
                ("host" | "hostaddr" | "port", value) if value.contains(',') => return Err(AddressError::SeveralHosts),
                ("connect_timeout", value) => {
                    let seconds = value.parse().map_err(|_| AddressError::Value(name.into_owned()))?;
                    connect_timeout = Some(Duration::from_secs(seconds)).filter(|limit| !limit.is_zero());
                }
                (known, _) if parameters.passes_on(known) => passed_on.push((name.into_owned(), value.into_owned())),
                (known, value) if parameters.implies(known, value) => {}
                (known, _) if parameters.implied.iter().any(|(implied, _)| *implied == known) => {
                    return Err(AddressError::Value(name.into_owned()));
                }
                // The text may be the rest of a password with an unescaped `?`, so it is not quoted.
                (part, _) if !is_name(part) || text.split_once('?').is_some_and(|(_, query)| query.contains('@')) => {
                    return Err(AddressError::NoParameter);
                }
                _ => return Err(AddressError::Unknown(name.into_owned())),
            }
        }
        url.set_query(None);
        if !passed_on.is_empty() {
            url.query_pairs_mut().extend_pairs(passed_on);
        }
        Ok(Self { url: url.into(), connect_timeout })
    }
}

impl Parameters {
    /// Whether sqlx supports a parameter. `options[name]` is a variant of `options`.
    fn passes_on(&self, name: &str) -> bool {
        self.sqlx.contains(&name) || (self.sqlx.contains(&"options") && name.starts_with("options["))
    }

    /// Whether a value describes what the storage does in any case.
    fn implies(&self, name: &str, value: &str) -> bool {
        self.implied.iter().any(|(implied, values)| {
            *implied == name && values.iter().any(|possible| possible.eq_ignore_ascii_case(value))
        })
    }
}

/// Removes the brackets around an IPv6 address. Other hosts are unchanged.
pub(crate) fn without_brackets(host: &str) -> &str {
    host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host)
}

/// The part of a URL between the credentials and the path.
fn hosts(text: &str) -> &str {
    let rest = text.split_once("://").map_or("", |(_, rest)| rest);
    let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
    authority.rsplit_once('@').map_or(authority, |(_, hosts)| hosts)
}

/// Whether a text looks like the name of a parameter, so that an error may quote it.
fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'[' | b']');
    !name.is_empty() && name.len() <= 40 && name.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOME: Parameters =
        Parameters { sqlx: &["sslmode", "host", "port", "options"], implied: &[("binding", &["off", "prefer"])] };

    fn error(url: &str) -> AddressError {
        Address::parse(url, SOME).unwrap_err()
    }

    #[test]
    fn sqlx_parameters_are_passed_on() {
        for (url, passed_on, seconds) in [
            ("postgres://u:p@h:1/d", "postgres://u:p@h:1/d", None),
            ("postgres://u@h/d?sslmode=require&binding=Prefer", "postgres://u@h/d?sslmode=require", None),
            ("postgres://h/d?connect_timeout=3&options[a]=b", "postgres://h/d?options%5Ba%5D=b", Some(3)),
            ("postgres://h/d?connect_timeout=0", "postgres://h/d", None),
            ("postgres://%2Frun%2Fpg/d?host=/run", "postgres://%2Frun%2Fpg/d?host=%2Frun", None),
        ] {
            let address = Address::parse(url, SOME).unwrap();
            assert_eq!((address.url.as_str(), address.connect_timeout), (passed_on, seconds.map(Duration::from_secs)));
        }
    }

    #[test]
    fn unsupported_parameters_are_rejected() {
        for url in ["postgres://a,b/d", "postgres://u:p@a:1,b:2/d", "postgres:///d?host=a,b", "postgres://h/d?port=1,2"]
        {
            assert_eq!(error(url), AddressError::SeveralHosts, "{url}");
        }
        assert_eq!(error("postgres://u:p@h/d?keepalives=1"), AddressError::Unknown("keepalives".into()));
        assert_eq!(error("postgres://h/d?binding=require"), AddressError::Value("binding".into()));
        assert_eq!(error("postgres://h/d?connect_timeout=soon"), AddressError::Value("connect_timeout".into()));
        assert!(matches!(error("h/d"), AddressError::Malformed(_)));
    }

    #[test]
    fn parts_of_a_password_are_not_quoted() {
        for url in [
            "postgres://u:pa?canary@h/d",
            "postgres://u:pa?canary&x@h/d",
            "postgres://u:1?canary=x&y@h/d",
            "postgres://u:1#canary@h/d",
            "postgres://u:pa/canary?x@h/d",
        ] {
            let error = error(url);
            assert!(!format!("{error:?} {error} {}", error.advice()).contains("canary"), "{error:?}");
        }
    }

    #[test]
    fn brackets_are_removed_from_ipv6_hosts() {
        assert_eq!(without_brackets("[::1]"), "::1");
        assert_eq!(without_brackets("db.example"), "db.example");
        assert_eq!(hosts("postgres://u:p,q@[::1]:5432/d,e?x=a,b"), "[::1]:5432");
    }
}
