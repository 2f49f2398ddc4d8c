//! An entry of the table, and how it becomes a [`Provider`].
//!
//! An entry records more than a provider needs: the source of each fact, and which facts are not confirmed. One macro
//! creates the type, the data and the list of all presets from it, so that none of them can be forgotten, and tests and the
//! page in the documentation read the same table.

use std::collections::BTreeMap;

use super::known::patterns_of;
use super::native::Native;
use super::{dead_grants, rejected_tokens};
use crate::config::oauth1::{OAuth1, SignatureMethod};
use crate::config::provider::{ClientAuthentication, OfflineAccess, Provider};
use crate::config::quirks::{Quirks, RevocationRequest, TokenHeader, TokenRequest};

/// What is known about a provider, and its declaration.
#[derive(Clone, Copy)]
pub(super) struct Preset {
    pub(super) name: &'static str,
    /// The provider's public documentation that the entry was checked against.
    pub(super) source: &'static str,
    /// Whether the entry is confirmed by public sources, and none says that the provider is gone.
    pub(super) verified: bool,
    /// What the provider's own documentation does not confirm; other clients of the provider use it.
    #[cfg_attr(not(test), expect(dead_code, reason = "read by the page that is generated from the table"))]
    pub(super) unconfirmed: &'static [&'static str],
    /// What users should know, in one or more sentences.
    pub(super) note: &'static str,
    /// The placeholder in the URLs, and its default.
    pub(super) place: Option<Place>,
    pub(super) pkce: Pkce,
    pub(super) refresh: Refresh,
    pub(super) quirks: &'static [Quirk],
    /// Sets the fields of the provider; `fill` replaces the placeholder.
    pub(super) declare: fn(&mut Provider, Fill<'_>),
}

/// Replaces the placeholder.
pub(super) type Fill<'a> = &'a dyn Fn(&str) -> String;

/// A part of the URLs that differs between installations, such as `{host}`.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) name: &'static str,
    pub(super) default: Option<&'static str>,
    /// Its value for the provider's sandbox.
    pub(super) sandbox: Option<&'static str>,
}

/// Whether the provider supports PKCE (RFC 7636).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Pkce {
    /// The documentation requires or allows it.
    Documented,
    /// The documentation does not mention it. It is sent, because unknown parameters must be ignored (RFC 6749 section 3.1).
    Undocumented,
    /// Only for clients that are registered as public. It is not sent.
    OptIn,
    /// A request with it is rejected. It is not sent.
    Refused,
}

/// Whether there are refresh tokens.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Refresh {
    /// With every token.
    Always,
    /// Never: access tokens last until they are revoked, or the user has to log in again.
    Never,
    /// According to the client's registration.
    Registration,
    /// With this scope, which is requested.
    Scope(&'static str),
    /// With this parameter, which is sent.
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
        source: "",
        verified: true,
        unconfirmed: &[],
        note: "",
        place: None,
        pkce: Pkce::Undocumented,
        refresh: Refresh::Always,
        quirks: &[],
        declare: |_, _| {},
    };

    /// The provider with the default for its placeholder. Without a default it keeps the braces, which no registration
    /// accepts.
    pub(super) fn provider(&self) -> Provider {
        match self.place.and_then(|place| place.default) {
            Some(default) => self.filled(default),
            None => self.filled(""),
        }
    }

    /// The provider with this value for its placeholder, or `None` if it has none. An invalid value leaves the braces.
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
        self.declared(&fill)
    }

    /// The provider, with its placeholder replaced by `fill`.
    pub(super) fn declared(&self, fill: Fill<'_>) -> Provider {
        let mut provider = Provider::new(self.name, "", "");
        (self.declare)(&mut provider, fill);
        if let Some(native) = Native::of(self) {
            native.declare(&mut provider, fill);
        }
        provider.offline_access = self.refresh.offline_access();
        provider.dead_grants = patterns_of(dead_grants::ALL, self.name);
        provider.rejected_tokens = patterns_of(rejected_tokens::ALL, self.name);
        provider.quirks.without_pkce = matches!(self.pkce, Pkce::OptIn | Pkce::Refused);
        self.quirks.iter().for_each(|quirk| quirk.apply(&mut provider.quirks));
        provider
    }
}

