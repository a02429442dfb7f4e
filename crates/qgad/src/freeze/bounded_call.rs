//! A call that may never return, such as opening a file below the mount point of a dead network file system.
//!
//! A thread of its own makes the call, and the caller waits until a deadline. The call reports what it is about to do,
//! so that an error can name it. There is one call at a time: while one that was abandoned has not returned, further
//! ones are refused. So a dead mount costs one thread, however often a host asks.
//!
//! The executor and the probes bound calls, too, and share no code with this: the executor must not wait, and gets its
//! results as events of the I/O loop; the probes ask many questions in one call and go on behind one that hangs.

use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        mpsc::{self, RecvTimeoutError},
    },
    time::Instant,
};

use qga::wire::message::Error;

use crate::util::{errno, threads};

/// Stack of the thread.
const STACK_BYTES: usize = 256 * 1024;

/// Work of a kind.
#[derive(Debug, Default)]
pub(crate) struct BoundedCall(Arc<Shared>);

/// What is being done.
#[derive(Clone, Debug)]
pub(crate) struct Progress(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// What is being done, if anything is: `open /mnt`.
    doing: Option<String>,
    is_given_up: bool,
}

impl BoundedCall {
    /// Makes a call, after a call in progress that another thread still waits for. `doing` names its first step.
    ///
    /// # Errors
    /// When it does not return before the deadline, or an earlier one that was abandoned has not returned yet.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        doing: &str,
        deadline: Instant,
        work: impl FnOnce(&Progress) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let done = Arc::new(Mutex::new(None));
        let slot = Arc::clone(&done);
        let fill = move |progress: &Progress| {
            let result = work(progress);
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        };
        self.run_boxed(doing, deadline, Box::new(fill))?;
        let result = done.lock().unwrap_or_else(PoisonError::into_inner).take();
        result.ok_or_else(|| failed_by_a_bug(doing))
    }

    /// As [`Self::run`], once for work of any result.
    fn run_boxed(&self, doing: &str, deadline: Instant, work: Box<dyn FnOnce(&Progress) + Send>) -> Result<(), Error> {
        self.begin(doing, deadline)?;
        let (sender, receiver) = mpsc::channel();
        let progress = Progress(Arc::clone(&self.0));
        let work = move || {
            work(&progress);
            progress.0.end();
            // Nobody waits any more if it took too long.
            let _ = sender.send(());
        };
        if let Err(error) = threads::start("bounded_call", STACK_BYTES, work) {
            self.0.end();
            return Err(Error::generic(format!("failed to start a thread: {}", errno::describe(error))));
        }
        receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())).map_err(|error| match error {
            RecvTimeoutError::Timeout => self.0.give_up(),
            RecvTimeoutError::Disconnected => {
                self.0.end();
                failed_by_a_bug(doing)
            }
        })
    }

    fn begin(&self, doing: &str, deadline: Instant) -> Result<(), Error> {
        let timeout = deadline.saturating_duration_since(Instant::now());
        let is_in_the_way = |state: &mut State| state.doing.is_some() && !state.is_given_up;
        let waited = self.0.changed.wait_timeout_while(self.0.state(), timeout, is_in_the_way);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if let Some(doing) = &state.doing {
            return Err(Error::generic(format!("failed to {doing}: no answer since an earlier attempt")));
        }
        *state = State { doing: Some(doing.into()), is_given_up: false };
        Ok(())
    }
}

impl Progress {
    /// Says what is done next.
    pub(crate) fn tell(&self, doing: String) {
        self.0.state().doing = Some(doing);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self) {
        *self.state() = State::default();
        self.changed.notify_all();
    }

    fn give_up(&self) -> Error {
        let mut state = self.state();
        // It may have ended at the last moment.
        let doing = state.doing.clone().unwrap_or_default();
        state.is_given_up = state.doing.is_some();
        drop(state);
        self.changed.notify_all();
        Error::generic(format!("failed to {doing}: no answer"))
    }
}

fn failed_by_a_bug(doing: &str) -> Error {
    Error::generic(format!("failed to {doing}: a bug in the agent"))
}

#[cfg(test)]
mod tests {
    use std::{thread, time::Duration};

    use super::{super::tests::TIMEOUT, *};

    fn soon() -> Instant {
        Instant::now() + TIMEOUT
    }

    #[test]
    fn one_that_was_given_up_is_named_and_keeps_out_further_ones_until_it_returns() {
        let bounded_call = BoundedCall::default();
        let (go_on, wait) = mpsc::channel::<()>();
        let hang = move |progress: &Progress| {
            progress.tell("open /net/dead".into());
            wait.recv().unwrap_err();
        };
        let error = bounded_call.run("look", Instant::now() + Duration::from_millis(50), hang).unwrap_err();
        assert!(error.desc.ends_with(": no answer"), "{}", error.desc);
        let refused = bounded_call.run("look", soon(), |_| ()).unwrap_err();
        assert_eq!(refused.desc, "failed to open /net/dead: no answer since an earlier attempt");
        drop(go_on);
        let end = soon();
        while bounded_call.run("look", soon(), |_| ()).is_err() {
            assert!(Instant::now() < end, "it does not return");
            thread::yield_now();
        }
    }

    #[test]
    fn one_that_nobody_has_given_up_is_waited_for() {
        let bounded_call = BoundedCall::default();
        let inner = BoundedCall(Arc::clone(&bounded_call.0));
        let (begun, wait) = mpsc::channel();
        let first = thread::spawn(move || inner.run("look", soon(), move |_| begun.send(()).map(|()| 1)));
        wait.recv().unwrap();
        assert_eq!(bounded_call.run("look", soon(), |_| 2), Ok(2));
        assert_eq!(first.join().unwrap(), Ok(Ok(1)));
    }

    #[test]
    fn one_that_panics_is_an_error_and_keeps_out_nobody() {
        let bounded_call = BoundedCall::default();
        let error = bounded_call.run("look", soon(), |_| panic!("on purpose")).map(|(): ()| ()).unwrap_err();
        assert_eq!(error.desc, "failed to look: a bug in the agent");
        assert_eq!(bounded_call.run("look", soon(), |_| 2), Ok(2));
    }
}
