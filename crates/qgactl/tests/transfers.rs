//! pull, push and cat: what arrives, what is compared, and what is left behind when it goes wrong.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

mod support;

use std::{
    fs,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Command, Stdio},
    sync::mpsc::{self, Receiver},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use qga::wire::base64::Base64;
use serde_json::{Value, json};
use support::{Agent, finish, start_through};

/// Several pieces of growing size, and an odd rest.
const BYTES: usize = 9_000_001;

const TIMEOUT: Duration = Duration::from_secs(30);

fn contents() -> Vec<u8> {
    (0..BYTES).map(|index| ((index % 251) ^ (index / 65536)).to_le_bytes()[0]).collect()
}

/// What a file of the scripted agent's does.
#[derive(Clone, Copy, PartialEq)]
enum Quirk {
    /// Nothing unusual.
    None,
    /// Refuses pieces above 16 KiB, with several lines as for a message it could not read.
    SmallPieces,
    /// Takes one byte at most of each write.
    ShortWrites,
    /// Hands over more than was asked for.
    TooMuch,
    /// Hands over nothing, without an end.
    Stuck,
    /// Another hash than that of the contents.
    Damaged,
    /// Never ends, and says so by its size.
    Endless,
    /// Has always more, and a size that it had in the beginning, and another one at the end.
    Grows,
    /// Says nothing to a second read.
    Mute,
}

