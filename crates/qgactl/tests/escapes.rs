//! Control sequences and invisible characters from a hostile guest are escaped in all output of qgactl.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

mod support;

use serde_json::{Value, json};
use support::{Agent, Outcome, qgactl};

/// Clears a terminal in two encodings, reverses what follows, and hides in a name.
const HOSTILE: &str = "\u{1b}[2J\u{9b}2J\u{7f}\r\u{202e}\u{200b}\u{2066}\u{ad}\u{feff}\u{fe0f}\u{e0041}";
const ESCAPED: &str = "\\u001b[2J\\u009b2J\\u007f\\u000d\\u202e\\u200b\\u2066\\u00ad\\ufeff\\ufe0f\\udb40\\udc41";

/// Stands for a file in the directory of the test.
const LOCAL_FILE: &str = "LOCAL FILE";

/// A command line of each subcommand.
const SUBCOMMANDS: &[&[&str]] = &[
    &["info"],
    &["ping"],
    &["call", "guest-x"],
    &["exec", "--", "true"],
    &["shell"],
    &["jobs"],
    &["pull", "/etc/hostname", LOCAL_FILE],
    &["push", "/dev/null", "/x"],
    &["cat", "/etc/hostname"],
    &["net"],
    &["routes"],
    &["cpus"],
    &["memory"],
    &["stats"],
    &["metrics"],
    &["fs"],
    &["disks"],
    &["trim"],
    &["freeze"],
    &["thaw"],
    &["time"],
    &["users"],
    &["passwd", "--stdin", "ann"],
    &["ssh-keys", "ann"],
    &["shutdown"],
    &["suspend", "ram"],
    &["wait"],
    &["doctor"],
];

/// Subcommands that print a guest's text when all goes well.
const SHOWING: [&str; 12] =
    ["info", "call", "jobs", "net", "routes", "metrics", "fs", "disks", "trim", "users", "ssh-keys", "doctor"];

/// A value of each kind with text of the guest's wherever the protocol has any.
fn answer(command: &str) -> Value {
    let text = HOSTILE;
    let disk = json!({
        "pci-controller": {"domain": -1, "bus": -1, "slot": -1, "function": -1}, "bus-type": "unknown",
        "bus": 0, "target": 0, "unit": 0, "serial": text, "dev": text,
    });
    match command {
        "guest-info" => json!({
            "version": text, "supported_commands": [{"name": text, "enabled": false, "success-response": true}],
        }),
        "qgad-job-list" => json!([{
            "id": 1, "pid": 1, "path": text, "user": text, "terminal": false, "unattended": "keep", "state": "running",
            "timed-out": false, "age": 0, "out-begin": 0, "out-end": 0, "err-begin": 0, "err-end": 0, "in-offset": 0,
        }]),
        "guest-exec" => json!({"pid": 1}),
        "guest-exec-status" => json!({"exited": true, "exitcode": 0, "out-truncated": true}),
        "guest-file-open" => json!(1),
        "guest-file-seek" => json!({"position": 0, "eof": false}),
        "guest-file-read" => json!({"count": 0, "buf-b64": "", "eof": true}),
        "guest-file-write" => json!({"count": 0, "eof": false}),
        "guest-network-get-interfaces" => json!([{
            "name": text, "hardware-address": text,
            "ip-addresses": [{"ip-address": text, "ip-address-type": "ipv4", "prefix": 24}],
        }]),
        "guest-network-get-route" => json!([{
            "iface": text, "destination": text, "metric": 0, "gateway": text, "mask": text, "version": 4,
        }, {
            "iface": text, "destination": text, "metric": 0, "source": text, "nexthop": text, "desprefixlen": text,
            "srcprefixlen": text, "version": 6,
        }]),
        "guest-get-vcpus" | "guest-get-cpustats" | "guest-get-memory-blocks" => json!([]),
        "guest-get-memory-block-info" => json!({"size": 1}),
        "guest-get-load" => json!({"load1m": 0.0, "load5m": 0.0, "load15m": 0.0}),
        "guest-get-fsinfo" => json!([{"name": text, "mountpoint": text, "type": text, "disk": [disk, disk]}]),
        "guest-get-disks" => json!([
            {"name": text, "partition": false, "address": disk, "alias": text},
            {"name": "x", "partition": true, "dependencies": [text], "alias": text},
        ]),
        "qgad-get-metrics" => json!({
            "file-systems": [{"mountpoint": text, "name": text, "type": text, "size": 9, "used": 8, "available": 1}],
        }),
        "guest-fstrim" => json!({"paths": [{"path": text, "error": text}]}),
        "guest-fsfreeze-freeze" | "guest-fsfreeze-thaw" | "guest-get-time" => json!(1),
        "guest-fsfreeze-status" => json!("thawed"),
        "guest-get-users" => json!([{"user": text, "login-time": 0.5, "domain": text}]),
        "guest-ssh-get-authorized-keys" => json!({"keys": [text]}),
        _ => json!({text: [text]}),
    }
}

