use std::str::FromStr as _;

use oauth_dance_core::StorageError;
use sqlx::ConnectOptions as _;
use sqlx::mysql::{MySql, MySqlConnectOptions};

use crate::error::unchanged;

/// The options that sqlx reads from a URL. It passes over others without a word.
const OPTIONS: [&str; 14] = [
    "charset",
    "collation",
    "socket",
    "sslca",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "sslmode",
    "ssl-mode",
    "statement-cache-capacity",
    "timezone",
    "time-zone",
];

/// What is wrong with a URL. It quotes nothing of it but the name of an option.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum UrlError {
    #[error("it names several hosts")]
    Hosts,
    #[error("it has the option {0:?}")]
    Option(String),
}

/// Reads the URL of a server.
///
/// # Errors
/// [`StorageError::Misconfigured`] for what is no URL, and for what would be ignored: several hosts, unknown options.
pub(crate) fn options(url: &str) -> Result<MySqlConnectOptions, StorageError> {
    check(url).map_err(|error| StorageError::Misconfigured {
        advice: match &error {
            UrlError::Hosts => {
                "name one host in the URL: a name that leads to whichever server is up, or a proxy such as \
                HAProxy, ProxySQL or MaxScale before them"
                    .to_owned()
            }
            UrlError::Option(_) => {
                format!("remove the option from the URL, or correct it; there are {}", OPTIONS.join(", "))
            }
        },
        source: Box::new(error),
    })?;
    let options = MySqlConnectOptions::from_str(url).map_err(unchanged::<MySql>)?.disable_statement_logging();
    // sqlx leaves the brackets of the URL around an address of IPv6.
    let address = options.get_host().strip_prefix('[').and_then(|host| host.strip_suffix(']')).map(str::to_owned);
    Ok(match address {
        Some(address) => options.host(&address),
        None => options,
    })
}

fn check(url: &str) -> Result<(), UrlError> {
    let after_scheme = url.split_once("://").map_or("", |(_, rest)| rest);
    let (server, _) = after_scheme.split_at(after_scheme.find(['/', '?', '#']).unwrap_or(after_scheme.len()));
    let hosts = server.rsplit_once('@').map_or(server, |(_, hosts)| hosts);
    if hosts.contains(',') {
        return Err(UrlError::Hosts);
    }
    let query = url.split_once('?').map_or("", |(_, query)| query);
    let names = query.split(['&', '#']).map(|pair| pair.split_once('=').map_or(pair, |(name, _)| name));
    match names.filter(|name| !name.is_empty()).find(|name| !OPTIONS.contains(name)) {
        Some(unknown) => Err(UrlError::Option(unknown.to_owned())),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_ipv6_lose_their_brackets() {
        for (url, host, port) in [
            ("mysql://u:p@[::1]:3307/app", "::1", 3307),
            ("mysql://[2001:db8::7]/app?ssl-mode=REQUIRED", "2001:db8::7", 3306),
            ("mariadb://u@db.example/app", "db.example", 3306),
            ("mysql://u:p@192.0.2.1:1/app", "192.0.2.1", 1),
        ] {
            let options = options(url).unwrap();
            assert_eq!((options.get_host(), options.get_port()), (host, port), "{url}");
        }
    }

    #[test]
    fn what_would_be_ignored_is_refused_by_name() {
        for hosts in ["a,b", "a:3306,b:3307", "[::1]:1,[::2]:2", "u:p@a,b", "u:p,q@a,b"] {
            assert_eq!(check(&format!("mysql://{hosts}/app")), Err(UrlError::Hosts), "{hosts}");
        }
        for option in ["ssl_mode", "connectTimeout", "failover", "useSSL"] {
            let found = check(&format!("mysql://u:SECRET@a/app?charset=utf8mb4&{option}=SECRET"));
            assert_eq!(found, Err(UrlError::Option(option.to_owned())));
        }
        for fine in
            ["mysql://u:a,b@host/app", "mysql://host/a,b", "mysql://host/app?", "mysql://host/app?ssl-ca=a,b&socket=/s"]
        {
            assert_eq!(check(fine), Ok(()), "{fine}");
        }
        let refused = options("mysql://u:SECRET@a/app?nonsense=SECRET").unwrap_err();
        assert!(!format!("{refused:?} {refused}").contains("SECRET"));
    }
}
