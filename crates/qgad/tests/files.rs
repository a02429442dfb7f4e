//! Files through the real agent: cases that need its wire format, a restart or a large amount of data.

#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

mod support;

use std::{fs, os::unix::net::UnixStream};

use qga::{
    Client,
    commands::{
        file::{FileClose, FileOpen, FileRead, FileSeek, FileWrite, MAX_READ_BYTES, ReadBytes, Whence},
        session::Nothing,
    },
};
use support::{Agent, deadline, ping, refusal};

/// Bytes in which a misplaced or lost piece is visible.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0]).collect()
}

fn open(client: &mut Client<UnixStream>, path: &std::path::Path, mode: &str) -> i64 {
    let open = FileOpen { path: path.to_str().unwrap().into(), mode: Some(mode.into()) };
    client.call(&open, deadline()).unwrap()
}

fn read(client: &mut Client<UnixStream>, handle: i64, count: usize) -> (Vec<u8>, bool) {
    let read = FileRead { handle, count: Some(count.try_into().unwrap()) };
    let ReadBytes { buf_b64, eof, .. } = client.call(&read, deadline()).unwrap();
    (buf_b64.into_bytes().unwrap(), eof)
}

#[test]
fn bytes_written_in_pieces_of_any_size_read_back_the_same() {
    let agent = Agent::start();
    let mut client = agent.connect();
    for piece in [1, 3, 4096, 65_537, 1 << 20] {
        let bytes = pattern(piece * 3 + 1);
        let path = agent.path("file");
        let handle = open(&mut client, &path, "w+");
        for part in bytes.chunks(piece) {
            let write = FileWrite { handle, buf_b64: part.to_vec().into(), count: None };
            assert_eq!(client.call(&write, deadline()).unwrap().count, i64::try_from(part.len()).unwrap());
        }
        assert!(fs::read(&path).unwrap() == bytes, "written by {piece}");
        client.call(&FileSeek { handle, offset: 0, whence: Whence::Set }, deadline()).unwrap();
        let mut received = Vec::new();
        loop {
            let (part, eof) = read(&mut client, handle, piece);
            received.extend(part);
            if eof {
                break;
            }
        }
        assert!(received == bytes, "read by {piece}");
        client.call(&FileClose { handle }, deadline()).unwrap();
    }
}

#[test]
fn the_largest_read_and_the_largest_write_succeed() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let bytes = pattern(MAX_READ_BYTES);
    let path = agent.path("file");
    fs::write(&path, &bytes).unwrap();
    let handle = open(&mut client, &path, "r");
    assert!(read(&mut client, handle, MAX_READ_BYTES) == (bytes.clone(), false));
    assert_eq!(read(&mut client, handle, MAX_READ_BYTES), (Vec::new(), true));
    let handle = open(&mut client, &agent.path("copy"), "w");
    // The largest message has 64 MiB, which includes the request's other members.
    let most = bytes[..MAX_READ_BYTES - 128].to_vec();
    let write = FileWrite { handle, buf_b64: most.clone().into(), count: None };
    client.call(&write, deadline()).unwrap();
    assert!(fs::read(agent.path("copy")).unwrap() == most);
    ping(&mut client);
}

#[test]
fn procfs_files_and_devices_can_be_read_and_written() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let handle = open(&mut client, "/proc/self/comm".as_ref(), "r");
    assert_eq!(read(&mut client, handle, MAX_READ_BYTES), (b"qgad\n".to_vec(), true));
    let handle = open(&mut client, "/dev/zero".as_ref(), "r");
    assert_eq!(read(&mut client, handle, 100_000), (vec![0; 100_000], false));
    let handle = open(&mut client, "/dev/full".as_ref(), "w");
    let write = FileWrite { handle, buf_b64: b"x".to_vec().into(), count: None };
    let full = Err("failed to write to file: No space left on device".into());
    assert_eq!(refusal(client.call(&write, deadline())), full);
    assert_eq!(client.call(&FileClose { handle }, deadline()).unwrap(), Nothing {});
}

#[test]
fn an_open_file_outlives_the_connection_and_a_restart_does_not_reuse_its_handle() {
    let mut agent = Agent::start();
    let path = agent.path("file");
    fs::write(&path, "0123456789").unwrap();
    let mut client = agent.connect();
    let handle = open(&mut client, &path, "r");
    assert_eq!(handle, 1000);
    assert_eq!(read(&mut client, handle, 4), (b"0123".to_vec(), false));
    drop(client);
    assert_eq!(read(&mut agent.connect(), handle, 4), (b"4567".to_vec(), false));
    agent.restart();
    let mut client = agent.connect();
    let gone = Err("handle '1000' has not been found".to_owned());
    assert_eq!(refusal(client.call(&FileRead { handle, count: None }, deadline())), gone);
    assert_eq!(open(&mut client, &path, "r"), 1001);
}

#[test]
fn a_peer_that_leaves_during_a_large_read_or_write_leaks_nothing() {
    use std::io::{Read, Write};
    let agent = Agent::start();
    let path = agent.path("file");
    fs::write(&path, pattern(8 << 20)).unwrap();
    let handle = open(&mut agent.connect(), &path, "r+");
    let endless = open(&mut agent.connect(), "/dev/zero".as_ref(), "r");
    let before = agent.descriptors().len();
    for _ in 0..5 {
        let mut stream = UnixStream::connect(agent.path("socket")).unwrap();
        stream.set_read_timeout(Some(support::TIMEOUT)).unwrap();
        let request =
            format!("{{'execute': 'guest-file-read', 'arguments': {{'handle': {endless}, 'count': 8388608}}}}");
        stream.write_all(request.as_bytes()).unwrap();
        stream.read_exact(&mut [0; 100_000]).unwrap();
        let mut stream = UnixStream::connect(agent.path("socket")).unwrap();
        let half = format!("{{'execute': 'guest-file-write', 'arguments': {{'handle': {handle}, 'buf-b64': 'AAAA");
        stream.write_all(half.as_bytes()).unwrap();
        stream.write_all(&[b'A'; 1_000_000]).unwrap();
    }
    let mut client = agent.connect();
    ping(&mut client);
    support::wait_for("the connections are closed", || (agent.descriptors().len() <= before + 1).then_some(()));
    assert!(fs::read(&path).unwrap() == pattern(8 << 20));
}
