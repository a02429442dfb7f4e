//! shutdown, suspend and wait, against agents that answer as guests do that end, sleep, refuse, or come late.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

mod support;

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::{UnixListener, UnixStream},
    sync::{Arc, Mutex},
};

use serde_json::Value;
use support::{Agent, qgactl};

const REFUSED: &str = r#"{"error": {"class": "GenericError", "desc": "no luck"}}"#;

#[test]
fn each_end_and_each_sleep_has_its_command() {
    for (arguments, command) in [
        (["shutdown"].as_slice(), r#"guest-shutdown {"mode":"powerdown"}"#),
        (&["shutdown", "--reboot"], r#"guest-shutdown {"mode":"reboot"}"#),
        (&["shutdown", "--halt"], r#"guest-shutdown {"mode":"halt"}"#),
        (&["suspend", "ram"], "guest-suspend-ram {}"),
        (&["suspend", "disk"], "guest-suspend-disk {}"),
        (&["suspend", "hybrid"], "guest-suspend-hybrid {}"),
    ] {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        // Some agents answer, against the protocol.
        let agent = Agent::scripted(move |request| {
            log.lock().unwrap().push(format!("{} {}", request["execute"].as_str().unwrap(), request["arguments"]));
            Some(r#"{"return": {}}"#.into())
        });
        assert_eq!(agent.qgactl(arguments).success(), "");
        assert_eq!(*asked.lock().unwrap(), [command]);
    }
}

#[test]
fn silence_is_success_and_a_refusal_is_shown() {
    let silent = Agent::scripted(|_| None);
    assert_eq!(silent.qgactl(&["--timeout", "1", "suspend", "ram"]).success(), "");
    assert_eq!(silent.qgactl(&["--timeout", "1", "call", "guest-shutdown"]).success(), "{}\n");
    silent.qgactl(&["--timeout", "1", "call", "guest-ping"]).check(4, "did not answer in time");
    let refusing = Agent::scripted(|_| Some(REFUSED.into()));
    refusing.qgactl(&["shutdown"]).check(1, "qgactl: guest-shutdown: no luck\n");
    refusing.qgactl(&["suspend", "disk"]).check(1, "qgactl: guest-suspend-disk: no luck\n");
}

#[test]
fn a_guest_that_does_not_go_is_reported() {
    let agent = Agent::scripted(|_| None);
    agent
        .qgactl(&["--timeout", "1", "shutdown", "--wait"])
        .check(4, "guest-shutdown: the agent did not answer in time");
}

/// Reads a request, and answers it if it is a sync.
fn serve(stream: &UnixStream) -> Value {
    let mut line = Vec::new();
    BufReader::new(stream).read_until(b'\n', &mut line).unwrap();
    let request: Value = serde_json::from_slice(line.strip_prefix(b"\xFF").unwrap_or(&line)).unwrap();
    if request["execute"] == "guest-sync-delimited" {
        let reply = format!("{{\"return\": {}}}\n", request["arguments"]["id"]);
        (&*stream).write_all(&[b"\xFF", reply.as_bytes()].concat()).unwrap();
    }
    request
}

#[test]
fn a_guest_is_waited_for_until_it_is_gone_and_after_a_reboot_until_it_is_back() {
    for (option, boots) in [("--halt", 1), ("--reboot", 2)] {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        let guest = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            assert_eq!(serve(&stream)["execute"], "guest-sync-delimited");
            assert_eq!(serve(&stream)["execute"], "guest-shutdown");
            drop(stream);
            for _ in 1..boots {
                let (stream, _) = listener.accept().unwrap();
                assert_eq!(serve(&stream)["execute"], "guest-sync-delimited");
            }
        });
        let outcome = qgactl(&socket, &["--timeout", "60", "shutdown", "--wait", option], b"");
        assert_eq!(outcome.success(), "");
        guest.join().unwrap();
    }
}

#[test]
fn an_agent_that_is_there_is_waited_for_no_longer() {
    let agent = Agent::scripted(|_| None);
    assert!(agent.qgactl(&["wait"]).success().starts_with("the agent answered after "));
}

#[test]
fn an_agent_that_comes_late_is_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| qgactl(&socket, &["--timeout", "60", "wait"], b""));
        // Whichever of the two is first: it is waited for, or there already.
        Agent::scripted_at(&socket, |_| None);
        assert!(waiting.join().unwrap().success().starts_with("the agent answered after "));
    });
}

#[test]
fn the_reason_that_no_agent_answers_is_reported() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    qgactl(&socket, &["--timeout", "0.3", "wait"], b"").check(3, "socket: No such file or directory\n");
    let _listener = UnixListener::bind(&socket).unwrap();
    qgactl(&socket, &["--timeout", "0.3", "wait"], b"").check(4, "no agent answered");
}
