//! The table as a page, `docs/providers.md`. The test writes the page if `UPDATE_DOCS=1` is set.

use std::fmt::Write as _;
use std::path::Path;

use super::all;
use super::dead_grants::{self, Evidence};
use super::known::Pattern;
use super::native::Native;
use super::table::{Pkce, Preset, Quirk, Refresh};
use crate::config::provider::{ClientAuthentication, Provider};
use crate::config::quirks::RevocationRequest;

const INTRODUCTION: &str = "\
# Providers

Each preset is a type in `oauth_dance::presets` and an entry in one table, from which this page is generated. You can change every
field of the `Provider` that a preset returns. A provider that is not listed here is declared with the same fields.

*Source* is the provider's public documentation, against which the entry was checked in November 2026; not every entry was tested
with a real login. Properties that the source does not confirm are listed below the table. *PKCE* is always sent, unless the
column says no. *Refresh* is when the provider issues a refresh token; the required scope or parameter is requested in addition to
the scopes. *Device* is whether the preset has a device authorization endpoint (RFC 8628), for programs on machines without a
browser. For OAuth 1.0a, which needs the cargo feature `oauth1`, *Client* is the signature method, and *PKCE*, *Refresh*,
*Revocation* and *Device* do not apply. `{…}` is replaced by the preset's functions, such as `GitLab::at(\"gitlab.example.com\")`,
or by `host` in a configuration.

## A dead grant

If a refresh token is invalid, expired or revoked, the provider responds with `invalid_grant` (RFC 6749 section 5.2), and the user
has to authorize again. This code counts with any status, inside an object or a list, in upper or lower case. If a text next
to it says that the request may succeed later (Salesforce: \"token request is already being processed\"), it counts as an unknown error
instead. Some providers use other codes, which are part of the preset, and listed below with their source. *Not found* means that
neither the documentation nor a report shows the response, so only the standard code is known. If a response says in a sentence that
the refresh token is invalid, expired, revoked or unknown, and nothing else, that counts for every provider, with status 200 or any
from 400 to 499 except 408, 425 and 429. A response with an access token never counts, whatever else it contains.

After any other refusal, the refresh is retried. [Operations](operating.md#automatic-refresh) describes what happens if the
refusals continue. Client errors never end a connection: `invalid_client` in any spelling, a sentence about the client or its
secret, status 401 without a reason that concerns the grant, and `invalid_grant` for the refresh token of another client,
unless the text names that as one of several causes.

For your own provider, declare what its documentation shows: the status, if it matters, and all members that the response must
have. A dot selects a member of an object, or of each item of a list; `*` at the end of a value matches any rest. Patterns in a
configuration are added to those of a preset.

```toml
[[providers.acme.dead_grants]]
status = 403
members = { error = \"access_denied\", \"details.reason\" = \"refresh_token revoked*\" }
```

In code, this is `Provider::dead_grants`, a list of `ErrorPattern`.

## All presets
";

#[test]
fn the_page_equals_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/providers.md");
    let page = page();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == page, "docs/providers.md differs from the table; run this test with UPDATE_DOCS=1");
}

fn page() -> String {
    let mut page = INTRODUCTION.to_owned();
    page.push_str("\n| Preset | Name | Default scopes | Client | PKCE | Refresh | Revocation | Device | Source |\n");
    page.push_str("| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n");
    for preset in all() {
        let provider = template(preset);
        let title = if preset.verified { provider.title.clone() } else { format!("{} (not verified)", provider.title) };
        let cells = [
            title,
            format!("`{}`", preset.name),
            scopes(&provider),
            client(&provider).to_owned(),
            pkce(preset, &provider).to_owned(),
            refresh(preset, &provider),
            revocation(&provider).to_owned(),
            if provider.device_authorization_endpoint.is_some() { "yes" } else { "none" }.to_owned(),
            format!("[source]({})", preset.source),
        ];
        let _ = writeln!(page, "| {} |", cells.join(" | "));
    }
    for preset in all() {
        page.push_str(&details(preset));
    }
    page
}

