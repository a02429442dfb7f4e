//! The real agent when the machine or its peers fail it: killed while it writes, with nowhere left to write to, without
//! a descriptor left, and under random requests.
#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

mod support;

use std::{
    fs,
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    os::unix::net::UnixStream,
    time::{Duration, Instant, SystemTime},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use qga::commands::{
    exec::{CaptureOutput, Exec},
    file::{FileClose, FileOpen},
};
use support::{
    Agent, TIMEOUT, deadline, ping, program, random_requests, random_requests::RandomRequests, refusal, run, shell,
    start, wait, wait_for,
};

/// What an allocator may keep for itself, in kibibytes.
const MOST_GROWTH: u64 = 4096;
/// What the system says to a process that has as many descriptors as it may.
const NO_DESCRIPTOR: &str = "Too many open files";

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
    let agent = Agent::start_with("audit-file=/dev/full\n", None);
    let mut client = agent.connect();
    for _ in 0..3 {
        assert_eq!(run(&mut client, &program("/bin/true", &[])).exitcode, Some(0));
    }
    ping(&mut client);
}

#[test]
fn many_polls_and_programs_leave_memory_descriptors_and_children_as_they_were() {
    const BATCHES: usize = 500;
    const POLLS_A_BATCH: usize = 400;
    const PROGRAMS: usize = 2000;
    let polls = [
        r#"{"execute":"guest-ping"}"#,
        r#"{"execute":"guest-sync","arguments":{"id":7}}"#,
        r#"{"execute":"guest-get-time"}"#,
        r#"{"execute":"guest-exec-status","arguments":{"pid":1}}"#,
        r#"{"execute":"no-such-command"}"#,
        r#"{"execute":"guest-fsfreeze-status"}"#,
        r#"{"execute":"guest-get-load"}"#,
        r#"{"execute":"guest-ping","arguments":{"x":1}}"#,
    ];
    let batch = polls.join("").repeat(POLLS_A_BATCH / polls.len());
    let agent = Agent::start();
    let mut client = agent.connect();
    let mut peer = BufReader::new(UnixStream::connect(agent.path("socket")).unwrap());
    let mut poll = |batches: usize| {
        let mut line = Vec::new();
        for _ in 0..batches {
            peer.get_mut().write_all(batch.as_bytes()).unwrap();
            for _ in 0..POLLS_A_BATCH {
                line.clear();
                assert!(peer.read_until(b'\n', &mut line).unwrap() > 0);
            }
        }
    };
    poll(BATCHES / 10);
    assert_eq!(run(&mut client, &program("/bin/true", &[])).exitcode, Some(0));
    let (memory, descriptors) = (agent.resident(), agent.descriptors());
    poll(BATCHES);
    for _ in 0..PROGRAMS {
        assert_eq!(run(&mut client, &program("/bin/true", &[])).exitcode, Some(0));
    }
    assert_eq!(agent.descriptors(), descriptors);
    let grown = agent.resident().saturating_sub(memory);
    assert!(grown <= MOST_GROWTH, "{grown} KiB more than before");
    let tasks = fs::read_dir(format!("/proc/{}/task", agent.pid())).unwrap();
    for task in tasks {
        assert_eq!(fs::read_to_string(task.unwrap().path().join("children")).unwrap_or_default(), "");
    }
}

