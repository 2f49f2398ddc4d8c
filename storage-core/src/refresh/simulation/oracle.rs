//! The oracle. It sees what truly happened, outside of every process, and checks the promises of the protocol.

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use super::world::Report;
use crate::progress::{Progress, Stored};
use crate::refresh::RefreshEvent;
use crate::secret::Secret;
use crate::time::Timestamp;
use crate::token::{OAuth2Token, Token};

pub(super) const TOKEN_LIFETIME: Duration = Duration::from_secs(3600);

/// Identifies a refresh token: the number of its grant, and its generation.
pub(super) type TokenId = (usize, u32);

/// The true state of the provider and the user, and what has happened.
#[derive(Default)]
pub(super) struct Oracle {
    grants: Vec<Grant>,
    /// The grant of the current login.
    current: Option<usize>,
    /// How often each refresh token may be replayed. Each lost response and each takeover permits one replay.
    allowed_replays: HashMap<TokenId, u64>,
    /// How often each refresh token was replayed.
    replays: HashMap<TokenId, u64>,
    /// How many requests left with each refresh token.
    sent: HashMap<TokenId, u64>,
    /// Which process received which token.
    received: Vec<(u64, TokenId)>,
    /// The grant that the stored record reports as dead.
    known_dead: Option<usize>,
    trace: DefaultHasher,
    pub(super) prints_trace: bool,
    /// Whether the final check is running, which forces refreshes.
    pub(super) is_finished: bool,
    report: Report,
}

struct Grant {
    generation: u32,
    alive: bool,
    issued: Duration,
}

impl Oracle {
    pub(super) fn login(&mut self, now: Duration, stamp: Timestamp) -> OAuth2Token {
        self.grants.push(Grant { generation: 0, alive: true, issued: now });
        let number = self.grants.len() - 1;
        self.current = Some(number);
        self.known_dead = None;
        self.note(now, ("login", number));
        token((number, 0), stamp)
    }

    pub(super) fn logout(&mut self, now: Duration) {
        self.current = None;
        self.known_dead = None;
        self.note(now, "logout");
    }

    pub(super) fn current(&self) -> Option<usize> {
        self.current
    }

    /// A process starts a token request.
    pub(super) fn called(&mut self, now: Duration, id: TokenId) {
        self.report.calls += 1;
        self.note(now, ("called", id));
        if self.known_dead == Some(id.0) {
            self.violation(now, &format!("a token request is started with {id:?}, which is known to be dead"));
        }
    }

    /// A token request leaves its process, and cannot be recalled.
    pub(super) fn sent(&mut self, now: Duration, id: TokenId) {
        self.note(now, ("sent", id));
        *self.sent.entry(id).or_default() += 1;
    }

    /// A process is suspended before its request leaves.
    pub(super) fn suspended(&mut self, now: Duration, id: TokenId) {
        self.note(now, ("suspended", id));
        self.report.suspended += 1;
    }

    /// A request is not sent, because the lease has expired.
    pub(super) fn not_sent(&mut self, now: Duration, id: TokenId) {
        self.note(now, ("not sent", id));
        self.report.not_sent += 1;
    }

    /// A token request reaches the provider. Returns the new token if the provider grants one. `earliest` is the
    /// minimum age of a token that is refreshed.
    pub(super) fn spend(&mut self, now: Duration, id: TokenId, earliest: Duration) -> Option<TokenId> {
        self.note(now, ("spend", id));
        let grant = &mut self.grants[id.0];
        if grant.generation != id.1 {
            grant.alive = false;
            *self.replays.entry(id).or_default() += 1;
            self.report.replays += 1;
            let (replays, allowed) = (self.replays[&id], self.allowed_replays.get(&id).copied().unwrap_or_default());
            if replays > allowed {
                self.violation(now, &format!("{id:?} is spent and replayed for no reason"));
            }
            return None;
        }
        if !grant.alive {
            return None;
        }
        let age = now - grant.issued;
        grant.generation += 1;
        grant.issued = now;
        let new = (id.0, grant.generation);
        self.report.redemptions += 1;
        if age < earliest && !self.is_finished {
            self.violation(now, &format!("{id:?} is redeemed too early, after {age:?}"));
        }
        Some(new)
    }

    pub(super) fn allow_replay(&mut self, id: TokenId) {
        *self.allowed_replays.entry(id).or_default() += 1;
    }

    pub(super) fn received(&mut self, process: u64, id: TokenId) {
        self.received.push((process, id));
    }

    /// Whether the API accepts an access token, which has to be the newest of a valid grant.
    pub(super) fn accepts(&self, now: Duration, token: &OAuth2Token) -> bool {
        let (number, generation) = token_id(token);
        let grant = &self.grants[number];
        grant.alive && grant.generation == generation && now < grant.issued + TOKEN_LIFETIME
    }

