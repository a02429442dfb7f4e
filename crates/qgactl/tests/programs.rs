//! exec: a program in the guest looks as if it ran here.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

mod support;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use support::{Agent, Outcome, qgactl};

/// What an agent without jobs says.
const NO_JOBS: &str =
    r#"{"error": {"class": "CommandNotFound", "desc": "The command qgad-job-start has not been found"}}"#;

/// Runs a shell script through the reference agent, and checks everything that is to be seen of it.
fn check(script: &str, status: i32, stdout: &str, stderr: &str) {
    for agent in Agent::each(&[]) {
        let outcome = agent.qgactl(&["exec", "--", "sh", "-c", script]);
        let Outcome { status: seen_status, stdout: seen_stdout, stderr: seen_stderr } = outcome;
        assert_eq!(
            (seen_status, String::from_utf8(seen_stdout).unwrap().as_str(), seen_stderr.as_str()),
            (status, stdout, stderr)
        );
    }
}

/// An agent whose program has this status report from the `nth` question on.
fn with_status(nth: usize, report: &'static str) -> (Agent, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let agent = Agent::scripted(move |request| {
        Some(match request["execute"].as_str() {
            Some("qgad-job-start") => NO_JOBS.into(),
            Some("guest-exec") => r#"{"return": {"pid": 7}}"#.into(),
            Some("guest-exec-status") if count.fetch_add(1, Ordering::SeqCst) + 1 >= nth => report.into(),
            _ => r#"{"return": {"exited": false}}"#.into(),
        })
    });
    (agent, asked)
}

#[test]
fn output_and_exit_code_are_the_programs() {
    check("echo out; echo err >&2; exit 3", 3, "out\n", "err\n");
}

#[test]
fn a_program_that_writes_nothing_leaves_nothing() {
    check("exit 0", 0, "", "");
}

#[test]
fn a_program_ended_by_a_signal_has_128_and_its_number() {
    check("kill -9 $$", 137, "", "");
}

#[test]
fn a_signal_that_no_system_has_is_no_answer() {
    for (signal, status) in [("1", 129), ("64", 192), ("0", 125), ("65", 125), ("9223372036854775807", 125)] {
        let report = format!(r#"{{"return": {{"exited": true, "signal": {signal}}}}}"#);
        let (agent, _) = with_status(1, report.leak());
        let said =
            if status == 125 { format!("the agent's answer makes no sense: signal {signal}\n") } else { "".into() };
        agent.qgactl(&["exec", "--", "true"]).check(status, &said);
    }
}

#[test]
fn arguments_arrive_as_they_are() {
    for agent in Agent::each(&[]) {
        let odd = ["exec", "--", "printf", "%s|", "two words", "", "-n", "'\"\\", "ä€😀", "--socket"];
        assert_eq!(agent.qgactl(&odd).success(), "two words||-n|'\"\\|ä€😀|--socket|");
    }
}

#[test]
fn the_environment_is_only_the_one_given_or_the_agents() {
    for agent in Agent::each(&[]) {
        let output = agent.qgactl(&["exec", "--clear-env", "--env", "A=1", "-e", "B=x=y", "--", "env"]).success();
        let mut lines: Vec<_> = output.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, ["A=1", "B=x=y"]);
        assert!(agent.qgactl(&["exec", "--", "env"]).success().contains("PATH="));
        agent.qgactl(&["exec", "--env", "A", "--", "env"]).check(2, "NAME=VALUE");
    }
}

#[test]
fn a_program_needs_no_hyphens_before_it() {
    for agent in Agent::each(&[]) {
        assert_eq!(agent.qgactl(&["exec", "printf", "%s ", "-n", "--json", "--", "-t"]).success(), "-n --json -- -t ");
    }
}

