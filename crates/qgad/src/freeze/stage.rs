//! The stage of a freeze. Every step from one stage to another is a method here, and nothing else sets a stage.
//!
//! | from | step | to | caused by |
//! |---|---|---|---|
//! | thawed | [`begin_freeze`](Stage::begin_freeze) | freezing | a host's freeze |
//! | freezing, taking over | [`settle`](Stage::settle) | frozen | all is frozen, or an earlier freeze was found |
//! | thawed, frozen | [`begin_thaw`](Stage::begin_thaw) | thawing | a host's thaw |
//! | frozen | [`end_by_itself`](Stage::end_by_itself) | thawing | the guard thawed, or could not be replaced |
//! | thawed | [`begin_pending_hook`](Stage::begin_pending_hook) | thawing | an earlier agent's thaw hook is pending |
//! | freezing, taking over, thawing | [`let_writers_go_on`](Stage::let_writers_go_on) | thawing | nothing is frozen |
//! | freezing, taking over, thawing | [`end`](Stage::end) | thawed | the thaw hook has run, or none has to |
//!
//! A step that is not in the table changes nothing. Freezing and taking over can be [cancelled](Stage::cancel): then
//! they do not settle.

use std::time::{Duration, Instant};

/// The stage, with what a freeze holds while file systems are frozen.
#[derive(Debug)]
pub(super) struct Stage<H> {
    current: Current<H>,
    /// Why the freeze that is under way is not wanted any more.
    cancelled: Option<String>,
    /// Counts the freezes, so that the end of an old guard is not taken for that of a new one.
    number: u64,
    /// When commands began to be refused.
    since: Instant,
}

/// A step cannot begin, because another one has not ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct StepUnderWay;

#[derive(Debug)]
enum Current<H> {
    /// Writers write.
    Thawed,
    /// The freeze of an earlier agent was found, and is being taken over. File systems are frozen.
    TakingOver,
    /// The hook runs, then one file system after the other is frozen.
    Freezing,
    /// Writers wait.
    Frozen(H),
    /// File systems are thawed, then the hook runs.
    Thawing { are_writers_waiting: bool },
}

impl<H> Stage<H> {
    /// A guest in which nothing is frozen.
    pub(super) fn thawed() -> Self {
        Self { current: Current::Thawed, cancelled: None, number: 0, since: Instant::now() }
    }

    /// A guest in which an earlier agent has frozen file systems for so long.
    pub(super) fn taking_over(age: Duration) -> Self {
        let now = Instant::now();
        let since = now.checked_sub(age).unwrap_or(now);
        Self { current: Current::TakingOver, cancelled: None, number: 0, since }
    }

    /// For how long commands have been refused because file systems are frozen, or about to be.
    pub(super) fn frozen_for(&self) -> Option<Duration> {
        match self.current {
            Current::Thawed | Current::Thawing { are_writers_waiting: false } => None,
            _ => Some(self.since.elapsed()),
        }
    }

    /// Whether everything that was to be frozen is.
    pub(super) fn is_frozen(&self) -> bool {
        matches!(
            self.current,
            Current::TakingOver | Current::Frozen(_) | Current::Thawing { are_writers_waiting: true }
        )
    }

    /// Whether writers wait, or are about to.
    pub(super) fn is_frozen_or_freezing(&self) -> bool {
        self.frozen_for().is_some()
    }

    /// Whether nothing is frozen and nothing is under way.
    pub(super) fn is_thawed(&self) -> bool {
        matches!(self.current, Current::Thawed)
    }

    /// Whether the freeze of an earlier agent is being taken over.
    pub(super) fn is_taking_over(&self) -> bool {
        matches!(self.current, Current::TakingOver)
    }

    /// Whether file systems are being thawed, or the thaw hook runs.
    pub(super) fn is_thawing(&self) -> bool {
        matches!(self.current, Current::Thawing { .. })
    }

    /// Whether a step is under way that ends by itself.
    pub(super) fn is_changing(&self) -> bool {
        matches!(self.current, Current::TakingOver | Current::Freezing | Current::Thawing { .. })
    }

    /// The number of the present freeze.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Why the freeze that is under way is not wanted any more.
    pub(super) fn cancelled(&self) -> Option<&str> {
        self.cancelled.as_deref()
    }