    /// A process or the application has written the record. Logins and logouts are reported separately.
    pub(super) fn written(&mut self, now: Duration, before: Option<&Stored>, after: &Stored) {
        let new = token_id(oauth2(after));
        self.note(now, ("written", new, matches!(after.progress, Progress::Idle | Progress::Replaced)));
        let Some(before) = before else {
            return self.violation(now, &format!("{new:?} is stored after the logout"));
        };
        let old = token_id(oauth2(before));
        if old.0 != new.0 {
            self.violation(now, &format!("{old:?} of a newer login is overwritten by {new:?}"));
        } else if new.1 < old.1 {
            self.violation(now, &format!("{old:?} is overwritten by the older {new:?}"));
        }
        let (edit_before, edit_after) = (edit_of(oauth2(before)), edit_of(oauth2(after)));
        if old.0 == new.0 && edit_after < edit_before {
            self.violation(now, &format!("edit {edit_before} of the application is lost; edit {edit_after} is stored"));
        }
        if old.0 == new.0 && edit_after > edit_before {
            self.report.edits += 1;
            self.report.edits_during_refresh += u64::from(matches!(before.progress, Progress::Claimed(_)));
        }
        let dead = matches!(after.progress, Progress::Dead { .. });
        if dead && self.grants[new.0].alive {
            self.violation(now, &format!("{new:?} is marked dead although its grant is valid"));
        }
        self.known_dead = dead.then_some(new.0);
    }

    pub(super) fn observed(&mut self, now: Duration, process: u64, event: &RefreshEvent, stored: Option<&Stored>) {
        self.note(now, (process, event.name()));
        match event {
            RefreshEvent::TakenOver => {
                self.report.taken_over += 1;
                // A request that had not left before the takeover must not leave after it.
                let id = stored.map(|stored| token_id(oauth2(stored)));
                if let Some(id) = id.filter(|id| self.sent.contains_key(id)) {
                    self.allow_replay(id);
                }
            }
            RefreshEvent::Adopted => self.report.adopted += 1,
            RefreshEvent::NotStored => self.report.not_stored += 1,
            RefreshEvent::Dropped => self.report.dropped += 1,
            RefreshEvent::NeedsAuthorization { .. } => self.report.dead += 1,
            _ => {}
        }
    }

    pub(super) fn crashed(&mut self, now: Duration, process: u64) {
        self.note(now, (process, "crashed"));
        self.report.crashes += 1;
    }

    /// No token that a live process received may be lost.
    pub(super) fn check_received(&mut self, now: Duration, stored: Option<&Stored>, is_alive: impl Fn(u64) -> bool) {
        let id = stored.map(|stored| token_id(oauth2(stored)));
        if id.map(|id| id.0) != self.current {
            return self.violation(now, &format!("{id:?} is stored, but the current login is {:?}", self.current));
        }
        let Some((number, generation)) = id else { return };
        for (process, received) in self.received.clone() {
            if is_alive(process) && received.0 == number && received.1 > generation {
                self.violation(now, &format!("{received:?} was received and lost; generation {generation} is stored"));
            }
        }
    }

    /// A grant may be lost only because of a lost response or the death of a process.
    pub(super) fn check_death(&mut self, now: Duration) {
        let Some(number) = self.current else { return };
        if !self.allowed_replays.keys().any(|id| id.0 == number) {
            self.violation(now, &format!("grant {number} is lost for no reason"));
        }
    }

    pub(super) fn violation(&mut self, now: Duration, what: &str) {
        self.report.violations.push(format!("at {now:?}: {what}"));
    }

    pub(super) fn note(&mut self, now: Duration, what: impl Hash + Debug) {
        if self.prints_trace {
            println!("{now:?}: {what:?}");
        }
        (now, what).hash(&mut self.trace);
    }

    pub(super) fn report(&mut self) -> Report {
        Report { seeds: 1, trace: self.trace.finish(), ..std::mem::take(&mut self.report) }
    }
}

pub(super) fn token((grant, generation): TokenId, now: Timestamp) -> OAuth2Token {
    let mut token = OAuth2Token::bearer(format!("access-{grant}-{generation}"));
    token.refresh_token = Some(format!("refresh-{grant}-{generation}").into());
    token.expires_at = Some(now.saturating_add(TOKEN_LIFETIME));
    token.issued_at = Some(now);
    token
}

pub(super) fn token_id(token: &OAuth2Token) -> TokenId {
    let mut parts = token.refresh_token.as_ref().map(Secret::expose).unwrap().split('-').skip(1);
    (parts.next().unwrap().parse().unwrap(), parts.next().unwrap().parse().unwrap())
}

/// How often the application has changed this token.
pub(super) fn edit_of(token: &OAuth2Token) -> u64 {
    token.extra.get("edit").and_then(serde_json::Value::as_u64).unwrap_or_default()
}

fn oauth2(stored: &Stored) -> &OAuth2Token {
    match &stored.token {
        Token::OAuth2(token) => token,
        Token::OAuth1(_) => unreachable!(),
    }
}
