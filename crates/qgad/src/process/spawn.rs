//! The only way to start a program.
//!
//! A program gets its own session, so that it can be signalled with all that it starts; three descriptors and no other;
//! default actions for all signals, and none blocked; exactly the arguments and the environment that are passed.
//! A name without a slash is looked up in `PATH` of that environment, or in [`DEFAULT_PATH`] if it has none. The shell
//! runs a file that is executable but has no `#!`. Starting a program does not copy the agent's memory.
//! The caller must reap the program: [`Child::try_wait`]. [`Helper`](super::helper::Helper) does it for a program
//! that a command waits for.

use std::{
    ffi::{CStr, CString, OsStr},
    fs,
    fs::File,
    io::{self, Write},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
    sync::Once,
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    libc,
    spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn},
    sys::{
        signal::{SigSet, Signal, kill, killpg},
        stat::stat,
        wait::{Id, WaitPidFlag, waitid, waitpid},
    },
    unistd::{AccessFlags, Pid, access, execve, pipe2},
};

pub(crate) use crate::sys::pidfd::ExitStatus;
use crate::{sys, util::threads};

/// Where programs are looked up when their environment has no `PATH`. Not in the working directory, where qemu-ga
/// looks, too: a file that somebody left there would run as root.
const DEFAULT_PATH: &[u8] = b"/bin:/usr/bin";
/// What runs a file that the kernel cannot.
const SHELL: &CStr = c"/bin/sh";
/// Enough for a thread that only waits.
const WATCHER_STACK_BYTES: usize = 64 * 1024;

/// A program, ready to be started.
#[derive(Debug)]
pub(crate) struct Program {
    /// The program as the caller named it: a path, or a name to look up.
    path: CString,
    /// All of `argv`. The first one is the program, unless it was given another name.
    arguments: Vec<CString>,
    environment: Vec<CString>,
}

/// The descriptors that a program gets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stdio<'a> {
    /// Standard input.
    pub(crate) input: BorrowedFd<'a>,
    /// Standard output.
    pub(crate) output: BorrowedFd<'a>,
    /// Standard error.
    pub(crate) error: BorrowedFd<'a>,
}

/// A program that was started and not reaped yet.
#[derive(Debug)]
pub(crate) struct Child {
    pid: Pid,
    /// Readable once the program has ended.
    descriptor: OwnedFd,
}

