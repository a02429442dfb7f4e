//! Memory that peers and programs make the real agent take: it is bounded, and comes back.
#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

mod support;

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
};

use qga::{
    commands::exec::{CaptureOutput, Exec},
    wire::base64::Base64,
};
use support::{Agent, TIMEOUT, ping, program, run, shell, start, status, wait_for};

/// What may stay after any request, in kibibytes: what an allocator keeps for itself.
const MOST_GROWTH: u64 = 8 * 1024;
const MEBIBYTE: usize = 1024 * 1024;

/// A peer that has sent this much, which the agent has read.
fn peer(agent: &Agent, beginning: &str, mebibytes: usize) -> UnixStream {
    let mut stream = UnixStream::connect(agent.path("socket")).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream.write_all(beginning.as_bytes()).unwrap();
    let piece = vec![b'x'; MEBIBYTE];
    (0..mebibytes).for_each(|_| stream.write_all(&piece).unwrap());
    stream
}

fn wait_until_memory_is_back(agent: &Agent, before: u64) {
    wait_for("the memory is given back", || (agent.resident() <= before + MOST_GROWTH).then_some(()));
}

/// Has the agent give back what is free now, by a large message that leaves more.
fn wait_until_free_memory_is_back(agent: &Agent) {
    let before = agent.resident();
    let mut stream = peer(agent, r#"{"execute":"x","arguments":""#, 60);
    stream.write_all(b"\"}").unwrap();
    assert!(stream.read(&mut [0; 64]).unwrap() > 0);
    wait_until_memory_is_back(agent, before);
}

/// Takes memory, leaves it in use for long, lets go of it, and waits until the agent has given it back.
fn check(take: impl FnOnce(&Agent) -> Vec<UnixStream>) {
    let agent = Agent::start();
    run(&mut agent.connect(), &shell("true"));
    let before = agent.resident();
    let peers = take(&agent);
    wait_for("memory is in use", || (agent.resident() >= before + 4 * MOST_GROWTH).then_some(()));
    // Which must not be the last time.
    wait_until_free_memory_is_back(&agent);
    drop(peers);
    wait_until_memory_is_back(&agent, before);
}

#[test]
fn half_messages_of_peers_that_leave_go_with_them() {
    check(|agent| (0..4).map(|_| peer(agent, r#"{"execute":""#, 60)).collect());
}

#[test]
fn replies_that_nobody_has_read_go_with_their_peer() {
    check(|agent| {
        let file = agent.path("file");
        std::fs::write(&file, vec![b'x'; 40 * MEBIBYTE]).unwrap();
        let mut stream = peer(agent, "", 0);
        write!(stream, r#"{{"execute":"guest-file-open","arguments":{{"path":"{}"}}}}"#, file.display()).unwrap();
        let mut line = [0; 64];
        let count = stream.read(&mut line).unwrap();
        let handle: String = line[..count].iter().map(|&byte| char::from(byte)).filter(char::is_ascii_digit).collect();
        let arguments = format!(r#"{{"handle":{handle},"count":{}}}"#, 40 * MEBIBYTE);
        write!(stream, r#"{{"execute":"guest-file-read","arguments":{arguments}}}"#).unwrap();
        // All of the reply is there before its first bytes are.
        assert!(stream.read(&mut line).unwrap() > 0);
        vec![stream]
    });
}

#[test]
fn a_message_that_takes_many_times_its_size_leaves_nothing() {
    let agent = Agent::start();
    let mut client = agent.connect();
    ping(&mut client);
    let before = agent.resident();
    let mut stream = peer(&agent, "", 0);
    let numbers = vec!["1"; 400_000].join(",");
    write!(stream, r#"{{"execute":"guest-ping","arguments":{{"x":[{numbers}]}}}}"#).unwrap();
    assert!(stream.read(&mut [0; 64]).unwrap() > 0);
    wait_until_memory_is_back(&agent, before);
}

#[test]
fn memory_is_given_back_although_a_host_goes_on_polling() {
    let agent = Agent::start();
    let mut client = agent.connect();
    ping(&mut client);
    let before = agent.resident();
    let mut stream = peer(&agent, r#"{"execute":"x","arguments":""#, 60);
    stream.write_all(b"\"}").unwrap();
    assert!(stream.read(&mut [0; 64]).unwrap() > 0);
    wait_for("the memory is given back", || {
        ping(&mut client);
        (agent.resident() <= before + MOST_GROWTH).then_some(())
    });
}

#[test]
fn input_that_a_program_has_read_is_gone() {
    let agent = Agent::start();
    let mut client = agent.connect();
    run(&mut client, &shell("true"));
    let before = agent.resident();
    let input_data = Some(Base64::from(vec![b'x'; 40 * MEBIBYTE]));
    let go = agent.path("go");
    let line = format!("until [ -e {} ]; do sleep 0.05; done; cat >/dev/null", go.display());
    let pid = start(&mut client, &Exec { input_data, ..shell(&line) }).unwrap();
    wait_until_free_memory_is_back(&agent);
    assert!(agent.resident() >= before + 4 * MOST_GROWTH);
    std::fs::write(go, "").unwrap();
    support::wait(&mut client, pid);
    wait_until_memory_is_back(&agent, before);
}

#[test]
fn output_that_is_kept_takes_no_more_memory_than_is_documented() {
    /// As in the documentation, in kibibytes.
    const MOST_KEPT: u64 = 128 * 1024;
    const PROGRAMS: usize = 48;
    let agent = Agent::start();
    let mut client = agent.connect();
    run(&mut client, &shell("true"));
    let before = agent.resident();
    let line = "head -c 5000000 /dev/zero & head -c 5000000 /dev/zero >&2; wait";
    let noisy = Exec { capture_output: Some(CaptureOutput::Separated), ..program("/bin/sh", &["-c", line]) };
    let pids: Vec<_> = (0..PROGRAMS).map(|_| start(&mut client, &noisy).unwrap()).collect();
    let children = || agent.children().into_iter().filter(|pid| pids.contains(pid)).count();
    wait_for("the programs have ended", || (children() == 0).then_some(()));
    let grown = agent.resident().saturating_sub(before);
    assert!(grown <= MOST_KEPT + MOST_GROWTH, "{grown} KiB more than before");
    assert!(grown >= MOST_KEPT / 2, "{grown} KiB is less than what is kept");
    for pid in pids {
        // Some were forgotten, to make room for others.
        let _ = status(&mut client, pid);
    }
    wait_until_memory_is_back(&agent, before);
}