/// The provider with its placeholders still in braces.
fn template(preset: &Preset) -> Provider {
    preset.declared(&str::to_owned)
}

fn details(preset: &Preset) -> String {
    let provider = template(preset);
    let mut text = format!("\n## {}\n\n", provider.title);
    if !preset.note.is_empty() {
        let _ = writeln!(text, "{}\n", preset.note);
    }
    if let Some(place) = preset.place {
        let default = match place.default {
            None => "must be set".to_owned(),
            Some("") => "is empty".to_owned(),
            Some(default) => format!("is `{default}`"),
        };
        let sandbox = place.sandbox.map(|sandbox| format!(", in the sandbox `{sandbox}`")).unwrap_or_default();
        let _ = writeln!(text, "- `{{{}}}` {default}{sandbox}", place.name);
    }
    let mut url = |what: &str, url: Option<&String>| {
        if let Some(url) = url {
            let _ = writeln!(text, "- {what}: `{url}`");
        }
    };
    url(
        "temporary credentials endpoint",
        provider.oauth1.as_ref().map(|oauth1| &oauth1.temporary_credentials_endpoint),
    );
    url("authorization endpoint", Some(&provider.authorization_endpoint));
    url("token endpoint", Some(&provider.token_endpoint));
    url("revocation endpoint", provider.revocation_endpoint.as_ref());
    url("userinfo endpoint", provider.userinfo_endpoint.as_ref());
    url("API base", provider.api_base.as_ref());
    url("issuer", provider.issuer.as_ref());
    url("metadata", provider.metadata_url.as_ref());
    for (name, value) in &provider.authorization_params {
        let _ = writeln!(text, "- sends `{name}={value}`");
    }
    for (name, value) in &provider.api_headers {
        let _ = writeln!(text, "- API calls carry `{name}: {value}`");
    }
    for line in preset.quirks.iter().filter_map(|quirk| quirk_line(*quirk)) {
        let _ = writeln!(text, "- {line}");
    }
    text.push_str(&native(preset, &provider));
    text.push_str(&dead_grant(preset));
    if !preset.unconfirmed.is_empty() {
        let _ =
            writeln!(text, "- used by other clients, not confirmed by the source: {}", preset.unconfirmed.join(", "));
    }
    text
}

/// What it offers to programs on the user's own machine.
fn native(preset: &Preset, provider: &Provider) -> String {
    let Some(row) = Native::of(preset) else { return String::new() };
    let mut text = String::new();
    if let (Some(endpoint), Some((_, source))) = (&provider.device_authorization_endpoint, row.device) {
        let _ = writeln!(text, "- device authorization endpoint: `{endpoint}` ([documented]({source}))");
    }
    if let Some(source) = row.localhost {
        let _ = writeln!(text, "- a loopback redirect uses `localhost` ([documented]({source}))");
    }
    text
}

/// The error responses to a dead refresh token.
fn dead_grant(preset: &Preset) -> String {
    let Some(known) = dead_grants::ALL.iter().find(|known| known.preset == preset.name) else { return String::new() };
    let responses = [String::from("`invalid_grant`")].into_iter().chain(known.patterns.iter().map(pattern));
    let responses = responses.collect::<Vec<_>>().join(", or ");
    match known.source {
        Evidence::NoRefreshToken => String::new(),
        Evidence::Documented(source) => format!("- a dead grant has {responses} ([documented]({source}))\n"),
        Evidence::Reported(source) => format!("- a dead grant has {responses} ([reported]({source}))\n"),
        Evidence::Clients => format!("- a dead grant has {responses} (used by other clients)\n"),
        Evidence::Unknown(source) => {
            format!("- the response for a dead grant was [not found]({source}); {responses} counts\n")
        }
    }
}

