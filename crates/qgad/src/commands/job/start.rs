//! Starting a job: user, directory and program are resolved here, where waiting for a disk or a name service is
//! allowed.
//!
//! A job of a user has the user's groups and a login's environment, but no PAM session: no limits of its own, no
//! keyring. The policy treats the program like that of guest-exec. With `exec-allow`, a host sets no variable except
//! the terminal's type, which is a plain name.

use std::{ffi::CString, io, path::Path};

use qga::{
    Command,
    commands::job::{JobStart, StartedJob, Terminal, Unattended},
    wire::message::Error,
};

use super::super::{
    Result, Run,
    exec::{check_allowed, use_file_of},
};
use crate::{
    accounts::Account,
    environment::HELPER_PATH,
    guest::Guest,
    logging::audit,
    policy::refused_by,
    process::{
        jobs::{Directory, Owner, Start, size},
        spawn::Program,
    },
    storage::lookup::Lookup,
    util::{
        errno,
        in_use::{Resource, Use},
    },
};

/// The terminal type, if the host gives none: the simplest one that full-screen programs work with.
const DEFAULT_TERM: &str = "vt220";
/// Longest name of a type of terminal.
const MAX_TERM_BYTES: usize = 64;
/// `PATH` of a user other than root, as in login(1). Root gets that of helpers.
const USER_PATH: &str = "/usr/local/bin:/usr/bin:/bin";
/// The login shell of an account that names none, as passwd(5) has it.
const DEFAULT_SHELL: &str = "/bin/sh";
const MILLIS_PER_SECOND: i64 = 1000;

impl Run for JobStart {
    fn run(self, guest: &Guest) -> Result<StartedJob> {
        let subject = subject(&self);
        let failed = |error: io::Error| {
            let refused = refused_by(&error);
            Error { refused, ..Error::generic(format!("failed to start {subject}: {}", errno::describe(error))) }
        };
        let command = guest.begin_use(&Self::SPEC);
        let start = resolve(self, guest, &command).map_err(failed)?;
        let start = Start { id: guest.state.take_handle()?, ..start };
        let pid = guest.jobs.start(&start, &guest.environment).map_err(failed)?;
        log::info!("qgad-job-start started {subject} as job {}, process {pid}", start.id);
        Ok(StartedJob { id: start.id, pid })
    }

    fn audit_subject(&self) -> Option<String> {
        Some(subject(self))
    }
}

fn subject(job: &JobStart) -> String {
    let program = job.path.as_deref().map_or_else(|| "a login shell".into(), audit::path);
    match &job.user {
        Some(user) => format!("{program} as {}", audit::path(user)),
        None => program,
    }
}

/// All that the supervisor needs, except the id.
fn resolve(job: JobStart, guest: &Guest, command: &Use<'_>) -> io::Result<Start> {
    let account = find_account(&job, guest, command)?;
    let owner = account.as_ref().filter(|_| job.user.is_some()).map(owner).transpose()?;
    let has_environment = job.env.is_some();
    let environment = make_environment(&job, guest, account.as_ref())?;
    let shell = account.as_ref().map(|account| account.shell.as_os_str()).filter(|shell| !shell.is_empty());
    let path = match &job.path {
        Some(path) => path.as_ref(),
        None => shell.unwrap_or(DEFAULT_SHELL.as_ref()),
    };
    let is_login = job.path.is_none();
    if let Some(directory) = &job.cwd {
        Lookup::new(&guest.root).follow(Path::new(directory), command)?;
    }
    let program = Program::new(path, job.arg.unwrap_or_default(), environment)?;
    let program = use_file_of(program, guest, command)?;
    let program = check_allowed(program, guest, has_environment)?;
    let label = CString::new(program.path().as_encoded_bytes())?;
    let directory = match (job.cwd, &account) {
        (Some(path), _) => Some(Directory { path: CString::new(path)?, is_optional: false }),
        (None, Some(account)) => {
            Some(Directory { path: CString::new(account.home.as_os_str().as_encoded_bytes())?, is_optional: true })
        }
        (None, None) => None,
    };
    let terminal = job.terminal.as_ref().map(|Terminal { rows, columns, .. }| {
        size(*rows, *columns).ok_or_else(|| io::Error::other("a terminal has 1 to 65535 rows and columns"))
    });
    if job.timeout.is_some_and(|timeout| timeout <= 0) {
        return Err(io::Error::other("its timeout is less than a second"));
    }
    let hangs_up = match job.unattended {
        Some(unattended) => unattended == Unattended::HangUp,
        None => terminal.is_some(),
    };
    Ok(Start {
        id: 0,
        label,
        user: job.user.map(CString::new).transpose()?,
        program: if is_login { named_as_login(program)? } else { program },
        directory,
        owner,
        has_input: job.stdin.unwrap_or(false),
        terminal: terminal.transpose()?,
        timeout: job.timeout.map(|seconds| seconds.saturating_mul(MILLIS_PER_SECOND)),
        hangs_up,
    })
}

