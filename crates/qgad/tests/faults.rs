//! The real agent when the machine fails it: killed while it writes, and with nowhere left to write to.
#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

mod support;

use std::{fs, io::Write, os::unix::net::UnixStream};

use qga::commands::file::FileOpen;
use support::{Agent, deadline, ping, program, run};

#[test]
fn a_killed_agent_leaves_a_whole_state_file_and_uses_no_handle_twice() {
    let mut agent = Agent::start();
    fs::write(agent.path("file"), "x").unwrap();
    let open = FileOpen { path: agent.path("file").to_string_lossy().into_owned(), mode: None };
    let request = format!(r#"{{"execute":"guest-file-open","arguments":{{"path":"{}"}}}}"#, open.path);
    let mut latest = 0;
    for round in 0..20 {
        let mut client = agent.connect();
        let handle = client.call(&open, deadline()).unwrap();
        assert!(handle > latest, "{handle} after {latest}");
        latest = handle;
        // Killed in the midst of these, at another point each time.
        let mut stream = UnixStream::connect(agent.path("socket")).unwrap();
        stream.write_all(request.repeat(round * 4).as_bytes()).unwrap();
        agent.restart();
        let state = fs::read_to_string(agent.path("qga.state")).unwrap();
        let counter = state.strip_prefix("[global]\nfd_counter=").and_then(|rest| rest.strip_suffix('\n'));
        assert!(counter.unwrap().parse::<i64>().unwrap() > latest, "{state}");
    }
}

#[test]
fn an_audit_without_room_costs_nothing_else() {
    let mut agent = Agent::start();
    fs::write(agent.path("config"), "[general]\naudit-file=/dev/full\n").unwrap();
    agent.restart();
    let mut client = agent.connect();
    for _ in 0..3 {
        assert_eq!(run(&mut client, &program("/bin/true", &[])).exitcode, Some(0));
    }
    ping(&mut client);
}
