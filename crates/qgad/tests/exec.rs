//! Programs started through the real agent, which answers whatever they do.

#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

mod support;

use std::{fs, path::Path};

use qga::commands::exec::{CaptureOutput, Exec, MAX_OUTPUT_BYTES, ProgramStatus};
use support::{
    Agent, TIMEOUT, error_output, output, ping, program, refusal, run, shell, start, status, try_kill_group, wait,
    wait_for,
};

fn exited_with(code: i64) -> ProgramStatus {
    ProgramStatus { exited: true, exitcode: Some(code), ..ProgramStatus::default() }
}

#[test]
fn the_end_of_a_program_is_told_once() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let pid = start(&mut client, &program("/bin/true", &[])).unwrap();
    assert_eq!(wait(&mut client, pid), exited_with(0));
    assert_eq!(status(&mut client, pid), Err(format!("PID {pid} does not exist")));
    assert_eq!(run(&mut client, &program("/bin/false", &[])), exited_with(1));
    assert_eq!(run(&mut client, &shell("exit 300")), exited_with(44));
    let killed = ProgramStatus { exited: true, signal: Some(9), ..ProgramStatus::default() };
    assert_eq!(run(&mut client, &shell("kill -9 $$")), killed);
    let killed = ProgramStatus { exited: true, signal: Some(40), ..ProgramStatus::default() };
    assert_eq!(run(&mut client, &shell("kill -40 $$")), killed, "a real-time signal");
}

#[test]
fn a_pid_that_names_no_program_of_ours_does_not_exist() {
    let agent = Agent::start();
    let mut client = agent.connect();
    for pid in [0, -1, 1, i64::from(agent.pid()), i64::MAX, i64::MIN] {
        assert_eq!(status(&mut client, pid), Err(format!("PID {pid} does not exist")));
    }
}

#[test]
fn a_program_that_cannot_be_started_is_refused_at_once() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let mut check = |path: &str, reason: &str| {
        let expected = format!("Failed to execute child process \u{201C}{path}\u{201D} ({reason})");
        assert_eq!(start(&mut client, &program(path, &[])), Err(expected));
    };
    check("no-such-program", "No such file or directory");
    check("/no/such/program", "No such file or directory");
    check("", "No such file or directory");
    check("/tmp", "Permission denied");
    check("/etc/passwd", "Permission denied");
    check("/etc/passwd/x", "Not a directory");
    check("a\0b", "the path has a NUL in it");
    let with_nul = "Failed to execute child process \u{201C}/bin/true\u{201D} (an argument has a NUL in it)";
    assert_eq!(start(&mut client, &program("/bin/true", &["a\0b"])), Err(with_nul.into()));
    let arguments = serde_json::json!({ "path": "no-such-program", "input-data": "not base64" });
    let arguments = arguments.as_object().unwrap();
    let reply = refusal(client.call_raw("guest-exec", arguments, support::deadline()));
    assert_eq!(reply, Err("Base64 data contains invalid characters".into()));
}

#[test]
fn the_environment_is_the_agents_or_exactly_what_is_given() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let with = |variables: &[&str]| Exec {
        env: Some(variables.iter().map(ToString::to_string).collect()),
        capture_output: Some(CaptureOutput::Separated),
        ..program("/usr/bin/env", &[])
    };
    assert_eq!(output(&run(&mut client, &with(&["A=1", "no assignment", "A=2"]))), "A=1\nno assignment\nA=2\n");
    assert_eq!(output(&run(&mut client, &with(&[]))), "");
    let inherited = Exec { env: None, ..with(&[]) };
    let path = format!("PATH={}", std::env::var("PATH").unwrap());
    assert!(output(&run(&mut client, &inherited)).lines().any(|line| line == path));
}

#[test]
fn a_name_is_looked_up_in_the_path_that_the_program_will_have() {
    let agent = Agent::start();
    let mut client = agent.connect();
    fs::create_dir(agent.path("bin")).unwrap();
    let script = agent.path("bin/qgad-test-script");
    fs::write(&script, "echo found $0 \"$@\"\n").unwrap();
    let mode = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
    fs::set_permissions(&script, mode).unwrap();
    let with_path = |path: Option<&str>| Exec {
        env: Some(path.iter().map(|path| format!("PATH={path}")).collect()),
        capture_output: Some(CaptureOutput::Separated),
        ..program("qgad-test-script", &["a b"])
    };
    let directory = script.parent().unwrap().display();
    let expected = format!("found {} a b\n", script.display());
    let path = format!("/nonexistent:{directory}");
    assert_eq!(output(&run(&mut client, &with_path(Some(&path)))), expected, "and the shell runs what has no #!");
    let unknown =
        Err("Failed to execute child process \u{201C}qgad-test-script\u{201D} (No such file or directory)".into());
    assert_eq!(start(&mut client, &with_path(Some("/nonexistent"))), unknown);
    // The agent's working directory is the one that holds `bin`.
    fs::copy(&script, agent.path("qgad-test-script")).unwrap();
    assert_eq!(output(&run(&mut client, &with_path(Some(".")))), "found ./qgad-test-script a b\n");
    assert_eq!(start(&mut client, &with_path(None)), unknown, "not in the working directory");
    let by_default = Exec { path: "true".into(), ..with_path(None) };
    assert_eq!(run(&mut client, &by_default), exited_with(0));
}

