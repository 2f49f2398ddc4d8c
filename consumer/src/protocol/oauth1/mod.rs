//! OAuth 1.0a (RFC 5849): the two requests of the dance from server to server, and signed API calls.

mod base_string;
mod calls;
mod client;
mod response;
mod signature;

#[cfg(feature = "testing")]
use http::Method;
#[cfg(feature = "testing")]
use url::Url;

#[cfg(feature = "testing")]
use crate::config::oauth1::SignatureMethod;

pub(crate) use self::calls::{authorization_url, temporary_credentials, token_credentials};
pub(crate) use self::client::{Client, Credentials};
pub(crate) use self::response::is_of_the_token;

/// The signature that a provider expects of a request (section 3.2).
#[cfg(feature = "testing")]
pub(crate) fn expected_signature(
    signing: (SignatureMethod, &str, &str),
    method: &Method,
    url: &Url,
    parameters: impl IntoIterator<Item = (String, String)>,
) -> Option<String> {
    let (signature_method, client_secret, token_secret) = signing;
    let parameters = parameters.into_iter().map(|(name, value)| (name.into_bytes(), value.into_bytes()));
    let signer = signature::Signer::new(signature_method, client_secret.into()).ok()?;
    signer.sign(&base_string::base_string(method, url, parameters), token_secret)
}
