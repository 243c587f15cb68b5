//! Refreshing the grant: the lease, the request, and persisting its tokens.

use std::thread;
use std::time::{Duration, SystemTime};

use super::super::app::RefreshFailure;
use super::super::grant::{self, Due, Grant, Lease};
use super::super::tokens::Refreshed;
use super::super::{GrantError, GrantState, TokenError};
use super::KeeperEvent;
use super::run::{Runner, Unsaved};
use crate::handle::Reload;
use crate::internal::time::{Clocks, doubled};
use crate::key::{Issuer, RawKey};
use crate::store::{DocumentError, Version};

/// The pause between attempts to persist tokens doubles from the first to the second.
const PERSIST: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// How often persisting is tried before callers that wait are answered, and again when the keeper ends: about
/// a second, beside the time that the store takes.
const TRIES: u32 = 6;

/// How often one attempt writes over what other processes have written meanwhile.
const CONFLICTS: usize = 4;

/// A grant with the lease of this keeper in it.
pub(super) struct Leased {
    grant: Grant,
    version: Version,
    lease: Lease,
    begun: Clocks,
}

/// Why tokens were not written.
enum NotWritten {
    /// Newer ones are there, or the grant is gone.
    Overtaken,
    Failed(DocumentError),
}

impl<I: Issuer> Runner<I> {
    /// Writes the lease; `None` if another process has written: read again.
    pub(super) fn take_lease(&mut self) -> Result<Option<Leased>, GrantError> {
        let (Some(seen), Some(grant)) = (&self.seen, &self.grant) else { return Ok(None) };
        // Before it is written, so no process sees it earlier.
        let begun = Clocks::now();
        let lease = Lease::taken_now(self.me, self.settings.lease);
        let grant = grant.with_lease(Some(lease));
        let content = grant.to_document(&self.identity)?;
        // Even if it is written and the store reports an error.
        self.unused = Some(lease);
        match self.store.write(&content, Some(&seen.version)) {
            Ok(version) => Ok(Some(Leased { grant, version, lease, begun })),
            Err(DocumentError::Conflict) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends the refresh token, under the lease.
    pub(super) fn refresh(&mut self, leased: &Leased, secret: &RawKey, is_refused: bool) -> Reload {
        let Leased { grant, version, lease, begun } = leased;
        let sending = self.settings.sending_bound();
        if Clocks::now().has_expired(*begun, sending) {
            // Nothing was sent, so the refresh token is unused.
            return self.failed(GrantError::SlowStore);
        }
        self.unused = None;
        match self.app.refresh(&grant.refresh, secret, (*begun, sending), self.settings.lease) {
            Ok(refreshed) => self.renew(refreshed, grant, *version, is_refused),
            Err(RefreshFailure { error, leaves_doubt }) => {
                // In doubt, the lease stays: it tells every process.
                if !leaves_doubt {
                    let refused = error.refuses_grant();
                    let next = Grant { is_refused: refused, ..grant.with_lease(None) };
                    // Even if it cannot be written, this keeper knows it.
                    self.unused = Some(*lease);
                    let content = next.to_document(&self.identity);
                    drop(content.map(|content| self.store.write(&content, Some(version))));
                }
                // What the store has now, changes of other processes included.
                let looked = self.look();
                let state = match (&error, &self.seen) {
                    // The tokens of another process are there.
                    _ if looked == Ok(true) => GrantState::Good,
                    (TokenError::Refused { .. }, Some(seen)) if seen.is_refused => GrantState::Refused,
                    _ if leaves_doubt => GrantState::InDoubt,
                    _ => GrantState::Good,
                };
                let outcome = self.failed(GrantError::Token(error));
                self.note_state(state);
                if looked == Ok(true) { Reload::Newer } else { outcome }
            }
        }
    }

    /// Persists new tokens, then publishes them. Only then it is judged what is wrong with them.
    fn renew(
        &mut self,
        refreshed: Refreshed<I>,
        before: &Grant,
        leased: Version,
        is_refused: bool,
    ) -> Reload {
        let asked = refreshed.asked;
        let (grant, verdict) = refreshed.into_grant(before);
        let token = (asked, grant.lifetime);
        let again = Due::after(Clocks::now(), Duration::ZERO);
        self.unsaved = Some(Unsaved { grant, token, verdict, over: leased, is_refused, tries: 0, again });
        loop {
            let outcome = self.save_again();
            match &self.unsaved {
                Some(unsaved) if unsaved.tries < TRIES => {
                    // Not cut short when the keeper ends: tokens that are not persisted are lost.
                    thread::sleep(unsaved.again.rest(Clocks::now()));
                }
                _ => return outcome,
            }
        }
    }

    /// Tries once to persist the unsaved tokens, if that is due.
    pub(super) fn save_again(&mut self) -> Reload {
        let Some(mut unsaved) = self.unsaved.take_if(|unsaved| unsaved.again.is_over(Clocks::now())) else {
            return Reload::Failed;
        };
        match self.write_tokens(&unsaved.grant, unsaved.over) {
            Ok(version) => self.publish_saved(unsaved, version),
            Err(NotWritten::Overtaken) => self.failed(GrantError::Overtaken),
            Err(NotWritten::Failed(error)) => {
                unsaved.again = Due::after(Clocks::now(), doubled(PERSIST.0, unsaved.tries, PERSIST.1));
                unsaved.tries = unsaved.tries.saturating_add(1);
                self.unsaved = Some(unsaved);
                self.note_failure(GrantError::NotPersisted(error));
                Reload::Failed
            }
        }
    }

    /// At the end: a few last attempts to persist the unsaved tokens.
    pub(super) fn save_at_last(&mut self) {
        for tries in 0..TRIES {
            let Some(unsaved) = &mut self.unsaved else { return };
            unsaved.again = Due::after(Clocks::now(), Duration::ZERO);
            self.save_again();
            if self.unsaved.is_some() {
                thread::sleep(doubled(PERSIST.0, tries, PERSIST.1));
            }
        }
    }

    fn publish_saved(&mut self, unsaved: Unsaved, version: Version) -> Reload {
        let Unsaved { grant, token, verdict, is_refused, .. } = unsaved;
        let now = Clocks::now();
        self.looked = Some(now);
        // Before the token is published, so that no caller sees a problem that has ended.
        self.note_state(GrantState::Good);
        if verdict.is_none() {
            self.recovered();
        }
        if let Err(problem) = self.take(grant, version, token) {
            return self.failed(problem);
        }
        if let Some(error) = verdict {
            return self.failed(GrantError::Token(error));
        }
        self.refused = if is_refused { self.refused.saturating_add(1) } else { 0 };
        self.rests_until = Some(Due::after(now, self.settings.rest(self.refused.max(1))));
        Reload::Newer
    }

    /// Writes tokens over an older document: whatever lease it has, its refresh token is used up.
    fn write_tokens(&self, grant: &Grant, mut over: Version) -> Result<Version, NotWritten> {
        let failed = NotWritten::Failed;
        let content = grant.to_document(&self.identity).map_err(failed)?;
        let mut error = DocumentError::Conflict;
        for _ in 0..CONFLICTS {
            match self.store.write(&content, Some(&over)) {
                Ok(version) => return Ok(version),
                Err(said) => error = said,
            }
            // Only reading tells whether it was written.
            match grant::read(&*self.store, &self.identity) {
                Ok(Some((there, version)))
                    if there.serial == grant.serial && *there.refresh == *grant.refresh =>
                {
                    return Ok(version);
                }
                Ok(Some((there, version))) if there.id == grant.id && there.serial < grant.serial => {
                    over = version;
                }
                Ok(_) => return Err(NotWritten::Overtaken),
                Err(_) => break,
            }
            if error != DocumentError::Conflict {
                break;
            }
        }
        Err(failed(error))
    }

    /// Writes the newest grant over an older document, such as a restored copy: its refresh token is used up,
    /// and a process that used it would end the grant.
    pub(super) fn write_back(&mut self, there: &Grant, version: &Version) -> Result<(), GrantError> {
        let Some(newest) = self.grant.as_ref().filter(|newest| newest.id == there.id) else {
            // Only a person knows which of the two sign-ins is intended.
            return Err(GrantError::WentBack);
        };
        let newest = newest.with_lease(None);
        let content = newest.to_document(&self.identity)?;
        match self.store.write(&content, Some(version)) {
            Ok(version) => {
                if let Some(seen) = &mut self.seen {
                    (seen.version, seen.lease) = (version, None);
                }
                self.grant = Some(newest);
                let provenance = self.store.provenance();
                self.events.send(KeeperEvent::WrittenBack { provenance });
                Ok(())
            }
            Err(DocumentError::Conflict) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn failed(&mut self, problem: GrantError) -> Reload {
        let asked = match &problem {
            GrantError::Token(error) => error.retry_after().unwrap_or_default(),
            _ => Duration::ZERO,
        };
        let failures = self.note_failure(problem);
        let rest = self.settings.rest(failures).max(asked.min(self.settings.cadence.longest_back_off()));
        self.rests_until = Some(Due::after(Clocks::now(), rest));
        Reload::Failed
    }

    /// Returns how many attempts have failed in a row, this one included.
    pub(super) fn note_failure(&mut self, problem: GrantError) -> u32 {
        self.is_servers = matches!(problem, GrantError::Token(_) | GrantError::Overtaken);
        let (failures, provenance) =
            self.link.with(|status| (status.health.fail(problem.clone()), status.provenance.clone()));
        self.events.send(KeeperEvent::Failed { problem, failures, provenance });
        failures
    }

    pub(super) fn recovered(&mut self) {
        self.is_servers = false;
        let failures = self.link.with(|status| status.health.succeed(SystemTime::now()));
        if failures > 0 {
            self.events.send(KeeperEvent::Recovered { failures, provenance: self.store.provenance() });
        }
    }

    /// Sends an event if the state has changed.
    pub(super) fn note_state(&mut self, state: GrantState) {
        self.link.with(|status| status.state = state);
        let provenance = self.store.provenance();
        match state {
            _ if std::mem::replace(&mut self.state, state) == state => {}
            GrantState::Good => {}
            GrantState::InDoubt => self.events.send(KeeperEvent::InDoubt { provenance }),
            GrantState::Refused => self.events.send(KeeperEvent::Refused { provenance }),
        }
    }

    /// Nothing has failed. This ends a problem of the store; one of the server ends with new tokens.
    pub(super) fn fine(&mut self) -> Reload {
        if !self.is_servers {
            self.recovered();
        }
        Reload::Unchanged
    }
}