#[test]
fn each_way_to_capture_works_time_and_again() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let mut check = |capture, out: &str, err: &str| {
        let both = Exec { capture_output: capture, ..shell("echo 1; echo 2 >&2; echo 3; echo 4 >&2") };
        let status = run(&mut client, &both);
        assert_eq!((output(&status).as_str(), error_output(&status).as_str()), (out, err), "{capture:?}");
        assert_eq!(status.out_truncated, (!out.is_empty()).then_some(false));
        assert_eq!(status.err_truncated, (!err.is_empty()).then_some(false));
    };
    for _ in 0..3 {
        check(None, "", "");
        check(Some(CaptureOutput::None), "", "");
        check(Some(CaptureOutput::Stdout), "1\n3\n", "");
        check(Some(CaptureOutput::Stderr), "", "2\n4\n");
        check(Some(CaptureOutput::Separated), "1\n3\n", "2\n4\n");
        check(Some(CaptureOutput::Merged), "1\n2\n3\n4\n", "");
    }
}

#[test]
fn input_of_any_size_arrives() {
    let agent = Agent::start();
    let mut client = agent.connect();
    for size in [0, 1, 65_536, 5_000_000] {
        let input: Vec<u8> = (0..=255).cycle().take(size).collect();
        let copy = Exec {
            input_data: Some(input.clone().into()),
            capture_output: Some(CaptureOutput::Separated),
            ..program("/bin/cat", &[])
        };
        let status = run(&mut client, &copy);
        let received = status.out_data.map_or_else(Vec::new, |data| data.into_bytes().unwrap());
        assert!(received == input, "{size} bytes");
    }
}

#[test]
fn a_program_that_does_not_read_its_input_delays_nothing() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let input = vec![0; 5_000_000];
    let ignores = Exec { input_data: Some(input.clone().into()), ..program("/bin/true", &[]) };
    assert_eq!(run(&mut client, &ignores), exited_with(0));
    let waits = Exec { input_data: Some(input.into()), ..program("/bin/sleep", &["1000"]) };
    let pid = start(&mut client, &waits).unwrap();
    ping(&mut client);
    assert_eq!(status(&mut client, pid), Ok(ProgramStatus::default()));
    kill_group(pid);
}

#[test]
fn of_long_output_the_beginning_is_kept_and_the_rest_is_said_to_be_missing() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let exact = run(&mut client, &shell(&format!("head -c {MAX_OUTPUT_BYTES} /dev/zero")));
    assert_eq!(exact.out_truncated, Some(false));
    let long = run(&mut client, &shell(&format!("head -c {} /dev/zero; echo end >&2", MAX_OUTPUT_BYTES + 1)));
    assert_eq!(long.out_truncated, Some(true));
    assert_eq!(long.out_data.unwrap().into_bytes().unwrap().len(), MAX_OUTPUT_BYTES);
    assert_eq!(long.err_truncated, Some(false));
}

#[test]
fn output_that_never_ends_and_a_program_that_ignores_everything_leave_the_agent_alive() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let endless = start(&mut client, &shell("exec yes")).unwrap();
    let stubborn = start(&mut client, &shell("trap '' HUP INT TERM PIPE; while :; do sleep 1; done")).unwrap();
    for _ in 0..200 {
        ping(&mut client);
        assert_eq!(status(&mut client, endless), Ok(ProgramStatus::default()));
    }
    for pid in [endless, stubborn] {
        kill_group(pid);
        assert_eq!(wait(&mut client, pid).signal, Some(9));
    }
}

#[test]
fn something_left_behind_with_the_pipes_delays_the_end_and_is_not_killed_by_it() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let proof = agent.path("proof");
    let go = agent.path("go");
    let line = format!(
        "({wait}; echo late && echo alive >{proof}) & echo early",
        wait = wait_for_file(&go),
        proof = proof.display()
    );
    let status = run(&mut client, &shell(&line));
    assert_eq!((status.exitcode, output(&status).as_str()), (Some(0), "early\n"));
    fs::write(go, "").unwrap();
    wait_for("the one left behind has written to its pipe", || {
        fs::read_to_string(&proof).ok().filter(|it| it == "alive\n")
    });
}

