//! net, routes, cpus, memory and stats, against both agents and against answers made for the purpose.

mod support;

use std::sync::{Arc, Mutex};

use support::Agent;

#[test]
fn both_agents_are_shown() {
    for agent in Agent::each(&[]) {
        for (subcommand, head) in [("net", "interface  "), ("cpus", "processor  "), ("memory", "blocks  ")] {
            let text = agent.qgactl(&[subcommand]).success();
            assert!(text.lines().any(|line| line.starts_with(head)), "{text}");
            assert!(text.lines().count() > 1, "{text}");
        }
        assert!(agent.qgactl(&["net"]).success().contains("\nlo  "));
        assert!(agent.qgactl(&["net", "--json"]).success().starts_with("[{\""));
        assert!(agent.qgactl(&["stats"]).success().contains("iowait"));
    }
}

#[test]
fn an_agent_that_knows_no_load_shows_the_rest() {
    let Some(agent) = Agent::reference(&[]) else { return };
    assert!(agent.qgactl(&["stats"]).success().starts_with("processor"));
    agent.qgactl(&["routes"]).check(5, "guest-network-get-route");
}

#[test]
fn json_is_the_reply_as_received() {
    let agent = Agent::scripted(|request| {
        let name = request["execute"].as_str().unwrap();
        Some(format!(r#"{{"return": ["{name}", 1.50]}}"#))
    });
    for (subcommand, command) in [
        ("net", "guest-network-get-interfaces"),
        ("routes", "guest-network-get-route"),
        ("cpus", "guest-get-vcpus"),
        ("memory", "guest-get-memory-blocks"),
        ("stats", "guest-get-cpustats"),
    ] {
        assert_eq!(agent.qgactl(&[subcommand, "--json"]).success(), format!("[\"{command}\", 1.50]\n"));
    }
}

#[test]
fn processors_are_set_until_one_fails_and_its_reason_is_shown() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&asked);
    let agent = Agent::scripted(move |request| {
        assert_eq!(request["execute"], "guest-set-vcpus");
        log.lock().unwrap().push(request["arguments"].to_string());
        // One after the other, and never the third.
        Some(match request["arguments"]["vcpus"].as_array().map(Vec::len) {
            Some(1) => r#"{"error": {"class": "GenericError", "desc": "it can't be offlined"}}"#.into(),
            _ => r#"{"return": 1}"#.into(),
        })
    });
    let outcome = agent.qgactl(&["cpus", "--set", "3=on", "2=off", "--set", "0=off"]);
    outcome.check(1, "qgactl: guest-set-vcpus: it can't be offlined\n");
    let [two, zero] = [2, 0].map(|id| format!(r#"{{"logical-id":{id},"online":false}}"#));
    assert_eq!(
        asked.lock().unwrap()[..],
        [
            format!(r#"{{"vcpus":[{{"logical-id":3,"online":true}},{two},{zero}]}}"#),
            format!(r#"{{"vcpus":[{two},{zero}]}}"#),
            format!(r#"{{"vcpus":[{zero}]}}"#),
        ]
    );
    agent.qgactl(&["cpus", "--set", "3=maybe"]).check(2, "ID=on or ID=off");
}
