use std::cell::RefCell;

use super::*;
use crate::process::spawn;

/// A machine that has these programs, each with its exit code, and records what is done.
#[derive(Default)]
struct Fake {
    programs: Vec<(&'static str, i32)>,
    init: Option<InitSystem>,
    ignores_signals: bool,
    states: &'static str,
    state_error: Option<Errno>,
    done: RefCell<Vec<String>>,
}

impl Fake {
    fn record(&self, what: String) {
        self.done.borrow_mut().push(what);
    }
}

impl Platform for Fake {
    fn has(&self, path: &str) -> bool {
        self.programs.iter().any(|(program, _)| *program == path)
    }

    fn try_program(&self, program: &str, arguments: &[&str]) -> io::Result<Outcome> {
        let command = CommandLine(program, arguments).to_string();
        let known = self.programs.iter().find(|(known, _)| *known == command);
        let (_, code) = known.ok_or(Errno::ENOENT)?;
        self.record(command);
        Ok(Outcome {
            status: Some(spawn::ExitStatus::Code(*code)),
            output: if *code == 9 { "no\n".into() } else { String::new() },
        })
    }

    fn run(&self, program: &str, arguments: &[&str], action: &str) -> Result<()> {
        self.record(CommandLine(program, arguments).to_string());
        match self.programs.iter().find(|(known, _)| *known == program) {
            Some((_, 0)) => Ok(()),
            _ => Err(Error::generic(format!("child process has failed to {action}"))),
        }
    }

    fn init_system(&self) -> Option<InitSystem> {
        self.init
    }

    fn init_handles(&self, _: i32) -> bool {
        !self.ignores_signals
    }

    fn signal_init(&self, signal: i32) -> io::Result<()> {
        self.record(format!("signal {signal}"));
        Ok(())
    }

    fn shut_down_by_kernel(&self, mode: ShutdownMode) -> io::Result<()> {
        self.record(format!("kernel: {mode:?}"));
        Ok(())
    }

    fn sleep_states(&self) -> String {
        self.states.into()
    }

