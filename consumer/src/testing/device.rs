//! The device grant (RFC 8628): the device gets a code, and the user enters it in a browser.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use http::StatusCode;
use oauth_dance_core::{OAuth2Token, Timestamp, random_bytes};
use serde_json::json;

use super::endpoints::Exchange;
use super::grants::{GrantError, Redemption, random};
use super::reply::Reply;
use super::resource_owner::{AuthorizationRequest, Decision};

/// How long a device may ask for its token.
const LIFETIME: Duration = Duration::from_secs(600);
/// How much longer the interval becomes if a device does not respect it (section 3.5).
const SLOW_DOWN: Duration = Duration::from_secs(5);
/// The letters of a user code, none of which looks like another, or makes words (section 6.1).
const LETTERS: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";
const USER_CODE_LENGTH: usize = 8;

/// The devices that have asked for a code, by that code.
#[derive(Debug, Default)]
pub(super) struct Devices(HashMap<String, Device>);

#[derive(Debug)]
struct Device {
    client: String,
    user_code: String,
    scope: String,
    expires_at: Timestamp,
    interval: Duration,
    asked_at: Option<Instant>,
    state: State,
}

#[derive(Debug)]
enum State {
    Pending,
    Denied,
    Approved(String),
    Spent,
}

impl Exchange<'_> {
    /// The device authorization response (section 3.2).
    pub(super) fn authorize_device(&self) -> Reply {
        let client = match self.authenticate() {
            Ok(client) => client,
            Err(refusal) => return *refusal,
        };
        let scope = match self.request.field("scope") {
            None => self.settings.scopes.first().map_or("", String::as_str),
            Some(scope) => scope,
        };
        if !self.settings.knows(scope) {
            return Reply::bad_request("invalid_scope", "the scope is unknown");
        }
        let (device_code, user_code) = (random(self.settings, "device"), user_code());
        let interval = self.settings.device_interval;
        let device = Device {
            client,
            user_code: user_code.clone(),
            scope: scope.to_owned(),
            expires_at: self.settings.clock.now().saturating_add(LIFETIME),
            interval,
            asked_at: None,
            state: State::Pending,
        };
        self.shared.devices().0.insert(device_code.clone(), device);
        let page = format!("{}/device", self.issuer());
        let response = json!({
            "device_code": device_code,
            "user_code": user_code,
            "verification_uri": page,
            "verification_uri_complete": format!("{page}?user_code={user_code}"),
            "expires_in": LIFETIME.as_secs(),
            "interval": interval.as_secs(),
        });
        Reply::json(StatusCode::OK, response)
    }

    /// The page on which the user enters the code (section 3.3). A form with another parameter is one of the resource owner.
    pub(super) fn enter_user_code(&self) -> Reply {
        let parameters = [&self.request.query, &self.request.form].map(|pairs| super::log::only(pairs, "user_code"));
        let Some(user_code) = parameters.into_iter().flatten().next() else { return form().into() };
        let now = self.settings.clock.now();
        let found = {
            let devices = self.shared.devices();
            let device = devices.of(user_code).filter(|device| device.is_pending(now));
            device.map(|device| (device.client.clone(), device.scope.clone()))
        };
        let Some((client, scope)) = found else {
            return self.show_error("The code is unknown, has expired, or was used before.");
        };
        let request = AuthorizationRequest { client_id: &client, redirect_uri: "", scope: &scope, http: self.request };
        let state = match self.decide(&request, &self.request.query) {
            Decision::Ask(page) => return page.into(),
            Decision::Deny(_) => State::Denied,
            Decision::Approve(user) => State::Approved(user),
        };
        let message = match &state {
            State::Approved(_) => "The device is connected. You can close this window.",
            _ => "The device was not connected. You can close this window.",
        };
        if let Some(device) = self.shared.devices().0.values_mut().find(|device| device.user_code == user_code) {
            device.state = state;
        }
        page(message).into()
    }

    /// The token of a device, or why it has to wait (section 3.5).
    pub(super) fn redeem_device_code(&self, by: &Redemption<'_>, device_code: &str) -> Result<OAuth2Token, GrantError> {
        let refuse = |code, why| Err(GrantError { code, why });
        let mut devices = self.shared.devices();
        let Some(device) = devices.0.get_mut(device_code).filter(|device| device.client == by.client) else {
            return refuse("invalid_grant", "the device code is unknown");
        };
        let asked_at = device.asked_at.replace(Instant::now());
        // An interval is in whole seconds, and a request takes some of it.
        if asked_at.is_some_and(|asked_at| asked_at.elapsed() + Duration::from_millis(100) < device.interval) {
            device.interval += SLOW_DOWN;
            return refuse("slow_down", "the device does not respect the interval");
        }
        if device.expires_at <= self.settings.clock.now() {
            return refuse("expired_token", "the device code has expired");
        }
        match &device.state {
            State::Pending => refuse("authorization_pending", "the user has not decided yet"),
            State::Denied => refuse("access_denied", "the user denied access"),
            State::Spent => refuse("invalid_grant", "the device code was used before"),
            State::Approved(user) => {
                let token = self.shared.grants().issue(by, user, &device.scope);
                device.state = State::Spent;
                Ok(token)
            }
        }
    }
}

impl Devices {
    fn of(&self, user_code: &str) -> Option<&Device> {
        self.0.values().find(|device| device.user_code == user_code)
    }
}

impl Device {
    fn is_pending(&self, now: Timestamp) -> bool {
        self.expires_at > now && matches!(self.state, State::Pending)
    }
}

/// A code such as `WDJB-MJHT`.
fn user_code() -> String {
    let letter = |byte: u8| char::from(LETTERS[usize::from(byte) % LETTERS.len()]);
    let mut code: String = random_bytes::<USER_CODE_LENGTH>().into_iter().map(letter).collect();
    code.insert(USER_CODE_LENGTH / 2, '-');
    code
}

fn form() -> http::Response<String> {
    page(
        "<form><label>Code <input name=\"user_code\" autocomplete=\"off\" required></label> <button>Continue</button></form>",
    )
}

fn page(content: &str) -> http::Response<String> {
    let html =
        format!("<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Device</title><p>{content}</p>");
    let mut page = http::Response::new(html);
    let html = http::HeaderValue::from_static("text/html; charset=utf-8");
    page.headers_mut().insert(http::header::CONTENT_TYPE, html);
    page
}
