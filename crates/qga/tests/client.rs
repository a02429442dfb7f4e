//! The client against a scripted agent on the other end of a socket.

#![expect(clippy::unwrap_used, reason = "helpers of a test may fail it")]

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use qga::{
    Client,
    client::{Error, GuestFile, Limits, MAX_FACTS_BYTES, MAX_REPLY_BYTES, Transport},
    commands::{
        power::Shutdown,
        session::{Info, Nothing, Ping},
        system::{GetHostName, HostName},
    },
};
use serde_json::json;

/// Longest a conversation that works may take.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How long a client waits for an agent that will not answer.
const SHORT_TIMEOUT: Duration = Duration::from_millis(50);

/// What the agent does next.
enum Step {
    /// Sends bytes unasked.
    Say(Vec<u8>),
    /// Reads a request and answers it; in the answer `$ID` is the sync's number.
    Answer(Vec<u8>),
    /// Reads a request and says nothing.
    Ignore,
}
use Step::{Answer, Ignore, Say};

fn say(text: &str) -> Step {
    Say(text.into())
}

fn answer(text: &str) -> Step {
    Answer(text.into())
}

fn synced() -> Step {
    Answer(b"\xFF{\"return\": $ID}\n".to_vec())
}

/// A client, and the thread of an agent that does these steps, closes, and returns what it was sent.
fn connect(steps: Vec<Step>) -> (Client<UnixStream>, JoinHandle<Vec<u8>>) {
    let (host, agent) = serve(steps);
    (Client::new(host), agent)
}

/// The host's end of the stream instead of a client.
fn serve(steps: Vec<Step>) -> (UnixStream, JoinHandle<Vec<u8>>) {
    let (host, guest) = UnixStream::pair().unwrap();
    let agent = thread::spawn(move || {
        let mut requests = Vec::new();
        for step in steps {
            match step {
                Say(bytes) => send(&guest, &bytes),
                Ignore => requests.extend(read_line(&guest)),
                Answer(text) => {
                    let request = read_line(&guest);
                    send(&guest, &with_sync_id(&text, &request));
                    requests.extend(request);
                }
            }
        }
        requests
    });
    (host, agent)
}

/// A client that has had its fill may be gone by now.
fn send(mut guest: &UnixStream, bytes: &[u8]) {
    let _ = guest.write_all(bytes);
}

fn read_line(mut guest: &UnixStream) -> Vec<u8> {
    let mut line = Vec::new();
    let mut byte = [0];
    while line.last() != Some(&b'\n') && guest.read(&mut byte).unwrap() == 1 {
        line.push(byte[0]);
    }
    line
}

fn with_sync_id(text: &[u8], request: &[u8]) -> Vec<u8> {
    let digits: String = String::from_utf8_lossy(request).chars().filter(char::is_ascii_digit).collect();
    match text.windows(3).position(|window| window == b"$ID") {
        Some(at) => [&text[..at], digits.as_bytes(), &text[at + 3..]].concat(),
        None => text.to_vec(),
    }
}

fn soon() -> Instant {
    Instant::now() + TIMEOUT
}

/// A ping gives this after these steps.
fn check(steps: Vec<Step>, expected: Result<(), &str>) {
    let (mut client, agent) = connect(steps);
    let found = client.call(&Ping {}, soon()).map(|Nothing {}| ()).map_err(|error| error.to_string());
    drop(client);
    agent.join().unwrap();
    assert_eq!(found, expected.map_err(Into::into));
}

#[test]
fn the_first_command_follows_a_sync_with_a_sentinel_and_the_second_does_not() {
    let (mut client, agent) = connect(vec![synced(), answer("{\"return\": {}}\n"), answer("{\"return\": {}}\n")]);
    client.call(&Ping {}, soon()).unwrap();
    client.call(&Ping {}, soon()).unwrap();
    let sent = agent.join().unwrap();
    let ping = b"{\"execute\": \"guest-ping\", \"arguments\": {}}\n";
    assert!(sent.starts_with(b"\xFF{\"execute\": \"guest-sync-delimited\", \"arguments\": {\"id\": "));
    assert!(sent.ends_with(&[ping.as_slice(), ping].concat()));
}

