//! The real machine, on which file systems are frozen.
//!
//! Finding and opening file systems may hang on a mount point below a dead network file system, so both are bounded
//! calls. A freeze fails if a file system cannot be opened, unless its device is gone. A thaw uses those that can be
//! opened.

use std::{os::fd::BorrowedFd, path::Path, sync::Arc, time::Instant};

use nix::sys::mman::{MlockAllFlags, mlockall, munlockall};
use qga::wire::message::Error;

use super::{
    Action, Guard, Hooks, Machine, Marker, OnEvent, Operations, TakenOver,
    bounded_call::{BoundedCall, Progress},
    fuse, guard,
    parts::Duty,
    plan::{Exclude, Questions, candidates},
    target::{Kernel, Target},
};
use crate::{
    environment::Environment,
    logging,
    root::Root,
    storage::{backing, btrfs, mounts},
    util::errno,
};

/// The machine, with the administrator's settings.
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
    /// Finding and opening file systems.
    pub(crate) search: BoundedCall,
    /// Making the guard's socket.
    pub(crate) listening: BoundedCall,
}

impl Machine for RealMachine {
    fn find(&self, named: Option<&[String]>, deadline: Instant) -> Result<Vec<Target>, Error> {
        find(&self.search, &self.root, &self.exclude, named, Purpose::Freeze, deadline)
    }

    fn find_all(&self, deadline: Instant) -> Result<Vec<Target>, Error> {
        find(&self.search, &self.root, &Exclude::default(), None, Purpose::Thaw, deadline)
    }

    fn operations(&self) -> Arc<dyn Operations> {
        Arc::new(Kernel)
    }

    fn start_guard(&self, targets: &[Arc<Target>], duty: Duty, on_event: OnEvent) -> Result<Arc<dyn Guard>, Error> {
        let parts = guard::Parts { marker: &self.marker, hooks: &self.hooks, listening: &self.listening };
        guard::start(targets, duty, &parts, &self.environment, on_event)
    }

    fn take_over_guards(&self, on_event: &dyn Fn() -> OnEvent) -> Vec<Result<TakenOver, Error>> {
        guard::take_over_all(&self.marker, on_event)
    }

    fn run_hook(&self, action: Action) -> Result<(), Error> {
        match action {
            Action::Freeze => self.hooks.freeze(&self.environment),
            Action::Thaw => self.hooks.thaw(&self.environment),
        }
    }

    fn abort_hint(&self) -> Option<String> {
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
        // A thread that writes there could not be killed, nor could this process.
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
    let (Some(mount), Ok(mounts)) = (mounts::id_of_mount(root, file), mounts::all(root)) else { return true };
    let file_systems = mounts.iter().filter(|one| one.id == mount).map(|one| one.file_system);
    file_systems.into_iter().any(|one| targets.iter().any(|target| target.file_system == one))
}

/// Locks all memory, also what is allocated later, so that none has to be read from a disk.
pub(super) fn lock_memory() -> nix::Result<()> {
    mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE)
}

/// Why file systems are opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// To freeze: all are needed, except those without any device left, which nobody can copy.
    Freeze,
    /// To thaw: as many as possible, so that one that cannot be opened does not keep the others frozen.
    Thaw,
}

/// Finds and opens, within bounds.
fn find(
    bounded_call: &BoundedCall,
    root: &Root,
    exclude: &Exclude,
    named: Option<&[String]>,
    purpose: Purpose,
    deadline: Instant,
) -> Result<Vec<Target>, Error> {
    let (root, exclude, named) = (root.clone(), exclude.clone(), named.map(<[String]>::to_vec));
    let work = move |progress: &Progress| {
        let look = |path: &Path| progress.tell(format!("open {}", path.display()));
        let questions = Questions {
            backing: &|device| backing::of(&root, device, &look),
            btrfs_id: &|mount| {
                look(&mount.mount_point);
                btrfs::id_of(&root, &mounts::open_path_cached(&root, mount).ok()?)
            },
            resolve: &|path| {
                look(path);
                root.resolve(path).ok()
            },
        };
        let mut candidates = candidates(&root, &exclude, named.as_deref(), &questions)?;
        if purpose == Purpose::Freeze {
            candidates.retain(|candidate| {
                let is_lost = candidate.has_lost_its_devices(&root, &questions);
                if is_lost {
                    log::warn!("{} is not frozen: its device is gone", candidate.mount_point().display());
                }
                !is_lost
            });
        }
        let mut targets = Vec::new();
        for candidate in &candidates {
            look(candidate.mount_point());
            match Target::open(&root, candidate) {
                Ok(Some(target)) => targets.push(target),
                Ok(None) => log::warn!("{} is not mounted any more", candidate.mount_point().display()),
                Err(failure) if purpose == Purpose::Freeze || failure.is_want_of_resources() => {
                    return Err(failure.into());
                }
                Err(failure) => log::warn!("{}; it is not thawed", Error::from(failure).desc),
            }
        }
        Ok(targets)
    };
    bounded_call.run("open /proc/self/mountinfo", deadline, work)?
}