#[test]
fn an_agent_without_descriptors_says_so_and_goes_on_when_it_has_some() {
    let agent = Agent::start_with("", Some(40));
    let mut client = agent.connect();
    run(&mut client, &shell("true"));
    let before = agent.descriptors();

    let open = FileOpen { path: "/dev/null".into(), mode: None };
    let mut handles = Vec::new();
    let reason = loop {
        match refusal(client.call(&open, deadline())) {
            Ok(handle) => handles.push(handle),
            Err(reason) => break reason,
        }
    };
    assert_eq!(reason, format!("failed to commit persistent state to disk: {NO_DESCRIPTOR}"));
    // This one has the last descriptor, and further peers have to wait.
    let last = agent.connect();
    let mut peers = [(); 3].map(|()| UnixStream::connect(agent.path("socket")).unwrap());
    peers.iter_mut().for_each(|peer| peer.write_all(br#"{"execute":"guest-ping"}"#).unwrap());
    let reason = refusal(client.call(&open, deadline()));
    assert_eq!(reason, Err(format!("failed to open file '/dev/null' (mode: 'r'): {NO_DESCRIPTOR}")));
    let ticks = agent.ticks();
    for peer in &mut peers {
        peer.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        assert_eq!(peer.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    }
    let ticks = agent.ticks() - ticks;
    assert!(ticks < 30, "the agent has run for {ticks} ticks while nothing could be done");

    // Nothing is run that is refused, however few descriptors are missing.
    let mark = format!("echo >>{}", agent.path("runs").display());
    let mut runs = 0;
    while let Some(handle) = handles.pop() {
        for program in [shell(&mark), Exec { capture_output: Some(CaptureOutput::None), ..shell(&mark) }] {
            match start(&mut client, &program) {
                Ok(pid) => {
                    assert_eq!(wait(&mut client, pid).exitcode, Some(0));
                    runs += 1;
                }
                Err(reason) => {
                    assert_eq!(
                        reason,
                        format!("Failed to execute child process \u{201C}/bin/sh\u{201D} ({NO_DESCRIPTOR})")
                    );
                }
            }
        }
        client.call(&FileClose { handle }, deadline()).unwrap();
    }
    assert!(runs > 0);
    assert_eq!(fs::read_to_string(agent.path("runs")).unwrap(), "\n".repeat(runs));
    for peer in &mut peers {
        peer.set_read_timeout(Some(TIMEOUT)).unwrap();
        peer.read_exact(&mut [0]).unwrap();
    }
    drop((last, peers));
    wait_for("the descriptors are those from before", || (agent.descriptors() == before).then_some(()));

    let sleep = Exec { capture_output: Some(CaptureOutput::Separated), ..program("/bin/sleep", &["1000"]) };
    let mut sleeping = Vec::new();
    while let Ok(pid) = start(&mut client, &sleep) {
        sleeping.push(pid);
    }
    for query in random_requests::queries() {
        // A refusal is an answer.
        let _ = refusal(client.call_as::<serde_json::Value>(query.name, &serde_json::Map::new(), deadline()));
    }
    for pid in sleeping {
        kill(Pid::from_raw(pid.try_into().unwrap()), Signal::SIGKILL).unwrap();
        assert_eq!(wait(&mut client, pid).signal, Some(9));
    }
    wait_for("the descriptors are those from before", || (agent.descriptors() == before).then_some(()));
    assert_eq!(run(&mut client, &sleep_no_longer()).exitcode, Some(0));
}

fn sleep_no_longer() -> Exec {
    program("/bin/sleep", &["0"])
}

#[test]
fn an_agent_that_gets_random_requests_answers_and_does_nothing() {
    /// How long it is made, and until when the agent's memory may still grow.
    const DURATION: Duration = Duration::from_secs(60);
    const WARMING_UP: Duration = Duration::from_secs(10);
    const PEERS: usize = 4;
    let names: Vec<_> = random_requests::queries().map(|spec| spec.name).collect();
    let agent = Agent::start_with(
        &format!("profile=read-only\nallow-rpcs={}\nlogfile=log\naudit-file=audit\n", names.join(",")),
        None,
    );
    let seed = std::env::var("QGAD_RANDOM_SEED").map_or_else(|_| seed_of_the_day(), |seed| seed.parse().unwrap());
    println!("QGAD_RANDOM_SEED={seed} repeats these requests");
    let mut random = RandomRequests::new(seed);
    let mut client = agent.connect();
    let descriptors = agent.descriptors();
    let connect = || {
        let peer = UnixStream::connect(agent.path("socket")).unwrap();
        peer.set_nonblocking(true).unwrap();
        peer
    };
    let mut peers: Vec<_> = (0..PEERS).map(|_| connect()).collect();
    let mut answers = vec![0; 64 * 1024];
    let begin = Instant::now();
    let (mut memory, mut sent) = (None, 0);
    while begin.elapsed() < DURATION {
        let piece = random.piece();
        let index = random.below(PEERS);
        if random.once_in(8) {
            peers[index] = connect();
        }
        let (peer, reads) = (&mut peers[index], !random.once_in(4));
        // What there is no room for is left out: a peer that does not read makes half messages.
        sent += peer.write(&piece).unwrap_or(0);
        while reads && peer.read(&mut answers).is_ok_and(|count| count > 0) {}
        // In turns, so that this takes one processor and no more.
        ping(&mut client);
        if memory.is_none() && begin.elapsed() > WARMING_UP {
            memory = Some(agent.resident());
        }
    }
    println!("{sent} bytes of random requests");
    drop(peers);
    ping(&mut agent.connect());
    let most = memory.unwrap() + MOST_GROWTH;
    wait_for("the memory is what it was", || (agent.resident() <= most).then_some(()));
    wait_for("the descriptors are those from before", || (agent.descriptors() == descriptors).then_some(()));
    let log = fs::read_to_string(agent.path("log")).unwrap();
    assert!(!log.contains("a bug in the agent") && log.len() < 10_000, "{log}");
    let audit = fs::read_to_string(agent.path("audit")).unwrap();
    let outcomes =
        audit.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["outcome"].clone());
    assert!(outcomes.clone().count() > 0 && outcomes.clone().all(|outcome| outcome == "refused"), "{audit}");
}

fn seed_of_the_day() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().subsec_nanos().into()
}
