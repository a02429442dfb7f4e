//! Runs commands off the I/O thread, each with a deadline.
//!
//! A command that can block runs on a worker thread. If it passes its deadline, it is abandoned: its peer gets an error
//! at once, its late result is dropped, and its thread is not used again. The next command that would use the same
//! resource is refused ([`InUse`](crate::util::in_use)). [`MAX_BUSY_OF_A_CLASS`] bounds the threads of each class of
//! commands. So stuck files, programs and homes leave threads for queries, a freeze, its thaw and a shutdown.
//! A command that panics is answered with an error, and affects nothing else. Nothing here wakes up unless a command
//! ends or a deadline passes.
//! A command that waits for another process has no thread ([`WaitingTasks`]). Its end runs on the I/O thread.
//!
//! The freeze's bounded calls and the storage probes bound blocking work, too, and do not share this code: they wait
//! for their results on the thread of the command that asks, and know what each call is about. The executor knows
//! neither, and must not wait.

use std::{
    io, mem,
    os::fd::{AsFd, BorrowedFd},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{self, Sender},
    },
    time::{Duration, Instant},
};

use nix::sys::eventfd::{EfdFlags, EventFd};
use qga::{
    Class,
    wire::message::{self, Error, Id},
};

use crate::{
    guest::Guest,
    logging::audit::{Entry, Outcome},
    serve::{dispatch::Task, server::MAX_CONNECTIONS, waiting::WaitingTasks},
    util::{errno, threads},
};

/// Most commands of one class that have not ended, abandoned ones included: one for each peer served at once, and as
/// many that are stuck or whose peers have left. It bounds the memory that hung mounts cost.
pub(crate) const MAX_BUSY_OF_A_CLASS: usize = 2 * MAX_CONNECTIONS;
/// Most commands that wait for another process: one for each peer served at once, and as many of peers that left.
const MAX_WAITING: usize = 2 * MAX_CONNECTIONS;
/// Threads kept for the next command; a host that polls one guest needs one.
const MAX_IDLE_WORKERS: usize = 2;
/// Stack of a worker: name services load modules of their own, which are not modest.
const WORKER_STACK_BYTES: usize = 1024 * 1024;

/// Identifies a running task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TaskId(pub(super) u64);

/// The end of a task: by itself, or at its deadline.
#[derive(Debug)]
pub(crate) struct Completion {
    /// Which task.
    pub(crate) task_id: TaskId,
    /// The reply line; nothing for a silent success.
    pub(crate) reply: Option<Vec<u8>>,
    /// The size of its request.
    request_bytes: usize,
}

/// The worker threads, and the tasks they run.
#[derive(Debug)]
pub(crate) struct Executor {
    guest: Arc<Guest>,
    running: Vec<Running>,
    idle: Vec<Worker>,
    /// The abandoned tasks that have not returned, with their classes.
    abandoned: Vec<(TaskId, Class)>,
    next_task_id: u64,
    /// Bytes of requests and of late replies that were dropped since this was last asked for.
    freed_bytes: usize,
    returned: Arc<Returned>,
    waiting: WaitingTasks,
}

/// The tasks that have returned.
#[derive(Debug)]
struct Returned {
    completions: Mutex<Vec<Completion>>,
    wake_up: EventFd,
}

/// A thread's mailbox; dropping it ends the thread once it is done.
type Worker = Sender<(TaskId, Task)>;

#[derive(Debug)]
struct Running {
    task_id: TaskId,
    name: &'static str,
    class: Class,
    id: Option<Id>,
    timeout: Duration,
    deadline: Instant,
    audit: Option<Entry>,
    worker: Worker,
}

