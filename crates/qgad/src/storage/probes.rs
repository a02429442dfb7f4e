//! Questions to devices that may never answer.
//!
//! A helper thread asks the questions of one call in their order. If one is not answered for [`Limits::stall`], another
//! helper goes on behind it. Once all are asked and none has been answered for [`Limits::timeout`], the rest counts as
//! unanswered. A path on which a helper of an earlier call still hangs is not asked again. So a dead device delays one
//! call, by about a second for facts, and no later one. [`MAX_HELPERS`] bounds the helpers. A device that answers again
//! frees its own.
//!
//! This is no bounded call as the freeze has it: one call asks hundreds of questions, and most are answered at once, so
//! that a thread for each would cost more than the questions.

use std::{
    collections::HashMap,
    mem,
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use crate::util::threads;

/// Most helper threads in all: what dead devices may cost in memory. Beyond it, further ones stay unanswered.
const MAX_HELPERS: usize = 16;
/// How often, while a helper may stall, it is looked whether answers still come. To be woken up by each would cost more
/// than most of them.
const LOOKS: u32 = 8;
/// Stack of a helper, which makes a system call or two.
const HELPER_STACK_BYTES: usize = 128 * 1024;

/// How long the questions of a call are waited for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// After this long without an answer another helper goes on.
    pub(crate) stall: Duration,
    /// After this long without an answer, the last questions count as unanswered.
    pub(crate) timeout: Duration,
    /// Longest for all questions.
    pub(crate) in_all: Duration,
}

/// For facts. Answers come from memory, in microseconds. Some hosts give up after a second, many after five.
const FACT_LIMITS: Limits =
    Limits { stall: Duration::from_millis(200), timeout: Duration::from_millis(700), in_all: Duration::from_secs(4) };

/// The helpers of all calls.
#[derive(Clone, Debug)]
pub(crate) struct Probes(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// The limits of calls that bring none of their own.
    limits: Limits,
    helpers: AtomicUsize,
    asked: Mutex<HashMap<PathBuf, Instant>>,
}

/// The questions of one call.
struct Round<T, P> {
    shared: Arc<Shared>,
    paths: Vec<PathBuf>,
    stall: Duration,
    next: AtomicUsize,
    probe: P,
    answers: Mutex<Answers<T>>,
    complete: Condvar,
}

struct Answers<T> {
    in_order: Vec<Option<T>>,
    count: usize,
    is_awaited: bool,
}

impl Default for Probes {
    fn default() -> Self {
        Self::with_limits(FACT_LIMITS)
    }
}

impl Probes {
    /// Probes of which each call has these limits, unless it brings its own.
    pub(crate) fn with_limits(limits: Limits) -> Self {
        Self(Arc::new(Shared { limits, helpers: AtomicUsize::default(), asked: Mutex::default() }))
    }

    /// Asks for a fact of each path. The answers have the order of the paths; one that comes too late is `None`.
    pub(crate) fn ask<T, P>(&self, paths: Vec<PathBuf>, probe: P) -> Vec<Option<T>>
    where
        T: Send + 'static,
        P: Fn(&Path) -> Option<T> + Send + Sync + 'static,
    {
        self.ask_within(self.0.limits, paths, probe)
    }

    /// As [`Self::ask`], for what may take longer.
    pub(crate) fn ask_within<T, P>(&self, limits: Limits, paths: Vec<PathBuf>, probe: P) -> Vec<Option<T>>
    where
        T: Send + 'static,
        P: Fn(&Path) -> Option<T> + Send + Sync + 'static,
    {
        let Limits { stall, timeout, in_all } = limits;
        let count = paths.len();
        let answers = Answers { in_order: paths.iter().map(|_| None).collect(), count: 0, is_awaited: true };
        let round = Arc::new(Round {
            shared: Arc::clone(&self.0),
            paths,
            stall,
            next: AtomicUsize::new(0),
            probe,
            answers: Mutex::new(answers),
            complete: Condvar::new(),
        });
        let begin = Instant::now();
        let (mut last_answer, mut last_helper, mut answered) = (begin, begin, 0);
        let mut goes_on = count > 0 && round.start_helper();
        let mut answers = round.answers();
        while goes_on && answers.count < count && begin.elapsed() < in_all {
            answers = round.complete.wait_timeout(answers, stall / LOOKS).unwrap_or_else(PoisonError::into_inner).0;
            if answers.count > answered {
                (answered, last_answer) = (answers.count, Instant::now());
            } else if last_answer.max(last_helper).elapsed() >= stall {
                last_helper = Instant::now();
                let has_more = round.next.load(Ordering::Relaxed) < count;
                goes_on = has_more && round.start_helper() || last_answer.elapsed() < timeout;
            }
        }
        answers.is_awaited = false;
        if answers.count < count {
            log::warn!("{} of {count} devices or file systems did not answer in time", count - answers.count);
        }
        mem::take(&mut answers.in_order)
    }
}