    /// What the freeze of this number holds, while file systems are frozen.
    pub(super) fn held(&mut self, number: u64) -> Option<&mut H> {
        match &mut self.current {
            Current::Frozen(held) if self.number == number => Some(held),
            _ => None,
        }
    }

    /// Gives up a freeze of a host that is under way.
    pub(super) fn cancel_freeze(&mut self, reason: &str) {
        if matches!(self.current, Current::Freezing) {
            self.cancelled = Some(reason.into());
        }
    }

    /// Gives up a freeze of a host, or of an earlier agent, before it settles.
    pub(super) fn cancel(&mut self, reason: &str) {
        if matches!(self.current, Current::Freezing | Current::TakingOver) {
            self.cancelled = Some(reason.into());
        }
    }

    /// Begins a freeze.
    ///
    /// # Errors
    /// When another one is not over: for how long there has been one.
    pub(super) fn begin_freeze(&mut self) -> Result<(), Duration> {
        if !self.is_thawed() {
            return Err(self.since.elapsed());
        }
        self.current = Current::Freezing;
        self.since = Instant::now();
        self.cancelled = None;
        self.number += 1;
        Ok(())
    }

    /// Everything is frozen.
    ///
    /// # Errors
    /// When the freeze was cancelled meanwhile: what it holds, and why.
    pub(super) fn settle(&mut self, held: H) -> Result<(), (H, String)> {
        match self.cancelled.take() {
            Some(reason) => Err((held, reason)),
            None if !matches!(self.current, Current::Freezing | Current::TakingOver) => {
                Err((held, "it is not under way any more".into()))
            }
            None => {
                self.current = Current::Frozen(held);
                Ok(())
            }
        }
    }

    /// Begins a thaw, also of a thawed guest: another program may have frozen file systems. Returns what the freeze
    /// holds.
    ///
    /// # Errors
    /// While another step is under way.
    pub(super) fn begin_thaw(&mut self) -> Result<Option<H>, StepUnderWay> {
        if self.is_changing() {
            return Err(StepUnderWay);
        }
        let are_writers_waiting = matches!(self.current, Current::Frozen(_));
        Ok(self.replace(Current::Thawing { are_writers_waiting }))
    }

    /// Begins the end of the freeze of this number without a host. Returns what it holds.
    pub(super) fn end_by_itself(&mut self, number: u64) -> Option<H> {
        self.held(number)?;
        self.replace(Current::Thawing { are_writers_waiting: true })
    }

    /// Begins to run the thaw hook that an earlier agent did not run. Commands are served meanwhile, and a freeze
    /// waits.
    pub(super) fn begin_pending_hook(&mut self) {
        if self.is_thawed() {
            self.current = Current::Thawing { are_writers_waiting: false };
        }
    }

    /// Nothing is frozen any more: commands are served again.
    pub(super) fn let_writers_go_on(&mut self) {
        if self.is_changing() {
            self.current = Current::Thawing { are_writers_waiting: false };
        }
    }

    /// The freeze, or the attempt at one, is over.
    pub(super) fn end(&mut self) {
        if self.is_changing() {
            self.current = Current::Thawed;
            self.cancelled = None;
        }
    }

