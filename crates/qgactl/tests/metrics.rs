//! metrics, against both agents and against answers made for the purpose. Prometheus's own tool checks the text.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

mod support;

use std::{
    collections::BTreeSet,
    io::Write,
    process::{Command, Stdio},
};

use serde_json::Value;
use support::{Agent, qgactl};

/// The names of the metrics in a text for Prometheus.
fn names(text: &str) -> BTreeSet<String> {
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples.map(|line| line.split('{').next().unwrap_or_default().to_owned()).collect()
}

/// Asks Debian's Prometheus, where it is there.
fn check_with_promtool(text: &str) {
    let tool = Command::new("promtool").args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut tool = match tool {
        Ok(tool) => tool,
        Err(error) => {
            let reason = format!("promtool cannot be run: {error} (tools/install-needs monitoring)");
            assert!(std::env::var("VMTEST_REQUIRE").as_deref() != Ok("all"), "{reason}");
            eprintln!("skipped: {reason}");
            return;
        }
    };
    tool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = tool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.is_empty(), "{said}\n{text}");
}

fn refusal() -> String {
    r#"{"error": {"class": "CommandNotFound", "desc": "The command x has been disabled"}}"#.into()
}

#[test]
fn both_agents_have_the_same_names_which_prometheus_accepts() {
    let mut of_each = Vec::new();
    for agent in Agent::each(&[]) {
        let text = agent.qgactl(&["metrics", "--prometheus"]).success();
        check_with_promtool(&text);
        of_each.push(names(&text));
    }
    for names in &of_each {
        for name in ["guest_memory_available_bytes", "guest_load1", "guest_cpu_seconds_total", "guest_threads"] {
            assert!(names.contains(name), "{name} is not in {names:?}");
        }
    }
    if let [of_qemu_ga, ours] = &of_each[..] {
        let only_there: Vec<_> = of_qemu_ga.difference(ours).collect();
        assert!(only_there.is_empty(), "{only_there:?}");
    }
}

#[test]
fn a_machine_is_a_row_and_an_object() {
    for agent in Agent::each(&[]) {
        let text = agent.qgactl(&["metrics"]).success();
        assert!(text.starts_with("machine ") && text.contains("  up ") && text.contains(" % of "), "{text}");
        let machines: Value = serde_json::from_str(&agent.qgactl(&["metrics", "--json"]).success()).unwrap();
        let machine = &machines[0];
        assert_eq!((&machine["up"], &machine["frozen"]), (&Value::from(true), &Value::from(false)));
        assert!(machine["metrics"]["memory"]["total"].as_u64() > Some(0), "{machine}");
    }
}

#[test]
fn a_machine_that_does_not_answer_is_not_up() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("none");
    let outcome = qgactl(&socket, &["metrics", "--prometheus"], b"");
    outcome.check(0, "failed to connect to");
    let text = String::from_utf8(outcome.stdout).unwrap();
    assert!(text.ends_with(&format!("\nguest_up{{machine=\"{}\"}} 0\n", socket.display())), "{text}");
    check_with_promtool(&text);
    qgactl(&socket, &["metrics", "--prometheus", "--json"], b"").check(2, "'--json' cannot be used");
    let outcome = qgactl(&socket, &["metrics"], b"");
    outcome.check(3, "failed to connect to");
    assert!(String::from_utf8(outcome.stdout).unwrap().contains("no answer"));
    let outcome = qgactl(&socket, &["metrics", "--json"], b"");
    outcome.check(3, "failed to connect to");
    let machines: Value = serde_json::from_slice(&outcome.stdout).unwrap();
    assert_eq!(machines[0]["up"], false);
}

#[test]
fn an_agent_that_answers_its_greeting_only_is_waited_for_no_longer_than_asked() {
    let agent = Agent::scripted(|_| None);
    agent.qgactl(&["metrics", "--timeout", "0.2"]).check(4, "did not answer in time");
}

#[test]
fn an_agent_that_lets_no_files_be_read_tells_what_it_knows() {
    let Some(agent) = Agent::reference(&["--block-rpcs=guest-file-open"]) else { return };
    let text = agent.qgactl(&["metrics", "--prometheus"]).success();
    let names = names(&text);
    assert!(!names.contains("guest_memory_total_bytes") && !names.contains("guest_threads"), "{names:?}");
    assert!(names.contains("guest_cpu_seconds_total") && names.contains("guest_network_receive_bytes_total"));
    assert!(text.contains(r#"device="lo",physical="""#), "{text}");
    check_with_promtool(&text);
}

#[test]
fn of_an_agent_that_is_frozen_nothing_else_is_asked() {
    let agent = Agent::scripted(|request| {
        Some(match request["execute"].as_str().unwrap() {
            "qgad-get-metrics" => refusal(),
            "guest-fsfreeze-status" => r#"{"return": "frozen"}"#.into(),
            "guest-info" => r#"{"return": {"version": "7.2", "supported_commands": []}}"#.into(),
            other => panic!("{other} was asked"),
        })
    });
    let text = agent.qgactl(&["metrics", "--prometheus"]).success();
    assert_eq!(
        names(&text).into_iter().collect::<Vec<_>>(),
        ["guest_agent_info", "guest_frozen", "guest_up"],
        "{text}"
    );
    assert!(agent.qgactl(&["metrics"]).success().contains("  frozen "));
}

#[test]
fn what_a_guest_sends_reaches_neither_terminal_nor_scrape() {
    let agent = Agent::scripted(|_| {
        let disk = r#"{"name": "\u001b[2J\"\\\n", "major": 1, "minor": 2, "stats": {"read-ios": 1}}"#;
        let file_system = r#"{"mountpoint": "/\u001b[2J\nx", "name": "v", "type": "t", "size": 1,
            "used": 18446744073709551615, "available": 18446744073709551615}"#;
        let left_out = r#"{"mountpoint": "/m", "reason": "something new"}"#;
        let reply = format!(
            r#"{{"return": {{"uptime": -1e300, "future": [], "memory": {{"total": 0, "available": 5}},
            "disks": [{disk}, {disk}], "file-systems": [{file_system}], "file-systems-left-out": [{left_out}, {left_out}]}}}}"#
        );
        Some(reply.replace('\n', ""))
    });
    let text = agent.qgactl(&["metrics", "--prometheus"]).success();
    assert!(text.bytes().all(|byte| byte == b'\n' || byte >= b' '), "{text}");
    assert!(text.contains(r#"reason="unknown"} 1"#), "{text}");
    check_with_promtool(&text);
    let text = agent.qgactl(&["metrics"]).success();
    assert!(text.contains("/\\u001b[2J") && text.lines().count() == 2, "{text}");
    let everything = agent.qgactl(&["metrics", "--json"]).success();
    assert!(everything.contains(r"\u001b[2J") && !everything.contains('\u{1b}'), "{everything}");
}
