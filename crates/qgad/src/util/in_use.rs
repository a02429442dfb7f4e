//! The resources that commands use and that may not answer: a file system, a device, a user.
//!
//! A command names the resource that it is about to use. If an earlier command has used the same one for almost its
//! timeout, the new command is refused at once, with the reason. So a resource that does not answer costs few threads,
//! however often a host asks for it, and everything else goes on. Once it answers, it can be used again.
//!
//! This is no lock: commands may use a resource at the same time ([`KeyedLock`](super::keyed_lock) is one). A command
//! uses one resource at a time, so the number of threads bounds the table.

use std::{
    fmt, io,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// The part of its timeout after which a command counts as stuck: less than 1, because a host may repeat the command as
/// soon as it has timed out.
const SHARE_OF_TIMEOUT: f64 = 0.9;

/// A resource that may not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Resource {
    /// Whatever a command uses that names no file, program or user. By the command's name.
    Command(&'static str),
    /// The entries of a user in the name services.
    User(String),
    /// A file system, by its first mount point.
    FileSystem(PathBuf),
    /// A device, or another file of the kernel's that is independent of the others in its directory.
    File(PathBuf),
}

/// What is in use.
#[derive(Debug, Default)]
pub(crate) struct InUse(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    next_id: u64,
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    id: u64,
    resource: Resource,
    since: Instant,
    overdue_at: Instant,
}

/// The resource that one command uses at present. The use ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Use<'a> {
    in_use: &'a InUse,
    id: u64,
    overdue_at: Instant,
}

impl InUse {
    /// For a command that begins and may run for this long. It uses no resource yet.
    pub(crate) fn begin(&self, timeout: Duration) -> Use<'_> {
        let mut table = self.table();
        table.next_id += 1;
        Use { in_use: self, id: table.next_id, overdue_at: Instant::now() + timeout.mul_f64(SHARE_OF_TIMEOUT) }
    }

    /// Fails, with the reason, if a command has used this for too long.
    pub(crate) fn check(&self, resource: &Resource) -> io::Result<()> {
        self.table().check(resource, Instant::now())
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn check(&self, resource: &Resource, now: Instant) -> io::Result<()> {
        let overdue = self.entries.iter().filter(|entry| entry.resource == *resource && entry.overdue_at <= now);
        match overdue.min_by_key(|entry| entry.since) {
            None => Ok(()),
            Some(entry) => {
                let seconds = now.saturating_duration_since(entry.since).as_secs();
                Err(io::Error::other(format!("an earlier {resource} has not ended after {seconds} s")))
            }
        }
    }
}

impl Use<'_> {
    /// From now on the command uses this resource, and no earlier one.
    ///
    /// # Errors
    /// When an earlier command has used it for too long.
    pub(crate) fn turn_to(&self, resource: Resource) -> io::Result<()> {
        let mut table = self.in_use.table();
        table.entries.retain(|entry| entry.id != self.id);
        let since = Instant::now();
        table.check(&resource, since)?;
        table.entries.push(Entry { id: self.id, resource, since, overdue_at: self.overdue_at });
        Ok(())
    }
}

impl Drop for Use<'_> {
    fn drop(&mut self) {
        self.in_use.table().entries.retain(|entry| entry.id != self.id);
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command(name) => formatter.write_str(name),
            Self::User(name) => write!(formatter, "command for user '{name}'"),
            Self::FileSystem(path) => write!(formatter, "command on the file system at '{}'", path.display()),
            Self::File(path) => write!(formatter, "command on '{}'", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    fn ann() -> Resource {
        Resource::User("ann".into())
    }

    #[test]
    fn what_keeps_a_command_longer_than_it_may_run_is_refused_until_that_command_ends() {
        let in_use = InUse::default();
        let stuck = in_use.begin(Duration::ZERO);
        stuck.turn_to(ann()).unwrap();
        let next = in_use.begin(LONG);
        let refusal = next.turn_to(ann()).unwrap_err();
        assert_eq!(refusal.to_string(), "an earlier command for user 'ann' has not ended after 0 s");
        next.turn_to(Resource::User("bob".into())).unwrap();
        drop(stuck);
        next.turn_to(ann()).unwrap();
    }

    #[test]
    fn what_a_command_uses_within_its_time_may_be_used_by_others() {
        let in_use = InUse::default();
        let [one, other] = [(); 2].map(|()| in_use.begin(LONG));
        one.turn_to(ann()).unwrap();
        other.turn_to(ann()).unwrap();
    }

    #[test]
    fn only_what_a_command_uses_last_counts() {
        let in_use = InUse::default();
        let stuck = in_use.begin(Duration::ZERO);
        stuck.turn_to(ann()).unwrap();
        stuck.turn_to(Resource::FileSystem("/home".into())).unwrap();
        in_use.check(&ann()).unwrap();
        let refusal = in_use.check(&Resource::FileSystem("/home".into())).unwrap_err();
        assert_eq!(refusal.to_string(), "an earlier command on the file system at '/home' has not ended after 0 s");
        in_use.check(&Resource::File("/home".into())).unwrap();
    }

    #[test]
    fn a_command_that_is_refused_keeps_nobody_out() {
        let in_use = InUse::default();
        let stuck = in_use.begin(Duration::ZERO);
        stuck.turn_to(ann()).unwrap();
        let refused = in_use.begin(Duration::ZERO);
        refused.turn_to(ann()).unwrap_err();
        drop(stuck);
        in_use.check(&ann()).unwrap();
    }
}
