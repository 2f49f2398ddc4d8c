//! In place of OpenID Connect where the feature is off: nobody has an issuer that can be asked.

use std::sync::Arc;

use oauth_dance_core::{OAuth2Token, Subject, Timestamp, Verdict};
use url::Url;

use super::AskedOfIdToken;
use super::error::{DiscoveryError, IdTokenError};
use super::identity::Identity;
use crate::error::ConfigError;
use crate::hosts::KnownHosts;
use crate::http_client::HttpClients;
use crate::provider::Provider;
use crate::registered::Registered;

#[derive(Debug)]
pub(crate) enum OpenId {}

impl OpenId {
    pub(crate) fn of(provider: &Provider, _: &KnownHosts) -> Result<Option<Self>, ConfigError> {
        let problem = "is empty, and to discover it from the issuer needs the cargo feature `oidc`";
        provider.left_open().first().map_or(Ok(None), |field| Err(ConfigError::invalid(&provider.name, field, problem)))
    }

    pub(crate) async fn complete(
        &self,
        _: &Arc<Registered>,
        _: &HttpClients,
        _: Timestamp,
    ) -> Result<Arc<Registered>, DiscoveryError> {
        match *self {}
    }

    pub(crate) async fn prepare(&self, _: &HttpClients, _: Timestamp) -> Result<(), DiscoveryError> {
        match *self {}
    }

    pub(crate) async fn verify(
        &self,
        _: &OAuth2Token,
        _: AskedOfIdToken<'_>,
        _: &str,
        _: &HttpClients,
        _: Timestamp,
    ) -> Result<Identity, IdTokenError> {
        match *self {}
    }

    pub(crate) async fn look_at(
        &self,
        _: &Subject,
        _: &OAuth2Token,
        _: &str,
        _: &HttpClients,
        _: Timestamp,
    ) -> Verdict {
        match *self {}
    }

    pub(crate) async fn end_session_endpoint(
        &self,
        _: &HttpClients,
        _: Timestamp,
    ) -> Result<Option<Url>, DiscoveryError> {
        match *self {}
    }
}
