//! Comparison of issuers.
//!
//! An issuer is compared as text, without normalization (RFC 9207 section 2.4): two issuers that differ in a trailing slash
//! are different ones, and an attacker can register either. Microsoft is the exception that needs a family of issuers. Only
//! a UUID may take the place of its tenant, so that no path or host can.

/// The scope that makes an authorization request one of OpenID Connect (Core section 3.1.2.1).
pub(crate) const OPENID_SCOPE: &str = "openid";

/// Microsoft's placeholder for the tenant in an issuer. One set of metadata serves the accounts of all tenants, and each
/// tenant has its own issuer.
const TENANT: &str = "{tenantid}";

/// An issuer identifier, or a family of issuers that differ in the tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Issuer(String);

impl Issuer {
    pub(crate) fn new(issuer: impl Into<String>) -> Self {
        Self(issuer.into())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    #[cfg(any(feature = "oidc", test))]
    pub(crate) fn is_family(&self) -> bool {
        self.0.contains(TENANT)
    }

    /// Whether `found` is this issuer: identical text (RFC 9207 section 2.4), or a member of the family.
    pub(crate) fn is(&self, found: &str) -> bool {
        match self.0.split_once(TENANT) {
            None => self.0 == found,
            Some((before, after)) => {
                let tenant = found.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
                tenant.is_some_and(is_tenant)
            }
        }
    }

    #[cfg(any(feature = "oidc", test))]
    /// Whether metadata of the issuer `found` describes this issuer. Metadata of a family may contain the placeholder.
    pub(crate) fn is_described_by(&self, found: &str) -> bool {
        self.is(found) || self.0 == found
    }

    #[cfg(any(feature = "oidc", test))]
    /// The issuer that an ID token of this tenant must name, if the metadata contains the placeholder.
    pub(crate) fn of_tenant(described: &str, tenant: Option<&str>) -> Option<String> {
        if !described.contains(TENANT) {
            return Some(described.to_owned());
        }
        tenant.filter(|tenant| is_tenant(tenant)).map(|tenant| described.replace(TENANT, tenant))
    }
}

/// The identifier of a tenant is a UUID.
fn is_tenant(text: &str) -> bool {
    text.len() == 36 && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issuer_is_exact_and_a_family_differs_in_tenants() {
        let one = Issuer::new("https://issuer.example/a");
        for other in ["https://issuer.example/a/", "https://issuer.example/A", "https://issuer.example", ""] {
            assert!(!one.is(other) && !one.is_described_by(other), "{other}");
        }
        assert!(one.is("https://issuer.example/a") && !one.is_family());

        let family = Issuer::new("https://login.example/{tenantid}/v2.0");
        let tenant = "9188040d-6c67-4c5b-b112-36a304b66dad";
        let of = |tenant: &str| format!("https://login.example/{tenant}/v2.0");
        assert!(family.is(&of(tenant)) && family.is_described_by(&of(tenant)) && family.is_described_by(&family.0));
        assert!(!family.is(&family.0), "no token is issued by the family itself");
        for other in ["", "common", "9188040d/../6c67-4c5b-b112-36a304b66dad", &tenant[1..]] {
            assert!(!family.is(&of(other)), "{other}");
            assert_eq!(Issuer::of_tenant(&family.0, Some(other)), None, "{other}");
        }
        assert_eq!(Issuer::of_tenant(&family.0, Some(tenant)), Some(of(tenant)));
        assert_eq!(Issuer::of_tenant(&family.0, None), None);
        assert_eq!(Issuer::of_tenant(&of(tenant), None), Some(of(tenant)));
    }
}