fn refusal(class: &str) -> String {
    json!({"error": {"class": class, "desc": HOSTILE}}).to_string()
}

/// Runs a subcommand. It escapes the guest's text, and shows it where it is expected to.
fn check(arguments: &[&str], shows: bool, answer: impl Fn(&str) -> String + Send + 'static) -> Outcome {
    let agent = Agent::scripted(move |request| Some(answer(request["execute"].as_str().unwrap())));
    let file = agent.directory().join("file");
    let arguments: Vec<_> = arguments
        .iter()
        .map(|&argument| if argument == LOCAL_FILE { file.to_str().unwrap() } else { argument })
        .collect();
    let outcome = qgactl(&agent.socket(), &arguments, b"secret\n");
    let text = format!("{}{}", str::from_utf8(&outcome.stdout).unwrap(), outcome.stderr);
    let is_raw = |character: char| !character.is_ascii_graphic() && HOSTILE.contains(character);
    assert!(!text.contains(is_raw), "{arguments:?}: {text:?}");
    // JSON has a shorter form for one of them.
    assert!(text.replace("\\r", "\\u000d").contains(ESCAPED) || !shows, "{arguments:?}: {text:?}");
    outcome
}

#[test]
fn each_subcommand_is_tried() {
    let help = qgactl("/nonexistent".as_ref(), &["--help"], b"").success();
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names = listed.filter_map(|line| line.split_whitespace().next());
    // One asks all machines of the host.
    let names: Vec<_> = names.filter(|name| !["help", "list"].contains(name)).collect();
    assert_eq!(names, SUBCOMMANDS.iter().map(|arguments| arguments[0]).collect::<Vec<_>>());
}

#[test]
fn results_are_escaped() {
    for arguments in SUBCOMMANDS {
        let shows = SHOWING.contains(&arguments[0]);
        let outcome = check(arguments, shows, |command| match command.contains('\u{202e}') {
            // The doctor asks why a command is refused.
            true => refusal("CommandNotFound"),
            false => json!({"return": answer(command)}).to_string(),
        });
        if arguments == &["doctor"] {
            assert_eq!(str::from_utf8(&outcome.stdout).unwrap().matches(ESCAPED).count(), 3);
        }
    }
}

/// Whether a subcommand sends a command: waiting asks only whether there is an agent, and a shell needs a terminal here.
fn asks(arguments: &[&str]) -> bool {
    !["wait", "shell"].contains(&arguments[0])
}

#[test]
fn refusals_are_escaped() {
    for arguments in SUBCOMMANDS {
        for class in ["GenericError", "CommandNotFound"] {
            // What an agent refuses is absent among its figures.
            let shows = asks(arguments) && arguments[0] != "metrics";
            check(arguments, shows, move |_| refusal(class));
        }
    }
}

#[test]
fn what_is_no_reply_is_escaped() {
    for arguments in SUBCOMMANDS {
        check(arguments, asks(arguments), |_| HOSTILE.into());
    }
}

#[test]
fn further_lines_of_an_error_do_not_look_like_ours() {
    let reply = json!({"error": {"class": "GenericError", "desc": "no\nqgactl: all is well\n"}}).to_string();
    let agent = Agent::scripted(move |_| Some(reply.clone()));
    assert_eq!(agent.qgactl(&["call", "guest-x"]).stderr, "qgactl: guest-x: no\n  qgactl: all is well\n");
}

#[test]
fn an_escaped_reply_is_the_same_json() {
    let value = json!({format!("a{HOSTILE}"): format!("{HOSTILE}ü")});
    for arguments in [["call", "guest-x", "--json"].as_slice(), &["call", "guest-x"], &["fs", "--json"]] {
        let reply = format!("{{\"return\":\r\t{value}}}");
        let text = String::from_utf8(check(arguments, true, move |_| reply.clone()).stdout).unwrap();
        assert!(!text.chars().any(|character| character.is_control() && !"\n\t".contains(character)), "{text:?}");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
    }
}
