//! doctor: what it says of each thing that can stand between a host and its agent.

mod support;

use std::{
    os::unix::net::UnixListener,
    sync::{Arc, Mutex},
};

use serde_json::Value;
use support::{Agent, Outcome, qgactl};

const THAWED: &str = r#"{"return": "thawed"}"#;
const FROZEN: &str = r#"{"return": "frozen"}"#;

/// An agent of two commands, of which the second is as it says and is refused in these words.
fn agent_with(status: &'static str, enabled: bool, refusal: &'static str) -> Agent {
    Agent::scripted(move |request| {
        Some(match request["execute"].as_str()? {
            "guest-info" => info(enabled),
            "guest-fsfreeze-status" => status.into(),
            _ => format!(r#"{{"error": {{"class": "CommandNotFound", "desc": "{refusal}"}}}}"#),
        })
    })
}

fn info(enabled: bool) -> String {
    let command = |name, enabled| format!(r#"{{"name": "{name}", "enabled": {enabled}, "success-response": true}}"#);
    let commands = [command("guest-ping", true), command("guest-exec", enabled)].join(", ");
    format!(r#"{{"return": {{"version": "1.2.3", "supported_commands": [{commands}]}}}}"#)
}

#[track_caller]
fn check(outcome: &Outcome, status: i32, said: &[&str]) {
    let text = format!("{}{}", String::from_utf8_lossy(&outcome.stdout), outcome.stderr);
    assert_eq!(outcome.status, status, "{text}");
    for expected in said {
        assert!(text.contains(expected), "{expected:?} is not in\n{text}");
    }
}

#[test]
fn the_first_part_of_a_path_that_is_missing_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let vms = directory.path().join("vms");
    let outcome = qgactl(&vms.join("one/socket"), &["doctor"], b"");
    check(&outcome, 3, &[&format!("{} does not exist\n", vms.display()), "is the VM running"]);
    std::os::unix::fs::symlink("nowhere", &vms).unwrap();
    check(&qgactl(&vms, &["doctor"], b""), 3, &["vms is a dangling symbolic link\n"]);
}

#[test]
fn a_file_that_is_no_socket_differs_from_a_socket_without_listener() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    std::fs::write(&path, "").unwrap();
    check(&qgactl(&path, &["doctor"], b""), 3, &["exists, but is not a socket\n"]);
    std::fs::remove_file(&path).unwrap();
    drop(UnixListener::bind(&path).unwrap());
    let user = nix::unistd::geteuid();
    let place = format!("{} exists, owner {user}, mode ", path.display());
    check(&qgactl(&path, &["doctor"], b""), 3, &[&place, "nobody listens there"]);
}

#[test]
fn a_socket_behind_which_no_agent_answers_is_status_4() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let _listener = UnixListener::bind(&path).unwrap();
    let outcome = qgactl(&path, &["doctor", "--timeout", "0.1"], b"");
    check(&outcome, 4, &["no agent answered", "In the guest: is the agent running"]);
}

#[test]
fn an_agent_that_is_well_is_said_to_be_and_what_it_is_too_old_for_is_listed() {
    let outcome = agent_with(THAWED, true, "").qgactl(&["doctor"]);
    check(&outcome, 0, &["agent       answers", "version     1.2.3, 2 commands\n", "nothing is wrong\n"]);
    check(&outcome, 0, &["too old for guest-sync-delimited, ", ", guest-get-load\n"]);
    assert!(!String::from_utf8_lossy(&outcome.stdout).contains("refused"));
}

#[test]
fn a_command_that_is_refused_is_reported_in_the_agents_words() {
    let words = "Command guest-exec has been disabled: the command is not allowed";
    let outcome = agent_with(THAWED, false, words).qgactl(&["doctor"]);
    let expected = "refused     guest-exec\n            has been disabled: the command is not allowed\n";
    check(&outcome, 0, &[expected, "in the guest: /etc/qemu/qemu-ga.conf", "nothing else is wrong\n"]);
    let words = "Command guest-exec has been disabled: the command is not allowed (profile=backup in /etc/file)";
    let outcome = agent_with(THAWED, false, words).qgactl(&["doctor"]);
    assert!(!String::from_utf8_lossy(&outcome.stdout).contains("in the guest:"));
}

#[test]
fn asking_why_a_command_is_refused_would_not_carry_it_out() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let requests = Arc::clone(&asked);
    let agent = Agent::scripted(move |request| {
        requests.lock().unwrap().push(request.clone());
        Some(match request["execute"].as_str()? {
            "guest-info" => info(false),
            "guest-fsfreeze-status" => THAWED.into(),
            _ => r#"{"error": {"class": "GenericError", "desc": "Parameter 'qgactl-doctor' is unexpected"}}"#.into(),
        })
    });
    check(&agent.qgactl(&["doctor"]), 0, &["is said to be refused, and is not"]);
    let asked = asked.lock().unwrap();
    let probe = asked.iter().find(|request| request["execute"] == "guest-exec").unwrap();
    assert_eq!(probe["arguments"], serde_json::json!({"qgactl-doctor": true}));
}

#[test]
fn a_frozen_guest_is_status_1() {
    let outcome = agent_with(FROZEN, true, "").qgactl(&["doctor"]);
    check(&outcome, 1, &["file systems are frozen: writes to them block", "`qgactl thaw`"]);
    let words = "Command guest-exec has been disabled: the agent is in frozen state (for 35 s)";
    check(&agent_with(FROZEN, false, words).qgactl(&["doctor"]), 1, &["file systems are frozen for 35 s: writes"]);
}

#[test]
fn a_file_system_whose_disk_is_gone_is_named() {
    let agent = Agent::scripted(|request| {
        Some(match request["execute"].as_str()? {
            "guest-info" => info(true),
            "guest-fsfreeze-status" => THAWED.into(),
            "guest-get-fsinfo" => concat!(
                r#"{"return": [{"name": "8:0", "mountpoint": "/mnt/dying", "type": "ext4", "disk": []}, "#,
                r#"{"name": "dm-0", "mountpoint": "/", "type": "ext4", "disk": []}]}"#
            )
            .into(),
            _ => r#"{"return": {}}"#.into(),
        })
    });
    let outcome = agent.qgactl(&["doctor"]);
    check(
        &outcome,
        0,
        &["no disk     /mnt/dying (ext4 on device 8:0): if its disk is gone", "nothing else is wrong\n"],
    );
    assert_eq!(String::from_utf8_lossy(&outcome.stdout).matches("no disk").count(), 1);
}

#[test]
fn an_agent_that_cannot_tell_its_commands_is_status_1() {
    let answer = |_: &Value| Some(r#"{"error": {"class": "CommandNotFound", "desc": "no guest-info"}}"#.to_owned());
    check(&Agent::scripted(answer).qgactl(&["doctor"]), 1, &["commands    cannot be listed: no guest-info\n"]);
}

#[test]
fn real_agents_are_asked_why_they_refuse() {
    for agent in Agent::each(&["-b", "guest-shutdown,guest-exec"]) {
        let outcome = agent.qgactl(&["doctor"]);
        check(&outcome, 0, &["refused     guest-", "has been disabled", "nothing else is wrong\n"]);
        assert!(outcome.stderr.is_empty(), "{}", outcome.stderr);
    }
}
