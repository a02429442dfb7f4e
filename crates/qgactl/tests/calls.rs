//! info, ping and call, and what each way to fail looks like to a script and to a reader.

mod support;

use std::os::unix::net::UnixListener;

use support::{Agent, qgactl};

const REFUSED: &str = r#"{"error": {"class": "GenericError", "desc": "no luck"}}"#;

fn refused_as_not_found(desc: &str) -> String {
    format!(r#"{{"error": {{"class": "CommandNotFound", "desc": "{desc}"}}}}"#)
}

#[test]
fn a_reply_is_printed_as_received_on_request_and_laid_out_otherwise() {
    let agent = Agent::scripted(|_| Some(r#"{"return": {"z": 1.50, "a": 18446744073709551615}}"#.into()));
    assert_eq!(agent.qgactl(&["call", "guest-x", "--json"]).success(), "{\"z\": 1.50, \"a\": 18446744073709551615}\n");
    assert_eq!(agent.qgactl(&["call", "guest-x"]).success(), "{\n  \"a\": 18446744073709551615,\n  \"z\": 1.5\n}\n");
}

#[test]
fn arguments_reach_the_agent() {
    let agent = Agent::scripted(|request| Some(format!(r#"{{"return": {}}}"#, request["arguments"])));
    let text = r#"{"list":[1,"two",null],"number":-1}"#;
    assert_eq!(agent.qgactl(&["call", "guest-x", text, "--json"]).success(), format!("{text}\n"));
}

#[test]
fn arguments_that_are_no_object_are_a_usage_error() {
    let agent = Agent::scripted(|_| panic!("nothing is to be sent"));
    for wrong in ["[1]", "{", "1", ""] {
        agent.qgactl(&["call", "guest-x", wrong]).check(2, "not a JSON object");
    }
}

#[test]
fn an_agent_that_refuses_is_status_1_and_its_words_are_shown() {
    Agent::scripted(|_| Some(REFUSED.into())).qgactl(&["call", "guest-x"]).check(1, "qgactl: guest-x: no luck\n");
}

#[test]
fn an_absent_socket_is_status_3() {
    let directory = tempfile::tempdir().unwrap();
    let outcome = qgactl(&directory.path().join("socket"), &["ping"], b"");
    outcome.check(3, "socket: No such file or directory\n");
    outcome.check(3, "is the VM running");
}

#[test]
fn a_socket_without_listener_is_status_3() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    drop(UnixListener::bind(&socket).unwrap());
    let outcome = qgactl(&socket, &["ping"], b"");
    outcome.check(3, "socket: Connection refused\n");
    outcome.check(3, "left over");
}

#[test]
fn a_listener_that_never_speaks_is_status_4_and_says_where_to_look() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let _listener = UnixListener::bind(&socket).unwrap();
    let outcome = qgactl(&socket, &["ping", "--timeout", "0.2"], b"");
    outcome.check(4, "no agent answered within 0.2 s\n");
    outcome.check(4, "In the guest: is the agent running");
    outcome.check(4, "On the host: ");
}

#[test]
fn an_agent_silent_on_one_command_is_distinguished_from_an_absent_one() {
    let agent = Agent::scripted(|_| None);
    agent.qgactl(&["call", "guest-x", "--timeout", "0.2"]).check(4, "The agent answers, but this takes longer");
}

#[test]
fn an_unknown_a_blocked_and_a_frozen_command_are_status_5_with_a_hint_each() {
    for (desc, hint) in [
        ("The command guest-x has not been found", "lists the commands that this agent knows"),
        ("Command guest-x has been disabled: the command is not allowed", "/etc/qemu/qemu-ga.conf"),
        ("Command guest-x has been disabled: the agent is in frozen state", "`qgactl thaw`"),
    ] {
        let agent = Agent::scripted(|_| Some(refused_as_not_found(desc)));
        let outcome = agent.qgactl(&["call", "guest-x"]);
        outcome.check(5, desc);
        outcome.check(5, hint);
    }
}

#[test]
fn an_answer_that_makes_no_sense_is_status_6() {
    for nonsense in ["hello", "{}", "[]", r#"{"return": {}, "error": {"class": "x", "desc": "y"}}"#] {
        let agent = Agent::scripted(|_| Some(nonsense.into()));
        agent.qgactl(&["call", "guest-x"]).check(6, "makes no sense");
    }
}

#[test]
fn a_large_reply_is_shown_as_received() {
    let agent = Agent::scripted(|_| Some(format!(r#"{{"return": [{}0]}}"#, "0,".repeat(600_000))));
    assert_eq!(agent.qgactl(&["call", "guest-x"]).success().lines().count(), 1);
}

#[test]
fn usage_errors_are_status_2() {
    let agent = Agent::scripted(|_| panic!("nothing is to be sent"));
    for wrong in [&["nonsense"][..], &["call"], &["ping", "--timeout", "0"], &["ping", "--timeout", "1e19"], &[]] {
        agent.qgactl(wrong).check(2, "");
    }
}

#[test]
fn the_reference_agent_is_shown() {
    let Some(agent) = Agent::reference(&["-b", "guest-exec"]) else { return };
    let info = agent.qgactl(&["info"]).success();
    for line in ["version   7.", "  guest-ping  ", "  guest-shutdown  "] {
        assert!(info.contains(line), "{line:?} is not in {info}");
    }
    let exec = info.lines().find(|line| line.trim_start().starts_with("guest-exec ")).unwrap();
    assert!(exec.ends_with("disabled"), "{exec}");
    assert!(agent.qgactl(&["info", "--json"]).success().starts_with(r#"{"version": "#));
    assert!(agent.qgactl(&["ping"]).success().starts_with("the agent answered in "));
    agent.qgactl(&["call", "guest-exec", r#"{"path": "true"}"#]).check(5, "block-rpcs");
    agent.qgactl(&["call", "guest-nonsense"]).check(5, "has not been found");
}
