//! Tasks that wait for a descriptor, without a thread.
//!
//! Such a task has sent a request to another process, and is completed when the answer has come. It can be hurried,
//! which asks the other process to answer at once. All descriptors are watched through one, together with one more.

use std::{
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
    time::Instant,
};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::{dispatch::Task, executor::TaskId};
use crate::commands::Wait;

/// Events handled at a time.
const EVENTS: usize = 16;
/// The data of the event of the other descriptor: no task has this number.
const OTHER: u64 = 0;

/// The waiting tasks.
#[derive(Debug)]
pub(super) struct WaitingTasks {
    epoll: Epoll,
    tasks: Vec<WaitingTask>,
}

/// A task that waits.
#[derive(Debug)]
pub(super) struct WaitingTask {
    pub(super) id: TaskId,
    pub(super) deadline: Instant,
    pub(super) task: Task,
    wait: Arc<dyn Wait>,
}

impl WaitingTasks {
    /// No tasks, and another descriptor whose events are watched, too.
    pub(super) fn new(other: BorrowedFd<'_>) -> nix::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(other, EpollEvent::new(EpollFlags::EPOLLIN, OTHER))?;
        Ok(Self { epoll, tasks: Vec::new() })
    }

    /// Readable when a task is ready, or the other descriptor is.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }

    /// How many tasks wait.
    pub(super) fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Adds a task.
    pub(super) fn add(&mut self, id: TaskId, wait: Arc<dyn Wait>, task: Task) -> nix::Result<()> {
        self.epoll.add(wait.descriptor(), EpollEvent::new(EpollFlags::EPOLLIN, id.0))?;
        self.tasks.push(WaitingTask { id, deadline: Instant::now() + task.timeout, task, wait });
        Ok(())
    }

    /// Whether a task waits.
    pub(super) fn contains(&self, id: TaskId) -> bool {
        self.tasks.iter().any(|waiting| waiting.id == id)
    }

    /// Asks the other process to answer a task at once.
    pub(super) fn hurry(&self, id: TaskId) {
        if let Some(waiting) = self.tasks.iter().find(|waiting| waiting.id == id) {
            waiting.wait.hurry();
        }
    }

    /// When [`Self::take_expired`] has to be called next.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.tasks.iter().map(|waiting| waiting.deadline).min()
    }

    /// Removes the tasks whose answer is there.
    pub(super) fn take_ready(&mut self) -> Vec<WaitingTask> {
        if self.tasks.is_empty() {
            return Vec::new();
        }
        let mut events = [EpollEvent::empty(); EVENTS];
        let count = self.epoll.wait(&mut events, EpollTimeout::ZERO).unwrap_or(0);
        let is_ready = |waiting: &mut WaitingTask| events[..count].iter().any(|event| event.data() == waiting.id.0);
        self.take(is_ready)
    }

    /// Removes the tasks whose deadline has passed.
    pub(super) fn take_expired(&mut self, now: Instant) -> Vec<WaitingTask> {
        self.take(|waiting| waiting.deadline <= now)
    }

    fn take(&mut self, which: impl FnMut(&mut WaitingTask) -> bool) -> Vec<WaitingTask> {
        let taken: Vec<_> = self.tasks.extract_if(.., which).collect();
        for waiting in &taken {
            // Fails only for a descriptor that is not watched.
            let _ = self.epoll.delete(waiting.wait.descriptor());
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use std::{os::fd::OwnedFd, time::Duration};

    use nix::{
        poll::{PollFd, PollFlags, PollTimeout, poll},
        sys::eventfd::{EfdFlags, EventFd},
    };

    use qga::Class;

    use super::*;
    use crate::{logging::audit::Outcome, serve::dispatch::Answer};

    /// A wait that ends at the test's request, or when it is hurried.
    #[derive(Debug)]
    struct Event(EventFd);

    impl Wait for Event {
        fn descriptor(&self) -> BorrowedFd<'_> {
            self.0.as_fd()
        }

        fn hurry(&self) {
            self.0.write(1).unwrap();
        }
    }

    fn task(timeout: Duration) -> Task {
        let answer = || Answer { line: None, outcome: Outcome::Ok };
        Task {
            name: "test-command",
            class: Class::Exec,
            request_bytes: 7,
            command: Box::new(move |_, _| answer()),
            id: None,
            timeout,
            audit: None,
            wait: None,
        }
    }

    fn event() -> Arc<Event> {
        Arc::new(Event(EventFd::from_flags(EfdFlags::EFD_NONBLOCK).unwrap()))
    }

    fn waiting(timeout: Duration) -> (WaitingTasks, Vec<Arc<Event>>, OwnedFd) {
        let other = OwnedFd::from(EventFd::from_flags(EfdFlags::EFD_NONBLOCK).unwrap());
        let mut tasks = WaitingTasks::new(other.as_fd()).unwrap();
        let events = vec![event(), event()];
        for (id, event) in (1..).zip(&events) {
            tasks.add(TaskId(id), Arc::clone(event) as _, task(timeout)).unwrap();
        }
        (tasks, events, other)
    }

    fn ids(tasks: &[WaitingTask]) -> Vec<u64> {
        tasks.iter().map(|task| task.id.0).collect()
    }

    fn is_ready(tasks: &WaitingTasks) -> bool {
        poll(&mut [PollFd::new(tasks.descriptor(), PollFlags::POLLIN)], PollTimeout::ZERO) == Ok(1)
    }

    #[test]
    fn a_task_is_ready_when_its_descriptor_is_and_once() {
        let (mut tasks, events, _other) = waiting(Duration::from_secs(60));
        assert!(!is_ready(&tasks) && tasks.take_ready().is_empty());
        events[1].0.write(1).unwrap();
        assert!(is_ready(&tasks));
        assert_eq!(ids(&tasks.take_ready()), [2]);
        assert!(!is_ready(&tasks) && tasks.take_ready().is_empty());
        assert!(tasks.contains(TaskId(1)) && !tasks.contains(TaskId(2)));
    }

    #[test]
    fn a_task_that_is_hurried_is_ready_soon_and_others_are_not() {
        let (mut tasks, _events, _other) = waiting(Duration::from_secs(60));
        tasks.hurry(TaskId(1));
        tasks.hurry(TaskId(3));
        assert_eq!(ids(&tasks.take_ready()), [1]);
    }

    #[test]
    fn a_task_does_not_wait_beyond_its_deadline() {
        let (mut tasks, _events, _other) = waiting(Duration::ZERO);
        assert!(tasks.next_deadline().is_some_and(|deadline| deadline <= Instant::now()));
        assert_eq!(ids(&tasks.take_expired(Instant::now())), [1, 2]);
        assert_eq!(tasks.next_deadline(), None);
    }
}
