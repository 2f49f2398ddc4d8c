//! The part of an issuer's metadata that completes a registration.

use url::Url;

use crate::config::hosts::Zone;
use crate::config::provider::ClientAuthentication;

/// The part of an issuer's metadata that completes a registration.
#[derive(Debug)]
pub(crate) struct Discovered {
    /// The zone of the metadata's host. Its URLs must not lead to a nearer one.
    pub(crate) source: Zone,
    pub(crate) authorization_endpoint: Option<Url>,
    pub(crate) token_endpoint: Option<Url>,
    /// Set only if the issuer requires pushed requests.
    pub(crate) pushed_authorization_request_endpoint: Option<Url>,
    pub(crate) device_authorization_endpoint: Option<Url>,
    pub(crate) userinfo_endpoint: Option<Url>,
    pub(crate) revocation_endpoint: Option<Url>,
    pub(crate) names_itself_in_callbacks: bool,
    pub(crate) token_endpoint_methods: Vec<String>,
    pub(crate) revocation_endpoint_methods: Vec<String>,
}

impl Discovered {
    /// The authentication method at the token endpoint for a client with this configuration. The default is Basic.
    pub(crate) fn token_endpoint_authentication(&self, configured: ClientAuthentication) -> ClientAuthentication {
        match configured {
            ClientAuthentication::Basic => offered(&self.token_endpoint_methods, configured),
            ClientAuthentication::Body => configured,
        }
    }

    /// The authentication method at the revocation endpoint: that of the token endpoint, if it is offered.
    pub(crate) fn revocation_endpoint_authentication(&self, usual: ClientAuthentication) -> ClientAuthentication {
        offered(&self.revocation_endpoint_methods, usual)
    }
}

/// The usual method, or the other one if only that is offered.
fn offered(methods: &[String], usual: ClientAuthentication) -> ClientAuthentication {
    let offers = |method: &str| methods.iter().any(|offered| offered == method);
    match (offers("client_secret_basic"), offers("client_secret_post")) {
        (true, false) => ClientAuthentication::Basic,
        (false, true) => ClientAuthentication::Body,
        _ => usual,
    }
}