#[test]
fn replies_are_read_into_the_commands_types() {
    let (mut client, agent) = connect(vec![
        synced(),
        answer("{\"return\": {\"host-name\": \"caf\\u00E9\", \"new\": 1}, \"id\": null}\n"),
        answer("{\"return\": {\"version\": \"7.2\", \"supported_commands\": []}}\r\n"),
        answer("{\"return\": [1.5]}\n"),
    ]);
    assert_eq!(client.call(&GetHostName {}, soon()).unwrap(), HostName { host_name: "café".into() });
    assert_eq!(client.call(&Info {}, soon()).unwrap().version, "7.2");
    assert_eq!(client.call_raw("guest-new", &serde_json::Map::new(), soon()).unwrap(), json!([1.5]));
    agent.join().unwrap();
}

#[test]
fn stale_lines_before_the_sync_reply_are_skipped() {
    check(
        vec![
            say("{\"return\": {}}\n{\"error\": {\"class\": \"GenericError\", \"desc\": \"stale\"}}\nhalf a li"),
            Answer(b"ne\n{\"error\": {}}\n\xFF{\"return\": $ID}\n".to_vec()),
            answer("{\"return\": {}}\n"),
        ],
        Ok(()),
    );
}

#[test]
fn the_sync_reply_of_another_peer_is_no_sync_reply() {
    check(
        vec![
            Say(b"\xFF{\"return\": 1}\n".to_vec()),
            Answer(b"\xFF{\"return\": -5}\n\xFF\xFF{\"return\"\xFF{\"return\": $ID}\n".to_vec()),
            answer("{\"return\": {}}\n"),
        ],
        Ok(()),
    );
}

#[test]
fn an_agents_refusal_keeps_its_class_and_its_words() {
    let (mut client, agent) = connect(vec![
        synced(),
        answer("{\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"no such thing\"}}\n"),
        answer("{\"return\": {}}\n"),
    ]);
    match client.call(&Ping {}, soon()) {
        Err(Error::Refused { class, desc }) => {
            assert_eq!((class.as_str(), desc.as_str()), ("CommandNotFound", "no such thing"));
        }
        other => panic!("{other:?}"),
    }
    client.call(&Ping {}, soon()).expect("a refusal leaves the conversation in step");
    agent.join().unwrap();
}

#[test]
fn an_answer_that_is_no_reply_is_quoted() {
    let (mut client, agent) = connect(vec![synced(), answer("login: \n")]);
    match client.call(&Ping {}, soon()) {
        Err(Error::Garbled(what)) => assert!(what.ends_with(": login: "), "{what}"),
        other => panic!("{other:?}"),
    }
    agent.join().unwrap();
}

#[test]
fn an_answer_that_is_neither_success_nor_error_is_garbled() {
    for text in ["{}", "[]", "{\"event\": \"x\"}", "{\"return\": {}, \"error\": {}}", "{\"return\": null}"] {
        let (mut client, agent) = connect(vec![synced(), answer(&format!("{text}\n"))]);
        let found = client.call_raw("guest-ping", &serde_json::Map::new(), soon());
        agent.join().unwrap();
        assert!(matches!(found, Err(Error::Garbled(_))), "{text}: {found:?}");
    }
}

#[test]
fn after_garbage_the_next_command_begins_with_a_sync() {
    let (mut client, agent) =
        connect(vec![synced(), answer("garbage\nand more\n"), synced(), answer("{\"return\": {}}\n")]);
    assert!(matches!(client.call(&Ping {}, soon()), Err(Error::Garbled(_))));
    client.call(&Ping {}, soon()).expect("the conversation is in step again");
    agent.join().unwrap();
}

#[test]
fn a_silent_agent_costs_no_more_than_the_deadline_and_its_late_reply_reaches_nobody() {
    let late = Answer(b"{\"return\": {\"host-name\": \"late\"}}\n\xFF{\"return\": $ID}\n".to_vec());
    let (mut client, agent) = connect(vec![synced(), Ignore, late, answer("{\"return\": {}}\n")]);
    client.sync(soon()).unwrap();
    let found = client.call(&GetHostName {}, Instant::now() + SHORT_TIMEOUT);
    assert!(matches!(found, Err(Error::TimedOut)), "{found:?}");
    client.call(&Ping {}, soon()).expect("the late reply is skipped");
    agent.join().unwrap();
}

