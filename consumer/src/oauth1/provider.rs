use super::SignatureMethod;
use crate::error::ConfigError;

/// What OAuth 1.0a needs to know besides (RFC 5849).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OAuth1 {
    /// Where the dance starts (RFC 5849 section 2.1). Its query, if it has one, is signed and sent.
    pub temporary_credentials_endpoint: String,
    /// How requests are signed (RFC 5849 section 3.4).
    pub signature_method: SignatureMethod,
    /// The `realm` of signed requests (RFC 5849 section 3.5.1), where the provider wants one.
    pub realm: Option<String>,
}

impl OAuth1 {
    /// What OAuth 1.0a needs, as the configuration has it and else the preset.
    pub(crate) fn configured(
        name: &str,
        preset: Option<Self>,
        endpoint: Option<String>,
        method: Option<SignatureMethod>,
        realm: Option<String>,
    ) -> Result<Option<Self>, ConfigError> {
        if preset.is_none() && endpoint.is_none() {
            let field = "temporary_credentials_endpoint";
            let asked = method.is_some() || realm.is_some();
            return if asked { Err(ConfigError::missing(name, field)) } else { Ok(None) };
        }
        let preset = preset.unwrap_or_default();
        Ok(Some(Self {
            temporary_credentials_endpoint: endpoint.unwrap_or(preset.temporary_credentials_endpoint),
            signature_method: method.unwrap_or(preset.signature_method),
            realm: realm.or(preset.realm),
        }))
    }
}
