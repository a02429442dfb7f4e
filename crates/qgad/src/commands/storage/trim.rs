//! Trimming file systems.
//!
//! The file systems are those of [`mounts`], last mounted first, each trimmed once. An error of one is in its own entry
//! and does not affect the others. A trim that takes long continues while the next ones start. If it has not ended
//! shortly before the command's timeout, its entry has an error, so that the host gets the other entries.

use std::{
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

use nix::errno::Errno;
use qga::{
    Command,
    commands::storage::{Fstrim, TrimReport, TrimmedPath},
};

use super::super::{Result, Run};
use crate::{
    guest::Guest,
    root::Root,
    storage::{
        Limits,
        mounts::{self, Mount},
    },
    sys::trim::{Trimmed, trim},
    util::errno,
};

/// How long a trim runs before the next one starts beside it. Most end sooner, so that a disk with several file systems
/// is not busy with all of them at once.
const STALL: Duration = Duration::from_secs(60);
/// The part of the command's timeout that trims may take.
const SHARE_OF_TIMEOUT: f64 = 0.9;

impl Run for Fstrim {
    fn run(self, guest: &Guest) -> Result<TrimReport> {
        let in_all = guest.timeout(&Self::SPEC).mul_f64(SHARE_OF_TIMEOUT);
        let limits = Limits { stall: STALL.min(in_all), timeout: in_all, in_all };
        // The kernel reads a negative number as a large one: larger than any free extent.
        let minimum = self.minimum.unwrap_or(0).cast_unsigned();
        report(guest, limits, move |file| trim(file, minimum))
    }
}

fn report<T>(guest: &Guest, limits: Limits, trim: T) -> Result<TrimReport>
where
    T: Fn(BorrowedFd<'_>) -> nix::Result<Trimmed> + Send + Sync + 'static,
{
    let mut mounts = mounts::list(&guest.root)?;
    mounts.reverse();
    let root = guest.root.clone();
    let trim_one = move |mount: &Mount| Some(trim_at(&root, mount, &trim));
    let results = mounts::ask_visible(&guest.trims, Some(limits), &mounts, |_| true, trim_one);
    let paths = mounts.into_iter().zip(results).map(|(mount, result)| {
        let path = mount.mount_point.to_string_lossy().into_owned();
        let silent = || match mount.is_hidden {
            true => Err("failed to open: hidden by another mount".into()),
            false => Err("failed to trim: it did not end in time".into()),
        };
        match result.unwrap_or_else(silent) {
            Ok(Trimmed { bytes, minimum }) => {
                TrimmedPath { path, trimmed: Some(bytes), minimum: Some(minimum), error: None }
            }
            Err(error) => TrimmedPath { path, trimmed: None, minimum: None, error: Some(error) },
        }
    });
    Ok(TrimReport { paths: paths.collect() })
}

fn trim_at(
    root: &Root,
    mount: &Mount,
    trim: impl Fn(BorrowedFd<'_>) -> nix::Result<Trimmed>,
) -> std::result::Result<Trimmed, String> {
    let found = mounts::open_path(root, mount).and_then(|found| mounts::open_found(root, &found));
    let file = found.map_err(|error| format!("failed to open: {}", errno::describe(error)))?;
    trim(file.as_fd()).map_err(|error| match error {
        Errno::ENOTTY | Errno::EOPNOTSUPP => "trim not supported".into(),
        error => format!("failed to trim: {}", errno::describe(error)),
    })
}

#[cfg(test)]
mod tests {
    //! No test trims: the fake machine's files are on a file system of the one that the tests run on.

    use std::sync::{Arc, Barrier};

    use nix::{fcntl::OFlag, sys::stat::fstat};

    use super::*;
    use crate::guest;

    const MACHINE: &str = "\
proc/self/mountinfo:
| 27 1 254:1 / / rw - ext4 /dev/vda1 rw
| 28 27 252:0 / /data rw - xfs /dev/mapper/vg-data rw
| 29 27 254:1 /home /bind rw - ext4 /dev/vda1 rw
| 30 27 7:1 / /gone ro - squashfs /dev/loop1 ro
| 31 27 8:1 / /a\\040b rw - vfat /dev/sda1 rw
data/
bind/
a b/
";
    const PATIENT: Limits =
        Limits { stall: Duration::from_secs(60), timeout: Duration::from_secs(60), in_all: Duration::from_secs(60) };

    fn machine(text: &str) -> (Guest, tempfile::TempDir) {
        let (root, directory) = Root::from_text(text);
        (Guest { root, ..guest::tests::guest_at(directory.path()) }, directory)
    }

    /// Trims the fake machine, with this result of the kernel for the file system at this path.
    fn check(
        limits: Limits,
        mount_point: &str,
        said: impl Fn() -> nix::Result<Trimmed> + Send + Sync + 'static,
        expected: &str,
    ) {
        let (guest, _directory) = machine(MACHINE);
        let inode = fstat(guest.root.open(mount_point, OFlag::O_PATH).unwrap()).unwrap().st_ino;
        let trim = move |file: BorrowedFd<'_>| match fstat(file).unwrap().st_ino == inode {
            true => said(),
            false => Ok(Trimmed { bytes: 1, minimum: 2 }),
        };
        let report = report(&guest, limits, trim).unwrap();
        let lines = report.paths.iter().map(|path| serde_json::to_string(path).unwrap());
        assert_eq!(lines.collect::<Vec<_>>().join("\n"), expected);
    }

    #[test]
    fn each_device_is_trimmed_once_the_last_mounted_first() {
        check(
            PATIENT,
            "/data",
            || Ok(Trimmed { bytes: 1 << 40, minimum: 4096 }),
            r#"{"path":"/a b","trimmed":1,"minimum":2}
{"path":"/gone","error":"failed to open: No such file or directory"}
{"path":"/data","trimmed":1099511627776,"minimum":4096}
{"path":"/","trimmed":1,"minimum":2}"#,
        );
    }

    fn check_error(error: Errno, words: &str) {
        let expected = format!(
            r#"{{"path":"/a b","trimmed":1,"minimum":2}}
{{"path":"/gone","error":"failed to open: No such file or directory"}}
{{"path":"/data","error":"{words}"}}
{{"path":"/","trimmed":1,"minimum":2}}"#
        );
        check(PATIENT, "/data", move || Err(error), &expected);
    }

    #[test]
    fn a_failure_costs_its_own_entry_only() {
        check_error(Errno::EOPNOTSUPP, "trim not supported");
        check_error(Errno::ENOTTY, "trim not supported");
        check_error(Errno::EINVAL, "failed to trim: Invalid argument");
        check_error(Errno::EIO, "failed to trim: Input/output error");
    }

    #[test]
    fn a_trim_that_does_not_end_hides_no_other_one() {
        let gate = Arc::new(Barrier::new(2));
        let inside = Arc::clone(&gate);
        let impatient = Limits { stall: Duration::from_millis(10), in_all: Duration::from_secs(3), ..PATIENT };
        let stuck = move || {
            inside.wait();
            Err(Errno::EIO)
        };
        check(
            impatient,
            "/a b",
            stuck,
            r#"{"path":"/a b","error":"failed to trim: it did not end in time"}
{"path":"/gone","error":"failed to open: No such file or directory"}
{"path":"/data","trimmed":1,"minimum":2}
{"path":"/","trimmed":1,"minimum":2}"#,
        );
        gate.wait();
    }

    #[test]
    fn without_file_systems_there_is_an_empty_list() {
        let (guest, _directory) = machine("proc/self/mountinfo:\n");
        let report = report(&guest, PATIENT, |_| panic!("nothing is there")).unwrap();
        assert_eq!(serde_json::to_string(&report).unwrap(), r#"{"paths":[]}"#);
    }

    #[test]
    fn without_a_list_of_mounts_there_is_an_error() {
        let (guest, _directory) = machine("proc/self/\n");
        let error = report(&guest, PATIENT, |_| panic!("nothing is there")).unwrap_err();
        assert_eq!(error.desc, "failed to open mtab file: '/proc/self/mounts'");
    }
}