impl Executor {
    /// An executor with no threads yet.
    pub(crate) fn new(guest: Arc<Guest>) -> nix::Result<Self> {
        let wake_up = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Self {
            guest,
            running: Vec::new(),
            idle: Vec::new(),
            abandoned: Vec::new(),
            next_task_id: 0,
            freed_bytes: 0,
            waiting: WaitingTasks::new(wake_up.as_fd())?,
            returned: Arc::new(Returned { completions: Mutex::default(), wake_up }),
        })
    }

    /// Readable when [`Self::completions`] has something to say.
    pub(crate) fn wake_up(&self) -> BorrowedFd<'_> {
        self.waiting.descriptor()
    }

    /// When [`Self::completions`] must be called even if nothing wakes the caller.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.running.iter().map(|running| running.deadline).chain(self.waiting.next_deadline()).min()
    }

    /// Starts a task on a thread, or has it wait.
    ///
    /// # Errors
    /// When too many threads are stuck, or the system gives no further one; the task is lost.
    pub(crate) fn start(&mut self, task: Task) -> Result<TaskId, Error> {
        let audit = task.audit.clone();
        self.start_unless_full(task).inspect_err(|_| {
            if let Some(entry) = audit {
                entry.ended(&Outcome::Error);
            }
        })
    }

    /// Whether a task waits for another process.
    pub(crate) fn is_waiting(&self, task_id: TaskId) -> bool {
        self.waiting.contains(task_id)
    }

    /// Ends the wait of a task soon, if it waits: its peer wants something else, or is gone.
    pub(crate) fn hurry(&self, task_id: TaskId) {
        self.waiting.hurry(task_id);
    }

    fn start_unless_full(&mut self, mut task: Task) -> Result<TaskId, Error> {
        if let Some(wait) = task.wait.take() {
            if self.waiting.len() >= MAX_WAITING {
                return Err(Error::generic(format!("{} cannot wait: {MAX_WAITING} others do", task.name)));
            }
            self.next_task_id += 1;
            let (task_id, name) = (TaskId(self.next_task_id), task.name);
            let cannot = |error| Error::generic(format!("{name} cannot wait: {}", errno::describe(error)));
            return self.waiting.add(task_id, wait, task).map(|()| task_id).map_err(cannot);
        }
        if self.busy(task.class) >= MAX_BUSY_OF_A_CLASS {
            let (name, class) = (task.name, task.class.name());
            return Err(Error::generic(format!(
                "{name} cannot run: {MAX_BUSY_OF_A_CLASS} earlier commands of its class, {class}, have not ended"
            )));
        }
        let worker = match self.idle.pop() {
            Some(worker) => worker,
            None => {
                self.spawn_worker().map_err(|error| Error::generic(format!("{} cannot run: {error}", task.name)))?
            }
        };
        self.next_task_id += 1;
        let task_id = TaskId(self.next_task_id);
        let Task { name, class, timeout, .. } = task;
        let (id, audit) = (task.id.clone(), task.audit.clone());
        worker.send((task_id, task)).map_err(|_| Error::generic(format!("{name} cannot run: its thread is gone")))?;
        let deadline = Instant::now() + timeout;
        self.running.push(Running { task_id, name, class, id, timeout, deadline, audit, worker });
        Ok(task_id)
    }

    /// How many commands of a class have not ended.
    fn busy(&self, class: Class) -> usize {
        let running = self.running.iter().filter(|running| running.class == class);
        running.count() + self.abandoned.iter().filter(|(_, of)| *of == class).count()
    }

    /// The tasks that have ended since the last call, and those whose deadline has passed.
    pub(crate) fn completions(&mut self) -> Vec<Completion> {
        let mut completions = self.returned.take();
        completions.retain(|completion| {
            let is_awaited = self.take_back(completion.task_id);
            let reply_bytes = completion.reply.as_ref().filter(|_| !is_awaited).map_or(0, Vec::len);
            self.freed_bytes += completion.request_bytes + reply_bytes;
            is_awaited
        });
        for ready in self.waiting.take_ready() {
            let (task_id, request_bytes) = (ready.id, ready.task.request_bytes);
            completions.push(Completion { task_id, reply: ready.task.run(&self.guest), request_bytes });
        }
        completions.extend(self.expire(Instant::now()));
        completions
    }

    /// How many bytes have become free with the tasks that have ended since this was last asked for.
    pub(crate) fn take_freed_bytes(&mut self) -> usize {
        mem::take(&mut self.freed_bytes)
    }

    /// Whether anybody still waits for this task; its thread becomes free for the next one.
    fn take_back(&mut self, task_id: TaskId) -> bool {
        let Some(index) = self.running.iter().position(|running| running.task_id == task_id) else {
            self.abandoned.retain(|(abandoned, _)| *abandoned != task_id);
            self.guest.activity.has_given_up(0, self.abandoned.len());
            log::info!("a command that was given up has ended, {} are still stuck", self.abandoned.len());
            return false;
        };
        let worker = self.running.swap_remove(index).worker;
        if self.idle.len() < MAX_IDLE_WORKERS {
            self.idle.push(worker);
        }
        true
    }

    fn expire(&mut self, now: Instant) -> Vec<Completion> {
        let expired: Vec<_> = self.running.extract_if(.., |running| running.deadline <= now).collect();
        self.abandoned.extend(expired.iter().map(|running| (running.task_id, running.class)));
        self.guest.activity.has_given_up(expired.len(), self.abandoned.len());
        for running in &expired {
            if let Some(entry) = &running.audit {
                entry.ended(&Outcome::TimedOut);
            }
            log::warn!(
                "{} was given up after {:?}, {} commands are stuck",
                running.name,
                running.timeout,
                self.abandoned.len()
            );
        }
        let waited = self.waiting.take_expired(now).into_iter().map(|expired| {
            let task = expired.task;
            if let Some(entry) = &task.audit {
                entry.ended(&Outcome::TimedOut);
            }
            timed_out(expired.id, task.name, task.timeout, task.id.as_ref())
        });
        expired.iter().map(Running::timed_out).chain(waited).collect()
    }

    fn spawn_worker(&self) -> io::Result<Worker> {
        let (worker, tasks) = mpsc::channel::<(TaskId, Task)>();
        let (guest, returned) = (Arc::clone(&self.guest), Arc::clone(&self.returned));
        let serve = move || {
            for (task_id, task) in tasks {
                let request_bytes = task.request_bytes;
                let reply = task.run(&guest);
                returned.add(Completion { task_id, reply, request_bytes });
            }
        };
        threads::start("worker", WORKER_STACK_BYTES, serve)?;
        Ok(worker)
    }
}

