use std::cell::RefCell;

use super::*;
use crate::process::spawn;

/// A machine that has these programs, each with how it ends, and does what it is told.
#[derive(Default)]
struct Fake {
    programs: Vec<(&'static str, i32)>,
    init: Option<Init>,
    is_deaf: bool,
    states: &'static str,
    state_error: Option<Errno>,
    done: RefCell<Vec<String>>,
}

impl Fake {
    fn do_it(&self, what: String) {
        self.done.borrow_mut().push(what);
    }
}

impl Means for Fake {
    fn has(&self, path: &str) -> bool {
        self.programs.iter().any(|(program, _)| *program == path)
    }

    fn try_program(&self, program: &str, arguments: &[&str]) -> io::Result<Outcome> {
        let command = Words(program, arguments).to_string();
        let known = self.programs.iter().find(|(known, _)| *known == command);
        let (_, code) = known.ok_or(Errno::ENOENT)?;
        self.do_it(command);
        Ok(Outcome {
            end: Some(spawn::ExitStatus::Code(*code)),
            output: if *code == 9 { "no\n".into() } else { String::new() },
        })
    }

    fn run(&self, program: &str, arguments: &[&str], action: &str) -> Result<()> {
        self.do_it(Words(program, arguments).to_string());
        match self.programs.iter().find(|(known, _)| *known == program) {
            Some((_, 0)) => Ok(()),
            _ => Err(Error::generic(format!("child process has failed to {action}"))),
        }
    }

    fn init(&self) -> Option<Init> {
        self.init
    }

    fn init_heeds(&self, _: i32) -> bool {
        !self.is_deaf
    }

    fn signal_init(&self, signal: i32) -> io::Result<()> {
        self.do_it(format!("signal {signal}"));
        Ok(())
    }

    fn end_at_once(&self, end: End) -> io::Result<()> {
        self.do_it(format!("kernel: {end:?}"));
        Ok(())
    }

    fn sleep_states(&self) -> String {
        self.states.into()
    }