#[test]
fn a_program_has_a_session_three_descriptors_and_a_clean_signal_state() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let _held = agent.connect();
    let status =
        run(&mut client, &shell("echo /proc/self/fd/*; cut -d' ' -f1,5,6 /proc/$$/stat; exec cat /proc/self/status"));
    let text = output(&status);
    let mut lines = text.lines();
    assert_eq!(
        lines.next(),
        Some("/proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2 /proc/self/fd/3"),
        "3 is the glob's"
    );
    let ids: Vec<_> = lines.next().unwrap().split(' ').collect();
    assert_eq!(ids, [ids[0]; 3], "process, group and session are one");
    let mask = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        u64::from_str_radix(line.trim(), 16).unwrap()
    };
    // The C library's own two signals, 32 and 33, are ignored in every program that it starts.
    assert_eq!((mask("SigBlk:"), mask("SigIgn:") & !0x1_8000_0000), (0, 0));
}

#[test]
fn a_thousand_short_programs_leave_nothing_behind() {
    let agent = Agent::start();
    let mut client = agent.connect();
    run(&mut client, &shell("true"));
    let before = agent.descriptors();
    for _ in 0..1000 {
        assert_eq!(run(&mut client, &shell("exit 7")), exited_with(7));
    }
    assert_eq!(agent.descriptors(), before);
    assert_eq!(agent.children(), Vec::<i64>::new());
}

#[test]
fn fifty_long_programs_run_at_once_and_are_reaped_without_being_asked_about() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let pids: Vec<_> = (0..50).map(|_| start(&mut client, &shell("exec sleep 1000")).unwrap()).collect();
    ping(&mut client);
    for &pid in &pids {
        kill_group(pid);
    }
    wait_for("all are reaped", || agent.children().is_empty().then_some(()));
    for pid in pids {
        let status = wait(&mut client, pid);
        assert_eq!(status.signal, Some(9));
    }
}

#[test]
fn a_bounded_number_of_programs_runs_at_once() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let sleeper = program("/bin/sleep", &["1000"]);
    let pids: Vec<_> = (0..128).map(|_| start(&mut client, &sleeper).unwrap()).collect();
    let refused = "Failed to execute child process \u{201C}/bin/sleep\u{201D} (128 programs are running already)";
    assert_eq!(start(&mut client, &sleeper), Err(refused.into()));
    kill_group(pids[0]);
    wait_for("there is room for another", || start(&mut client, &sleeper).ok());
}

#[test]
fn what_was_started_outlives_the_connection_and_so_does_its_report() {
    let agent = Agent::start();
    let pid = start(&mut agent.connect(), &shell("echo here")).unwrap();
    assert_eq!(output(&wait(&mut agent.connect(), pid)), "here\n");
}

#[test]
fn a_program_outlives_its_agent_with_its_output_and_the_rest_of_its_input() {
    let mut agent = Agent::start();
    let (begun, go, proof) = (agent.path("begun"), agent.path("go"), agent.path("proof"));
    let line = format!(
        "touch {begun}; {wait}; head -c 500000 /dev/zero && echo written >&2 && wc -c >{proof}.part &&
            mv {proof}.part {proof}",
        begun = begun.display(),
        wait = wait_for_file(&go),
        proof = proof.display()
    );
    let program = Exec { input_data: Some(vec![0; 5_000_000].into()), ..shell(&line) };
    let pid = start(&mut agent.connect(), &program).unwrap();
    let _program = KilledOnFailure(pid);
    // The kernel lets the agent go on a moment before the new program has lost the agent's descriptors. A socket that
    // still listens then accepts a connection that nobody serves.
    wait_for("the program runs", || begun.exists().then_some(()));
    agent.replace();
    assert_eq!(status(&mut agent.connect(), pid), Err(format!("PID {pid} does not exist")));
    fs::write(go, "").unwrap();
    let read = wait_for("the program has written and read everything", || fs::read_to_string(&proof).ok());
    assert_eq!(read.trim(), "5000000");
}

/// A program that outlives its agent, and must not outlive a test that fails.
struct KilledOnFailure(i64);

impl Drop for KilledOnFailure {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = try_kill_group(self.0);
        }
    }
}

/// Shell code that waits until a file exists, but not longer than a test does.
fn wait_for_file(path: &Path) -> String {
    let attempts = TIMEOUT.as_secs() * 10;
    format!("for _ in $(seq {attempts}); do [ -e {} ] && break; sleep 0.1; done", path.display())
}

/// Kills a program and its process group directly, without the agent.
fn kill_group(pid: i64) {
    try_kill_group(pid).unwrap();
}