fn pattern(pattern: &Pattern) -> String {
    let members = pattern.members.iter().map(|(path, value)| format!("`{path}` = `{value}`"));
    let members = members.collect::<Vec<_>>().join(" and ");
    pattern.status.map_or(members.clone(), |status| format!("status {status} with {members}"))
}

fn scopes(provider: &Provider) -> String {
    let separator = if provider.scope_separator == ',' { ", with commas" } else { "" };
    match provider.scopes.as_slice() {
        [] => "none".to_owned(),
        scopes => format!("`{}`{separator}", scopes.join(" ")),
    }
}

fn client(provider: &Provider) -> &'static str {
    if let Some(oauth1) = &provider.oauth1 {
        return oauth1.signature_method.as_str();
    }
    match provider.client_authentication {
        ClientAuthentication::Basic => "HTTP Basic",
        ClientAuthentication::Body => "in the body",
    }
}

fn pkce(preset: &Preset, provider: &Provider) -> &'static str {
    match preset.pkce {
        _ if provider.oauth1.is_some() => "OAuth 1.0a",
        Pkce::Documented => "yes",
        Pkce::Undocumented => "sent, not documented",
        Pkce::OptIn => "no, only for public clients",
        Pkce::Refused => "no, rejected",
    }
}

fn refresh(preset: &Preset, provider: &Provider) -> String {
    match preset.refresh {
        _ if provider.oauth1.is_some() => "not needed".to_owned(),
        Refresh::Always => "always".to_owned(),
        Refresh::Never => "never".to_owned(),
        Refresh::Registration => "as registered".to_owned(),
        Refresh::Scope(scope) => format!("by scope `{scope}`"),
        Refresh::Param(name, value) => format!("by `{name}={value}`"),
    }
}

fn revocation(provider: &Provider) -> &'static str {
    match (&provider.revocation_endpoint, provider.quirks.revocation) {
        (None, _) => "none",
        (Some(_), RevocationRequest::Rfc7009) => "RFC 7009",
        (Some(_), RevocationRequest::Json) => "the access token as JSON",
        (Some(_), RevocationRequest::Post) => "`POST` with the access token",
        (Some(_), RevocationRequest::Delete) => "`DELETE` with the access token",
        (Some(_), RevocationRequest::DeleteAsClient) => "`DELETE` by the client",
    }
}

/// A quirk in words; `None` if it has a column.
fn quirk_line(quirk: Quirk) -> Option<String> {
    match quirk {
        Quirk::Revocation(_) => None,
        Quirk::ScopeParameter(name) => Some(format!("scopes are requested as `{name}`")),
        Quirk::FormPost => Some("the response is a `form_post`".to_owned()),
        Quirk::CallbackFragment => Some("the fragment that it adds is removed".to_owned()),
        Quirk::WithoutNonce => Some("no nonce is sent".to_owned()),
        Quirk::TokenJson => Some("token requests are JSON".to_owned()),
        Quirk::TokenParam(name, value) => Some(format!("the code is redeemed with `{name}={value}`")),
        Quirk::TokenEndpointHeader(name, value) => Some(format!("token requests carry `{name}: {value}`")),
        Quirk::RefreshEndpoint(url) => Some(format!("tokens are refreshed at `{url}`")),
        Quirk::TokenMember(name) => Some(format!("the user's token is inside `{name}`")),
        Quirk::LifetimeMember(name) => Some(format!("the lifetime of a token is in `{name}`, if it is present")),
        Quirk::TokenType(name) => Some(format!("the token type `{name}` is accepted")),
        Quirk::TokenScheme(scheme) => Some(format!("tokens are presented as `Authorization: {scheme} …`")),
        Quirk::TokenHeader(name) => Some(format!("tokens are presented in the header `{name}`")),
        Quirk::ApiBaseMember(name) => Some(format!("the token response contains the API base in `{name}`")),
    }
}
