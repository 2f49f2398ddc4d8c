//! What truly happened, seen from outside of every process, and the promises held against it.

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use super::world::Report;
use crate::refresh::RefreshEvent;
use crate::refresh::state::{Progress, Stored};
use crate::secret::Secret;
use crate::time::Timestamp;
use crate::token::{OAuth2Token, Token};

pub(super) const LIFE: Duration = Duration::from_secs(3600);

/// A refresh token: of which grant, and the how manieth.
pub(super) type Link = (usize, u32);

#[derive(Default)]
pub(super) struct Books {
    grants: Vec<Grant>,
    /// The grant the user is logged in with.
    current: Option<usize>,
    /// Answers that were lost, and takeovers, by the refresh token they leave in doubt.
    excuses: HashMap<Link, u64>,
    /// Refresh tokens that came again.
    replays: HashMap<Link, u64>,
    /// Requests that left, by their refresh token.
    sent: HashMap<Link, u64>,
    /// Who got which token.
    received: Vec<(u64, Link)>,
    dead_is_noted: Option<usize>,
    trace: DefaultHasher,
    pub(super) is_told: bool,
    /// Refreshes are forced now, to see whether they work.
    pub(super) is_over: bool,
    report: Report,
}

struct Grant {
    generation: u32,
    alive: bool,
    issued: Duration,
}

impl Books {
    pub(super) fn login(&mut self, now: Duration, stamp: Timestamp) -> OAuth2Token {
        self.grants.push(Grant { generation: 0, alive: true, issued: now });
        let number = self.grants.len() - 1;
        self.current = Some(number);
        self.dead_is_noted = None;
        self.note(now, ("login", number));
        token((number, 0), stamp)
    }

    pub(super) fn logout(&mut self, now: Duration) {
        self.current = None;
        self.dead_is_noted = None;
        self.note(now, "logout");
    }

    pub(super) fn current(&self) -> Option<usize> {
        self.current
    }

    /// A token request sets out.
    pub(super) fn called(&mut self, now: Duration, link: Link) {
        self.report.calls += 1;
        self.note(now, ("called", link));
        if self.dead_is_noted == Some(link.0) {
            self.breach(now, &format!("the provider is asked with {link:?}, which is known to be dead"));
        }
    }

    /// A token request leaves its process, and cannot be called back.
    pub(super) fn sent(&mut self, now: Duration, link: Link) {
        self.note(now, ("sent", link));
        *self.sent.entry(link).or_default() += 1;
    }

    /// A process stands still before its request leaves.
    pub(super) fn suspended(&mut self, now: Duration, link: Link) {
        self.note(now, ("suspended", link));
        self.report.suspended += 1;
    }

    /// A request does not leave, because it is too late.
    pub(super) fn not_sent(&mut self, now: Duration, link: Link) {
        self.note(now, ("not sent", link));
        self.report.not_sent += 1;
    }

    /// A token request reaches the provider: the new generation, if there is one. `earliest` is how old a token must be.
    pub(super) fn spend(&mut self, now: Duration, link: Link, earliest: Duration) -> Option<Link> {
        self.note(now, ("spend", link));
        let grant = &mut self.grants[link.0];
        if grant.generation != link.1 {
            grant.alive = false;
            *self.replays.entry(link).or_default() += 1;
            self.report.replays += 1;
            let (replays, excuses) = (self.replays[&link], self.excuses.get(&link).copied().unwrap_or_default());
            if replays > excuses {
                self.breach(now, &format!("{link:?} is spent and sent again for no reason"));
            }
            return None;
        }
        if !grant.alive {
            return None;
        }
        let age = now - grant.issued;
        grant.generation += 1;
        grant.issued = now;
        let new = (link.0, grant.generation);
        self.report.redemptions += 1;
        if age < earliest && !self.is_over {
            self.breach(now, &format!("{link:?} is redeemed after {age:?} already"));
        }
        Some(new)
    }

    pub(super) fn excuse(&mut self, link: Link) {
        *self.excuses.entry(link).or_default() += 1;
    }

    pub(super) fn received(&mut self, process: u64, link: Link) {
        self.received.push((process, link));
    }

    /// Whether the API takes an access token: the newest of a grant that lives.
    pub(super) fn accepts(&self, now: Duration, token: &OAuth2Token) -> bool {
        let (number, generation) = link_of(token);
        let grant = &self.grants[number];
        grant.alive && grant.generation == generation && now < grant.issued + LIFE
    }

