//! Programs: one command starts them, another reports their status.
//!
//! A started program keeps running when the host, the connection or the agent goes away. Arguments, environment and
//! output are for the host only: the log has the program's path, its process id and how it ended.

use std::io;

use qga::{
    Command,
    commands::exec::{CaptureOutput, Exec, ExecStatus, ProgramStatus, StartedProgram},
    wire::{base64::Base64, message::Error},
};

use super::{Result, Run};
use crate::{
    guest::Guest,
    logging::audit,
    policy::refused_by,
    process::spawn::Program,
    storage::lookup::Lookup,
    util::{errno, in_use::Use},
};

impl Run for Exec {
    fn run(self, guest: &Guest) -> Result<StartedProgram> {
        let input = self.input_data.map(Base64::into_bytes).transpose()?;
        let capture = self.capture_output.unwrap_or(CaptureOutput::None);
        let has_environment = self.env.is_some();
        let environment = match self.env {
            Some(variables) => variables.into_iter().map(String::into_bytes).collect(),
            None => guest.environment.for_children(),
        };
        let command = guest.begin_use(&Self::SPEC);
        let started = Program::new(&self.path, self.arg.unwrap_or_default(), environment)
            .and_then(|program| use_file_of(program, guest, &command))
            .and_then(|program| check_allowed(program, guest, has_environment))
            .and_then(|program| guest.programs.start(&program, input, capture));
        let pid = started.map_err(|error| {
            let refused = refused_by(&error);
            let reason = errno::describe(error);
            let text = format!("Failed to execute child process \u{201C}{}\u{201D} ({reason})", self.path);
            Error { refused, ..Error::generic(text) }
        })?;
        log::info!("guest-exec started {:?} as process {pid}", self.path);
        Ok(StartedProgram { pid })
    }

    fn audit_subject(&self) -> Option<String> {
        Some(audit::path(&self.path))
    }
}

/// The program, whose file the command uses from now on.
pub(super) fn use_file_of(program: Program, guest: &Guest, command: &Use<'_>) -> io::Result<Program> {
    let lookup = Lookup::new(&guest.root);
    for path in program.candidates() {
        lookup.follow(&path, command)?;
        if path.is_file() {
            break;
        }
    }
    Ok(program)
}

/// The program, if the policy allows it.
pub(super) fn check_allowed(program: Program, guest: &Guest, has_environment: bool) -> io::Result<Program> {
    if guest.policy.allows_all_programs() {
        return Ok(program);
    }
    if let Some(refusal) = guest.policy.environment_refusal().filter(|_| has_environment) {
        return Err(refusal);
    }
    let file = guest.policy.program(&guest.root, &program.find()?)?;
    program.at(&file)
}

impl Run for ExecStatus {
    fn run(self, guest: &Guest) -> Result<ProgramStatus> {
        guest.programs.status(self.pid)
    }
}
