//! Resolves names to addresses, but to none in a nearer zone than allowed.
//!
//! The check is made on the address that is connected to, and not before the request: a name can resolve to another address
//! each time (DNS rebinding).

use std::net::SocketAddr;
use std::sync::Arc;

use oauth_dance_core::BoxError;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
#[cfg(any(feature = "oidc", test))]
use url::Url;

use crate::config::hosts::Zone;

/// Resolves names, but to no address in a nearer zone than allowed. So a name in a URL from outside cannot lead to an
/// address that would be rejected in its place.
#[derive(Clone)]
pub(crate) struct ZoneResolver {
    names: Arc<dyn Resolve>,
    nearest: Zone,
}

impl ZoneResolver {
    pub(crate) fn system(nearest: Zone) -> Self {
        Self { names: Arc::new(SystemResolver), nearest }
    }
}

impl Resolve for ZoneResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (nearest, found) = (self.nearest, self.names.resolve(name));
        Box::pin(async move {
            let allowed: Vec<SocketAddr> =
                found.await?.filter(|address| Zone::of_address(address.ip()) <= nearest).collect();
            if allowed.is_empty() {
                let problem = "the name leads to this machine or a private network, but its source is farther away";
                return Err(BoxError::from(problem));
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

#[cfg(any(feature = "oidc", test))]
impl Zone {
    /// The zone of the host in a URL, resolved if necessary. A name with addresses in several zones is in the farthest of
    /// them, and a name that does not resolve is on the Internet.
    pub(crate) async fn resolve(url: &Url) -> Self {
        if let Some(zone) = Self::of(url) {
            return zone;
        }
        let Some(host) = url.host_str() else { return Self::Internet };
        let addresses = tokio::net::lookup_host((host, 0)).await.ok();
        addresses.into_iter().flatten().map(|address| Self::of_address(address.ip())).min().unwrap_or(Self::Internet)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[tokio::test]
    async fn a_name_that_does_not_resolve_is_on_the_internet() {
        assert_eq!(Zone::resolve(&url("https://nothing.invalid")).await, Zone::Internet);
        assert_eq!(Zone::resolve(&url("http://localhost")).await, Zone::Machine);
    }

    /// Resolves every name to the same address.
    struct Fixed(SocketAddr);

    impl Resolve for Fixed {
        fn resolve(&self, _: Name) -> Resolving {
            let found = [self.0];
            Box::pin(async move { Ok(Box::new(found.into_iter()) as Addrs) })
        }
    }

    #[tokio::test]
    async fn a_name_in_a_nearer_zone_is_not_connected_to() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connect = async |nearest| {
            let resolver = ZoneResolver { names: Arc::new(Fixed(address)), nearest };
            let client =
                reqwest::Client::builder().no_proxy().dns_resolver(resolver).timeout(Duration::from_millis(300));
            let sent =
                client.build().unwrap().get(format!("http://rebinding.example:{}/", address.port())).send().await;
            let error = sent.unwrap_err();
            error.is_connect()
        };
        for nearest in [Zone::Internet, Zone::Network] {
            assert!(connect(nearest).await, "{nearest:?}");
        }
        assert!(!connect(Zone::Machine).await, "it connected, and no response came in time");
        assert!(listener.accept().await.is_ok());
        assert!(tokio::time::timeout(Duration::from_millis(50), listener.accept()).await.is_err(), "once only");
    }
}
