//! What providers offer to programs on the user's own machine, as rows of a table.

use super::table::{Fill, Preset};
use crate::config::provider::{LoopbackHost, Provider};

/// The row of one provider.
pub(super) struct Native {
    /// The preset's name.
    pub(super) preset: &'static str,
    /// The device authorization endpoint (RFC 8628 section 3.1), and the page that documents it.
    pub(super) device: Option<(&'static str, &'static str)>,
    /// The page that says that a loopback redirect needs the host `localhost`.
    pub(super) localhost: Option<&'static str>,
}

pub(super) const ALL: &[Native] = &[
    Native {
        preset: "github",
        device: Some((
            "https://github.com/login/device/code",
            "https://docs.github.com/en/apps/oauth-apps/building-oauth-apps/authorizing-oauth-apps#device-flow",
        )),
        localhost: None,
    },
    Native {
        preset: "github-enterprise",
        device: Some((
            "https://{host}/login/device/code",
            "https://docs.github.com/en/enterprise-server@3.15/apps/oauth-apps/building-oauth-apps/authorizing-oauth-apps#device-flow",
        )),
        localhost: None,
    },
    Native {
        preset: "gitlab",
        device: Some((
            "https://{host}/oauth/authorize_device",
            "https://docs.gitlab.com/api/oauth2/#device-authorization-grant-flow",
        )),
        localhost: None,
    },
    Native {
        preset: "google",
        device: Some((
            "https://oauth2.googleapis.com/device/code",
            "https://developers.google.com/identity/protocols/oauth2/limited-input-device",
        )),
        localhost: None,
    },
    Native {
        preset: "microsoft",
        device: Some((
            "https://login.microsoftonline.com/{tenant}/oauth2/v2.0/devicecode",
            "https://learn.microsoft.com/en-us/entra/identity-platform/v2-oauth2-device-code",
        )),
        localhost: Some("https://learn.microsoft.com/en-us/entra/identity-platform/reply-url"),
    },
    Native {
        preset: "okta",
        device: Some((
            "https://{host}/oauth2/v1/device/authorize",
            "https://developer.okta.com/docs/guides/device-authorization-grant/main/",
        )),
        localhost: None,
    },
];

impl Native {
    /// The row of a preset.
    pub(super) fn of(preset: &Preset) -> Option<&'static Self> {
        ALL.iter().find(|row| row.preset == preset.name)
    }

    /// Sets the fields of the provider.
    pub(super) fn declare(&self, provider: &mut Provider, fill: Fill<'_>) {
        provider.device_authorization_endpoint = self.device.map(|(endpoint, _)| fill(endpoint));
        if self.localhost.is_some() {
            provider.loopback_host = LoopbackHost::Localhost;
        }
    }
}