#[test]
fn what_an_agent_without_jobs_cannot_do_is_refused_in_words() {
    let (agent, _) = with_status(1, r#"{"return": {"exited": true, "exitcode": 0}}"#);
    for (options, named) in [
        (&["--user", "root"][..], "--user"),
        (&["-w", "/"], "--cwd"),
        (&["--detach"], "--detach"),
        (&["-u", "root", "-e", "A=1"], "--user, --env without --clear-env"),
    ] {
        let arguments = [&["exec"], options, &["true"]].concat();
        agent.qgactl(&arguments).check(125, &format!("{named} can only be used with an agent that has jobs: "));
    }
    agent.qgactl(&["exec", "--clear-env", "-e", "A=1", "true"]).check(0, "");
}

#[test]
fn standard_input_comes_from_a_file_or_from_our_own() {
    for agent in Agent::each(&[]) {
        let input: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
        let outcome = qgactl(&agent.socket(), &["exec", "--stdin", "-", "--", "cat"], &input);
        assert!((outcome.status, outcome.stdout) == (0, input.clone()), "{}", outcome.stderr);
        let path = agent.directory().join("input");
        std::fs::write(&path, &input).unwrap();
        let outcome = agent.qgactl(&["exec", "--stdin", path.to_str().unwrap(), "--", "cat"]);
        assert!((outcome.status, outcome.stdout) == (0, input.clone()), "{}", outcome.stderr);
        let outcome = qgactl(&agent.socket(), &["exec", "-i", "cat"], &input);
        assert!((outcome.status, outcome.stdout) == (0, input), "{}", outcome.stderr);
        agent.qgactl(&["exec", "--stdin", "/nonexistent", "--", "cat"]).check(125, "failed to read /nonexistent: ");
    }
}

#[test]
fn a_program_that_cannot_be_started_is_status_125() {
    for agent in Agent::each(&[]) {
        agent.qgactl(&["exec", "--", "/nonexistent"]).check(125, "ailed to ");
    }
}

#[test]
fn every_failure_that_is_not_the_programs_is_status_125() {
    for agent in Agent::each(&["-b", "guest-exec,qgad-job-start"]) {
        agent.qgactl(&["exec", "--", "true"]).check(125, "has been disabled");
        qgactl(&agent.directory().join("absent"), &["exec", "--", "true"], b"").check(125, "No such file");
        let (agent, _) = with_status(1, r#"{"return": {"exited": true}}"#);
        agent.qgactl(&["exec", "--", "true"]).check(125, "does not say how the program ended");
        let (agent, _) = with_status(1, r#"{"return": {"exited": true, "exitcode": 300}}"#);
        agent.qgactl(&["exec", "--", "true"]).check(125, "the agent's answer makes no sense: exit code 300\n");
        let (agent, _) = with_status(1, r#"{"return": {"exited": true, "exitcode": 0, "out-data": "!"}}"#);
        agent.qgactl(&["exec", "--", "true"]).check(125, "standard output");
    }
}

#[test]
fn a_program_that_outlives_the_time_is_status_124_and_named() {
    let (agent, _) = with_status(usize::MAX, "");
    agent.qgactl(&["exec", "--timeout", "0.1", "--", "sleep", "9"]).check(124, "goes on in the guest as process 7");
}

#[test]
fn a_program_is_asked_after_until_it_has_ended() {
    let (agent, asked) = with_status(5, r#"{"return": {"exited": true, "exitcode": 4}}"#);
    agent.qgactl(&["exec", "--", "x"]).check(4, "");
    assert_eq!(asked.load(Ordering::SeqCst), 5);
}

#[test]
fn output_that_the_agent_cut_is_status_123_however_the_program_ended() {
    for (end, own) in [(r#""exitcode": 0"#, 0), (r#""exitcode": 7"#, 7), (r#""signal": 9"#, 137)] {
        for (member, stream) in [("out", "output"), ("err", "error")] {
            let report = format!(
                r#"{{"return": {{"exited": true, {end}, "{member}-data": "YQ==", "{member}-truncated": true}}}}"#
            );
            let (agent, _) = with_status(1, report.leak());
            let outcome = agent.qgactl(&["exec", "--", "x"]);
            outcome.check(123, &format!("more to standard {stream} than the agent kept; it ended with status {own}\n"));
            assert!(if member == "out" { outcome.stdout == b"a" } else { outcome.stderr.starts_with('a') });
        }
    }
    let report = r#"{"return": {"exited": true, "exitcode": 0, "out-data": "YQ==", "out-truncated": false}}"#;
    with_status(1, report).0.qgactl(&["exec", "--", "x"]).check(0, "");
}

#[test]
fn the_reference_tells_that_it_cut_output() {
    if let Some(agent) = Agent::reference(&[]) {
        let outcome = agent.qgactl(&["exec", "--", "head", "-c", "20M", "/dev/zero"]);
        outcome.check(123, "more to standard output than the agent kept; it ended with status ");
        assert!(outcome.stdout.len() >= 16 << 20 && outcome.stdout.iter().all(|&byte| byte == 0));
    }
}

#[test]
fn there_is_no_json_form_of_a_program() {
    let (agent, _) = with_status(1, "");
    agent.qgactl(&["--json", "exec", "--", "x"]).check(2, "--json");
}
