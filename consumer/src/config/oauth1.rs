//! The additional settings of a provider of OAuth 1.0a.

use serde::{Deserialize, Serialize};

/// The additional settings of a provider of OAuth 1.0a (RFC 5849).
#[cfg_attr(docsrs, doc(cfg(feature = "oauth1")))]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct OAuth1 {
    /// The temporary credentials endpoint (RFC 5849 section 2.1). Its query, if any, is signed and sent.
    pub temporary_credentials_endpoint: String,
    /// How requests are signed (RFC 5849 section 3.4).
    pub signature_method: SignatureMethod,
    /// The `realm` of signed requests (RFC 5849 section 3.5.1), if the provider requires one.
    pub realm: Option<String>,
}

/// How requests to a provider of OAuth 1.0a are signed.
///
/// Only signatures of `RSA-SHA1` and `RSA-SHA256` could not be forged by the provider itself. For them, the client secret is
/// the private key.
#[cfg_attr(docsrs, doc(cfg(feature = "oauth1")))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum SignatureMethod {
    /// `HMAC-SHA1` (RFC 5849 section 3.4.2), which every provider supports.
    #[default]
    #[serde(rename = "HMAC-SHA1")]
    HmacSha1,
    /// `HMAC-SHA256`: HMAC-SHA1 with a newer hash. It is in no standard, but some providers support it.
    #[serde(rename = "HMAC-SHA256")]
    HmacSha256,
    /// `RSA-SHA1` (RFC 5849 section 3.4.3), with the crate's feature `rsa-sha1`. The client secret is the private key in
    /// PEM, PKCS #8 or PKCS #1.
    #[serde(rename = "RSA-SHA1")]
    RsaSha1,
    /// `RSA-SHA256`: RSA-SHA1 with a newer hash. It is in no standard, but some providers and libraries support it.
    #[serde(rename = "RSA-SHA256")]
    RsaSha256,
    /// `PLAINTEXT` (RFC 5849 section 3.4.4): the secrets themselves, protected only by TLS, which all endpoints require.
    #[serde(rename = "PLAINTEXT")]
    Plaintext,
}

impl SignatureMethod {
    /// Its name in the protocol.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::HmacSha1 => "HMAC-SHA1",
            Self::HmacSha256 => "HMAC-SHA256",
            Self::RsaSha1 => "RSA-SHA1",
            Self::RsaSha256 => "RSA-SHA256",
            Self::Plaintext => "PLAINTEXT",
        }
    }
}
