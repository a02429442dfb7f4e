//! One program, run in one of a few ways: the agent, or one of the processes that it starts of itself.

mod accounts;
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
    config::options::{self, Outcome},
    environment::Environment,
    process::programs,
};

fn main() -> ExitCode {
    // Fails without /proc. Large messages then cost more, and nothing else changes.
    let _ = sys::allocator::keep_freed_single_threaded();
    let environment = Environment::from_process();
    logging::init(environment.text("JOURNAL_STREAM"));
    if std::env::args_os().nth(1).is_some_and(|argument| argument == freeze::GUARD_OPTION) {
        return freeze::run_guard();
    }
    if std::env::args_os().nth(1).is_some_and(|argument| argument == programs::PIPE_HOLDER_OPTION) {
        return programs::run_pipe_holder();
    }
    let program = std::env::args_os().next().unwrap_or_default();
    let done = match options::parse(std::env::args_os()) {
        Outcome::Print(text) => startup::print(text.as_bytes()),
        Outcome::Read(options) => startup::run(&options, environment),
        Outcome::Wrong(reason) => {
            eprintln!("{reason}");
            let hint = format!("Unknown option, try '{} --help' for more information.\n", program.display());
            startup::print(hint.as_bytes()).and(Err(Vec::new()))
        }
    };
    let code = match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(reasons) => {
            for reason in reasons {
                log::error!("{reason}");
            }
            ExitCode::FAILURE
        }
    };
    logging::shutdown();
    code
}
