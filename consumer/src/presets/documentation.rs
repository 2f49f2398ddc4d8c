//! The table as a page, `docs/providers.md`. With `UPDATE_DOCS=1` the test writes it.

use std::fmt::Write as _;
use std::path::Path;

use super::all;
use super::dead_grants::{self, Evidence, Shape};
use super::table::{Pkce, Preset, Quirk, Refresh};
use crate::config::provider::{ClientAuthentication, Provider};
use crate::config::quirks::RevocationRequest;

const INTRODUCTION: &str = "\
# Providers

Each is a type of `oauth_dance::presets` and an entry of one table, from which this page is made. Every field can be
changed on the `Provider` that a preset gives, and a provider that is not here can be described with the same fields.

*Source* is the provider's public documentation that the entry was checked against in November 2026; nobody has logged in at
all of these providers with it. What was not seen there is named below. *PKCE* is always sent, unless it says no. *Refresh* is
when there is a refresh token; what asks for it is asked for, besides the scopes. A provider of OAuth 1.0a has none of these;
it needs the cargo feature `oauth1`, and *Client* says how its requests are signed. `{…}` is filled in by the preset's
functions, such as `GitLab::at(\"gitlab.example.com\")`, or by `host` in a configuration.

## A dead grant

A refresh token that is invalid, expired or revoked is answered with `invalid_grant` (RFC 6749 section 5.2), and its user has
to authorize again. That word always counts: with any status, in an object or a list, in any case. Some providers have other
words, which are data of the preset and named below with the place they are known from; *not found* says that neither the
documentation nor a report was found that shows the answer, so that the standard's word alone is known. Of a provider that
is not known, a sentence that says that the refresh token is invalid, expired, revoked or unknown, and nothing else, counts
too, with status 200 or any of 400 to 499 but 408, 425 and 429. An answer with an access token in it never counts, whatever it says.

Every other refusal costs no user their connection at once: it is tried again, and what comes of one that does not end is in
[operating it](operating.md). Errors of the client never do: `invalid_client` in any spelling, a sentence about the client or
its secret, status 401 that says nothing of the grant, and `invalid_grant` for the refresh token of another client.

For a provider of your own, say what its documentation shows: the status, if it matters, and members of the answer that must
all be as given. A dot leads into an object, and into each item of a list; `*` at the end of a value stands for anything. What
is named here is added to what a preset knows.

```toml
[[providers.acme.dead_grants]]
status = 403
members = { error = \"access_denied\", \"details.reason\" = \"refresh_token revoked*\" }
```

In code it is `Provider::dead_grants`, a list of `DeadGrant`.

## All presets
";

#[test]
fn the_page_shows_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/providers.md");
    let page = page();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == page, "docs/providers.md is not what the table says; run this test with UPDATE_DOCS=1");
}

fn page() -> String {
    let mut page = INTRODUCTION.to_owned();
    page.push_str("\n| Preset | Name | Default scopes | Client | PKCE | Refresh | Revocation | Source |\n");
    page.push_str("| --- | --- | --- | --- | --- | --- | --- | --- |\n");
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
            format!("[source]({})", preset.source),
        ];
        let _ = writeln!(page, "| {} |", cells.join(" | "));
    }
    for preset in all() {
        page.push_str(&details(preset));
    }
    page
}

/// The provider with its places still in braces.
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
            None => "has to be said".to_owned(),
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
    text.push_str(&dead_grant(preset));
    if !preset.unconfirmed.is_empty() {
        let _ = writeln!(text, "- as other clients have it, not seen in the source: {}", preset.unconfirmed.join(", "));
    }
    text
}

/// How it says that a refresh token is of no use any more.
fn dead_grant(preset: &Preset) -> String {
    let Some(known) = dead_grants::ALL.iter().find(|known| known.preset == preset.name) else { return String::new() };
    let answers = [String::from("`invalid_grant`")].into_iter().chain(known.answers.iter().map(answer));
    let answers = answers.collect::<Vec<_>>().join(", or ");
    match known.evidence {
        Evidence::NoRefreshToken => String::new(),
        Evidence::Documented(source) => format!("- a dead grant is {answers} ([documented]({source}))\n"),
        Evidence::Reported(source) => format!("- a dead grant is {answers} ([as reported]({source}))\n"),
        Evidence::Clients => format!("- a dead grant is {answers} (as other clients have it)\n"),
        Evidence::Unknown(source) => {
            format!("- how it answers for a dead grant was [not found]({source}); {answers} counts\n")
        }
    }
}

fn answer(shape: &Shape) -> String {
    let members = shape.members.iter().map(|(path, value)| format!("`{path}` = `{value}`"));
    let members = members.collect::<Vec<_>>().join(" and ");
    shape.status.map_or(members.clone(), |status| format!("status {status} with {members}"))
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
        Pkce::Refused => "no, it is refused",
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

/// A quirk in words; `None` for one that has a column.
fn quirk_line(quirk: Quirk) -> Option<String> {
    match quirk {
        Quirk::Revocation(_) => None,
        Quirk::ScopeParameter(name) => Some(format!("scopes are asked for as `{name}`")),
        Quirk::FormPost => Some("the answer comes by `form_post`".to_owned()),
        Quirk::CallbackFragment => Some("the fragment it adds is dropped".to_owned()),
        Quirk::WithoutNonce => Some("no nonce is sent".to_owned()),
        Quirk::TokenJson => Some("token requests are JSON".to_owned()),
        Quirk::TokenParam(name, value) => Some(format!("the code is redeemed with `{name}={value}`")),
        Quirk::TokenEndpointHeader(name, value) => Some(format!("token requests carry `{name}: {value}`")),
        Quirk::RefreshEndpoint(url) => Some(format!("tokens are refreshed at `{url}`")),
        Quirk::TokenMember(name) => Some(format!("the user's token is inside of `{name}`")),
        Quirk::LifetimeMember(name) => Some(format!("how long a token lasts stands in `{name}`, if it is there")),
        Quirk::TokenType(name) => Some(format!("the token type `{name}` is accepted")),
        Quirk::TokenScheme(scheme) => Some(format!("tokens are presented as `Authorization: {scheme} …`")),
        Quirk::TokenHeader(name) => Some(format!("tokens are presented in the header `{name}`")),
        Quirk::ApiBaseMember(name) => Some(format!("the token response says in `{name}` where the API is")),
    }
}
