//! What an entry of the table holds, and how it becomes a [`Provider`].

use std::collections::BTreeMap;

use crate::config::oauth1::{OAuth1, SignatureMethod};
use crate::config::provider::{ClientAuthentication, OfflineAccess, Provider};
use crate::config::quirks::{Quirks, RevocationRequest, TokenHeader, TokenRequest};

/// What differs between providers, as a table can hold it.
#[derive(Clone, Copy)]
pub(super) struct Preset {
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    /// The provider's public documentation that the entry was checked against.
    pub(super) source: &'static str,
    /// Whether what stands here was found in public, and nothing that says that the provider is gone.
    pub(super) verified: bool,
    /// What the provider's own documentation was not seen to say; other clients of the provider have it like this.
    #[cfg_attr(not(test), expect(dead_code, reason = "read by the page that is made from the table"))]
    pub(super) unconfirmed: &'static [&'static str],
    /// What to know before using it, as a sentence or more.
    pub(super) note: &'static str,
    /// What stands in braces in the URLs, and what it is unless somebody says.
    pub(super) place: Option<Place>,
    pub(super) authorization_endpoint: &'static str,
    pub(super) token_endpoint: &'static str,
    pub(super) revocation_endpoint: Option<&'static str>,
    pub(super) userinfo_endpoint: Option<&'static str>,
    pub(super) api_base: Option<&'static str>,
    pub(super) issuer: Option<&'static str>,
    /// Where the issuer's metadata is, if not where the standard has it.
    pub(super) metadata_url: Option<&'static str>,
    pub(super) scopes: &'static [&'static str],
    pub(super) scope_separator: char,
    pub(super) client_authentication: ClientAuthentication,
    pub(super) pkce: Pkce,
    pub(super) refresh: Refresh,
    pub(super) authorization_params: &'static [(&'static str, &'static str)],
    pub(super) api_headers: &'static [(&'static str, &'static str)],
    pub(super) quirks: &'static [Quirk],
    /// For a provider of OAuth 1.0a.
    pub(super) oauth1: Option<Signed>,
}

/// What only a provider of OAuth 1.0a has.
#[derive(Clone, Copy)]
pub(super) struct Signed {
    pub(super) temporary_credentials_endpoint: &'static str,
    pub(super) method: SignatureMethod,
}

/// A part of the URLs that differs between installations, such as `{host}`.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) name: &'static str,
    pub(super) default: Option<&'static str>,
    /// What it is for the provider's sandbox.
    pub(super) sandbox: Option<&'static str>,
}

/// Whether the provider knows PKCE (RFC 7636).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Pkce {
    /// The documentation asks for it or allows it.
    Documented,
    /// The documentation does not speak of it. It is sent; RFC 6749 section 3.1 has unknown parameters ignored.
    Undocumented,
    /// Only for clients that were registered as public ones. It is not sent.
    OptIn,
    /// A request with it fails. It is not sent.
    Refused,
}

/// Whether there are refresh tokens.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Refresh {
    /// With every token.
    Always,
    /// Never: access tokens last until they are revoked, or the user has to come back.
    Never,
    /// As the client is registered.
    Registration,
    /// If this scope is asked for, which it is.
    Scope(&'static str),
    /// If this parameter is sent, which it is.
    Param(&'static str, &'static str),
}

