//! The machine that file systems are really frozen on.
//!
//! Looking for file systems and opening them may take for ever, if a mount point lies below a dead network file system. It
//! is done by a thread of its own, which says what it is about to look at, so that the error can name it.

use std::{
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::Instant,
};

use nix::sys::mman::{MlockAllFlags, mlockall, munlockall};
use qga::wire::message::Error;

use super::{
    Action, Claim, Guard, Hooks, Lease, Machine, Marker, OnEnd, Operations, guard,
    plan::{Candidate, Exclude, candidates},
    target::{Kernel, Target, mount_of},
};
use crate::{errno, guest::Environment, logger, root::Root};

/// Stack of the thread that looks for file systems.
const STACK_BYTES: usize = 256 * 1024;

/// The machine, as the administrator's settings want it to be treated.
#[derive(Debug)]
pub(crate) struct RealMachine {
    /// The machine's files.
    pub(crate) root: Root,
    /// What hooks and the guard get.
    pub(crate) environment: Environment,
    /// What is never frozen.
    pub(crate) exclude: Exclude,
    /// The administrator's programs.
    pub(crate) hooks: Hooks,
    /// Where the guard keeps what outlives the agent.
    pub(crate) marker: Marker,
}

impl Machine for RealMachine {
    fn find(&self, named: Option<&[String]>, until: Instant) -> Result<Vec<Target>, Error> {
        find(&self.root, &self.exclude, named, until)
    }

    fn find_all(&self, until: Instant) -> Result<Vec<Target>, Error> {
        find(&self.root, &Exclude::default(), None, until)
    }

    fn operations(&self) -> Arc<dyn Operations> {
        Arc::new(Kernel)
    }

    fn start_guard(&self, targets: &[Arc<Target>], lease: Lease, on_end: OnEnd) -> Result<Box<dyn Guard>, Error> {
        guard::start(targets, lease, &self.marker, &self.hooks, &self.environment, on_end)
    }

    fn claim_guard(&self, on_end: OnEnd) -> Result<Option<Claim>, Error> {
        guard::claim(&self.marker, on_end)
    }

    fn run_hook(&self, action: Action) -> Result<(), Error> {
        match action {
            Action::Freeze => self.hooks.freeze(&self.environment),
            Action::Thaw => self.hooks.thaw(&self.environment),
        }
    }

    fn hold_still(&self) {
        if let Err(error) = lock_memory() {
            log::warn!("failed to lock memory: {}", errno::words(error));
        }
        logger::keep();
    }

    fn move_again(&self) {
        logger::write_kept();
        if let Err(error) = munlockall() {
            log::warn!("failed to unlock memory: {}", errno::words(error));
        }
    }
}

/// Keeps all memory, also what comes later, from having to be read from a disk.
pub(super) fn lock_memory() -> nix::Result<()> {
    mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE)
}

/// Finds and opens, within bounds.
fn find(root: &Root, exclude: &Exclude, named: Option<&[String]>, until: Instant) -> Result<Vec<Target>, Error> {
    let looking_at = Arc::new(Mutex::new(PathBuf::from("/proc/self/mountinfo")));
    let (sender, receiver) = mpsc::channel();
    let (root, exclude, named) = (root.clone(), exclude.clone(), named.map(<[String]>::to_vec));
    let place = Arc::clone(&looking_at);
    let look = move |path: &Path| *place.lock().unwrap_or_else(PoisonError::into_inner) = path.into();
    let work = move || {
        let mount_of = |path: &Path| {
            look(path);
            mount_of(&root, path)
        };
        let found = candidates(&root, &exclude, named.as_deref(), mount_of).and_then(|candidates| {
            let open = |candidate| {
                look(Candidate::place(candidate));
                Target::open(&root, candidate)
            };
            let opened: Result<Vec<_>, _> = candidates.iter().map(open).collect();
            Ok(opened?.into_iter().flatten().collect())
        });
        // Nobody waits any more if it took too long.
        let _ = sender.send(found);
    };
    let started = thread::Builder::new().name("find".into()).stack_size(STACK_BYTES).spawn(work);
    started.map_err(|error| Error::generic(format!("failed to start a thread: {}", errno::words(error))))?;
    match receiver.recv_timeout(until.saturating_duration_since(Instant::now())) {
        Ok(found) => found,
        Err(RecvTimeoutError::Timeout) => {
            let place = looking_at.lock().unwrap_or_else(PoisonError::into_inner);
            let place = String::from_utf8_lossy(place.as_os_str().as_bytes()).into_owned();
            Err(Error::generic(format!("failed to open {place}: no answer")))
        }
        Err(RecvTimeoutError::Disconnected) => {
            Err(Error::generic("failed to look for file systems: a bug in the agent"))
        }
    }
}