    fn enter_sleep_state(&self, state: &str) -> io::Result<()> {
        self.record(format!("kernel: {state}"));
        self.state_error.map_or(Ok(()), |error| Err(error.into()))
    }
}

fn check_shutdown(mode: ShutdownMode, fake: &Fake, done: &str, expected: std::result::Result<(), &str>) {
    assert_eq!(shut_down(mode, fake), expected.map_err(Error::generic));
    assert_eq!(*fake.done.borrow(), [done]);
}

fn check_suspend(mode: SuspendMode, fake: &Fake, done: &[&str], expected: std::result::Result<(), &str>) {
    assert_eq!(suspend(mode, fake), expected.map_err(Error::generic));
    assert_eq!(*fake.done.borrow(), done);
}

const UNSUPPORTED: std::result::Result<(), &str> = Err("the requested suspend mode is not supported by the guest");

#[test]
fn each_mode_has_its_program() {
    let programs = vec![("/sbin/poweroff", 0), ("/sbin/halt", 0), ("/sbin/reboot", 0), ("/sbin/shutdown", 0)];
    for (mode, program) in
        [(ShutdownMode::PowerOff, "poweroff"), (ShutdownMode::Halt, "halt"), (ShutdownMode::Reboot, "reboot")]
    {
        let fake = Fake { programs: programs.clone(), init: Some(InitSystem::Systemd), ..Fake::default() };
        check_shutdown(mode, &fake, &format!("/sbin/{program}"), Ok(()));
    }
}

#[test]
fn shutdown_stands_in_for_a_program_that_is_absent() {
    for (mode, option) in [(ShutdownMode::PowerOff, "-P"), (ShutdownMode::Halt, "-H"), (ShutdownMode::Reboot, "-r")] {
        let fake = Fake { programs: vec![("/sbin/shutdown", 0)], init: Some(InitSystem::Busybox), ..Fake::default() };
        check_shutdown(mode, &fake, &format!("/sbin/shutdown -h {option} +0 hypervisor initiated shutdown"), Ok(()));
    }
}

#[test]
fn a_known_init_system_gets_its_own_signal() {
    for (init, mode, signal) in [
        (InitSystem::Systemd, ShutdownMode::Halt, 37),
        (InitSystem::Systemd, ShutdownMode::PowerOff, 38),
        (InitSystem::Systemd, ShutdownMode::Reboot, 39),
        (InitSystem::Busybox, ShutdownMode::Halt, 10),
        (InitSystem::Busybox, ShutdownMode::PowerOff, 12),
        (InitSystem::Busybox, ShutdownMode::Reboot, 15),
    ] {
        check_shutdown(mode, &Fake { init: Some(init), ..Fake::default() }, &format!("signal {signal}"), Ok(()));
    }
}

#[test]
fn the_kernel_is_the_last_resort() {
    check_shutdown(ShutdownMode::PowerOff, &Fake::default(), "kernel: PowerOff", Ok(()));
    let ignorant = Fake { init: Some(InitSystem::Busybox), ignores_signals: true, ..Fake::default() };
    check_shutdown(ShutdownMode::Reboot, &ignorant, "kernel: Reboot", Ok(()));
}

#[test]
fn when_a_program_fails_nothing_else_is_tried() {
    let programs = vec![("/sbin/poweroff", 1), ("/sbin/shutdown", 0)];
    let fake = Fake { programs, init: Some(InitSystem::Systemd), ..Fake::default() };
    check_shutdown(ShutdownMode::PowerOff, &fake, "/sbin/poweroff", Err("child process has failed to shutdown"));
}

#[test]
fn systemd_comes_first_where_it_has_the_unit() {
    for (mode, unit, verb) in [
        (SuspendMode::Disk, "systemctl status systemd-hibernate", "systemctl hibernate"),
        (SuspendMode::Ram, "systemctl status systemd-suspend", "systemctl suspend"),
        (SuspendMode::Hybrid, "systemctl status systemd-hybrid-sleep", "systemctl hybrid-sleep"),
    ] {
        let programs = vec![(unit, 3), (verb, 0), ("pm-is-supported --suspend", 0)];
        let fake = Fake { programs, states: "freeze mem disk", ..Fake::default() };
        check_suspend(mode, &fake, &[unit, verb], Ok(()));
    }
}

#[test]
fn pm_utils_come_second() {
    for (mode, question, program) in [
        (SuspendMode::Disk, "pm-is-supported --hibernate", "pm-hibernate"),
        (SuspendMode::Ram, "pm-is-supported --suspend", "pm-suspend"),
        (SuspendMode::Hybrid, "pm-is-supported --suspend-hybrid", "pm-suspend-hybrid"),
    ] {
        let programs = vec![("systemctl status systemd-suspend", 4), (question, 0), (program, 0)];
        let fake = Fake { programs, states: "mem disk", ..Fake::default() };
        let asked = ["systemctl status systemd-suspend", question, program];
        check_suspend(mode, &fake, if mode == SuspendMode::Ram { &asked } else { &asked[1..] }, Ok(()));
    }
}

#[test]
fn the_kernel_comes_last_and_knows_no_hybrid() {
    let fake = || Fake { states: "freeze mem disk\n", ..Fake::default() };
    check_suspend(SuspendMode::Ram, &fake(), &["kernel: mem"], Ok(()));
    check_suspend(SuspendMode::Disk, &fake(), &["kernel: disk"], Ok(()));
    check_suspend(SuspendMode::Hybrid, &fake(), &[], UNSUPPORTED);
}

#[test]
fn what_no_method_supports_has_the_text_that_hosts_know() {
    for mode in [SuspendMode::Disk, SuspendMode::Ram, SuspendMode::Hybrid] {
        check_suspend(mode, &Fake { states: "freeze memory\n", ..Fake::default() }, &[], UNSUPPORTED);
    }
}

#[test]
fn a_method_that_failed_is_never_a_success() {
    let (unit, verb) = ("systemctl status systemd-suspend", "systemctl suspend");
    let fake = |code, states| Fake { programs: vec![(unit, 3), (verb, code)], states, ..Fake::default() };
    let failure = "the helper program 'systemctl suspend' returned an unexpected exit status code (1)";
    check_suspend(SuspendMode::Ram, &fake(1, ""), &[unit, verb], Err(failure));
    let failure = "the helper program 'systemctl suspend' returned an unexpected exit status code (9): no";
    check_suspend(SuspendMode::Ram, &fake(9, "disk"), &[unit, verb], Err(failure));
    check_suspend(SuspendMode::Ram, &fake(1, "mem"), &[unit, verb, "kernel: mem"], Ok(()));
    let fake = Fake { state_error: Some(Errno::EBUSY), ..fake(1, "mem") };
    let failure = "suspend: cannot write to '/sys/power/state': Device or resource busy";
    check_suspend(SuspendMode::Ram, &fake, &[unit, verb, "kernel: mem"], Err(failure));
}

#[test]
fn a_program_that_is_gone_by_now_is_named() {
    let fake = Fake { programs: vec![("pm-is-supported --hibernate", 0)], ..Fake::default() };
    let failure = "the helper program 'pm-hibernate' was not found";
    check_suspend(SuspendMode::Disk, &fake, &["pm-is-supported --hibernate"], Err(failure));
}
