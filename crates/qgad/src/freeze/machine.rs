//! The real machine, on which file systems are frozen.
//!
//! Finding and opening file systems may hang on a mount point below a dead network file system, so both are bounded
//! calls.

use std::{os::fd::BorrowedFd, path::Path, sync::Arc, time::Instant};

use nix::sys::mman::{MlockAllFlags, mlockall, munlockall};
use qga::wire::message::Error;

use super::{
    Action, Claim, Guard, Hooks, Machine, Marker, OnEvent, Operations,
    bounded_call::{BoundedCall, Progress},
    fuse, guard,
    parts::Duty,
    plan::{Candidate, Exclude, candidates},
    target::{Kernel, Target, mount_of, mount_of_descriptor},
};
use crate::{environment::Environment, logging, root::Root, storage::mounts, util::errno};

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
    /// Looking for file systems.
    pub(crate) search: BoundedCall,
    /// Making the guard's socket.
    pub(crate) listening: BoundedCall,
}

impl Machine for RealMachine {
    fn find(&self, named: Option<&[String]>, deadline: Instant) -> Result<Vec<Target>, Error> {
        find(&self.search, &self.root, &self.exclude, named, deadline)
    }

    fn find_all(&self, deadline: Instant) -> Result<Vec<Target>, Error> {
        find(&self.search, &self.root, &Exclude::default(), None, deadline)
    }

    fn operations(&self) -> Arc<dyn Operations> {
        Arc::new(Kernel)
    }

    fn start_guard(&self, targets: &[Arc<Target>], duty: Duty, on_event: OnEvent) -> Result<Arc<dyn Guard>, Error> {
        let parts = guard::Parts { marker: &self.marker, hooks: &self.hooks, listening: &self.listening };
        guard::start(targets, duty, &parts, &self.environment, on_event)
    }

    fn claim_guards(&self, on_event: &dyn Fn() -> OnEvent) -> Vec<Result<Claim, Error>> {
        guard::claim_all(&self.marker, on_event)
    }

    fn run_hook(&self, action: Action) -> Result<(), Error> {
        match action {
            Action::Freeze => self.hooks.freeze(&self.environment),
            Action::Thaw => self.hooks.thaw(&self.environment),
        }
    }

    fn way_out(&self) -> Option<String> {
        let files = fuse::abort_files(&self.root);
        (!files.is_empty()).then(|| format!("if that waits for a FUSE file system, write 1 to {}", files.join(" or ")))
    }

    fn quiesce(&self) {
        logging::hold();
        if let Err(error) = lock_memory() {
            log::warn!("failed to lock memory: {}", errno::describe(error));
        }
    }

    fn resume(&self, stuck: &[Arc<Target>]) {
        // A thread that writes there could not be ended, nor could this process.
        if stuck.is_empty() || !logging::writes_to(|file| is_on(&self.root, file, stuck)) {
            logging::flush_held();
        }
        if let Err(error) = munlockall() {
            log::warn!("failed to unlock memory: {}", errno::describe(error));
        }
    }
}

/// Whether a file is on one of these file systems, or might be.
fn is_on(root: &Root, file: BorrowedFd<'_>, targets: &[Arc<Target>]) -> bool {
    let (Some(mount), Ok(mounts)) = (mount_of_descriptor(root, file), mounts::all(root)) else { return true };
    let file_systems = mounts.iter().filter(|one| one.id == mount).map(|one| one.file_system);
    file_systems.into_iter().any(|one| targets.iter().any(|target| target.file_system == one))
}

/// Keeps all memory, also what comes later, from having to be read from a disk.
pub(super) fn lock_memory() -> nix::Result<()> {
    mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE)
}

/// Finds and opens, within bounds.
fn find(
    bounded_call: &BoundedCall,
    root: &Root,
    exclude: &Exclude,
    named: Option<&[String]>,
    deadline: Instant,
) -> Result<Vec<Target>, Error> {
    let (root, exclude, named) = (root.clone(), exclude.clone(), named.map(<[String]>::to_vec));
    let work = move |progress: &Progress| {
        let look = |path: &Path| progress.tell(format!("open {}", path.display()));
        let mount_of = |path: &Path| {
            look(path);
            mount_of(&root, path)
        };
        let candidates = candidates(&root, &exclude, named.as_deref(), mount_of)?;
        let open = |candidate| {
            look(Candidate::mount_point(candidate));
            Target::open(&root, candidate)
        };
        let opened: Result<Vec<_>, _> = candidates.iter().map(open).collect();
        Ok(opened?.into_iter().flatten().collect())
    };
    bounded_call.run("open /proc/self/mountinfo", deadline, work)?
}
