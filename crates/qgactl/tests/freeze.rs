//! freeze and thaw, against answers made for the purpose: never against an agent, which would freeze this machine.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

mod support;

use std::{
    cell::RefCell,
    io::{BufRead, BufReader},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};
use support::{Agent, HANG_UP, Outcome, finish, start, start_job, start_through};

/// How long a test waits for what must come.
const TIMEOUT: Duration = Duration::from_secs(60);
const LEASE_ENDED: &str = concat!(
    r#"{"error": {"class": "GenericError", "desc": "the freeze ended by itself after 600 s: "#,
    r#"what was copied since then may be inconsistent"}}"#
);

/// Two file systems, at `/a` and `/b c`.
const FILE_SYSTEMS: &str = concat!(
    r#"{"return": [{"name": "vda", "mountpoint": "/a", "type": "ext4", "disk": []}, "#,
    r#"{"name": "vdb", "mountpoint": "/b c", "type": "xfs", "disk": []}]}"#
);

/// A guest that notes what it is asked for, except its file systems.
struct Guest {
    agent: Agent,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Guest {
    /// Answers freezes and thaws with these, in order; the last one again and again.
    fn new(freezes: &[&str], thaws: &[&str]) -> Self {
        let [freezes, thaws] =
            [freezes, thaws].map(|answers| answers.iter().map(ToString::to_string).collect::<Vec<_>>());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        let mut counts = [0; 2];
        let agent = Agent::scripted(move |request| {
            let command = request["execute"].as_str().unwrap().replace("guest-fsfreeze-", "");
            if command == "guest-get-fsinfo" {
                return Some(FILE_SYSTEMS.into());
            }
            let is_thaw = command == "thaw";
            log.lock().unwrap().push(match request["arguments"].to_string() {
                arguments if arguments == "{}" => command,
                arguments => format!("{command} {arguments}"),
            });
            let (answers, count) = if is_thaw { (&thaws, &mut counts[1]) } else { (&freezes, &mut counts[0]) };
            let answer = &answers[(*count).min(answers.len() - 1)];
            *count += 1;
            Some(answer.clone())
        });
        Self { agent, asked }
    }

    fn asked(&self) -> String {
        self.asked.lock().unwrap().join(", ")
    }

    /// Runs a shell script of the host's while the guest is frozen.
    fn run(&self, options: &[&str], script: &str) -> Outcome {
        self.agent.qgactl(&[options, &["freeze", "--run", "--", "sh", "-c", script]].concat())
    }
}

const TWO: &[&str] = &[r#"{"return": 2}"#];
const NONE: &[&str] = &[r#"{"return": 0}"#];

fn wait_until(is_so: impl Fn() -> bool) {
    let end = Instant::now() + TIMEOUT;
    while !is_so() {
        assert!(Instant::now() < end, "it did not come to be");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_freeze_says_how_much_it_froze() {
    let guest = Guest::new(TWO, TWO);
    assert_eq!(guest.agent.qgactl(&["freeze"]).success(), "2 file systems are frozen\n");
    assert_eq!(guest.agent.qgactl(&["freeze", "--json", "--lease", "60"]).success(), "2\n");
    guest.agent.qgactl(&["freeze", "--mount", "/a", "--mount", "/b c", "--lease", "1"]).success();
    let expected = r#"freeze, freeze {"lease":60}, freeze-list {"lease":1,"mountpoints":["/a","/b c"]}"#;
    assert_eq!(guest.asked(), expected);
}

#[test]
fn a_mount_point_is_named_as_the_agent_lists_it_and_refused_if_it_does_not() {
    let guest = Guest::new(TWO, TWO);
    guest.agent.qgactl(&["freeze", "--mount", "//a/", "--mount=/b c/."]).success();
    let refused = guest.agent.qgactl(&["freeze", "--mount", "/a", "--mount", "/nowhere"]);
    refused.check(1, "no file system of the guest is listed at /nowhere");
    refused.check(1, "`qgactl fs`");
    let outcome = guest.agent.qgactl(&["freeze", "--mount", "/a/b", "--run", "--", "touch", "must-not-be-run"]);
    outcome.check(125, "listed at /a/b");
    assert_eq!(guest.asked(), r#"freeze-list {"mountpoints":["/a","/b c"]}"#);
}

#[test]
fn an_agent_that_lists_no_file_systems_is_given_the_names_as_they_are() {
    let agent = Agent::scripted(|request| {
        Some(match request["execute"].as_str()? {
            "guest-get-fsinfo" => r#"{"error": {"class": "CommandNotFound", "desc": "disabled"}}"#.into(),
            _ => format!(r#"{{"return": {}}}"#, request["arguments"]["mountpoints"].as_array()?.len()),
        })
    });
    assert_eq!(agent.qgactl(&["freeze", "--mount", "/a/"]).success(), "1 file system is frozen\n");
}

#[test]
fn a_thaw_says_how_much_it_thawed() {
    let guest = Guest::new(TWO, &[r#"{"return": 1}"#]);
    assert_eq!(guest.agent.qgactl(&["thaw"]).success(), "1 file system is thawed\n");
    assert_eq!(guest.agent.qgactl(&["thaw", "--json"]).success(), "1\n");
    Guest::new(TWO, &[LEASE_ENDED]).agent.qgactl(&["thaw"]).check(1, "may be inconsistent");
}

#[test]
fn a_freeze_of_nothing_is_a_failure() {
    let guest = Guest::new(NONE, NONE);
    guest.agent.qgactl(&["freeze"]).check(1, "nothing was frozen");
    guest.run(&[], "touch must-not-be-run").check(125, "nothing was frozen");
    assert_eq!(guest.asked(), "freeze, freeze");
}

#[test]
fn a_lease_is_a_number_of_seconds_of_at_most_a_day() {
    let guest = Guest::new(TWO, TWO);
    for wrong in ["0", "-1", "86401", "1m"] {
        guest.agent.qgactl(&["freeze", &format!("--lease={wrong}")]).check(2, "--lease");
    }
    let unknown = r#"{"error": {"class": "GenericError", "desc": "Parameter 'lease' is unexpected"}}"#;
    Guest::new(&[unknown], TWO).agent.qgactl(&["freeze", "--lease", "9"]).check(1, "only qgad knows leases");
}

#[test]
fn a_program_and_run_go_together() {
    let guest = Guest::new(TWO, TWO);
    guest.agent.qgactl(&["freeze", "--run"]).check(2, "PROGRAM");
    guest.agent.qgactl(&["freeze", "--", "true"]).check(2, "--run");
    guest.agent.qgactl(&["freeze", "--json", "--run", "--", "true"]).check(2, "--json");
    assert_eq!(guest.asked(), "");
}

#[test]
fn a_program_runs_between_freeze_and_thaw_and_its_status_is_ours() {
    for (script, status) in [("cat; exit 0", 0), ("exit 3", 3), ("kill -9 $$", 137)] {
        let guest = Guest::new(TWO, TWO);
        let mut process = start(&guest.agent.socket(), &["freeze", "--run", "--", "sh", "-c", script]);
        std::io::Write::write_all(&mut process.stdin.take().unwrap(), b"ours").ok();
        let outcome = finish(process);
        outcome.check(status, "");
        assert_eq!(outcome.stdout, if status == 0 { b"ours".as_slice() } else { b"" });
        assert_eq!(guest.asked(), "freeze, thaw");
    }
}

#[test]
fn a_program_that_cannot_be_started_is_status_125_after_a_thaw() {
    let guest = Guest::new(TWO, TWO);
    guest.agent.qgactl(&["freeze", "--run", "--", "/nonexistent"]).check(125, "failed to run /nonexistent: No such");
    assert_eq!(guest.asked(), "freeze, thaw");
}

#[test]
fn a_freeze_that_did_not_hold_is_status_125_whatever_the_program_says() {
    for (thaw, words) in [
        (LEASE_ENDED, "the freeze around sh failed: guest-fsfreeze-thaw: the freeze ended by itself after 600 s"),
        (r#"{"return": 0}"#, "the freeze around sh failed: the guest was not frozen any more"),
    ] {
        let guest = Guest::new(TWO, &[thaw]);
        guest.run(&[], "exit 0").check(125, words);
        assert_eq!(guest.asked(), "freeze, thaw");
    }
}

#[test]
fn a_freeze_that_is_refused_runs_nothing_and_thaws_nothing() {
    let desc = "Command guest-fsfreeze-freeze has been disabled: the agent is in frozen state";
    let frozen = &format!(r#"{{"error": {{"class": "CommandNotFound", "desc": "{desc}"}}}}"#);
    let guest = Guest::new(&[frozen], TWO);
    let outcome = guest.run(&[], "echo must not be run");
    outcome.check(125, "`qgactl thaw` thaws them");
    assert_eq!(outcome.stdout, b"");
    assert_eq!(guest.asked(), "freeze");
}

#[test]
fn a_freeze_that_may_have_been_done_is_undone() {
    let guest = Guest::new(&[HANG_UP], TWO);
    let outcome = guest.run(&[], "echo must not be run");
    outcome.check(125, "the connection was closed before the agent answered");
    assert_eq!(outcome.stdout, b"");
    assert_eq!(guest.asked(), "freeze, thaw");
}

#[test]
fn a_thaw_that_is_lost_with_the_connection_is_said_again() {
    let guest = Guest::new(TWO, &[HANG_UP, HANG_UP, r#"{"return": 2}"#]);
    guest.run(&[], "exit 4").check(4, "");
    assert_eq!(guest.asked(), "freeze, thaw, thaw, thaw");
}

#[test]
fn a_program_that_outlives_its_time_is_ended_and_the_guest_thawed() {
    let guest = Guest::new(TWO, TWO);
    guest.run(&["--timeout", "0.2"], "exec sleep 1000").check(124, "sh has not ended in time");
    assert_eq!(guest.asked(), "freeze, thaw");
}

#[test]
fn the_guest_is_thawed_also_where_nobody_reads_what_is_said() {
    let guest = Guest::new(TWO, TWO);
    let arguments = ["--timeout", "0.2", "freeze", "--run", "--", "sleep", "60"];
    let mut process = start(&guest.agent.socket(), &arguments);
    drop((process.stdout.take(), process.stderr.take()));
    finish(process).check(124, "");
    assert_eq!(guest.asked(), "freeze, thaw");
}

#[test]
fn a_program_that_does_not_want_to_end_is_killed() {
    let guest = Guest::new(TWO, TWO);
    guest.run(&["--timeout", "0.2"], "trap '' TERM; while :; do sleep 0.1; done").check(124, "");
    assert_eq!(guest.asked(), "freeze, thaw");
}

/// Sends qgactl a signal while its program runs.
fn check_signal(signal: Signal) {
    let guest = Guest::new(TWO, TWO);
    let begun = guest.agent.directory().join("begun");
    let told = guest.agent.directory().join("told");
    // It waits without starting programs: dash loses a signal that comes while it starts one.
    let script = format!(
        "sleep 1000 >/dev/null 2>&1 & trap 'kill $!; echo > {}; exit 0' HUP INT TERM; echo > {}; wait",
        told.display(),
        begun.display()
    );
    let arguments = ["freeze", "--run", "--", "sh", "-c", &script];
    let process = start(&guest.agent.socket(), &arguments);
    wait_until(|| begun.exists());
    assert_eq!(guest.asked(), "freeze");
    kill(Pid::from_raw(i32::try_from(process.id()).unwrap()), signal).unwrap();
    finish(process).check(128 + signal as i32, "");
    assert_eq!(guest.asked(), "freeze, thaw");
    assert!(told.exists());
}

#[test]
fn a_signal_ends_the_program_and_the_guest_is_thawed() {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        check_signal(signal);
    }
}

/// Starts a program while the guest is frozen, with a signal ignored as it is for programs of nohup(1) and of some
/// daemons.
fn start_ignoring(signal: &str, guest: &Guest, script: &str) -> std::process::Child {
    start_through(
        &["env", &format!("--ignore-signal={signal}")],
        &guest.agent.socket(),
        &["--timeout", "60", "freeze", "--run", "--", "sh", "-c", script],
    )
}

#[test]
fn the_end_of_a_program_is_noticed_also_where_ends_of_children_are_ignored() {
    let guest = Guest::new(TWO, TWO);
    finish(start_ignoring("CHLD", &guest, "exit 3")).check(3, "");
    assert_eq!(guest.asked(), "freeze, thaw");
}

#[test]
fn a_signal_that_is_ignored_from_the_beginning_stays_so() {
    let guest = Guest::new(TWO, TWO);
    let begun = guest.agent.directory().join("begun");
    let script = format!("echo > {}; read line; exit 7", begun.display());
    let mut process = start_ignoring("HUP", &guest, &script);
    wait_until(|| begun.exists());
    kill(Pid::from_raw(i32::try_from(process.id()).unwrap()), Signal::SIGHUP).unwrap();
    std::io::Write::write_all(&mut process.stdin.take().unwrap(), b"\n").unwrap();
    finish(process).check(7, "");
    assert_eq!(guest.asked(), "freeze, thaw");
}

#[test]
fn ctrl_z_leaves_no_guest_frozen() {
    let guest = Guest::new(TWO, TWO);
    let begun = guest.agent.directory().join("begun");
    let script = format!("echo > {}; read line; exit 7", begun.display());
    let mut process = start_job(&guest.agent.socket(), &["freeze", "--run", "--", "sh", "-c", &script]);
    wait_until(|| begun.exists());
    let job = Pid::from_raw(i32::try_from(process.id()).unwrap());
    killpg(job, Signal::SIGTSTP).unwrap();
    std::io::Write::write_all(&mut process.stdin.take().unwrap(), b"\n").unwrap();
    let ended = RefCell::new(process);
    wait_until(|| ended.borrow_mut().try_wait().unwrap().is_some());
    finish(ended.into_inner()).check(7, "qgactl: the guest is frozen: sh goes on\n");
    assert_eq!(guest.asked(), "freeze, thaw");
}

#[test]
fn a_program_that_is_stopped_is_reported_and_can_be_ended() {
    let guest = Guest::new(TWO, TWO);
    let told = guest.agent.directory().join("told");
    let script = format!("trap 'echo > {}; exit 0' TERM; kill -STOP $$; sleep 1000", told.display());
    let mut process = start(&guest.agent.socket(), &["freeze", "--run", "--", "sh", "-c", &script]);
    let stderr = process.stderr.take().unwrap();
    let (tell, said) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        BufReader::new(stderr).read_line(&mut line).unwrap();
        tell.send(line).ok();
    });
    let line = said.recv_timeout(TIMEOUT).unwrap();
    assert_eq!(line, "qgactl: sh is stopped by SIGSTOP, and the guest stays frozen\n");
    kill(Pid::from_raw(i32::try_from(process.id()).unwrap()), Signal::SIGTERM).unwrap();
    finish(process).check(143, "");
    assert_eq!(guest.asked(), "freeze, thaw");
    assert!(told.exists());
}

#[test]
fn counts_below_zero_are_no_freeze() {
    let negative = &[r#"{"return": -1}"#];
    Guest::new(negative, TWO).agent.qgactl(&["freeze"]).check(1, "nothing was frozen");
    Guest::new(TWO, negative).run(&[], "exit 0").check(125, "the guest was not frozen any more");
}

#[test]
fn a_signal_during_the_freeze_runs_nothing_and_thaws() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&asked);
    let (told, wait) = std::sync::mpsc::channel::<()>();
    let agent = Agent::scripted(move |request| {
        log.lock().unwrap().push(request["execute"].to_string());
        // The first reply waits until the signal is sent.
        wait.recv_timeout(TIMEOUT).ok();
        Some(r#"{"return": 2}"#.into())
    });
    let process = start(&agent.socket(), &["freeze", "--run", "--", "echo", "must not be run"]);
    wait_until(|| !asked.lock().unwrap().is_empty());
    kill(Pid::from_raw(i32::try_from(process.id()).unwrap()), Signal::SIGTERM).unwrap();
    drop(told);
    let outcome = finish(process);
    outcome.check(143, "");
    assert_eq!(outcome.stdout, b"");
    assert_eq!(asked.lock().unwrap().len(), 2);
}
