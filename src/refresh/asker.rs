//! Asking a place that may hang.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::RefreshSettings;
use super::place::{Answer, Place};
use crate::internal::calls::{CallError, Caller, Target};
use crate::key::Profile;
use crate::source::{DEFAULT_DEADLINE, Problem};

/// How long a call that was left behind is given to come back before the place is called again. The crate's own sources keep
/// a deadline of their own, and until then another call would hang where the first one does.
const RETURN: Duration = DEFAULT_DEADLINE.saturating_mul(2);

/// Asks a place within a deadline.
pub(super) struct Asker {
    caller: Caller,
    target: Target,
    last: Option<Call>,
}

struct Call {
    begun: Instant,
    /// Held for as long as the call is under way.
    under_way: Weak<()>,
}

impl Asker {
    pub(super) fn new(settings: &RefreshSettings) -> Self {
        // Of its own: two refreshers of one place do not wait for each other.
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let target = Target::of("refresher", &NUMBER.fetch_add(1, Ordering::Relaxed));
        Self { caller: Caller::around_others().with_deadline(settings.deadline), target, last: None }
    }

    /// Does something within the deadline; past it, it is left behind.
    #[cfg(feature = "watch")]
    pub(super) fn within_deadline(&self, work: impl FnOnce() + Send + 'static) {
        // What could not be done is its own to say.
        let _ = self.caller.run(self.target, work);
    }

    /// Asks the place; past the deadline it is left behind. `prepare` is done before, within the same deadline.
    pub(super) fn ask(
        &mut self,
        place: &Place,
        profile: &'static Profile,
        prepare: impl FnOnce() + Send + 'static,
    ) -> Result<Answer, Problem> {
        if self.last.as_ref().is_some_and(Call::still_hangs) {
            return Err(CallError::Stuck { count: 1 }.into());
        }
        let under_way = Arc::new(());
        self.last = Some(Call { begun: Instant::now(), under_way: Arc::downgrade(&under_way) });
        let question = place.question(profile);
        Ok(self.caller.run(self.target, move || {
            prepare();
            let answer = question();
            drop(under_way);
            answer
        })?)
    }
}

impl Call {
    fn still_hangs(&self) -> bool {
        self.under_way.strong_count() > 0 && self.begun.elapsed() < RETURN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_does_not_come_back_keeps_others_away_for_a_time_and_one_that_has_does_not() {
        let call = Arc::new(());
        let begun = Instant::now();
        let mut last = Call { begun, under_way: Arc::downgrade(&call) };
        assert!(last.still_hangs());
        // Where the clock of a machine that has just started does not reach back, there is nothing to see.
        if let Some(begun) = begun.checked_sub(RETURN) {
            last.begun = begun;
            assert!(!last.still_hangs());
        }
        last.begun = begun;
        drop(call);
        assert!(!last.still_hangs());
    }
}
