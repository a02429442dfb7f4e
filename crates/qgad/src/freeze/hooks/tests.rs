//! Hooks that are shell scripts, and write down that they were run.

use std::{process::Command, time::Instant};

use tempfile::TempDir;

use super::*;

const TIME_LIMIT: Duration = Duration::from_secs(60);
const GOOD: &str = "";
const BAD_FREEZE: &str = "[ $1 = thaw ] || { echo no lock; exit 1; }";
const BAD_THAW: &str = "[ $1 = freeze ] || { echo ${0##*/} cannot go on; exit 1; }";

/// A directory with scripts, each of which writes its name and argument down before it does what is said.
struct Machine(TempDir);

impl Machine {
    fn new(scripts: &[(&str, &str)]) -> Self {
        let machine = Self(tempfile::tempdir().unwrap());
        let at = |name: &str| machine.0.path().join(name).display().to_string();
        for (name, body) in scripts {
            let text = format!("#!/bin/sh\necho ${{0##*/}} $1 >> {}\n{body}\n", at("log"));
            // By a process of its own: a file that this one still had open, in a child of another test, cannot be run.
            let lay_out = "umask 022; mkdir -p \"${1%/*}\"; printf '%s' \"$2\" > \"$1\"; chmod 755 \"$1\"";
            let status = Command::new("sh").args(["-c", lay_out, "-", &at(name), &text]).status().unwrap();
            assert!(status.success());
        }
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn hooks(&self, name: &str) -> Hooks {
        Hooks::new(Some(self.path(name)), TIME_LIMIT)
    }

    /// What was run since the last look.
    fn take_log(&self) -> String {
        let text = fs::read_to_string(self.path("log")).unwrap_or_default();
        let _ = fs::remove_file(self.path("log"));
        text.lines().collect::<Vec<_>>().join(", ")
    }

    /// An error with the directory's name left out.
    fn words(&self, result: Result<(), Error>) -> String {
        result.unwrap_err().desc.replace(&self.0.path().display().to_string(), "")
    }

    fn set_mode(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }
}

fn environment() -> Environment {
    Environment::default()
}

/// Freezes and thaws, and compares what was run.
fn check(scripts: &[(&str, &str)], name: &str, expected: &str) {
    let machine = Machine::new(scripts);
    let hooks = machine.hooks(name);
    hooks.freeze(&environment()).unwrap();
    hooks.thaw(&environment()).unwrap();
    assert_eq!(machine.take_log(), expected);
}

#[test]
fn a_program_is_run_with_the_one_argument() {
    check(&[("hook", "[ $# = 1 ]")], "hook", "hook freeze, hook thaw");
}

#[test]
fn a_program_that_is_there_goes_before_its_directory() {
    check(&[("hook", GOOD), ("hook.d/1", GOOD)], "hook", "hook freeze, hook thaw");
}

#[test]
fn the_programs_of_a_directory_freeze_in_order_and_thaw_in_reverse() {
    let scripts = [("hook.d/20-b", GOOD), ("hook.d/10-a", GOOD), ("hook.d/30-c", GOOD)];
    let expected = "10-a freeze, 20-b freeze, 30-c freeze, 30-c thaw, 20-b thaw, 10-a thaw";
    check(&scripts, "hook", expected);
    check(&scripts, "hook.d", expected);
}

#[test]
fn what_packages_and_editors_leave_behind_is_no_hook() {
    let left = ["1~", "1.bak", "1.orig", "1.rpmnew", "1.rpmorig", "1.rpmsave", "1.sample", "1.dpkg-old", ".1.swp"];
    let left = left.map(|name| format!("hook.d/{name}"));
    let mut scripts: Vec<_> = left.iter().map(|name| (name.as_str(), "exit 1")).collect();
    scripts.push(("hook.d/1.sh", GOOD));
    scripts.push(("hook.d/directory/2", GOOD));
    check(&scripts, "hook", "1.sh freeze, 1.sh thaw");
}

#[test]
fn what_is_not_executable_is_no_hook_of_a_directory() {
    let machine = Machine::new(&[("hook.d/1", GOOD), ("hook.d/README", GOOD)]);
    machine.set_mode("hook.d/README", 0o644);
    machine.hooks("hook").freeze(&environment()).unwrap();
    assert_eq!(machine.take_log(), "1 freeze");
}

#[test]
fn without_a_setting_nothing_is_run() {
    let hooks = Hooks::new(None, TIME_LIMIT);
    assert!(hooks.setting().is_none());
    hooks.freeze(&environment()).unwrap();
    hooks.thaw(&environment()).unwrap();
    assert!(Machine::new(&[]).hooks("hook").setting().is_some());
}

#[test]
fn a_hook_that_is_absent_is_an_error() {
    let machine = Machine::new(&[]);
    let expected = "child process has failed to execute fsfreeze hook: failed to exec '/hook': No such file or \
                    directory\n";
    assert_eq!(machine.words(machine.hooks("hook").freeze(&environment())), expected);
    assert_eq!(machine.words(machine.hooks("hook").thaw(&environment())), expected);
}

#[test]
fn a_hook_that_fails_to_freeze_ends_the_attempt_and_each_that_was_begun_thaws() {
    let machine = Machine::new(&[("hook.d/1", GOOD), ("hook.d/2", BAD_FREEZE), ("hook.d/3", GOOD)]);
    let hooks = machine.hooks("hook");
    let words = "child process has failed to execute fsfreeze hook: no lock\n";
    assert_eq!(machine.words(hooks.freeze(&environment())), words);
    assert_eq!(machine.take_log(), "1 freeze, 2 freeze, 2 thaw, 1 thaw");
}

#[test]
fn all_thaw_whatever_becomes_of_others_and_the_first_failure_is_told() {
    let machine = Machine::new(&[("hook.d/1", BAD_THAW), ("hook.d/2", BAD_THAW), ("hook.d/3", GOOD)]);
    let hooks = machine.hooks("hook");
    hooks.freeze(&environment()).unwrap();
    machine.take_log();
    let words = "child process has failed to execute fsfreeze hook: 2 cannot go on\n";
    assert_eq!(machine.words(hooks.thaw(&environment())), words);
    assert_eq!(machine.take_log(), "3 thaw, 2 thaw, 1 thaw");
}

#[test]
fn only_what_was_begun_thaws_also_when_there_is_more_by_then() {
    let machine = Machine::new(&[("hook.d/1", "[ $1 = thaw ] || cp -p $0 ${0%1}2")]);
    let hooks = machine.hooks("hook");
    hooks.freeze(&environment()).unwrap();
    hooks.thaw(&environment()).unwrap();
    assert_eq!(machine.take_log(), "1 freeze, 1 thaw");
    // After that, as in an agent that was just started, nothing is known.
    hooks.thaw(&environment()).unwrap();
    assert_eq!(machine.take_log(), "2 thaw, 1 thaw");
}

#[test]
fn a_hook_that_hangs_is_killed_and_thaws() {
    let machine = Machine::new(&[("hook", "[ $1 = thaw ] || sleep 1000")]);
    let hooks = Hooks { timeout: Duration::from_millis(1500), ..machine.hooks("hook") };
    let words = "child process has failed to execute fsfreeze hook: timed out after 1.5 s";
    let end = Instant::now() + TIME_LIMIT;
    // On a busy machine the thaw, too, may not end in so short a time, nor the freeze have begun.
    while machine.take_log() != "hook freeze, hook thaw" {
        assert!(Instant::now() < end);
        assert_eq!(machine.words(hooks.freeze(&environment())), words);
    }
}

#[test]
fn what_others_can_change_is_not_run() {
    let distrusted = |change: &dyn Fn(&Machine), words: &str| {
        let machine = Machine::new(&[("hook.d/1", GOOD), ("hook.d/2", GOOD)]);
        change(&machine);
        assert_eq!(machine.words(machine.hooks("hook").freeze(&environment())), words);
        assert_eq!(machine.take_log(), "");
    };
    let words = "failed to execute fsfreeze hook '/hook.d/2': it can be written by others than its owner; \
                 this mends it: chmod go-w '/hook.d/2'";
    distrusted(&|machine| machine.set_mode("hook.d/2", 0o775), words);
    distrusted(&|machine| machine.set_mode("hook.d/2", 0o757), words);
    let words = "failed to execute fsfreeze hook '/hook.d/1': its directory '/hook.d' can be written by others \
                 than its owner; this mends it: chmod go-w '/hook.d'";
    distrusted(&|machine| machine.set_mode("hook.d", 0o775), words);
    distrusted(&|machine| machine.set_mode("hook.d", 0o1777), words);
    let words = "failed to execute fsfreeze hook '/hook.d/1': its directory '' can be written by others than its \
                 owner; this mends it: chmod go-w ''";
    distrusted(&|machine| machine.set_mode("", 0o777), words);
}

#[test]
fn where_a_link_leads_must_be_trusted_too() {
    let machine = Machine::new(&[("elsewhere/program", GOOD)]);
    std::os::unix::fs::symlink("elsewhere/program", machine.path("hook")).unwrap();
    machine.hooks("hook").freeze(&environment()).unwrap();
    assert_eq!(machine.take_log(), "hook freeze");
    machine.set_mode("elsewhere", 0o777);
    let words = "failed to execute fsfreeze hook '/hook': its directory '/elsewhere' can be written by others than its \
                 owner; this mends it: chmod go-w '/elsewhere'";
    assert_eq!(machine.words(machine.hooks("hook").freeze(&environment())), words);
}

#[test]
fn what_cannot_be_a_program_is_not_run() {
    let machine = Machine::new(&[("hook", GOOD)]);
    machine.set_mode("hook", 0o644);
    let words = "failed to execute fsfreeze hook '/hook': it is not executable; this mends it: chmod a+x '/hook'";
    assert_eq!(machine.words(machine.hooks("hook").freeze(&environment())), words);
    assert_eq!(
        Hooks::new(Some("/dev/null".into()), TIME_LIMIT).check().unwrap_err().desc,
        "failed to execute fsfreeze hook '/dev/null': it is not a regular file"
    );
}

#[test]
fn a_named_hook_in_a_sticky_directory_is_run_and_the_check_finds_nothing_wrong() {
    let machine = Machine::new(&[("store/hook", GOOD)]);
    machine.set_mode("store", 0o1777);
    let hooks = machine.hooks("store/hook");
    hooks.check().unwrap();
    hooks.freeze(&environment()).unwrap();
    assert_eq!(machine.take_log(), "hook freeze");
    machine.set_mode("store/hook", 0o777);
    assert_eq!(hooks.check(), hooks.freeze(&environment()));
    assert!(hooks.check().is_err());
    assert_eq!(machine.take_log(), "");
}

#[test]
fn a_process_that_a_hook_leaves_behind_is_not_waited_for() {
    // What it writes before it is waited for would be in the error.
    let machine = Machine::new(&[("hook", "(sleep 1.5; echo late) & echo early; exit 1")]);
    let words = "child process has failed to execute fsfreeze hook: early\n";
    assert_eq!(machine.words(machine.hooks("hook").freeze(&environment())), words);
}

#[test]
fn hooks_get_no_environment_but_the_one_they_are_given() {
    let machine = Machine::new(&[("hook", "[ -z \"$HOME\" ]")]);
    machine.hooks("hook").freeze(&environment()).unwrap();
}