/// A shutdown gives this after these steps, and what follows it works.
fn check_silent(step: Step, deadline: Instant, expected: Result<(), &str>) {
    let (mut client, agent) = connect(vec![synced(), step, synced(), answer("{\"return\": {}}\n")]);
    client.sync(soon()).unwrap();
    let found = client.call(&Shutdown { mode: None }, deadline);
    assert_eq!(found.map(|Nothing {}| ()).map_err(|error| error.to_string()), expected.map_err(Into::into));
    client.sync(soon()).unwrap();
    client.call(&Ping {}, soon()).expect("the conversation is in step again");
    agent.join().unwrap();
}

#[test]
fn a_command_whose_success_is_silent_has_succeeded_when_nothing_is_heard() {
    check_silent(Ignore, Instant::now() + SHORT_TIMEOUT, Ok(()));
    check_silent(answer("{\"return\": {}}\n"), soon(), Ok(()));
    check_silent(answer("{\"error\": {\"class\": \"GenericError\", \"desc\": \"no\"}}\n"), soon(), Err("no"));
}

#[test]
fn a_guest_that_goes_away_has_been_shut_down() {
    let (mut client, agent) = connect(vec![synced(), Ignore]);
    client.call(&Shutdown { mode: Some("halt".into()) }, soon()).unwrap();
    client.wait_for_end(soon()).unwrap();
    agent.join().unwrap();
    let (mut client, agent) = connect(vec![synced(), Ignore]);
    assert_eq!(client.call_raw("guest-suspend-disk", &serde_json::Map::new(), soon()).unwrap(), json!({}));
    agent.join().unwrap();
}

#[test]
fn a_failure_that_comes_late_ends_the_wait_for_the_end() {
    let late = say("{\"return\": 1}\n{\"error\": {\"class\": \"GenericError\", \"desc\": \"late\"}}\n");
    let (mut client, agent) = connect(vec![synced(), late]);
    client.sync(soon()).unwrap();
    let found = client.wait_for_end(soon());
    assert!(matches!(&found, Err(Error::Refused { desc, .. }) if desc == "late"), "{found:?}");
    agent.join().unwrap();
}

#[test]
fn a_deadline_that_has_passed_sends_nothing() {
    let (mut client, agent) = connect(vec![]);
    assert!(matches!(client.call(&Ping {}, Instant::now()), Err(Error::TimedOut)));
    assert_eq!(agent.join().unwrap(), b"");
}

#[test]
fn an_agent_that_is_not_read_from_costs_no_more_than_the_deadline() {
    let (host, _guest) = UnixStream::pair().unwrap();
    let large = json!({ "text": "x".repeat(16 * 1024 * 1024) });
    let found = Client::new(host).call_raw("guest-x", large.as_object().unwrap(), Instant::now() + SHORT_TIMEOUT);
    assert!(matches!(found, Err(Error::TimedOut)), "{found:?}");
}

#[test]
fn an_agent_that_goes_away_is_reported_wherever_it_does() {
    let closed = Err("the connection was closed before the agent answered");
    check(vec![], closed);
    check(vec![Ignore], closed);
    check(vec![Answer(b"\xFF{\"return".to_vec())], closed);
    check(vec![synced(), Ignore], closed);
    check(vec![synced(), answer("{\"return\": {")], closed);
}

#[test]
fn a_reply_is_bounded() {
    for (command, bytes) in [("guest-ping", MAX_FACTS_BYTES), ("guest-file-read", MAX_REPLY_BYTES)] {
        let (mut client, agent) = connect(vec![synced(), Answer(vec![b'x'; bytes + 2])]);
        let found = client.call_raw(command, &serde_json::Map::new(), soon());
        drop(client);
        agent.join().unwrap();
        let said = format!("a line of more than {bytes} bytes");
        assert!(matches!(&found, Err(Error::Garbled(what)) if *what == said), "{found:?}");
    }
}

#[test]
fn noise_without_a_sentinel_is_not_kept() {
    let noise = vec![b'x'; MAX_REPLY_BYTES + 2];
    check(vec![Say(noise), synced(), answer("{\"return\": {}}\n")], Ok(()));
}

