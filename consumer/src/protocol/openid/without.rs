//! Replaces OpenID Connect without its cargo feature: no issuer's metadata is fetched.

use std::sync::Arc;

use oauth_dance_core::{OAuth2Token, Subject, Timestamp, Verdict};
use url::Url;

use super::IdTokenExpectations;
use super::discovered::Discovered;
use super::identity::Identity;
use crate::config::hosts::KnownHosts;
use crate::config::provider::Provider;
use crate::error::ConfigError;
use crate::error::{DiscoveryError, IdTokenError};
use crate::protocol::http::HttpClients;

#[derive(Debug)]
pub(crate) enum OpenId {}

impl OpenId {
    pub(crate) fn of(provider: &Provider, _: &KnownHosts) -> Result<Option<Self>, ConfigError> {
        let problem = "is empty, and its discovery from the issuer needs the cargo feature `oidc`";
        provider
            .discovered_endpoints()
            .first()
            .map_or(Ok(None), |field| Err(ConfigError::invalid(&provider.name, field, problem)))
    }

    pub(crate) async fn discover(&self, _: &HttpClients) -> Result<Option<Arc<Discovered>>, DiscoveryError> {
        match *self {}
    }

    pub(crate) async fn prepare(&self, _: &HttpClients, _: Timestamp) -> Result<(), DiscoveryError> {
        match *self {}
    }

    pub(crate) async fn verify(
        &self,
        _: &OAuth2Token,
        _: IdTokenExpectations<'_>,
        _: &str,
        _: &HttpClients,
        _: Timestamp,
    ) -> Result<Identity, IdTokenError> {
        match *self {}
    }

    pub(crate) async fn verify_refresh(
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