    fn enter_state(&self, state: &str) -> io::Result<()> {
        self.do_it(format!("kernel: {state}"));
        self.state_error.map_or(Ok(()), |error| Err(error.into()))
    }
}

fn check_end(how: End, fake: &Fake, done: &str, expected: std::result::Result<(), &str>) {
    assert_eq!(end(how, fake), expected.map_err(Error::generic));
    assert_eq!(*fake.done.borrow(), [done]);
}

fn check_suspend(sleep: Sleep, fake: &Fake, done: &[&str], expected: std::result::Result<(), &str>) {
    assert_eq!(suspend(sleep, fake), expected.map_err(Error::generic));
    assert_eq!(*fake.done.borrow(), done);
}

const UNSUPPORTED: std::result::Result<(), &str> = Err("the requested suspend mode is not supported by the guest");

#[test]
fn each_end_has_its_program() {
    let programs = vec![("/sbin/poweroff", 0), ("/sbin/halt", 0), ("/sbin/reboot", 0), ("/sbin/shutdown", 0)];
    for (how, program) in [(End::PowerOff, "poweroff"), (End::Halt, "halt"), (End::Reboot, "reboot")] {
        let fake = Fake { programs: programs.clone(), init: Some(Init::Systemd), ..Fake::default() };
        check_end(how, &fake, &format!("/sbin/{program}"), Ok(()));
    }
}

#[test]
fn shutdown_stands_in_for_a_program_that_is_absent() {
    for (how, option) in [(End::PowerOff, "-P"), (End::Halt, "-H"), (End::Reboot, "-r")] {
        let fake = Fake { programs: vec![("/sbin/shutdown", 0)], init: Some(Init::Busybox), ..Fake::default() };
        check_end(how, &fake, &format!("/sbin/shutdown -h {option} +0 hypervisor initiated shutdown"), Ok(()));
    }
}

#[test]
fn an_init_that_is_known_gets_its_own_signal() {
    for (init, how, signal) in [
        (Init::Systemd, End::Halt, 37),
        (Init::Systemd, End::PowerOff, 38),
        (Init::Systemd, End::Reboot, 39),
        (Init::Busybox, End::Halt, 10),
        (Init::Busybox, End::PowerOff, 12),
        (Init::Busybox, End::Reboot, 15),
    ] {
        check_end(how, &Fake { init: Some(init), ..Fake::default() }, &format!("signal {signal}"), Ok(()));
    }
}

#[test]
fn the_kernel_is_the_last_resort() {
    check_end(End::PowerOff, &Fake::default(), "kernel: PowerOff", Ok(()));
    let deaf = Fake { init: Some(Init::Busybox), is_deaf: true, ..Fake::default() };
    check_end(End::Reboot, &deaf, "kernel: Reboot", Ok(()));
}

#[test]
fn a_program_that_fails_is_not_got_round() {
    let programs = vec![("/sbin/poweroff", 1), ("/sbin/shutdown", 0)];
    let fake = Fake { programs, init: Some(Init::Systemd), ..Fake::default() };
    check_end(End::PowerOff, &fake, "/sbin/poweroff", Err("child process has failed to shutdown"));
}

#[test]
fn systemd_comes_first_where_it_has_the_unit() {
    for (sleep, unit, verb) in [
        (Sleep::Disk, "systemctl status systemd-hibernate", "systemctl hibernate"),
        (Sleep::Ram, "systemctl status systemd-suspend", "systemctl suspend"),
        (Sleep::Hybrid, "systemctl status systemd-hybrid-sleep", "systemctl hybrid-sleep"),
    ] {
        let programs = vec![(unit, 3), (verb, 0), ("pm-is-supported --suspend", 0)];
        let fake = Fake { programs, states: "freeze mem disk", ..Fake::default() };
        check_suspend(sleep, &fake, &[unit, verb], Ok(()));
    }
}

#[test]
fn pm_utils_come_second() {
    for (sleep, question, program) in [
        (Sleep::Disk, "pm-is-supported --hibernate", "pm-hibernate"),
        (Sleep::Ram, "pm-is-supported --suspend", "pm-suspend"),
        (Sleep::Hybrid, "pm-is-supported --suspend-hybrid", "pm-suspend-hybrid"),
    ] {
        let programs = vec![("systemctl status systemd-suspend", 4), (question, 0), (program, 0)];
        let fake = Fake { programs, states: "mem disk", ..Fake::default() };
        let asked = ["systemctl status systemd-suspend", question, program];
        check_suspend(sleep, &fake, if sleep == Sleep::Ram { &asked } else { &asked[1..] }, Ok(()));
    }
}

#[test]
fn the_kernel_comes_last_and_knows_no_hybrid() {
    let fake = || Fake { states: "freeze mem disk\n", ..Fake::default() };
    check_suspend(Sleep::Ram, &fake(), &["kernel: mem"], Ok(()));
    check_suspend(Sleep::Disk, &fake(), &["kernel: disk"], Ok(()));
    check_suspend(Sleep::Hybrid, &fake(), &[], UNSUPPORTED);
}

#[test]
fn what_nobody_can_do_has_the_text_that_hosts_know() {
    for sleep in [Sleep::Disk, Sleep::Ram, Sleep::Hybrid] {
        check_suspend(sleep, &Fake { states: "freeze memory\n", ..Fake::default() }, &[], UNSUPPORTED);
    }
}

#[test]
fn a_way_that_failed_is_never_a_success() {
    let (unit, verb) = ("systemctl status systemd-suspend", "systemctl suspend");
    let fake = |code, states| Fake { programs: vec![(unit, 3), (verb, code)], states, ..Fake::default() };
    let failure = "the helper program 'systemctl suspend' returned an unexpected exit status code (1)";
    check_suspend(Sleep::Ram, &fake(1, ""), &[unit, verb], Err(failure));
    let failure = "the helper program 'systemctl suspend' returned an unexpected exit status code (9): no";
    check_suspend(Sleep::Ram, &fake(9, "disk"), &[unit, verb], Err(failure));
    check_suspend(Sleep::Ram, &fake(1, "mem"), &[unit, verb, "kernel: mem"], Ok(()));
    let fake = Fake { state_error: Some(Errno::EBUSY), ..fake(1, "mem") };
    let failure = "suspend: cannot write to '/sys/power/state': Device or resource busy";
    check_suspend(Sleep::Ram, &fake, &[unit, verb, "kernel: mem"], Err(failure));
}

#[test]
fn a_program_that_is_gone_by_now_is_named() {
    let fake = Fake { programs: vec![("pm-is-supported --hibernate", 0)], ..Fake::default() };
    let failure = "the helper program 'pm-hibernate' was not found";
    check_suspend(Sleep::Disk, &fake, &["pm-is-supported --hibernate"], Err(failure));
}
