//! users, passwd, ssh-keys and time, against the reference and against answers made for the purpose.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

mod support;

use std::{
    fs::File,
    io::{Read, Write},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
};

use nix::pty::openpty;
use support::{Agent, Outcome, qgactl};

/// Runs qgactl against an agent that answers with this; returns also what it was asked, as `command arguments` each.
fn ask(arguments: &[&str], input: &[u8], answer: &'static str) -> (Outcome, Vec<String>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&asked);
    let agent = Agent::scripted(move |request| {
        log.lock().unwrap().push(format!("{} {}", request["execute"].as_str().unwrap(), request["arguments"]));
        Some(answer.into())
    });
    let outcome = qgactl(&agent.socket(), arguments, input);
    let asked = asked.lock().unwrap().clone();
    (outcome, asked)
}

const DONE: &str = r#"{"return": {}}"#;

#[test]
fn both_agents_are_shown() {
    for agent in Agent::each(&[]) {
        assert!(agent.qgactl(&["users"]).success().starts_with("user"));
        assert!(agent.qgactl(&["time"]).success().contains(" the host, give or take 0."));
        agent.qgactl(&["ssh-keys", "no-such-user"]).check(1, "failed to lookup user 'no-such-user'");
    }
}

#[test]
fn json_is_the_reply_as_received() {
    for (arguments, expected) in [
        (["users", "--json"].as_slice(), "guest-get-users {}"),
        (&["time", "--json"], "guest-get-time {}"),
        (&["ssh-keys", "ann", "--json"], r#"guest-ssh-get-authorized-keys {"username":"ann"}"#),
    ] {
        let (outcome, asked) = ask(arguments, b"", r#"{"return": [1.50]}"#);
        assert_eq!((outcome.success().as_str(), asked), ("[1.50]\n", vec![expected.into()]));
    }
    for subcommand in [&["passwd", "ann", "--json"], &["suspend", "ram", "--json"]] {
        ask(subcommand, b"", DONE).0.check(2, "--json");
    }
}

#[test]
fn a_password_is_read_from_standard_input_and_sent_as_base64() {
    let (outcome, asked) = ask(&["passwd", "ann", "--stdin"], b"se cret\nmore\n", DONE);
    assert_eq!(outcome.success(), "");
    assert_eq!(asked, [r#"guest-set-user-password {"crypted":false,"password":"c2UgY3JldA==","username":"ann"}"#]);
    let (_, asked) = ask(&["passwd", "ann", "--stdin", "--crypted"], b"$6$x$y", DONE);
    assert_eq!(asked, [r#"guest-set-user-password {"crypted":true,"password":"JDYkeCR5","username":"ann"}"#]);
}

#[test]
fn a_password_that_is_too_long_or_absent_is_not_set() {
    for (input, said) in
        [("x".repeat(4097), "a line of more than 4096 bytes"), (String::new(), "no password was given")]
    {
        let (outcome, asked) = ask(&["passwd", "ann", "--stdin"], input.as_bytes(), DONE);
        outcome.check(1, &format!("qgactl: failed to read standard input: {said}\n"));
        assert_eq!(asked, [""; 0]);
    }
}

/// Runs `passwd` at a terminal, types these lines when asked, and returns the exit status and what the terminal shows.
fn type_password(agent: &Agent, lines: [&str; 2]) -> (Option<i32>, String) {
    let terminal = openpty(None, None).unwrap();
    let slave = File::from(terminal.slave);
    let mut process = Command::new("setsid")
        .args(["--ctty", env!("CARGO_BIN_EXE_qgactl"), "--socket"])
        .arg(agent.socket())
        .args(["passwd", "ann"])
        .stdin(Stdio::from(slave.try_clone().unwrap()))
        .stdout(Stdio::null())
        .stderr(Stdio::from(slave))
        .spawn()
        .unwrap();
    let mut master = File::from(terminal.master);
    let (mut shown, mut typed, mut piece) = (String::new(), 0, [0; 1024]);
    // The other end is gone when the program is.
    while let Ok(count @ 1..) = master.read(&mut piece) {
        shown += &String::from_utf8_lossy(&piece[..count]);
        if typed < lines.len() && shown.matches(": ").count() > typed {
            master.write_all(lines[typed].as_bytes()).unwrap();
            typed += 1;
        }
    }
    (process.wait().unwrap().code(), shown)
}

#[test]
fn a_password_that_is_typed_is_not_shown_and_must_be_the_same_twice() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&asked);
    let agent = Agent::scripted(move |request| {
        log.lock().unwrap().push(request["arguments"]["password"].clone());
        Some(DONE.into())
    });
    let prompts = "New password of ann: \r\nThe same again: \r\n";
    assert_eq!(
        type_password(&agent, ["secret\n", "other\n"]),
        (Some(1), format!("{prompts}qgactl: the two passwords differ\r\n"))
    );
    assert_eq!(
        type_password(&agent, ["\x03\n", ""]),
        (Some(130), "New password of ann: \r\nqgactl: interrupted\r\n".into())
    );
    assert_eq!(*asked.lock().unwrap(), [""; 0]);
    assert_eq!(type_password(&agent, ["secret\n", "secret\n"]), (Some(0), prompts.into()));
    assert_eq!(*asked.lock().unwrap(), ["c2VjcmV0"]);
}

#[test]
fn a_password_is_no_argument() {
    ask(&["passwd", "ann", "secret"], b"", DONE).0.check(2, "unexpected argument");
}

#[test]
fn keys_are_read_from_a_file_and_shown_in_its_order() {
    let keys = b"# mine\nssh-ed25519 A a@b\n\n";
    for (option, expected) in [
        ("--add", r#"guest-ssh-add-authorized-keys {"keys":["ssh-ed25519 A a@b"],"username":"ann"}"#),
        ("--replace", r#"guest-ssh-add-authorized-keys {"keys":["ssh-ed25519 A a@b"],"reset":true,"username":"ann"}"#),
        ("--remove", r#"guest-ssh-remove-authorized-keys {"keys":["ssh-ed25519 A a@b"],"username":"ann"}"#),
    ] {
        let (outcome, asked) = ask(&["ssh-keys", "ann", option, "-"], keys, DONE);
        assert_eq!((outcome.success().as_str(), asked), ("", vec![expected.into()]));
    }
    let (outcome, _) = ask(&["ssh-keys", "ann"], b"", r#"{"return": {"keys": ["second", "first"]}}"#);
    assert_eq!(outcome.success(), "first\nsecond\n");
    ask(&["ssh-keys", "ann", "--add", "/nonexistent"], b"", DONE)
        .0
        .check(1, "failed to read /nonexistent: No such file");
    ask(&["ssh-keys", "ann", "--add", "-", "--remove", "-"], b"", DONE).0.check(2, "cannot be used with");
}

#[test]
fn the_clock_is_set_before_it_is_shown() {
    for (arguments, expected) in [
        (["time", "--set", "1700000000.5"].as_slice(), r#"guest-set-time {"time":1700000000500000000}"#),
        (&["time", "--from-rtc"], "guest-set-time {}"),
    ] {
        let (outcome, asked) = ask(arguments, b"", r#"{"return": {}}"#);
        // A time that is an object makes no sense.
        outcome.check(6, "guest-get-time");
        assert_eq!(asked, [expected, "guest-get-time {}"]);
    }
    ask(&["time", "--set", "tomorrow"], b"", DONE).0.check(2, "neither now nor seconds");
}