/// The notation of a [`Provider`]'s field in the table.
pub(super) trait Written<T> {
    fn read(self, fill: Fill<'_>) -> T;
}

impl Written<String> for &str {
    fn read(self, fill: Fill<'_>) -> String {
        fill(self)
    }
}

impl Written<Option<String>> for &str {
    fn read(self, fill: Fill<'_>) -> Option<String> {
        Some(fill(self))
    }
}

impl<const N: usize> Written<Vec<String>> for [&str; N] {
    fn read(self, _: Fill<'_>) -> Vec<String> {
        self.map(str::to_owned).into()
    }
}

impl<const N: usize> Written<BTreeMap<String, String>> for [(&str, &str); N] {
    fn read(self, _: Fill<'_>) -> BTreeMap<String, String> {
        pairs(&self)
    }
}

impl Written<Option<OAuth1>> for (SignatureMethod, &str) {
    fn read(self, fill: Fill<'_>) -> Option<OAuth1> {
        Some(OAuth1 { temporary_credentials_endpoint: fill(self.1), signature_method: self.0, realm: None })
    }
}

impl Written<Self> for char {
    fn read(self, _: Fill<'_>) -> Self {
        self
    }
}

impl Written<Self> for ClientAuthentication {
    fn read(self, _: Fill<'_>) -> Self {
        self
    }
}

impl Refresh {
    fn offline_access(self) -> OfflineAccess {
        match self {
            Self::Always | Self::Never | Self::Registration => OfflineAccess::NotRequested,
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

/// A host with or without a port, a tenant or the name of a shop, without characters that could end the host.
pub(super) fn is_fit(value: &str) -> bool {
    let fit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | ':');
    !value.is_empty() && value.chars().all(fit)
}

/// The types of some presets, and `ALL` of them as data: what is known about each, and the fields that it `declares`.
///
/// The functions after a type's name create a [`Provider`].
macro_rules! presets {
    ($(
        $(#[$doc:meta])* $preset:ident($($constructor:ident),*) { $($known:ident: $fact:expr),* $(,)? }
        declares { $($field:ident: $value:expr),* $(,)? }
    )*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug)]
            pub struct $preset;

            impl $preset {
                pub(super) const PRESET: Preset = Preset {
                    $($known: $fact,)*
                    declare: |provider, fill| { $(provider.$field = Written::read($value, fill);)* },
                    ..Preset::DEFAULT
                };
                $(presets!(@$constructor);)*
            }

            impl crate::config::provider::ProviderName for $preset {
                const NAME: &'static str = Self::PRESET.name;
            }
        )*

        pub(super) const ALL: &[Preset] = &[$($preset::PRESET),*];
    };
    (@provider) => {
        /// The provider's data, to register a client with or to change first; see [`Provider::client`]. If the preset has a
        /// placeholder without a default, such as the host of an installation, use the other constructor: a provider with a
        /// placeholder is rejected when the registration is checked.
        pub fn provider() -> Provider {
            Self::PRESET.provider()
        }
    };
    (@at) => {
        /// The same at this host, such as `id.example.com`, optionally with a port. An invalid host is rejected when the
        /// registration is checked.
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
        /// The shop with this name under `myshopify.com`: `acme` for `acme.myshopify.com`. An invalid name is rejected
        /// when the registration is checked, so the name may come from a user.
        pub fn shop(shop: &str) -> Provider {
            Self::PRESET.at(shop).unwrap_or_else(|| Self::PRESET.provider())
        }
    };
    (@sandbox) => {
        /// The provider's sandbox, for tests. It has its own accounts and clients, and the same name as the provider;
        /// use [`Provider::named`] to have both in one application.
        pub fn sandbox() -> Provider {
            Self::PRESET.sandbox()
        }
    };
}

pub(super) use presets;
