//! The authorization endpoint (RFC 6749 section 4.1.1), and pushed requests (RFC 9126).

use http::StatusCode;
use serde_json::json;
use url::Url;

use super::endpoints::Exchange;
use super::grants::Authorization;
use super::log::{LoggedRequest, only, repeats};
use super::reply::Reply;
use super::resource_owner::{AuthorizationRequest, Decision};
use super::token::is_43_base64url;

type Parameters = Vec<(String, String)>;

impl Exchange<'_> {
    pub(super) fn authorize(&self) -> Reply {
        let pushed = match self.request.parameter("request_uri").map(|uri| self.shared.grants().pushed(uri)) {
            Some(None) => return self.show_error("The request_uri is unknown or was used before."),
            None if self.settings.requires_pushed_requests => {
                return self.show_error("The authorization request must be pushed.");
            }
            Some(Some(pushed)) if only(&pushed, "client_id") != self.request.parameter("client_id") => {
                return self.show_error("The request was pushed by another client.");
            }
            pushed => pushed.flatten(),
        };
        self.respond_to(pushed.as_ref().unwrap_or(&self.request.query))
    }

    /// Errors before the redirect URI is verified are shown to the user, and all others are sent to the client (RFC 6749
    /// section 4.1.2.1).
    fn respond_to(&self, parameters: &Parameters) -> Reply {
        let parameter = |name| only(parameters, name);
        let client = parameter("client_id").and_then(|id| Some((id, self.settings.clients.get(id)?)));
        let Some((client_id, client)) = client else { return self.show_error("The client_id is unknown.") };
        let redirect_uri = parameter("redirect_uri").filter(|uri| client.allows(uri));
        let Some(redirect_uri) = redirect_uri.filter(|uri| Url::parse(uri).is_ok()) else {
            return self.show_error("The redirect_uri is not registered for this client.");
        };
        let respond = |response: &[(&str, &str)]| self.response(redirect_uri, parameters, response);
        let scope = match parameter("scope") {
            None => self.settings.scopes.first().map_or("", String::as_str),
            Some(scope) => scope,
        };
        if let Err((error, description)) = self.check(parameters, scope) {
            return respond(&[("error", error), ("error_description", description)]);
        }
        let request = AuthorizationRequest { client_id, redirect_uri, scope, http: self.request };
        let decision = self.decide(&request, parameters);
        if !matches!(decision, Decision::Ask(_)) {
            self.forget_pushed();
        }
        match decision {
            Decision::Ask(page) => page.into(),
            Decision::Deny(error) => respond(&[("error", &error)]),
            Decision::Approve(user) => {
                let owned = |name| parameter(name).unwrap_or_default().to_owned();
                let authorization = Authorization {
                    client: client_id.to_owned(),
                    redirect_uri: redirect_uri.to_owned(),
                    challenge: owned("code_challenge"),
                    user,
                    scope: scope.to_owned(),
                    jkt: parameter("dpop_jkt").map(str::to_owned),
                    nonce: parameter("nonce").map(str::to_owned),
                };
                let code = self.shared.grants().code(self.settings, authorization);
                respond(&[("code", &code)])
            }
        }
    }

    /// `state` and PKCE by S256 (RFC 7636 section 4.3) are required.
    fn check(&self, parameters: &Parameters, scope: &str) -> Result<(), (&'static str, &'static str)> {
        let parameter = |name| only(parameters, name);
        let invalid = |description| Err(("invalid_request", description));
        if repeats(parameters) {
            return invalid("a parameter is repeated");
        }
        match parameter("response_type") {
            Some("code") => {}
            None => return invalid("response_type is missing"),
            Some(_) => return Err(("unsupported_response_type", "response_type must be code")),
        }
        if parameter("state").is_none() {
            return invalid("state is missing");
        }
        if !parameter("code_challenge").is_some_and(is_43_base64url) {
            return invalid("code_challenge is required: 43 characters of base64url");
        }
        if parameter("code_challenge_method") != Some("S256") {
            return invalid("code_challenge_method must be S256");
        }
        if self.settings.knows(scope) { Ok(()) } else { Err(("invalid_scope", "the scope is unknown")) }
    }

    /// The resource owner's decision. Without a resource owner, the request is approved.
    pub(super) fn decide(&self, request: &AuthorizationRequest<'_>, parameters: &[(String, String)]) -> Decision {
        match (&self.settings.resource_owner, &self.settings.refuses) {
            (Some(owner), _) => owner.decide(request),
            (None, Some(error)) => Decision::Deny(error.clone()),
            (None, None) => Decision::Approve(only(parameters, "login_hint").unwrap_or(&self.settings.user).to_owned()),
        }
    }

    /// The authorization response (RFC 6749 section 4.1.2).
    fn response(&self, redirect_uri: &str, parameters: &Parameters, response: &[(&str, &str)]) -> Reply {
        let mut response = response.to_vec();
        response.extend(only(parameters, "state").map(|state| ("state", state)));
        if self.settings.issuer_parameter {
            response.push(("iss", self.issuer()));
        }
        if only(parameters, "response_mode") == Some("form_post") {
            response.extend(self.settings.posted_user.as_deref().map(|user| ("user", user)));
            return Reply::form_page(redirect_uri, &response);
        }
        match Url::parse(redirect_uri) {
            Ok(mut callback) => {
                callback.query_pairs_mut().extend_pairs(response);
                Reply::redirect(callback.as_str())
            }
            Err(_) => self.show_error("The redirect_uri is not a URL."),
        }
    }

    /// RFC 9126 section 2.1, with RFC 9449 section 10.1.
    pub(super) fn push(&self) -> Reply {
        let LoggedRequest { form, .. } = self.request;
        match self.authenticate() {
            Ok(client) if only(form, "client_id") == Some(&client) => {}
            Ok(_) => return Reply::invalid_request("client_id is required, once, and must be the client's own"),
            Err(refusal) => return *refusal,
        }
        if form.iter().any(|(name, _)| name == "request_uri") {
            return Reply::invalid_request("request_uri cannot be pushed");
        }
        let jkt = match self.proved_key(StatusCode::BAD_REQUEST, None) {
            Ok(jkt) => jkt,
            Err(refusal) => return *refusal,
        };
        if jkt.is_some() && jkt.as_deref() != only(form, "dpop_jkt") {
            return Reply::invalid_request("dpop_jkt is not the thumbprint of the key that is proved");
        }
        let parameters = form.iter().filter(|(name, _)| name != "client_secret").cloned().collect();
        let request_uri = self.shared.grants().push(self.settings, parameters);
        Reply::json(StatusCode::CREATED, json!({ "request_uri": request_uri, "expires_in": 60 }))
    }

    /// A `request_uri` is valid for one decision (RFC 9126 section 4).
    fn forget_pushed(&self) {
        if let Some(request_uri) = self.request.parameter("request_uri") {
            self.shared.grants().forget_pushed(request_uri);
        }
    }

    pub(super) fn show_error(&self, why: &str) -> Reply {
        self.refuse(StatusCode::BAD_REQUEST, "invalid_request", why)
    }
}