    fn replace(&mut self, next: Current<H>) -> Option<H> {
        match std::mem::replace(&mut self.current, next) {
            Current::Frozen(held) => Some(held),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type TestStage = Stage<&'static str>;

    fn name(stage: &TestStage) -> &'static str {
        match stage.current {
            Current::Thawed => "thawed",
            Current::TakingOver => "taking over",
            Current::Freezing => "freezing",
            Current::Frozen(_) => "frozen",
            Current::Thawing { are_writers_waiting: true } => "thawing, frozen",
            Current::Thawing { are_writers_waiting: false } => "thawing",
        }
    }

    fn stages() -> [TestStage; 6] {
        let reached = |steps: fn(&mut TestStage)| {
            let mut stage = Stage::thawed();
            steps(&mut stage);
            stage
        };
        [
            Stage::thawed(),
            Stage::taking_over(Duration::ZERO),
            reached(|stage| stage.begin_freeze().unwrap()),
            reached(|stage| {
                stage.begin_freeze().unwrap();
                stage.settle("held").unwrap();
            }),
            reached(|stage| {
                stage.begin_freeze().unwrap();
                stage.settle("held").unwrap();
                stage.begin_thaw().unwrap().unwrap();
            }),
            reached(Stage::begin_pending_hook),
        ]
    }

    /// The stages that a step leads to from thawed, taking over, freezing, frozen, thawing while writers wait, thawing.
    fn check(step: impl Fn(&mut TestStage), expected: [&str; 6]) {
        let after = stages().map(|mut stage| {
            step(&mut stage);
            name(&stage)
        });
        assert_eq!(after, expected);
    }

    #[test]
    fn every_step_leads_where_the_table_says_and_nowhere_else() {
        let none = ["thawed", "taking over", "freezing", "frozen", "thawing, frozen", "thawing"];
        check(|_| {}, none);
        check(
            |stage| {
                let _ = stage.begin_freeze();
            },
            ["freezing", "taking over", "freezing", "frozen", "thawing, frozen", "thawing"],
        );
        check(
            |stage| {
                let _ = stage.settle("new");
            },
            ["thawed", "frozen", "frozen", "frozen", "thawing, frozen", "thawing"],
        );
        check(
            |stage| {
                let _ = stage.begin_thaw();
            },
            ["thawing", "taking over", "freezing", "thawing, frozen", "thawing, frozen", "thawing"],
        );
        check(
            |stage| {
                let _ = stage.end_by_itself(stage.number());
            },
            ["thawed", "taking over", "freezing", "thawing, frozen", "thawing, frozen", "thawing"],
        );
        check(
            |stage| {
                let _ = stage.end_by_itself(stage.number + 1);
            },
            none,
        );
        check(
            Stage::begin_pending_hook,
            ["thawing", "taking over", "freezing", "frozen", "thawing, frozen", "thawing"],
        );
        check(Stage::let_writers_go_on, ["thawed", "thawing", "thawing", "frozen", "thawing", "thawing"]);
        check(Stage::end, ["thawed", "thawed", "thawed", "frozen", "thawed", "thawed"]);
        check(|stage| stage.cancel("it is not wanted"), none);
    }

    #[test]
    fn a_step_says_whether_it_was_made() {
        let thaws = stages().map(|mut stage| stage.begin_thaw());
        let refused = || Err(StepUnderWay);
        assert_eq!(thaws, [Ok(None), refused(), refused(), Ok(Some("held")), refused(), refused()]);
        let freezes = stages().map(|mut stage| stage.begin_freeze().is_ok());
        assert_eq!(freezes, [true, false, false, false, false, false]);
        let settled = stages().map(|mut stage| stage.settle("new").is_ok());
        assert_eq!(settled, [false, true, true, false, false, false]);
    }

    #[test]
    fn commands_are_refused_from_the_start_of_a_freeze_until_writers_go_on() {
        let refused = stages().map(|stage| stage.frozen_for().is_some());
        assert_eq!(refused, [false, true, true, true, true, false]);
        assert_eq!(stages().map(|stage| stage.is_frozen()), [false, true, false, true, true, false]);
    }

    #[test]
    fn a_cancelled_freeze_does_not_settle_and_returns_what_it_held() {
        let [_, taking_over, freezing, ..] = stages();
        for mut stage in [taking_over, freezing] {
            stage.cancel("a reason");
            assert_eq!(stage.cancelled(), Some("a reason"));
            assert_eq!(stage.settle("held"), Err(("held", "a reason".into())));
        }
    }

    #[test]
    fn a_thaw_cancels_a_freeze_of_a_host_but_no_takeover() {
        let cancelled = stages().map(|mut stage| {
            stage.cancel_freeze("a thaw was asked for");
            stage.cancelled.is_some()
        });
        assert_eq!(cancelled, [false, false, true, false, false, false]);
    }

    #[test]
    fn what_a_freeze_holds_belongs_to_that_freeze() {
        let [.., mut frozen, _, _] = stages();
        let number = frozen.number();
        assert_eq!(frozen.held(number).copied(), Some("held"));
        assert_eq!(frozen.held(number - 1), None);
        assert_eq!(frozen.end_by_itself(number), Some("held"));
        assert_eq!(frozen.held(number), None);
    }
}