    /// Somebody else than the user has written.
    pub(super) fn written(&mut self, now: Duration, before: Option<&Stored>, after: &Stored) {
        let new = link_of(oauth2(after));
        self.note(now, ("written", new, matches!(after.progress, Progress::Idle | Progress::Replaced)));
        let Some(before) = before else {
            return self.breach(now, &format!("{new:?} comes back after the logout"));
        };
        let old = link_of(oauth2(before));
        if old.0 != new.0 {
            self.breach(now, &format!("{old:?} of a newer login is overwritten by {new:?}"));
        } else if new.1 < old.1 {
            self.breach(now, &format!("{old:?} is overwritten by the older {new:?}"));
        }
        let (edit_before, edit_after) = (edit_of(oauth2(before)), edit_of(oauth2(after)));
        if old.0 == new.0 && edit_after < edit_before {
            self.breach(now, &format!("edit {edit_before} of the application is lost; {edit_after} is stored"));
        }
        if old.0 == new.0 && edit_after > edit_before {
            self.report.edits += 1;
            self.report.edits_during_refresh += u64::from(matches!(before.progress, Progress::Claimed(_)));
        }
        let dead = matches!(after.progress, Progress::Dead { .. });
        if dead && self.grants[new.0].alive {
            self.breach(now, &format!("{new:?} is given up although it lives"));
        }
        self.dead_is_noted = dead.then_some(new.0);
    }

    pub(super) fn observed(&mut self, now: Duration, process: u64, event: &RefreshEvent, stored: Option<&Stored>) {
        self.note(now, (process, event.name()));
        match event {
            RefreshEvent::TakenOver => {
                self.report.taken_over += 1;
                // What was not sent before the takeover must not be sent after it.
                let link = stored.map(|stored| link_of(oauth2(stored)));
                if let Some(link) = link.filter(|link| self.sent.contains_key(link)) {
                    self.excuse(link);
                }
            }
            RefreshEvent::Adopted => self.report.adopted += 1,
            RefreshEvent::NotStored => self.report.kept += 1,
            RefreshEvent::Dropped => self.report.dropped += 1,
            RefreshEvent::NeedsAuthorization { .. } => self.report.dead += 1,
            _ => {}
        }
    }

    pub(super) fn crashed(&mut self, now: Duration, process: u64) {
        self.note(now, (process, "crashed"));
        self.report.crashes += 1;
    }

    /// Nothing that a living process received may be missing.
    pub(super) fn check_received(&mut self, now: Duration, stored: Option<&Stored>, is_alive: impl Fn(u64) -> bool) {
        let link = stored.map(|stored| link_of(oauth2(stored)));
        if link.map(|link| link.0) != self.current {
            return self.breach(now, &format!("{link:?} is stored, and the login is {:?}", self.current));
        }
        let Some((number, generation)) = link else { return };
        for (process, received) in self.received.clone() {
            if is_alive(process) && received.0 == number && received.1 > generation {
                self.breach(now, &format!("{received:?} was received and is lost; {generation} is stored"));
            }
        }
    }

    /// A grant may be lost only to a lost answer or to a process that died.
    pub(super) fn check_death(&mut self, now: Duration) {
        let Some(number) = self.current else { return };
        if !self.excuses.keys().any(|link| link.0 == number) {
            self.breach(now, &format!("grant {number} is lost for no reason"));
        }
    }

    pub(super) fn breach(&mut self, now: Duration, what: &str) {
        self.report.breaches.push(format!("at {now:?}: {what}"));
    }

    pub(super) fn note(&mut self, now: Duration, what: impl Hash + Debug) {
        if self.is_told {
            println!("{now:?}: {what:?}");
        }
        (now, what).hash(&mut self.trace);
    }

    pub(super) fn report(&mut self) -> Report {
        Report { seeds: 1, trace: self.trace.finish(), ..std::mem::take(&mut self.report) }
    }
}

pub(super) fn token((grant, generation): Link, now: Timestamp) -> OAuth2Token {
    let mut token = OAuth2Token::bearer(format!("access-{grant}-{generation}"));
    token.refresh_token = Some(format!("refresh-{grant}-{generation}").into());
    token.expires_at = Some(now.saturating_add(LIFE));
    token.issued_at = Some(now);
    token
}

pub(super) fn link_of(token: &OAuth2Token) -> Link {
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
