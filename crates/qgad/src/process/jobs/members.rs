//! The processes of a job: those of its session, and where it has a control group, all in that.
//!
//! A program that starts a session of its own leaves that of the job, but not the control group. A job has a control
//! group if the service manager has delegated the agent's group (`Delegate=` in our units; systemd marks such a group).
//! Without one, only the session can be signalled. The first process of a session is not reaped while others may be
//! signalled, so that its process id, which is also the session's id, is not used again.

use std::{
    collections::HashSet,
    fs, io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use nix::{
    libc::{SIGKILL, pid_t},
    unistd::{Pid, getsid},
};

use crate::sys;

/// Where control groups are.
const GROUPS: &str = "/sys/fs/cgroup";
/// Most searches for processes that were started meanwhile. A program that forks faster needs a control group.
const MAX_ROUNDS: usize = 8;
/// The attributes by which systemd marks a delegated group.
const DELEGATION_MARKS: [&std::ffi::CStr; 2] = [c"trusted.delegate", c"user.delegate"];

/// The control group of one job. It is removed with the job, unless processes are left in it.
#[derive(Debug)]
pub(super) struct ControlGroup {
    path: PathBuf,
}

impl ControlGroup {
    /// A new group below our own, if our own is delegated.
    pub(super) fn create(job: i64) -> Option<Self> {
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        let own = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
        let own = Path::new(GROUPS).join(own);
        let is_delegated = DELEGATION_MARKS.iter().any(|mark| sys::xattr::is_true(&own, mark));
        if !is_delegated {
            return None;
        }
        let path = own.join(format!("job-{job}"));
        fs::create_dir(&path).ok().map(|()| Self { path })
    }

    /// Moves the calling process into it.
    pub(super) fn enter(&self) -> io::Result<()> {
        fs::write(self.path.join("cgroup.procs"), "0")
    }

    fn kill(&self) -> io::Result<()> {
        fs::write(self.path.join("cgroup.kill"), "1")
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        // Fails while processes are left in it.
        let _ = fs::remove_dir(&self.path);
    }
}

/// Sends a signal to all processes of a job.
pub(super) fn signal(session: Pid, group: Option<&ControlGroup>, number: i32) {
    // Processes of the session may have been moved out of the group, as a login does it.
    if number == SIGKILL
        && let Some(group) = group
    {
        let _ = group.kill();
    }
    let mut signalled = HashSet::new();
    for _ in 0..MAX_ROUNDS {
        let mut members = of_session(session).unwrap_or_else(|| vec![session.as_raw()]);
        if let Some(group) = group {
            of_group(&group.path, &mut members);
        }
        members.retain(|&pid| signalled.insert(pid));
        if members.is_empty() {
            return;
        }
        for pid in members {
            // It may have ended.
            let _ = sys::process::send_signal(pid, number);
        }
    }
}

/// The processes of a session. `None` where the kernel does not list processes.
fn of_session(session: Pid) -> Option<Vec<pid_t>> {
    let processes = fs::read_dir("/proc").ok()?.filter_map(|entry| {
        let entry = entry.ok()?;
        let pid = str::from_utf8(entry.file_name().as_bytes()).ok()?.parse().ok()?;
        // Unlike proc(5)'s `stat`, this needs no permission to trace the process.
        (getsid(Some(Pid::from_raw(pid))).ok()? == session).then_some(pid)
    });
    Some(processes.collect())
}

/// The processes of a group and the groups below it.
fn of_group(path: &Path, members: &mut Vec<pid_t>) {
    let listed = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
    members.extend(listed.lines().filter_map(|line| line.parse::<pid_t>().ok()).filter(|&pid| pid > 0));
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            of_group(&entry.path(), members);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_in_its_session() {
        let session = getsid(None).unwrap();
        let own = pid_t::try_from(std::process::id()).unwrap();
        assert!(session.as_raw() == 0 || of_session(session).unwrap().contains(&own));
    }
}
