//! The program runs in one of a few modes: as the agent, or as one of the helper processes that the agent starts.
//!
//! The first argument selects a helper process: the guard of a freeze, the supervisor of jobs, or the holder of the
//! pipes of running programs. Everything else is a command line of the agent, which may also print something and exit.

mod accounts;
mod activity;
mod channel;
mod commands;
mod config;
mod environment;
mod freeze;
mod guest;
mod logging;
mod machine;
mod open_files;
mod policy;
mod process;
#[cfg(test)]
mod published;
mod root;
mod serve;
mod service;
mod startup;
mod storage;
mod sys;
mod util;

use std::process::ExitCode;

use self::{
    config::options::{self, Parsed},
    environment::Environment,
    process::{jobs, programs},
};

fn main() -> ExitCode {
    // Fails without /proc. Large messages then cost more, and nothing else changes.
    let _ = sys::allocator::keep_freed_single_threaded();
    let environment = Environment::from_process();
    logging::init(environment.text("JOURNAL_STREAM"));
    let mode = std::env::args_os().nth(1);
    if mode.as_deref().is_some_and(|mode| mode == freeze::GUARD_OPTION) {
        return freeze::run_guard();
    }
    if mode.as_deref().is_some_and(|mode| mode == programs::PIPE_HOLDER_OPTION) {
        return programs::run_pipe_holder();
    }
    if mode.as_deref().is_some_and(|mode| mode == jobs::SUPERVISOR_OPTION) {
        return jobs::run_supervisor();
    }
    let result = match options::parse(std::env::args_os()) {
        Parsed::Run(options) => startup::run(&options, environment),
        Parsed::Print(text) => startup::print(text.as_bytes()),
        Parsed::Invalid(reason) => refuse_command_line(&reason),
    };
    let exit_status = match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(reasons) => {
            for reason in reasons {
                log::error!("{reason}");
            }
            ExitCode::FAILURE
        }
    };
    logging::shutdown();
    exit_status
}

/// Reports an invalid command line on both streams, as qemu-ga does.
fn refuse_command_line(reason: &str) -> Result<(), Vec<String>> {
    eprintln!("{reason}");
    let program = std::env::args_os().next().unwrap_or_default();
    let hint = format!("Unknown option, try '{} --help' for more information.\n", program.display());
    startup::print(hint.as_bytes()).and(Err(Vec::new()))
}