/// The account whose login environment the job gets.
fn find_account(job: &JobStart, guest: &Guest, command: &Use<'_>) -> io::Result<Option<Account>> {
    match &job.user {
        Some(name) => {
            command.turn_to(Resource::User(name.clone()))?;
            let found = Account::find(&guest.root, name)?;
            found.ok_or_else(|| io::Error::other(format!("there is no user {name}"))).map(Some)
        }
        None if job.path.is_none() => Account::of_agent(),
        None => Ok(None),
    }
}

fn make_environment(job: &JobStart, guest: &Guest, account: Option<&Account>) -> io::Result<Vec<Vec<u8>>> {
    let mut variables = match account {
        Some(account) => login_environment(account),
        None => guest.environment.for_children(),
    };
    if let Some(terminal) = &job.terminal {
        let term = terminal.term.as_deref().unwrap_or(DEFAULT_TERM);
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-+._".contains(&byte);
        if term.is_empty() || term.len() > MAX_TERM_BYTES || !term.bytes().all(is_name) {
            return Err(io::Error::other("its terminal's type is no name"));
        }
        set(&mut variables, format!("TERM={term}").into_bytes());
    }
    for variable in job.env.iter().flatten() {
        set(&mut variables, variable.as_bytes().into());
    }
    Ok(variables)
}

fn owner(account: &Account) -> io::Result<Owner> {
    Ok(Owner { uid: account.uid, gid: account.gid, groups: account.groups()? })
}

/// What login(1) sets.
fn login_environment(account: &Account) -> Vec<Vec<u8>> {
    let shell = account.shell.as_os_str().as_encoded_bytes();
    let shell = if shell.is_empty() { DEFAULT_SHELL.as_bytes() } else { shell };
    let path = if account.uid.is_root() { HELPER_PATH } else { USER_PATH };
    [
        ("HOME", account.home.as_os_str().as_encoded_bytes()),
        ("SHELL", shell),
        ("USER", account.name.as_bytes()),
        ("LOGNAME", account.name.as_bytes()),
        ("PATH", path.as_bytes()),
    ]
    .map(|(name, value)| [name.as_bytes(), b"=", value].concat())
    .into()
}

/// Sets a variable, and replaces an earlier one of the same name.
fn set(variables: &mut Vec<Vec<u8>>, variable: Vec<u8>) {
    let name = |variable: &[u8]| variable.iter().position(|&byte| byte == b'=').map(|end| variable[..end].to_vec());
    let new = name(&variable);
    variables.retain(|old| new.is_none() || name(old) != new);
    variables.push(variable);
}

/// A shell whose name begins with a hyphen is a login shell.
fn named_as_login(program: Program) -> io::Result<Program> {
    let path = program.path().as_encoded_bytes();
    let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or(path);
    let name = CString::new([b"-", name].concat())?;
    Ok(program.named(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_replaces_that_of_the_same_name() {
        let mut variables = vec![b"A=1".to_vec(), b"AB=2".to_vec(), b"odd".to_vec()];
        set(&mut variables, b"A=3".to_vec());
        set(&mut variables, b"odder".to_vec());
        assert_eq!(variables, [&b"AB=2"[..], b"odd", b"A=3", b"odder"]);
    }

    #[test]
    fn a_login_shell_has_a_name_that_begins_with_a_hyphen() {
        let program = Program::new("/bin/bash", [] as [&str; 0], [] as [&str; 0]).unwrap();
        assert_eq!(named_as_login(program).unwrap().parts().1, [CString::from(c"-bash")]);
    }
}