impl Returned {
    fn add(&self, completion: Completion) {
        self.completions().push(completion);
        // Fails only when the counter is full, and then the loop is awake anyway.
        let _ = self.wake_up.write(1);
    }

    fn take(&self) -> Vec<Completion> {
        // Reset before looking, so that a task that ends meanwhile wakes the caller again.
        let _ = self.wake_up.read();
        mem::take(&mut *self.completions())
    }

    fn completions(&self) -> MutexGuard<'_, Vec<Completion>> {
        self.completions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Running {
    fn timed_out(&self) -> Completion {
        timed_out(self.task_id, self.name, self.timeout, self.id.as_ref())
    }
}

fn timed_out(task_id: TaskId, name: &str, timeout: Duration, id: Option<&Id>) -> Completion {
    let error = Error::generic(format!("{name} timed out after {} s", timeout.as_secs_f64()));
    Completion { task_id, reply: Some(message::refusal(&error, id)), request_bytes: 0 }
}

#[cfg(test)]
mod tests {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::*;
    use crate::{
        guest,
        serve::dispatch::Answer,
        util::{gate::Gate, in_use::Resource},
    };

    /// How long a test waits for what must come.
    const TIMEOUT: Duration = Duration::from_secs(60);

    fn executor() -> Executor {
        Executor::new(Arc::new(guest::tests::guest_without_a_machine())).unwrap()
    }

    fn task(timeout: Duration, behaviour: impl FnOnce() -> Option<Vec<u8>> + Send + 'static) -> Task {
        let command = move |_: &Guest, _: Option<&Id>| Answer { line: behaviour(), outcome: Outcome::Ok };
        let (name, class) = ("test-command", Class::File);
        Task { name, class, command: Box::new(command), id: None, request_bytes: 7, timeout, audit: None, wait: None }
    }

    fn stuck_task(gate: &Arc<Gate>) -> Task {
        let gate = Arc::clone(gate);
        task(Duration::ZERO, move || {
            gate.pass();
            Some(b"late".to_vec())
        })
    }

    /// The next task to end, as the loop would learn of it.
    fn next(executor: &mut Executor) -> String {
        let end = Instant::now() + TIMEOUT;
        loop {
            if let Some(completion) = executor.completions().pop() {
                return String::from_utf8(completion.reply.unwrap_or_default()).unwrap();
            }
            let until = executor.next_deadline().unwrap_or(end).min(end);
            assert!(Instant::now() < end, "no command ended");
            let timeout = PollTimeout::try_from(until.saturating_duration_since(Instant::now())).unwrap();
            poll(&mut [PollFd::new(executor.wake_up(), PollFlags::POLLIN)], timeout).unwrap();
        }
    }

    #[test]
    fn a_command_past_its_deadline_is_answered_and_the_next_one_runs() {
        let (mut executor, gate) = (executor(), Arc::new(Gate::default()));
        executor.start(stuck_task(&gate)).unwrap();
        assert_eq!(
            next(&mut executor),
            "{\"error\": {\"class\": \"GenericError\", \"desc\": \"test-command timed out after 0 s\"}}\n"
        );
        executor.start(task(TIMEOUT, || Some(b"done".to_vec()))).unwrap();
        assert_eq!(next(&mut executor), "done");
        gate.open();
    }

