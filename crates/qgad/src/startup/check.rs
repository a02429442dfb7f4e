//! The report of `--check-config`: every mistake in the configuration, then whether each command is allowed.
//!
//! A mistake is a line `file:line: reason`. A command's line is its name, `allowed` or `refused`, and the rules: the
//! one that refuses it, or those that restrict it. They are the rules that the agent would run with; mistaken lines
//! have no effect.
//! This file belongs to the start-up and not to `config`: it also needs the policy, which imports `config`, and asks
//! the channel whether it could be opened.

use std::fmt::Write;

use qga::commands::SPECS;

use crate::{
    channel::Channel,
    config::{
        file::{ConfigFile, is_command, unknown_command},
        options::Options,
        settings::Settings,
    },
    freeze::Hooks,
    policy::{Policy, Refusal},
};

/// The report, and whether there are mistakes.
pub(super) fn report(options: &Options, file: &ConfigFile) -> (String, bool) {
    let mut settings = Settings::default();
    let mut mistakes = file.check(&mut settings).unwrap_or_else(|reason| vec![reason]);
    mistakes.extend(options.apply(&mut settings).err());
    let unknown = options.command_names().filter(|name| !is_command(name));
    mistakes.extend(unknown.map(|name| format!("the command line: {}", unknown_command(&name))));
    mistakes.extend(start_failures(&settings));
    let hooks = Hooks::new(settings.fsfreeze_hook.clone(), settings.fsfreeze_hook_timeout);
    mistakes.extend(hooks.check().err().map(|error| format!("no freeze would succeed: {}", error.desc.trim_end())));
    let mut report: String = mistakes.iter().map(|mistake| format!("{mistake}\n")).collect();
    let policy = Policy::new(&settings);
    let width = SPECS.iter().map(|spec| spec.name.len()).max().unwrap_or(0);
    for spec in SPECS {
        let _ = write!(report, "{:width$}  ", spec.name);
        let _ = match policy.decide(spec, None) {
            Ok(()) => {
                let limits = policy.limits(spec).map(|(rule, members)| match members {
                    [] => format!("nothing by {rule}"),
                    _ => format!("{} by {rule}", members.join(" ")),
                });
                let limits: Vec<_> = limits.collect();
                match limits.is_empty() {
                    true => writeln!(report, "allowed"),
                    false => writeln!(report, "allowed: {}", limits.join("; ")),
                }
            }
            Err(Refusal::ByPolicy(rule)) => writeln!(report, "refused: {rule}"),
            Err(Refusal::Frozen(_)) => writeln!(report, "refused while frozen"),
        };
    }
    (report, !mistakes.is_empty())
}

/// The reasons why an agent with these settings would not start, as far as they can be found without starting it.
fn start_failures(settings: &Settings) -> Vec<String> {
    let channel = settings.channel_path().and_then(|path| Channel::check(&settings.method, &path));
    let of_files = [&settings.logfile, &settings.audit_file].into_iter().flatten().filter_map(|file| file.parent());
    let pid_file = settings.pidfile.parent().filter(|_| settings.daemon);
    let directories = [&*settings.statedir].into_iter().chain(of_files).chain(pid_file);
    // The parent of a file in the working directory is the empty path.
    let missing = directories.filter(|directory| !directory.as_os_str().is_empty() && !directory.is_dir());
    let missing = missing.map(|directory| format!("there is no directory {}", directory.display()));
    channel.err().into_iter().chain(missing).collect()
}
