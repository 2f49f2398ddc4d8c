//! What a provider of OAuth 1.0a needs besides.

use serde::{Deserialize, Serialize};

/// What OAuth 1.0a needs to know besides (RFC 5849).
#[cfg_attr(docsrs, doc(cfg(feature = "oauth1")))]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct OAuth1 {
    /// Where the dance starts (RFC 5849 section 2.1). Its query, if it has one, is signed and sent.
    pub temporary_credentials_endpoint: String,
    /// How requests are signed (RFC 5849 section 3.4).
    pub signature_method: SignatureMethod,
    /// The `realm` of signed requests (RFC 5849 section 3.5.1), where the provider wants one.
    pub realm: Option<String>,
}

/// How requests to a provider of OAuth 1.0a are signed.
///
/// Only `RSA-SHA1` and `RSA-SHA256` prove anything that the provider could not forge; with them the client's secret is its
/// private key.
#[cfg_attr(docsrs, doc(cfg(feature = "oauth1")))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum SignatureMethod {
    /// `HMAC-SHA1` (RFC 5849 section 3.4.2), which every provider knows.
    #[default]
    #[serde(rename = "HMAC-SHA1")]
    HmacSha1,
    /// `HMAC-SHA256`, the same with a newer hash. No standard has it, but some providers do.
    #[serde(rename = "HMAC-SHA256")]
    HmacSha256,
    /// `RSA-SHA1` (RFC 5849 section 3.4.3), with the crate's feature `rsa-sha1`. The client secret is the private key in
    /// PEM, PKCS #8 or PKCS #1.
    #[serde(rename = "RSA-SHA1")]
    RsaSha1,
    /// `RSA-SHA256`, the same with a newer hash. No standard has it, but some providers and libraries do.
    #[serde(rename = "RSA-SHA256")]
    RsaSha256,
    /// `PLAINTEXT` (RFC 5849 section 3.4.4): the secrets themselves. As all endpoints must be, it is protected by TLS.
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