    #[test]
    fn a_result_that_comes_too_late_is_dropped_and_its_place_is_free_again() {
        let (mut executor, gate) = (executor(), Arc::new(Gate::default()));
        executor.start(stuck_task(&gate)).unwrap();
        next(&mut executor);
        assert_eq!(executor.abandoned.len(), 1);
        gate.open();
        let end = Instant::now() + TIMEOUT;
        while !executor.abandoned.is_empty() {
            assert!(Instant::now() < end, "the late command did not end");
            poll(&mut [PollFd::new(executor.wake_up(), PollFlags::POLLIN)], 1000_u16).unwrap();
            assert!(executor.completions().is_empty());
        }
        assert_eq!(executor.take_freed_bytes(), 7 + b"late".len());
    }

    #[test]
    fn too_many_commands_that_do_not_end_are_refused_whether_given_up_or_not() {
        let (mut executor, gate) = (executor(), Arc::new(Gate::default()));
        for _ in 0..MAX_BUSY_OF_A_CLASS / 2 {
            executor.start(stuck_task(&gate)).unwrap();
            next(&mut executor);
        }
        for _ in MAX_BUSY_OF_A_CLASS / 2..MAX_BUSY_OF_A_CLASS {
            executor.start(Task { timeout: TIMEOUT, ..stuck_task(&gate) }).unwrap();
        }
        let refusal = executor.start(stuck_task(&gate)).unwrap_err();
        assert_eq!(refusal.desc, "test-command cannot run: 32 earlier commands of its class, file, have not ended");
        gate.open();
    }

    #[test]
    fn commands_of_one_class_that_do_not_end_keep_out_no_other_class() {
        let (mut executor, gate) = (executor(), Arc::new(Gate::default()));
        for class in [Class::File, Class::Exec, Class::Account] {
            for _ in 0..MAX_BUSY_OF_A_CLASS {
                executor.start(Task { class, ..stuck_task(&gate) }).unwrap();
                next(&mut executor);
            }
        }
        for class in [Class::Control, Class::Query] {
            executor.start(Task { class, ..task(TIMEOUT, || Some(b"done".to_vec())) }).unwrap();
            assert_eq!(next(&mut executor), "done");
        }
        gate.open();
    }

    #[test]
    fn a_command_that_names_nothing_is_refused_while_one_of_its_name_is_stuck() {
        let (mut executor, gate) = (executor(), Arc::new(Gate::default()));
        let name = "test-freeze";
        executor.start(Task { name, class: Class::Control, ..stuck_task(&gate) }).unwrap();
        next(&mut executor);
        let end = Instant::now() + TIMEOUT;
        while executor.guest.in_use.check(&Resource::Command(name)).is_ok() {
            assert!(Instant::now() < end, "the command has not begun");
            std::thread::yield_now();
        }
        let again = || Task { name, class: Class::Control, ..task(TIMEOUT, || Some(b"done".to_vec())) };
        executor.start(again()).unwrap();
        let refusal = next(&mut executor);
        assert!(refusal.contains("test-freeze cannot run: an earlier test-freeze has not ended after"), "{refusal}");
        executor.start(Task { name: "test-thaw", ..again() }).unwrap();
        assert_eq!(next(&mut executor), "done");
        gate.open();
    }

    #[test]
    fn commands_that_were_given_up_are_counted_and_those_that_are_stuck() {
        let (mut executor, gate) = (executor(), Arc::new(Gate::default()));
        let guest = Arc::clone(&executor.guest);
        let counts = || (guest.activity.counts().timed_out, guest.activity.counts().stuck);
        executor.start(stuck_task(&gate)).unwrap();
        next(&mut executor);
        assert_eq!(counts(), (1, 1));
        gate.open();
        let end = Instant::now() + TIMEOUT;
        while counts() != (1, 0) {
            assert!(Instant::now() < end, "the command has not ended");
            executor.completions();
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_panic_is_answered_and_costs_nothing_else() {
        let mut executor = executor();
        executor.start(task(TIMEOUT, || panic!("a bug"))).unwrap();
        let answer = next(&mut executor);
        assert!(answer.contains("test-command failed because of a bug in the agent"), "{answer}");
        executor.start(task(TIMEOUT, || Some(b"done".to_vec()))).unwrap();
        assert_eq!(next(&mut executor), "done");
    }
}
