//! Jobs outlive their connection and their agent, however it ends.

use std::{os::unix::net::UnixStream, time::Instant};

use qga::{
    Client,
    commands::job::{JobForget, JobRead, JobState},
};

use super::{
    bytes, list, read_to_end, start_shell,
    support::{Agent, deadline, wait_for},
    write,
};

/// What `seq` writes.
fn numbers(last: u32) -> Vec<u8> {
    (1..=last).flat_map(|number| format!("{number}\n").into_bytes()).collect()
}

/// Reads until there are so many bytes.
fn read_some(client: &mut Client<UnixStream>, id: i64, all: &mut Vec<u8>, wanted: usize) {
    let end = deadline();
    while all.len() < wanted {
        assert!(Instant::now() < end, "only {} bytes came", all.len());
        let out_offset = i64::try_from(all.len()).unwrap();
        let request = JobRead { id, out_offset, count: Some(100_000), wait: super::LONG, ..JobRead::default() };
        all.extend(bytes(&client.call(&request, deadline()).unwrap()));
    }
}

fn check(replace: fn(&mut Agent)) {
    const LAST: u32 = 1_000_000;
    let mut agent = Agent::start();
    let mut client = agent.connect();
    let id = start_shell(&mut client, &format!("seq {LAST}; cat; exit 5"));
    let mut all = Vec::new();
    for _ in 0..3 {
        let wanted = all.len() + 1_000_000;
        read_some(&mut client, id, &mut all, wanted);
        replace(&mut agent);
        client = agent.connect();
    }
    write(&mut client, id, b"end\n", true).unwrap();
    replace(&mut agent);
    client = agent.connect();
    let (rest, end) = read_to_end(&mut client, id, i64::try_from(all.len()).unwrap());
    all.extend(rest);
    assert!(all == [numbers(LAST), b"end\n".to_vec()].concat(), "{} bytes came", all.len());
    assert_eq!((end.exit_code, list(&mut client)[0].id), (Some(5), id));
}

#[test]
fn a_job_loses_no_byte_when_its_agent_is_killed_again_and_again() {
    check(Agent::restart);
}

#[test]
fn a_job_loses_no_byte_when_its_agent_is_replaced_again_and_again() {
    check(Agent::replace);
}

#[test]
fn the_supervisor_ends_with_its_last_job_and_the_next_job_has_another() {
    let agent = Agent::start();
    let mut client = agent.connect();
    assert_eq!(agent.supervisor(), None);
    let id = start_shell(&mut client, "echo hello");
    let first = agent.supervisor().unwrap();
    read_to_end(&mut client, id, 0);
    client.call(&JobForget { id }, deadline()).unwrap();
    wait_for("the supervisor has ended", || (agent.supervisor() != Some(first)).then_some(()));
    assert_eq!(list(&mut client), []);
    let id = start_shell(&mut client, "echo again");
    assert_eq!(read_to_end(&mut client, id, 0).0, b"again\n");
    assert!(agent.supervisor().is_some_and(|second| second != first));
}

#[test]
fn when_the_supervisor_is_killed_its_jobs_are_gone_and_new_ones_can_be_started() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let id = start_shell(&mut client, "sleep 1000");
    let supervisor = nix::unistd::Pid::from_raw(agent.supervisor().unwrap());
    nix::sys::signal::kill(supervisor, nix::sys::signal::Signal::SIGKILL).unwrap();
    wait_for("the supervisor has ended", || agent.supervisor().is_none().then_some(()));
    assert_eq!(super::read(&mut client, id, 0, None).map(drop), Err(format!("job {id} does not exist")));
    let id = start_shell(&mut client, "echo again");
    assert_eq!(read_to_end(&mut client, id, 0).0, b"again\n");
}

#[test]
fn a_process_that_a_job_left_behind_is_heard_after_its_end() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let id = start_shell(&mut client, "exec 3<&0; (read line <&3; echo late) & exit 0");
    let exited = |client: &mut Client<UnixStream>| {
        let request = JobRead { id, out_offset: 0, wait: super::LONG, ..JobRead::default() };
        Some(client.call(&request, deadline()).unwrap()).filter(|output| output.state == JobState::Exited)
    };
    let output = wait_for("the program has exited", || exited(&mut client));
    assert!(!output.out_eof);
    write(&mut client, id, b"go\n", false).unwrap();
    assert_eq!(read_to_end(&mut client, id, 0).0, b"late\n");
}

#[test]
fn agents_that_share_a_state_directory_share_their_jobs() {
    let first = Agent::start();
    let second = Agent::start_beside(&first);
    // The second one has found no jobs when it started.
    let id = start_shell(&mut first.connect(), "echo hello; cat");
    assert_eq!(list(&mut second.connect())[0].id, id);
    let mut client = second.connect();
    write(&mut client, id, b"from the second", true).unwrap();
    assert_eq!(read_to_end(&mut client, id, 0).0, b"hello\nfrom the second");
}
