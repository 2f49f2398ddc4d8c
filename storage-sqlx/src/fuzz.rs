//! Fuzz targets for database URLs. Each panics if a property does not hold.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use crate::address::{Address, Parameters};

const PARAMETERS: Parameters =
    Parameters { sqlx: &["host", "port", "sslmode", "password"], implied: &[("charset", &["utf8mb4"])] };

/// A parsed URL can be parsed again, and an error never quotes a value.
pub fn sql_address(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let urls = [
        text.to_string(),
        format!("postgres://alice:CANARY{text}@db.example/app"),
        format!("mysql://alice@db.example/app?sslmode=CANARY{text}"),
        format!("postgres://db.example/app?connect_timeout=CANARY{text}"),
    ];
    for (index, url) in urls.iter().enumerate() {
        match Address::parse(url, PARAMETERS) {
            Ok(address) => assert!(Address::parse(&address.url, PARAMETERS).is_ok(), "{}", address.url),
            Err(error) => assert!(index == 0 || !format!("{error} {error:?}").contains("CANARY"), "{error:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use oauth_dance_fuzz::check;

    use super::*;

    #[test]
    fn sql_address_target_holds() {
        check("sql_address", sql_address);
    }
}
