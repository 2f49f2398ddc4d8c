//! The additional settings of a provider of OAuth 1.0a.

use serde::{Deserialize, Serialize};

/// The additional settings of a provider of OAuth 1.0a (RFC 5849). [`Provider::oauth1`](crate::Provider::oauth1) sets them,
/// and they are public so that each can be changed:
///
/// ```
/// use oauth_dance::{Provider, SignatureMethod};
///
/// let mut printer = Provider::oauth1(
///     "printer",
///     "https://printer.example/oauth/request-token",
///     "https://printer.example/oauth/authorize",
///     "https://printer.example/oauth/access-token",
/// );
/// if let Some(oauth1) = &mut printer.oauth1 {
///     assert_eq!(oauth1.signature_method, SignatureMethod::HmacSha1);
///     oauth1.realm = Some("printers".to_owned());
/// }
/// ```
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
/// Use the one that the provider documents. If it documents several, prefer `HMAC-SHA256` for its simplicity. With an RSA
/// method, the provider knows only the public key and cannot forge a signature; the client secret is then the private key.
///
/// ```
/// use oauth_dance::SignatureMethod;
///
/// assert_eq!(SignatureMethod::default().as_str(), "HMAC-SHA1");
/// // In a configuration file, it has the name of the protocol.
/// assert_eq!(serde_json::from_str::<SignatureMethod>("\"RSA-SHA1\"")?, SignatureMethod::RsaSha1);
/// # Ok::<(), serde_json::Error>(())
/// ```
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
    /// Its name in the protocol: the value of `oauth_signature_method` (RFC 5849 section 3.1).
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
