//! Sends a request, with a proof if the token is bound to a key (RFC 9449).

use std::time::Instant;

use http::{HeaderValue, StatusCode};
use oauth_dance_core::Timestamp;
#[cfg(feature = "reqwest-middleware")]
use reqwest::Response;
use reqwest::{Request, RequestBuilder};
#[cfg(feature = "reqwest-middleware")]
use url::Url;

use super::{HttpClients, HttpResponse, SendError, challenge, refusal};
use crate::error::TokenEndpointError;
use crate::protocol::dpop::{Binding, Claims, PROOF, Signer};

const NONCE_WANTED: &str = "use_dpop_nonce";

impl HttpClients {
    /// Sends a request and reads at most `limit` bytes of the response.
    ///
    /// With a binding, the request carries a proof. If the server rejects it because its nonce is missing, which it does
    /// before any other processing (RFC 9449 sections 8 and 9), the request is sent once more within the same timeout.
    pub(crate) async fn send(
        &self,
        request: RequestBuilder,
        binding: Option<Binding<'_>>,
        limit: usize,
    ) -> Result<HttpResponse, SendError> {
        let (client, request) = request.build_split();
        let request = request.map_err(SendError::Http)?;
        let Some(binding) = binding else { return self.execute(&client, request, limit).await };

        let signer = Signer::of(binding.key).ok_or(SendError::Proof)?;
        let (start, timeout) = (Instant::now(), request.timeout().copied().unwrap_or(self.limits.timeout));
        let url = request.url().clone();
        let again = request.try_clone();
        let first = self.proved(request, &signer, binding)?;
        let response = self.execute(&client, first, limit).await?;
        let has_nonce = self.nonces.learn(&url, &response.headers);

        let left = timeout.saturating_sub(start.elapsed());
        let Some(mut again) =
            again.filter(|_| has_nonce && !left.is_zero() && wants_nonce(&response, self.clock.now()))
        else {
            return Ok(response);
        };
        *again.timeout_mut() = Some(left);
        let second = self.proved(again, &signer, binding)?;
        let response = self.execute(&client, second, limit).await?;
        self.nonces.learn(&url, &response.headers);
        Ok(response)
    }

    /// The request with a proof, for another HTTP client to send it.
    #[cfg(feature = "reqwest-middleware")]
    pub(crate) fn with_proof(&self, request: Request, binding: Binding<'_>) -> Result<Request, SendError> {
        self.proved(request, &Signer::of(binding.key).ok_or(SendError::Proof)?, binding)
    }

    /// Whether an API that another HTTP client has called rejects a proof because its nonce is missing. The nonce is stored
    /// for the next proof, unless the response is from another origin, at the end of a redirect.
    #[cfg(feature = "reqwest-middleware")]
    pub(crate) fn is_new_nonce(&self, url: &Url, response: &Response) -> bool {
        url.origin() == response.url().origin()
            && self.nonces.learn(url, response.headers())
            && response.status() == StatusCode::UNAUTHORIZED
            && challenge::has_error(response.headers(), NONCE_WANTED)
    }

    fn proved(&self, mut request: Request, signer: &Signer, binding: Binding<'_>) -> Result<Request, SendError> {
        let nonce = self.nonces.of(request.url());
        let claims = Claims {
            method: request.method(),
            url: request.url(),
            access_token: binding.access_token,
            nonce: nonce.as_deref(),
            now: self.clock.now(),
        };
        let proof = signer.proof(&claims).ok_or(SendError::Proof)?;
        let mut proof = HeaderValue::try_from(proof).map_err(|_| SendError::Proof)?;
        proof.set_sensitive(true);
        request.headers_mut().insert(PROOF, proof);
        Ok(request)
    }
}

/// Whether a server rejects a request because its nonce is missing: an authorization server in the body (RFC 9449 section
/// 8), a resource server in a challenge (section 9).
fn wants_nonce(response: &HttpResponse, now: Timestamp) -> bool {
    let refused = || match refusal::refused(response.status, &response.headers, &response.plain(), &[], now) {
        Some(TokenEndpointError::Refused { code, .. }) => code == NONCE_WANTED,
        _ => false,
    };
    response.status.is_client_error()
        && (response.status == StatusCode::UNAUTHORIZED && challenge::has_error(&response.headers, NONCE_WANTED)
            || refused())
}