impl<T, P> Round<T, P>
where
    T: Send + 'static,
    P: Fn(&Path) -> Option<T> + Send + Sync + 'static,
{
    fn answers(&self) -> MutexGuard<'_, Answers<T>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a helper, unless there are too many.
    fn start_helper(self: &Arc<Self>) -> bool {
        let Some(helper) = Helper::begin(&self.shared) else { return false };
        let round = Arc::clone(self);
        let help = move || {
            let _helper = helper;
            round.help();
        };
        threads::start("probe", HELPER_STACK_BYTES, help).is_ok()
    }

    /// Asks what has not been asked yet, while somebody waits for it.
    fn help(&self) {
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(path) = self.paths.get(index) else { return };
            let mut answer = None;
            if self.shared.begin(path, self.stall) {
                answer = (self.probe)(path);
                self.shared.asked().remove(path);
            }
            let mut answers = self.answers();
            if !answers.is_awaited {
                return;
            }
            answers.in_order[index] = answer;
            answers.count += 1;
            if answers.count == self.paths.len() {
                self.complete.notify_one();
            }
        }
    }
}

impl Shared {
    fn asked(&self) -> MutexGuard<'_, HashMap<PathBuf, Instant>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a path is asked; false if an earlier helper has been waiting for it for long.
    fn begin(&self, path: &Path, stall: Duration) -> bool {
        let mut asked = self.asked();
        match asked.get(path) {
            Some(since) => since.elapsed() < stall,
            None => asked.insert(path.to_owned(), Instant::now()).is_none(),
        }
    }
}

/// One of the helpers that there may be.
struct Helper(Arc<Shared>);

impl Helper {
    fn begin(shared: &Arc<Shared>) -> Option<Self> {
        let helper = Self(Arc::clone(shared));
        let others = shared.helpers.fetch_add(1, Ordering::Relaxed);
        (others < MAX_HELPERS).then_some(helper)
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        self.0.helpers.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::util::gate::Gate;

    /// As shipped, but with time for answers on a machine that is busy with other tests.
    pub(crate) fn probes() -> Probes {
        Probes::with_limits(Limits { timeout: Duration::from_secs(3), ..FACT_LIMITS })
    }

    /// Asks about paths, of which those that begin with `/dead` answer only once the gate is open.
    fn check(probes: &Probes, gate: &Arc<Gate>, paths: &[&str], expected: &[Option<usize>]) {
        let gate = Arc::clone(gate);
        let answers = probes.ask(paths.iter().map(PathBuf::from).collect(), move |path| {
            if path.starts_with("/dead") {
                gate.pass();
            }
            Some(path.as_os_str().len())
        });
        assert_eq!(answers, expected, "{paths:?}");
    }

    fn open_and_wait(probes: &Probes, gate: &Gate) {
        gate.open();
        while probes.0.helpers.load(Ordering::Relaxed) > 0 {
            std::thread::yield_now();
        }
    }

    #[test]
    fn answers_come_in_the_order_of_the_paths() {
        let (probes, gate) = (probes(), Arc::default());
        check(&probes, &gate, &["/a", "/bcd", "/ef"], &[Some(2), Some(4), Some(3)]);
        check(&probes, &gate, &[], &[]);
    }

    #[test]
    fn a_dead_path_hides_only_itself() {
        let (probes, gate) = (probes(), Arc::default());
        check(&probes, &gate, &["/a", "/dead/1", "/bcd", "/dead/2", "/ef"], &[Some(2), None, Some(4), None, Some(3)]);
        open_and_wait(&probes, &gate);
    }

    #[test]
    fn a_dead_path_is_not_asked_again_until_it_answers() {
        let (probes, gate) = (probes(), Arc::default());
        for _ in 0..3 {
            check(&probes, &gate, &["/dead", "/a"], &[None, Some(2)]);
        }
        let stuck = || probes.0.asked().contains_key(Path::new("/dead"));
        assert!(stuck());
        open_and_wait(&probes, &gate);
        assert!(!stuck());
        check(&probes, &gate, &["/dead", "/a"], &[Some(5), Some(2)]);
    }

    #[test]
    fn helpers_are_bounded() {
        let (probes, gate) = (probes(), Arc::default());
        let paths: Vec<_> = (0..2 * MAX_HELPERS).map(|index| format!("/dead/{index}")).collect();
        let paths: Vec<_> = paths.iter().map(String::as_str).collect();
        check(&probes, &gate, &paths, &vec![None; paths.len()]);
        assert!(probes.0.helpers.load(Ordering::Relaxed) <= MAX_HELPERS);
        open_and_wait(&probes, &gate);
    }
}