impl Program {
    /// A program with its arguments, and its whole environment as `NAME=value`.
    ///
    /// # Errors
    /// When any of it has a NUL in it.
    pub(crate) fn new<A, E>(path: impl AsRef<OsStr>, arguments: A, environment: E) -> io::Result<Self>
    where
        A: IntoIterator<Item: Into<Vec<u8>>>,
        E: IntoIterator<Item: Into<Vec<u8>>>,
    {
        let checked = |what: &'static str, text: Vec<u8>| {
            CString::new(text).map_err(|_| io::Error::other(format!("{what} has a NUL in it")))
        };
        let path = checked("the path", path.as_ref().as_bytes().into())?;
        let arguments = arguments.into_iter().map(|argument| checked("an argument", argument.into()));
        let environment = environment.into_iter().map(|variable| checked("a variable", variable.into()));
        Ok(Self {
            arguments: std::iter::once(Ok(path.clone())).chain(arguments).collect::<Result<_, _>>()?,
            path,
            environment: environment.collect::<Result<_, _>>()?,
        })
    }

    /// The paths that are tried, in their order.
    pub(crate) fn candidates(&self) -> Vec<PathBuf> {
        let name = self.path.as_bytes();
        match name {
            b"" => Vec::new(),
            _ if name.contains(&b'/') => vec![self.path().into()],
            _ => self.in_path(name).map(|path| OsStr::from_bytes(path.as_bytes()).into()).collect(),
        }
    }

    /// The same program, with another first argument than its path.
    pub(crate) fn named(mut self, name: CString) -> Self {
        self.arguments[0] = name;
        self
    }

    /// The path, the arguments with the first one, and the environment, to be passed to another process.
    pub(crate) fn parts(&self) -> (&CStr, &[CString], &[CString]) {
        (&self.path, &self.arguments, &self.environment)
    }

    /// A program from the parts that [`Self::parts`] returns. It needs at least one argument.
    pub(crate) fn from_parts(path: CString, arguments: Vec<CString>, environment: Vec<CString>) -> Self {
        Self { path, arguments, environment }
    }

    /// The file that would be started.
    pub(crate) fn find(&self) -> io::Result<PathBuf> {
        if self.path.as_bytes().contains(&b'/') {
            return Ok(self.path().into());
        }
        let is_program = |path: &PathBuf| path.is_file() && access(path, AccessFlags::X_OK).is_ok();
        self.candidates().into_iter().find(is_program).ok_or(Errno::ENOENT.into())
    }

    /// The same program, but always started from this file. Its `argv[0]` is the file's path: a program that acts by
    /// the name it is called with acts by the file's own name.
    pub(crate) fn at(mut self, file: &Path) -> io::Result<Self> {
        self.path = CString::new(file.as_os_str().as_bytes()).map_err(io::Error::other)?;
        self.arguments[0] = self.path.clone();
        Ok(self)
    }

    /// The program as the caller named it.
    pub(crate) fn path(&self) -> &OsStr {
        OsStr::from_bytes(self.path.as_bytes())
    }

    /// Starts it.
    pub(crate) fn start(&self, stdio: Stdio<'_>) -> io::Result<Child> {
        static PREPARE: Once = Once::new();
        PREPARE.call_once(prepare);
        // Makes sure that there is a free descriptor to watch the program by. Otherwise it would have to be killed.
        let reserved = stdio.input.try_clone_to_owned()?;
        let pid = self.first_found(|path, arguments| spawn(path, arguments, &self.environment, stdio))?;
        drop(reserved);
        match sys::pidfd::open(pid).or_else(|_| watch(pid)) {
            Ok(descriptor) => Ok(Child { pid, descriptor }),
            Err(error) => {
                discard(pid);
                Err(error)
            }
        }
    }

    /// Executes the program in this process. Returns only on failure.
    pub(crate) fn exec(&self) -> Errno {
        match self.first_found(|path, arguments| execve(path, arguments, &self.environment)) {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    /// Tries the files that the program's name may mean, in their order, until one can be started.
    fn first_found<T>(&self, start: impl Fn(&CStr, &[&CStr]) -> nix::Result<T>) -> nix::Result<T> {
        let name = self.path.as_bytes();
        if name.is_empty() {
            return Err(Errno::ENOENT);
        }
        if name.contains(&b'/') {
            return self.start_at(&self.path, start);
        }
        let mut failure = Errno::ENOENT;
        for path in self.in_path(name) {
            // Cheaper than starting a process to find out that there is no such file.
            if stat(path.as_c_str()).is_err_and(|error| error == Errno::ENOENT || error == Errno::ENOTDIR) {
                continue;
            }
            match self.start_at(&path, &start) {
                Err(Errno::EACCES) => failure = Errno::EACCES,
                Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ESTALE | Errno::ENODEV | Errno::ETIMEDOUT) => {}
                other => return other,
            }
        }
        Err(failure)
    }

    fn in_path(&self, name: &[u8]) -> impl Iterator<Item = CString> {
        let path = self.environment.iter().find_map(|variable| variable.to_bytes().strip_prefix(b"PATH="));
        path.unwrap_or(DEFAULT_PATH).split(|&byte| byte == b':').filter_map(move |directory| match directory {
            b"" => CString::new(name).ok(),
            _ => CString::new([directory, b"/", name].concat()).ok(),
        })
    }

    fn start_at<T>(&self, path: &CStr, start: impl Fn(&CStr, &[&CStr]) -> nix::Result<T>) -> nix::Result<T> {
        let arguments: Vec<_> = self.arguments.iter().map(CString::as_c_str).collect();
        match start(path, &arguments) {
            Err(Errno::ENOEXEC) => start(SHELL, &[&[SHELL, path], &arguments[1..]].concat()),
            other => other,
        }
    }
}

/// Prepares this process for starting programs: no other descriptors are inherited, and the end of a program is
/// reported.
pub(crate) fn prepare() {
    sys::fd::close_all_on_exec();
    sys::process::reset_sigchld();
}

impl Child {
    /// Its process id, which is also that of its session.
    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// How it ended, if it has. It is reaped then.
    pub(crate) fn try_wait(&self) -> nix::Result<Option<ExitStatus>> {
        sys::pidfd::try_wait(self.pid)
    }

    /// Kills it and its process group. To be called before it is reaped, because its process id may be reused then.
    pub(crate) fn kill_session(&self) {
        // Fails only when the group has no process left.
        let _ = killpg(self.pid, Signal::SIGKILL);
    }