#[test]
fn a_text_only_channel_is_brought_in_step_without_a_sentinel() {
    let (mut client, agent) =
        connect(vec![answer("{\"return\": {}}\n{\"return\": 1}\n{\"return\": $ID}\n"), answer("{\"return\": {}}\n")]);
    client.sync_undelimited(soon()).unwrap();
    client.call(&Ping {}, soon()).unwrap();
    let sent = agent.join().unwrap();
    assert!(sent.starts_with(b"{\"execute\": \"guest-sync\", \"arguments\": {\"id\": "));
}

/// A stream that carries small messages only.
struct Narrow(UnixStream);

impl Narrow {
    const LIMITS: Limits = Limits { request: 5 * 1024, reply: 9 * 1024 };
}

impl Read for Narrow {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Narrow {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.0.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Transport for Narrow {
    fn set_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.0.set_timeout(timeout)
    }

    fn limits(&self) -> Limits {
        Self::LIMITS
    }
}

#[test]
fn a_file_moves_in_pieces_that_the_channel_carries() {
    let written = |count| answer(&format!("{{\"return\": {{\"count\": {count}, \"eof\": false}}}}\n"));
    let last = answer("{\"return\": {\"count\": 0, \"buf-b64\": \"\", \"eof\": true}}\n");
    let steps =
        vec![synced(), answer("{\"return\": 7}\n"), written(3072), written(928), last, answer("{\"return\": {}}\n")];
    let (host, agent) = serve(steps);
    let mut client = Client::new(Narrow(host));
    let mut file = GuestFile::open(&mut client, "/file", "w+", TIMEOUT).unwrap();
    assert_eq!(file.piece(), 3072);
    file.write_all(&[0; 4000]).unwrap();
    assert_eq!(file.read().unwrap(), None);
    file.close().unwrap();
    let sent = String::from_utf8_lossy(&agent.join().unwrap()).into_owned();
    assert!(sent.lines().all(|line| line.len() <= Narrow::LIMITS.request), "{sent}");
    assert!(sent.contains("\"count\": 6144"), "{sent}");
}

#[test]
fn commands_that_were_sent_together_are_answered_in_their_order() {
    let host_name = "{\"return\": {\"host-name\": \"vm1\"}}\n{\"return\": {}}\n";
    let (mut client, agent) = connect(vec![synced(), Ignore, answer(host_name), answer("{\"return\": {}}\n")]);
    client.send(&GetHostName {}, soon()).unwrap();
    client.send(&Ping {}, soon()).unwrap();
    assert_eq!(client.receive::<GetHostName>(soon()).unwrap(), HostName { host_name: "vm1".into() });
    assert_eq!(client.try_receive::<Ping>().unwrap(), Some(Nothing {}));
    assert_eq!(client.call(&Ping {}, soon()).unwrap(), Nothing {});
    agent.join().unwrap();
}

#[test]
fn a_reply_that_is_not_there_as_a_whole_is_tried_for_again() {
    let (host, guest) = UnixStream::pair().unwrap();
    let mut client = Client::new(host);
    let agent = thread::spawn(move || {
        let request = read_line(&guest);
        send(&guest, &with_sync_id(b"\xFF{\"return\": $ID}\n", &request));
        read_line(&guest);
        guest
    });
    client.send(&Ping {}, soon()).unwrap();
    let guest = agent.join().unwrap();
    assert_eq!(client.try_receive::<Ping>().unwrap(), None);
    send(&guest, b"{\"return\"");
    assert_eq!(client.try_receive::<Ping>().unwrap(), None);
    send(&guest, b": {}}\n");
    assert_eq!(client.try_receive::<Ping>().unwrap(), Some(Nothing {}));
    drop(guest);
    assert!(matches!(client.try_receive::<Ping>(), Err(Error::Closed)));
}

#[test]
fn a_refusal_is_one_of_the_replies_and_what_is_none_drops_the_others() {
    let refusal = "{\"error\": {\"class\": \"GenericError\", \"desc\": \"no\"}}\n";
    let (mut client, agent) =
        connect(vec![synced(), answer(refusal), answer("[]\n"), Ignore, synced(), answer("{\"return\": {}}\n")]);
    for _ in 0..3 {
        client.send(&Ping {}, soon()).unwrap();
    }
    assert!(matches!(client.receive::<Ping>(soon()), Err(Error::Refused { .. })));
    assert!(matches!(client.receive::<Ping>(soon()), Err(Error::Garbled(_))));
    assert_eq!(client.call(&Ping {}, soon()).unwrap(), Nothing {});
    agent.join().unwrap();
}
