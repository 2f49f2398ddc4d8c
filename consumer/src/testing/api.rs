//! The resources that an access token gives access to: userinfo, and an API.

use http::StatusCode;
use serde_json::{Map, Value, json};

use super::dpop::BadProof;
use super::endpoints::Exchange;
use super::grants::Access;
use super::reply::Reply;
use super::token::bad_proof;

impl Exchange<'_> {
    pub(super) fn userinfo(&self) -> Reply {
        match self.access() {
            Ok(Access { user, scope, .. }) => self.claims_of(&user, &scope),
            Err(refusal) => *refusal,
        }
    }

    pub(super) fn api(&self) -> Reply {
        match self.access() {
            Ok(access) => self.echo(&access),
            Err(refusal) => *refusal,
        }
    }

    pub(super) fn claims_of(&self, user: &str, scope: &str) -> Reply {
        let mut claims = Map::from_iter([("sub".to_owned(), Value::from(user))]);
        claims.extend(self.settings.claims(user, scope).unwrap_or_default());
        Reply::json(StatusCode::OK, claims.into())
    }

    /// The request as the API received it.
    pub(super) fn echo(&self, access: &Access) -> Reply {
        let request = self.request;
        let echo = json!({
            "user": access.user,
            "scope": access.scope,
            "audience": access.audience,
            "method": request.method.as_str(),
            "path": request.path,
            "query": request.query,
            "form": request.form,
            "body": String::from_utf8_lossy(&request.body),
        });
        Reply::json(StatusCode::OK, echo)
    }

    /// RFC 6750 section 2.1, and RFC 9449 section 7.1.
    fn access(&self) -> Result<Access, Box<Reply>> {
        let Some((scheme, token)) = self.request.header("authorization").and_then(|value| value.split_once(' ')) else {
            let realm = "Bearer realm=\"test provider\"";
            return Err(Reply::unauthorized("invalid_token", "there is no access token", realm).into());
        };
        let jkt = match scheme {
            "DPoP" => match self.proved_key(StatusCode::UNAUTHORIZED, Some(token))? {
                None => return Err(bad_proof(StatusCode::UNAUTHORIZED, &BadProof::Invalid("there is none")).into()),
                jkt => jkt,
            },
            _ => None,
        };
        let is_token = scheme == "DPoP" || scheme.eq_ignore_ascii_case("bearer");
        let token = Some(token).filter(|_| is_token);
        token.and_then(|token| self.shared.grants().access_of(self.settings, token, jkt.as_deref())).ok_or_else(|| {
            let why = "the access token is unknown, expired, revoked or bound to another key";
            Reply::unauthorized("invalid_token", why, "Bearer error=\"invalid_token\"").into()
        })
    }
}