    /// Removes the protection from the out-of-memory killer that it has inherited if the agent is protected.
    pub(crate) fn unprotect(&self) {
        let path = format!("/proc/{}/oom_score_adj", self.pid);
        if fs::read_to_string(&path).is_ok_and(|score| score.starts_with('-')) {
            // It may have ended.
            let _ = fs::write(path, "0");
        }
    }

    /// Kills and reaps it at once. For a caller that cannot watch it.
    pub(crate) fn discard(self) {
        discard(self.pid);
    }
}

/// Has a thread wait for the end of a child, on a kernel without pidfd_open(2).
fn watch(pid: Pid) -> io::Result<OwnedFd> {
    let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
    let wait = move || {
        // The reader of the pipe reaps it.
        while waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) == Err(Errno::EINTR) {}
        // Fails when the pipe has no reader any more.
        let _ = File::from(write).write_all(b"!");
    };
    threads::start("child", WATCHER_STACK_BYTES, wait)?;
    Ok(read)
}

fn discard(pid: Pid) {
    let _ = kill(pid, Signal::SIGKILL);
    let _ = waitpid(pid, None);
}

/// Readable once the program has ended.
impl AsFd for Child {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// The reading end for a child, and our writing end, which never blocks.
pub(crate) fn pipe_to_child() -> io::Result<(OwnedFd, File)> {
    let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
    fcntl(&write, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((read, write.into()))
}

/// Our reading end, which never blocks, and the writing end for a child.
pub(crate) fn pipe_from_child() -> io::Result<(File, OwnedFd)> {
    let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
    fcntl(&read, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((read.into(), write))
}

fn spawn(path: &CStr, arguments: &[&CStr], environment: &[CString], stdio: Stdio<'_>) -> nix::Result<Pid> {
    let mut actions = PosixSpawnFileActions::init()?;
    for (number, descriptor) in [stdio.input, stdio.output, stdio.error].iter().enumerate() {
        actions.add_dup2(descriptor.as_raw_fd(), i32::try_from(number).unwrap_or(i32::MAX))?;
    }
    let mut attributes = PosixSpawnAttr::init()?;
    attributes.set_sigdefault(&SigSet::all())?;
    attributes.set_sigmask(&SigSet::empty())?;
    let new_session = PosixSpawnFlags::from_bits_retain(libc::POSIX_SPAWN_SETSID.into());
    attributes
        .set_flags(PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF | PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK | new_session)?;
    posix_spawn(path, &actions, &attributes, arguments, environment)
}

#[cfg(test)]
mod tests {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::*;

    fn check_candidates(environment: &[&str], expected: &[&CStr]) {
        let program = Program::new("ls", [] as [&str; 0], environment.iter().copied()).unwrap();
        let candidates: Vec<_> = program.in_path(b"ls").collect();
        assert_eq!(candidates.iter().map(CString::as_c_str).collect::<Vec<_>>(), expected, "{environment:?}");
    }

    #[test]
    fn without_a_path_a_name_is_looked_up_in_the_directories_of_the_system_only() {
        check_candidates(&[], &[c"/bin/ls", c"/usr/bin/ls"]);
        check_candidates(&["XPATH=/x"], &[c"/bin/ls", c"/usr/bin/ls"]);
    }

    #[test]
    fn the_working_directory_is_searched_where_the_path_says_so() {
        check_candidates(&["PATH=/x:."], &[c"/x/ls", c"./ls"]);
        check_candidates(&["PATH=/x:"], &[c"/x/ls", c"ls"]);
        check_candidates(&["PATH="], &[c"ls"]);
    }

    #[test]
    fn the_end_of_a_child_is_seen_without_pidfd_open() {
        let null = File::options().read(true).write(true).open("/dev/null").unwrap();
        let stdio = Stdio { input: null.as_fd(), output: null.as_fd(), error: null.as_fd() };
        let program = Program::new("/bin/sh", ["-c", "exit 7"], [] as [&str; 0]).unwrap();
        let Child { pid, .. } = program.start(stdio).unwrap();
        let child = Child { pid, descriptor: watch(pid).unwrap() };
        let mut events = [PollFd::new(child.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut events, PollTimeout::NONE), Ok(1));
        assert!(events[0].revents().unwrap().contains(PollFlags::POLLIN));
        assert_eq!(child.try_wait(), Ok(Some(ExitStatus::Code(7))));
    }
}
