//! Jobs through the library's halves of them, on connections that break.

use std::{os::unix::net::UnixStream, time::Duration};

use qga::{
    Client,
    client::{JobEnd, JobReader, JobWriter},
    commands::job::{JobForget, JobRead, JobWrite},
};

use super::{
    list, shell,
    support::{Agent, TIMEOUT, deadline, wait_for},
};

const WAIT: Duration = Duration::from_secs(30);
const NO_WAIT: Duration = Duration::ZERO;

fn start(client: &mut Client<UnixStream>, line: &str) -> (JobReader, JobWriter) {
    client.start_job(&shell(line), deadline()).unwrap()
}

/// All that is left of the output, on each stream, and the end.
fn read_to_end(client: &mut Client<UnixStream>, reader: &mut JobReader) -> (Vec<u8>, Vec<u8>, JobEnd) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    loop {
        let output = reader.read(client, WAIT, TIMEOUT).unwrap();
        out.extend(output.out);
        err.extend(output.err);
        if let Some(end) = output.end {
            return (out, err, end);
        }
    }
}

#[test]
fn a_job_is_written_and_read_to_its_end() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let (mut reader, mut writer) = start(&mut client, "sort; echo sorted >&2; exit 3");
    let accepted = writer.write(&mut client, b"b\na\n", true, WAIT, TIMEOUT).unwrap();
    assert_eq!((accepted.count, accepted.closed), (4, true));
    let end = JobEnd { exit_code: Some(3), signal: None, timed_out: false };
    assert_eq!(read_to_end(&mut client, &mut reader), (b"a\nb\n".to_vec(), b"sorted\n".to_vec(), end));
    client.call(&JobForget { id: reader.id() }, deadline()).unwrap();
    assert_eq!(list(&mut client), []);
}

#[test]
fn a_reply_that_was_lost_costs_no_byte_and_doubles_none() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let (mut reader, mut writer) = start(&mut client, "cat");
    let id = reader.id();
    let mut all = Vec::new();
    for piece in ["first ", "second ", "third"] {
        // Both requests arrive, and nobody is there for the replies.
        client.send(&writer.request(piece.as_bytes(), false, NO_WAIT), deadline()).unwrap();
        client.send(&reader.request(NO_WAIT), deadline()).unwrap();
        wait_for("the input is accepted", || {
            let offset = list(&mut agent.connect())[0].in_offset;
            usize::try_from(offset).is_ok_and(|offset| offset == all.len() + piece.len()).then_some(())
        });
        client = agent.connect();
        let accepted = writer.write(&mut client, piece.as_bytes(), false, NO_WAIT, TIMEOUT).unwrap();
        assert_eq!(accepted.count, piece.len());
        let wanted = all.len() + piece.len();
        while all.len() < wanted {
            all.extend(reader.read(&mut client, WAIT, TIMEOUT).unwrap().out);
        }
    }
    let mut writer = JobWriter::resume(&list(&mut client)[0]);
    writer.write(&mut client, b" end", true, NO_WAIT, TIMEOUT).unwrap();
    all.extend(read_to_end(&mut client, &mut reader).0);
    assert_eq!(String::from_utf8(all).unwrap(), "first second third end");
    assert_eq!(list(&mut client)[0].id, id);
}

#[test]
fn a_write_that_is_sent_meanwhile_ends_the_wait_of_a_read() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let (mut reader, mut writer) = start(&mut client, "read line; echo $line; read line");
    client.send(&reader.request(WAIT), deadline()).unwrap();
    client.send(&writer.request(b"x\n", false, NO_WAIT), deadline()).unwrap();
    // Both are there long before the read's own wait is over, or else the deadline passes.
    let soon = std::time::Instant::now() + WAIT / 2;
    let nothing = reader.accept(client.receive::<JobRead>(soon).unwrap()).unwrap();
    assert_eq!((nothing.out, nothing.end), (Vec::new(), None));
    let accepted = writer.accept(client.receive::<JobWrite>(soon).unwrap(), 2).unwrap();
    assert_eq!(accepted.count, 2);
    assert_eq!(reader.read(&mut client, WAIT, TIMEOUT).unwrap().out, b"x\n");
}

#[test]
fn another_reader_goes_on_where_the_last_one_acknowledged() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let (mut reader, mut writer) = start(&mut client, "cat; echo end >&2");
    writer.write(&mut client, b"one ", false, WAIT, TIMEOUT).unwrap();
    let mut seen = Vec::new();
    while seen.len() < 4 {
        seen.extend(reader.read(&mut client, WAIT, TIMEOUT).unwrap().out);
    }
    reader.read(&mut client, NO_WAIT, TIMEOUT).unwrap();
    writer.write(&mut client, b"two", true, WAIT, TIMEOUT).unwrap();
    let mut second = JobReader::resume(&list(&mut client)[0]);
    let (out, err, _) = read_to_end(&mut client, &mut second);
    assert_eq!((seen, out, err), (b"one ".to_vec(), b"two".to_vec(), b"end\n".to_vec()));
}