/// One departure from the standards; see [`Quirks`].
#[derive(Clone, Copy)]
pub(super) enum Quirk {
    ScopeParameter(&'static str),
    FormPost,
    CallbackFragment,
    WithoutNonce,
    TokenJson,
    TokenParam(&'static str, &'static str),
    TokenEndpointHeader(&'static str, &'static str),
    RefreshEndpoint(&'static str),
    TokenMember(&'static str),
    LifetimeMember(&'static str),
    TokenType(&'static str),
    TokenScheme(&'static str),
    TokenHeader(&'static str),
    ApiBaseMember(&'static str),
    Revocation(RevocationRequest),
}

impl Preset {
    pub(super) const DEFAULT: Self = Self {
        name: "",
        title: "",
        source: "",
        verified: true,
        unconfirmed: &[],
        note: "",
        place: None,
        authorization_endpoint: "",
        token_endpoint: "",
        revocation_endpoint: None,
        userinfo_endpoint: None,
        api_base: None,
        issuer: None,
        metadata_url: None,
        scopes: &[],
        scope_separator: ' ',
        client_authentication: ClientAuthentication::Basic,
        pkce: Pkce::Undocumented,
        refresh: Refresh::Always,
        authorization_params: &[],
        api_headers: &[],
        quirks: &[],
        oauth1: None,
    };

    /// The provider as most know it. A place without a default stays in braces, which no registration accepts.
    pub(super) fn provider(&self) -> Provider {
        match self.place.and_then(|place| place.default) {
            Some(default) => self.filled(default),
            None => self.filled(""),
        }
    }

    /// The provider with its place filled in, or `None` if it has none. What cannot stand there leaves it in braces.
    pub(super) fn at(&self, value: &str) -> Option<Provider> {
        self.place.map(|_| self.filled(if is_fit(value) { value } else { "" }))
    }

    /// The provider's sandbox.
    pub(super) fn sandbox(&self) -> Provider {
        self.filled(self.place.and_then(|place| place.sandbox).unwrap_or_default())
    }

    fn filled(&self, value: &str) -> Provider {
        let fill = |template: &str| match self.place {
            Some(place) if !value.is_empty() || place.default == Some("") => {
                template.replace(&format!("{{{}}}", place.name), value)
            }
            _ => template.to_owned(),
        };
        if !self.verified {
            tracing::warn!(
                preset = self.name,
                source = self.source,
                "a preset that could not be verified: {}",
                self.note
            );
        }
        let mut provider = Provider::new(self.name, fill(self.authorization_endpoint), fill(self.token_endpoint));
        provider.title = self.title.to_owned();
        provider.revocation_endpoint = self.revocation_endpoint.map(fill);
        provider.userinfo_endpoint = self.userinfo_endpoint.map(fill);
        provider.api_base = self.api_base.map(fill);
        provider.issuer = self.issuer.map(fill);
        provider.metadata_url = self.metadata_url.map(fill);
        provider.scopes = self.scopes.iter().map(|scope| (*scope).to_owned()).collect();
        provider.scope_separator = self.scope_separator;
        provider.client_authentication = self.client_authentication;
        provider.authorization_params = pairs(self.authorization_params);
        provider.offline_access = self.refresh.offline_access();
        provider.api_headers = pairs(self.api_headers);
        provider.dead_grants = super::dead_grants::of(self.name);
        provider.quirks.without_pkce = matches!(self.pkce, Pkce::OptIn | Pkce::Refused);
        self.quirks.iter().for_each(|quirk| quirk.apply(&mut provider.quirks));
        provider.oauth1 = self.oauth1.map(|Signed { temporary_credentials_endpoint, method }| OAuth1 {
            temporary_credentials_endpoint: fill(temporary_credentials_endpoint),
            signature_method: method,
            realm: None,
        });
        provider
    }
}

impl Refresh {
    fn offline_access(self) -> OfflineAccess {
        match self {
            Self::Always | Self::Never | Self::Registration => OfflineAccess::NotAsked,
            Self::Scope(scope) => OfflineAccess::Scope(scope.to_owned()),
            Self::Param(name, value) => OfflineAccess::Params(pairs(&[(name, value)])),
        }
    }
}

impl Quirk {
    fn apply(self, quirks: &mut Quirks) {
        match self {
            Self::ScopeParameter(name) => quirks.scope_parameter = Some(name.to_owned()),
            Self::FormPost => quirks.form_post = true,
            Self::CallbackFragment => quirks.callback_fragment = true,
            Self::WithoutNonce => quirks.without_nonce = true,
            Self::TokenJson => quirks.token_request = TokenRequest::Json,
            Self::TokenParam(name, value) => drop(quirks.token_params.insert(name.to_owned(), value.to_owned())),
            Self::TokenEndpointHeader(name, value) => {
                quirks.token_headers.insert(name.to_owned(), value.to_owned());
            }
            Self::RefreshEndpoint(url) => quirks.refresh_endpoint = Some(url.to_owned()),
            Self::TokenMember(name) => quirks.token_member = Some(name.to_owned()),
            Self::LifetimeMember(name) => quirks.lifetime_member = Some(name.to_owned()),
            Self::TokenType(name) => quirks.token_types.push(name.to_owned()),
            Self::TokenScheme(scheme) => quirks.token_header = TokenHeader::Scheme(scheme.to_owned()),
            Self::TokenHeader(name) => quirks.token_header = TokenHeader::Named(name.to_owned()),
            Self::ApiBaseMember(name) => quirks.api_base_member = Some(name.to_owned()),
            Self::Revocation(request) => quirks.revocation = request,
        }
    }
}

fn pairs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// A host, with a port or not, a tenant or the name of a shop: nothing that could end the host it stands in.
pub(super) fn is_fit(value: &str) -> bool {
    let fit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | ':');
    !value.is_empty() && value.chars().all(fit)
}

/// The types of some presets, with `ALL` of them as data.
///
/// Behind a type's name stand the ways to make a [`Provider`] of it.
macro_rules! presets {
    ($($(#[$doc:meta])* $preset:ident($($constructor:ident),*) { $($field:ident: $value:expr),* $(,)? })*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug)]
            pub struct $preset;

            impl $preset {
                pub(super) const PRESET: Preset = Preset { $($field: $value,)* ..Preset::DEFAULT };
                $(presets!(@$constructor);)*
            }

            impl crate::config::provider::ProviderName for $preset {
                const NAME: &'static str = Self::PRESET.name;
            }
        )*

        pub(super) const ALL: &[Preset] = &[$($preset::PRESET),*];
    };
    (@provider) => {
        /// The provider's data, to register a client with or to change first.
        pub fn provider() -> Provider {
            Self::PRESET.provider()
        }
    };
    (@at) => {
        /// The same at this host, which a port may follow. Another thing is refused when the registration is checked.
        pub fn at(host: &str) -> Provider {
            Self::PRESET.at(host).unwrap_or_else(|| Self::PRESET.provider())
        }
    };
    (@tenant) => {
        /// The same for this tenant: its id, its domain, `organizations` or `consumers`.
        pub fn tenant(tenant: &str) -> Provider {
            Self::PRESET.at(tenant).unwrap_or_else(|| Self::PRESET.provider())
        }
    };
    (@shop) => {
        /// The shop that is at this name under `myshopify.com`.
        pub fn shop(shop: &str) -> Provider {
            Self::PRESET.at(shop).unwrap_or_else(|| Self::PRESET.provider())
        }
    };
    (@sandbox) => {
        /// The provider's sandbox, for tests.
        pub fn sandbox() -> Provider {
            Self::PRESET.sandbox()
        }
    };
}

pub(super) use presets;