/// An agent with one file, and word of what it is asked.
fn with_file(contents: &[u8], quirk: Quirk) -> (Agent, Receiver<String>) {
    let mut contents = contents.to_vec();
    let (mut position, mut reads) = (0, 0);
    let (tell, told) = mpsc::channel();
    let agent = Agent::scripted(move |request| {
        let command = request["execute"].as_str().unwrap().to_owned();
        tell.send(command.clone()).ok();
        let arguments = &request["arguments"];
        let number = |name: &str| usize::try_from(arguments[name].as_i64().unwrap()).unwrap();
        let too_large = "{\"error\": {\"class\": \"GenericError\", \"desc\": \"too large\"}}\n".repeat(3);
        let reply = match command.as_str() {
            "guest-file-open" => {
                if arguments["mode"] == "w" {
                    contents.clear();
                }
                (position, reads) = (0, 0);
                json!(1000)
            }
            "guest-file-seek" => {
                let size = match quirk {
                    Quirk::Endless => usize::MAX / 4,
                    Quirk::Grows if reads > 0 => contents.len() + 5,
                    _ => contents.len(),
                };
                position = number("offset") + if arguments["whence"] == 2 { size } else { 0 };
                json!({"position": position, "eof": false})
            }
            "guest-file-read" => {
                let asked = number("count");
                reads += 1;
                if quirk == Quirk::SmallPieces && asked > 16384 {
                    return Some(too_large.trim_end().into());
                }
                if quirk == Quirk::Mute && reads > 1 {
                    return None;
                }
                let bytes = match quirk {
                    Quirk::TooMuch => vec![0; asked + 1],
                    Quirk::Stuck => Vec::new(),
                    Quirk::Endless | Quirk::Grows => vec![0; asked],
                    _ => contents[position..contents.len().min(position + asked)].to_vec(),
                };
                position += bytes.len();
                let eof = bytes.len() < asked && quirk != Quirk::Stuck;
                json!({"count": bytes.len(), "buf-b64": Base64::from(bytes), "eof": eof})
            }
            "guest-file-write" => {
                let text = arguments["buf-b64"].as_str().unwrap();
                let mut bytes = Base64::decode(text.as_bytes()).into_bytes().unwrap();
                if quirk == Quirk::SmallPieces && bytes.len() > 16384 {
                    return Some(too_large.trim_end().into());
                }
                if quirk == Quirk::ShortWrites {
                    bytes.truncate(1);
                }
                contents.truncate(position);
                contents.extend_from_slice(&bytes);
                position = contents.len();
                json!({"count": bytes.len(), "eof": false})
            }
            "guest-exec" => json!({"pid": 1}),
            "guest-exec-status" => {
                let hash = if quirk == Quirk::Damaged { "0".repeat(64) } else { sha256(&contents) };
                let line = Base64::from(format!("{hash}  file\n").into_bytes());
                json!({"exited": true, "exitcode": 0, "out-data": line})
            }
            _ => json!({}),
        };
        Some(json!({ "return": reply }).to_string())
    });
    (agent, told)
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An empty directory for what is pulled, inside the agent's.
fn local(agent: &Agent) -> std::path::PathBuf {
    let directory = agent.directory().join("local");
    fs::create_dir(&directory).unwrap();
    directory
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[track_caller]
fn check_nothing_is_left(directory: &Path) {
    let left: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_file_goes_in_and_comes_out_unchanged() {
    for agent in Agent::each(&[]) {
        let (source, guest) = (agent.directory().join("source"), agent.directory().join("guest"));
        let copy = local(&agent);
        fs::write(&source, contents()).unwrap();
        agent.qgactl(&["push", text(&source), text(&guest)]).check(0, "pushed 9000001 bytes; SHA-256 matches");
        assert!(fs::read(&guest).unwrap() == contents());
        agent.qgactl(&["pull", text(&guest), text(&copy)]).check(0, "pulled 9000001 bytes; SHA-256 matches");
        assert!(fs::read(copy.join("guest")).unwrap() == contents());
        let outcome = agent.qgactl(&["cat", text(&guest)]);
        assert!((outcome.status, outcome.stderr.as_str()) == (0, "") && outcome.stdout == contents());
    }
}

#[test]
fn an_empty_file_goes_in_and_comes_out_empty() {
    for agent in Agent::each(&[]) {
        let (source, guest) = (agent.directory().join("source"), agent.directory().join("a \\ name\n"));
        let copy = local(&agent).join("copy");
        fs::write(&source, "").unwrap();
        agent.qgactl(&["push", text(&source), text(&guest)]).check(0, "pushed 0 bytes; SHA-256 matches");
        agent.qgactl(&["pull", text(&guest), text(&copy)]).check(0, "pulled 0 bytes; SHA-256 matches");
        assert_eq!(fs::read(copy).unwrap(), b"");
    }
}

#[test]
fn where_the_guest_runs_no_programs_the_sizes_are_compared() {
    for agent in Agent::each(&["-b", "guest-exec"]) {
        let (source, guest) = (agent.directory().join("source"), agent.directory().join("guest"));
        let copy = local(&agent).join("copy");
        fs::write(&source, "some text").unwrap();
        let said = "9 bytes; only the size was compared: the agent does not run programs";
        agent.qgactl(&["push", text(&source), text(&guest)]).check(0, said);
        agent.qgactl(&["pull", text(&guest), text(&copy)]).check(0, said);
        assert_eq!(fs::read(copy).unwrap(), b"some text");
    }
}

#[test]
fn a_file_that_the_kernel_makes_up_comes_out() {
    for agent in Agent::each(&[]) {
        let copy = local(&agent);
        agent.qgactl(&["pull", "/proc/version", text(&copy)]).check(0, "not compared: the guest tells no size");
        assert_eq!(fs::read(copy.join("version")).unwrap(), fs::read("/proc/version").unwrap());
    }
}

#[test]
fn of_a_file_that_grows_without_end_comes_what_it_had_when_it_was_opened() {
    let (agent, _) = with_file(&contents(), Quirk::Grows);
    let copy = local(&agent).join("copy");
    agent.qgactl(&["pull", "/x", text(&copy)]).check(1, "9000001 bytes were transferred, but the file has 9000006");
    assert!(!copy.exists());
    let said = "pulled 9000001 bytes; not compared; the file has grown to 9000006 bytes since";
    agent.qgactl(&["pull", "--no-check", "/x", text(&copy)]).check(0, said);
    assert_eq!(fs::metadata(&copy).unwrap().len(), 9_000_001);
}

#[test]
fn a_device_that_never_ends_fills_no_disk() {
    for agent in Agent::each(&[]) {
        let copy = local(&agent);
        agent
            .qgactl(&["pull", "/dev/zero", text(&copy)])
            .check(1, "/dev/zero has no size, and does not end within 64 MiB (qgactl cat has no limit)");
        check_nothing_is_left(&copy);
    }
}

#[test]
fn what_cannot_be_opened_leaves_nothing() {
    for agent in Agent::each(&[]) {
        let copy = local(&agent);
        agent.qgactl(&["pull", "/nonexistent", text(&copy)]).check(1, "failed to open file '/nonexistent'");
        agent.qgactl(&["pull", "/etc", text(&copy)]).check(1, "Is a directory");
        agent.qgactl(&["push", "/nonexistent", "/x"]).check(1, "failed to read /nonexistent");
        agent.qgactl(&["push", "/etc", "/x"]).check(1, "Is a directory");
        agent.qgactl(&["cat", "/nonexistent"]).check(1, "failed to open file '/nonexistent'");
        check_nothing_is_left(&copy);
    }
}

#[test]
fn a_disk_without_room_in_the_guest_is_said_with_what_it_means() {
    for agent in Agent::each(&[]) {
        let source = agent.directory().join("source");
        fs::write(&source, contents()).unwrap();
        let outcome = agent.qgactl(&["push", text(&source), "/dev/full"]);
        outcome.check(1, "No space left on device");
        outcome.check(1, "/dev/full is incomplete in the guest");
    }
}

#[test]
fn pieces_that_are_refused_are_tried_again_smaller() {
    let (agent, _) = with_file(&contents(), Quirk::SmallPieces);
    let copy = local(&agent).join("copy");
    agent.qgactl(&["pull", "/x", text(&copy)]).check(0, "pulled 9000001 bytes; SHA-256 matches");
    agent.qgactl(&["push", text(&copy), "/x"]).check(0, "pushed 9000001 bytes; SHA-256 matches");
}

#[test]
fn writes_that_come_short_are_continued() {
    let (agent, _) = with_file(b"", Quirk::ShortWrites);
    let source = local(&agent).join("source");
    fs::write(&source, "letter by letter").unwrap();
    agent.qgactl(&["push", text(&source), "/x"]).check(0, "pushed 16 bytes; SHA-256 matches");
}

#[test]
fn an_agent_that_hands_over_too_much_or_nothing_is_not_believed() {
    for (quirk, said) in [(Quirk::TooMuch, "asked for"), (Quirk::Stuck, "not the end")] {
        let (agent, _) = with_file(b"contents", quirk);
        let copy = local(&agent);
        agent.qgactl(&["pull", "/x", text(&copy)]).check(6, said);
        check_nothing_is_left(&copy);
    }
}

#[test]
fn a_copy_with_another_hash_is_not_kept_unless_wanted() {
    let (agent, _) = with_file(b"contents", Quirk::Damaged);
    let copy = local(&agent).join("copy");
    fs::write(&copy, "before").unwrap();
    agent.qgactl(&["pull", "/x", text(&copy)]).check(1, "another SHA-256");
    assert_eq!(fs::read(&copy).unwrap(), b"before");
    agent.qgactl(&["push", text(&copy), "/x"]).check(1, "the copy is damaged");
    agent.qgactl(&["pull", "--no-check", "/x", text(&copy)]).check(0, "not compared");
    assert_eq!(fs::read(&copy).unwrap(), b"before", "what was pushed");
}

#[test]
fn a_transfer_closes_its_handle_also_when_it_fails() {
    let (agent, told) = with_file(b"contents", Quirk::TooMuch);
    agent.qgactl(&["cat", "/x"]).check(6, "");
    let commands: Vec<_> = told.try_iter().collect();
    assert_eq!(commands.last().map(String::as_str), Some("guest-file-close"), "{commands:?}");
}

#[test]
fn what_is_not_a_regular_file_is_not_replaced() {
    let (agent, _) = with_file(b"contents", Quirk::None);
    agent.qgactl(&["pull", "/x", "/dev/null"]).check(1, "exists and is not a regular file");
}

/// Pulls until the agent has been read from, interrupts, and checks how that ended.
fn check_interrupted(quirk: Quirk, signal: Signal, closes: bool) {
    let (agent, told) = with_file(&contents(), quirk);
    let copy = local(&agent);
    let mut process = Command::new(env!("CARGO_BIN_EXE_qgactl"))
        .arg("--socket")
        .arg(agent.socket())
        .args(["pull", "/x"])
        .arg(&copy)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let reads = || told.recv_timeout(TIMEOUT).unwrap() == "guest-file-read";
    while !reads() {}
    while !reads() {}
    kill(Pid::from_raw(process.id().try_into().unwrap()), signal).unwrap();
    let begin = Instant::now();
    let status = loop {
        if let Some(status) = process.try_wait().unwrap() {
            break status;
        }
        assert!(begin.elapsed() < TIMEOUT, "it goes on");
        std::thread::sleep(Duration::from_millis(5));
    };
    assert_eq!((status.code(), status.signal()), (Some(128 + signal as i32), None));
    check_nothing_is_left(&copy);
    assert_eq!(told.try_iter().any(|command| command == "guest-file-close"), closes);
}

#[test]
fn a_signal_that_is_ignored_from_the_beginning_stays_so() {
    let (agent, told) = with_file(&contents(), Quirk::Endless);
    let copy = local(&agent);
    let process = start_through(&["env", "--ignore-signal=HUP"], &agent.socket(), &["pull", "/x", text(&copy)]);
    let pid = Pid::from_raw(process.id().try_into().unwrap());
    let wait_for_reads = |count| {
        let commands = std::iter::from_fn(|| told.recv_timeout(TIMEOUT).ok());
        assert_eq!(commands.filter(|command| command == "guest-file-read").take(count).count(), count);
    };
    wait_for_reads(2);
    kill(pid, Signal::SIGHUP).unwrap();
    // One may have been asked for before the signal.
    wait_for_reads(3);
    kill(pid, Signal::SIGTERM).unwrap();
    finish(process).check(143, "interrupted");
    check_nothing_is_left(&copy);
}

#[test]
fn an_interrupted_transfer_leaves_nothing_on_either_side() {
    check_interrupted(Quirk::Endless, Signal::SIGINT, true);
}

#[test]
fn an_interrupted_transfer_leaves_nothing_on_the_host_when_the_agent_is_silent() {
    check_interrupted(Quirk::Mute, Signal::SIGTERM, false);
}

#[test]
fn the_scripted_agent_is_a_fair_one() {
    let (agent, _) = with_file(&contents(), Quirk::None);
    let outcome = agent.qgactl(&["cat", "/x"]);
    assert!(outcome.stdout == contents(), "{}", outcome.stderr);
    let _: Value = serde_json::from_str(&agent.qgactl(&["call", "guest-x"]).success()).unwrap();
}

#[test]
fn a_pipe_is_read_to_its_end_and_not_compared() {
    for agent in Agent::each(&[]) {
        let pipe = agent.directory().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let copy = local(&agent).join("copy");
        agent.qgactl(&["pull", text(&pipe), text(&copy)]).check(0, "pulled 0 bytes; not compared");
        assert_eq!(fs::read(copy).unwrap(), b"");
    }
}
