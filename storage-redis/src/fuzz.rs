//! Fuzz targets for addresses and records. Each panics if a property does not hold.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use crate::address::Address;
use crate::record::Stored;

/// Neither an address nor an error shows a password, whatever it contains.
pub fn redis_address(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let urls = [
        text.to_string(),
        format!("redis://alice:CANARY{text}@db.example/1"),
        format!("rediss+cluster://:CANARY{text}@one.example,two.example"),
        format!("redis+sentinel://:CANARY{text}@one.example:26379/primary"),
    ];
    for (index, url) in urls.iter().enumerate() {
        let shown = match Address::parse(url) {
            // The text after an `@` in the password is parsed as the host.
            Ok(_) if index > 0 && text.contains(['@', '/', '?', '#']) => continue,
            Ok(address) => address.to_string(),
            Err(error) => format!("{error} {error:?}"),
        };
        assert!(index == 0 || !shown.contains("CANARY"), "{shown}");
    }
}

/// Any bytes are a readable record, a record past its retention, or an error.
pub fn redis_record(bytes: &[u8]) {
    if let Ok(Some(found)) = Stored::read(bytes.to_vec()).map(|stored| stored.at(1_700_000_000_000)) {
        assert!(bytes.ends_with(&found.value.payload));
    }
}

#[cfg(test)]
mod tests {
    use oauth_dance_fuzz::check;

    use super::*;

    #[test]
    fn redis_address_target_holds() {
        check("redis_address", redis_address);
    }

    #[test]
    fn redis_record_target_holds() {
        check("redis_record", redis_record);
    }
}
