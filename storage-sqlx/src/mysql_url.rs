//! The connection URL of MySQL and MariaDB.
//!
//! sqlx passes the brackets of an IPv6 address on to the resolver, which rejects them, so they are removed here.

use std::str::FromStr as _;
use std::time::Duration;

use oauth_dance_core::StorageError;
use sqlx::ConnectOptions as _;
use sqlx::mysql::{MySql, MySqlConnectOptions};

use crate::address::{Address, Parameters, without_brackets};
use crate::error::{bad_address, unchanged};

const PARAMETERS: Parameters = Parameters {
    sqlx: &[
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
    ],
    implied: &[],
};

/// Parses the URL of a server. Returns the options, and how long to wait for a connection if the URL has a timeout.
///
/// # Errors
/// [`StorageError::Misconfigured`] if the URL is malformed, names several hosts, or contains an unknown option.
pub(crate) fn options(url: &str) -> Result<(MySqlConnectOptions, Option<Duration>), StorageError> {
    let address = Address::parse(url, PARAMETERS).map_err(bad_address)?;
    let options = MySqlConnectOptions::from_str(&address.url).map_err(unchanged::<MySql>)?.disable_statement_logging();
    let host = without_brackets(options.get_host()).to_owned();
    Ok((options.host(&host), address.connect_timeout))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv6_hosts_have_no_brackets() {
        for (url, host, port) in [
            ("mysql://u:p@[::1]:3307/app", "::1", 3307),
            ("mysql://[2001:db8::7]/app?ssl-mode=REQUIRED", "2001:db8::7", 3306),
            ("mariadb://u@db.example/app", "db.example", 3306),
            ("mysql://u:p@192.0.2.1:1/app", "192.0.2.1", 1),
        ] {
            let (options, _) = options(url).unwrap();
            assert_eq!((options.get_host(), options.get_port()), (host, port), "{url}");
        }
    }

    #[test]
    fn unknown_options_are_rejected_by_name() {
        for option in ["ssl_mode", "connectTimeout", "failover", "useSSL"] {
            let error = options(&format!("mysql://u:SECRET@a/app?charset=utf8mb4&{option}=SECRET")).unwrap_err();
            let printed = format!("{error:?} {error}");
            assert!(printed.contains(option) && !printed.contains("SECRET"), "{printed}");
        }
        for rejected in ["mysql://a:3306,b:3307/app", "mysql://u:p@[::1]:1,[::2]:2/app"] {
            assert!(format!("{:?}", options(rejected).unwrap_err()).contains("SeveralHosts"), "{rejected}");
        }
        for accepted in
            ["mysql://u:a,b@host/app", "mysql://host/a,b", "mysql://host/app?", "mysql://host/app?ssl-ca=a,b&socket=/s"]
        {
            assert!(options(accepted).is_ok(), "{accepted}");
        }
    }
}
