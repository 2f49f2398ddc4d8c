//! Which errors mean that a machine has no Secret Service, and not that it has one that fails.

use std::error::Error;
use std::io;
use std::sync::Arc;

use zbus::fdo;

/// The bus has no such service, and cannot start one.
const SERVICE_UNKNOWN: &str = "org.freedesktop.DBus.Error.ServiceUnknown";

/// Whether the error, or a cause of it, says that there is no bus or no such service on it.
pub(super) fn is_known_from(error: &(dyn Error + 'static)) -> bool {
    is_one(error) || error.source().is_some_and(is_known_from)
}

fn is_one(error: &(dyn Error + 'static)) -> bool {
    if let Some(error) = error.downcast_ref::<secret_service::Error>() {
        // The address leads to no bus, or is not one that can be used.
        return matches!(error, secret_service::Error::Unavailable)
            || matches!(error, secret_service::Error::ZbusFdo(fdo::Error::ServiceUnknown(_)));
    }
    match error.downcast_ref::<zbus::Error>() {
        Some(zbus::Error::MethodError(name, ..)) => name.as_str() == SERVICE_UNKNOWN,
        Some(zbus::Error::FDO(error)) => matches!(**error, fdo::Error::ServiceUnknown(_)),
        Some(zbus::Error::InputOutput(error) | zbus::Error::Connection(error, _)) => is_missing(error),
        _ => false,
    }
}

/// The socket of the bus does not exist.
fn is_missing(error: &Arc<io::Error>) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

#[cfg(test)]
mod tests {
    use keyring_core::Error as StoreError;

    use super::*;

    fn is_absent(error: secret_service::Error) -> bool {
        is_known_from(&StoreError::PlatformFailure(Box::new(error)))
    }

    fn of_bus(error: fdo::Error) -> secret_service::Error {
        secret_service::Error::Zbus(zbus::Error::FDO(Box::new(error)))
    }

    fn of_socket(kind: io::ErrorKind) -> secret_service::Error {
        secret_service::Error::Zbus(zbus::Error::InputOutput(Arc::new(kind.into())))
    }

    #[test]
    fn only_an_absent_bus_or_service_means_that_there_is_no_keyring() {
        let text = String::new;
        assert!(is_absent(secret_service::Error::Unavailable));
        assert!(is_absent(of_socket(io::ErrorKind::NotFound)));
        assert!(is_absent(of_bus(fdo::Error::ServiceUnknown(text()))));
        assert!(is_absent(secret_service::Error::ZbusFdo(fdo::Error::ServiceUnknown(text()))));
        for error in [
            of_socket(io::ErrorKind::ConnectionRefused),
            of_socket(io::ErrorKind::PermissionDenied),
            of_bus(fdo::Error::AccessDenied(text())),
            of_bus(fdo::Error::NoReply(text())),
            of_bus(fdo::Error::SpawnFailed(text())),
            of_bus(fdo::Error::TimedOut(text())),
            of_bus(fdo::Error::LimitsExceeded(text())),
            secret_service::Error::Zbus(zbus::Error::Handshake(text())),
            secret_service::Error::Crypto("x"),
            secret_service::Error::Locked,
        ] {
            assert!(!is_absent(error));
        }
    }
}
