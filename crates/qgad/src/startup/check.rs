//! What `--check-config` tells: every mistake in the configuration, then every command with what becomes of it.
//!
//! A mistake is a line `file:line: reason`. A command's line is its name, `allowed` or `refused`, and why: the rule that
//! refuses it, or what of it is allowed. The policy is the one that the agent would have, what is mistaken left out.

use std::{fmt::Write, path::Path};

use qga::commands::SPECS;

use crate::{
    channel::Channel,
    config::{
        file::{Source, is_command, no_command},
        options::Options,
        settings::Settings,
    },
    policy::{Policy, Refusal},
};

/// The report, and whether there are mistakes.
pub(crate) fn run(options: &Options, source: &Source) -> (String, bool) {
    let mut settings = Settings::default();
    let mut mistakes = source.check(&mut settings).unwrap_or_else(|reason| vec![reason]);
    mistakes.extend(options.apply(&mut settings).err());
    let unknown = options.commands().filter(|name| !is_command(name));
    mistakes.extend(unknown.map(|name| format!("the command line: {}", no_command(&name))));
    mistakes.extend(cannot_start(&settings));
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

/// Why an agent with these settings would not start, as far as can be told without starting it.
fn cannot_start(settings: &Settings) -> Vec<String> {
    let channel = settings
        .clone()
        .complete()
        .and_then(|settings| Channel::check(&settings.method, settings.path.as_deref().unwrap_or(Path::new(""))));
    let of_files = [&settings.logfile, &settings.audit_file].into_iter().flatten().filter_map(|file| file.parent());
    let pid_file = settings.pidfile.parent().filter(|_| settings.daemon);
    let directories = [&*settings.statedir].into_iter().chain(of_files).chain(pid_file);
    // A file in the agent's own directory has the empty path for a parent.
    let missing = directories.filter(|directory| !directory.as_os_str().is_empty() && !directory.is_dir());
    let missing = missing.map(|directory| format!("there is no directory {}", directory.display()));
    channel.err().into_iter().chain(missing).collect()
}
