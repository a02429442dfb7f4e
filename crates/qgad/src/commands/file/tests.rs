use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use nix::{sys::stat::Mode, unistd::mkfifo};

use super::*;
use crate::guest::tests::guest_at;

/// A guest with its own root directory, in which the file `file` has ten digits.
struct Machine {
    guest: Guest,
    directory: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("file"), "0123456789").unwrap();
        Self { guest: guest_at(directory.path()), directory }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    fn open(&self, path: &str, mode: &str) -> std::result::Result<i64, String> {
        let open = FileOpen { path: path.into(), mode: Some(mode.into()) };
        open.run(&self.guest).map_err(|error| error.desc)
    }

    fn read(&self, handle: i64, count: i64) -> std::result::Result<(Vec<u8>, bool), String> {
        let read = FileRead { handle, count: Some(count) }.run(&self.guest).map_err(|error| error.desc)?;
        let bytes = read.buf_b64.into_bytes().unwrap();
        assert_eq!(read.count, signed(bytes.len()));
        Ok((bytes, read.eof))
    }

    fn write(&self, handle: i64, bytes: &[u8]) -> std::result::Result<i64, String> {
        let write = FileWrite { handle, buf_b64: bytes.to_vec().into(), count: None };
        write.run(&self.guest).map(|written| written.count).map_err(|error| error.desc)
    }

    fn seek(&self, handle: i64, offset: i64, whence: Whence) -> std::result::Result<i64, String> {
        let seek = FileSeek { handle, offset, whence };
        seek.run(&self.guest).map(|sought| sought.position).map_err(|error| error.desc)
    }

    fn close(&self, handle: i64) -> std::result::Result<Nothing, String> {
        FileClose { handle }.run(&self.guest).map_err(|error| error.desc)
    }
}

#[test]
fn handles_count_from_a_thousand_and_are_not_reused() {
    let machine = Machine::new();
    assert_eq!(machine.open("/file", "r"), Ok(1000));
    assert_eq!(machine.close(1000), Ok(Nothing {}));
    assert_eq!(machine.open("/file", "r"), Ok(1001));
    let gone = "handle '1000' has not been found";
    assert_eq!(machine.close(1000), Err(gone.into()));
    assert_eq!(machine.read(1000, -1), Err(gone.into()));
    assert_eq!(machine.seek(1000, 0, Whence::Unknown(9)), Err(gone.into()));
    let write = FileWrite { handle: 1000, buf_b64: qga::wire::base64::Base64::decode(b"!"), count: Some(-1) };
    assert_eq!(write.run(&machine.guest), Err(Error::generic(gone)));
}

#[test]
fn a_file_that_gets_no_handle_keeps_its_contents() {
    let machine = Machine::new();
    let blocker = machine.path("qga.state.new");
    fs::create_dir(&blocker).unwrap();
    for mode in ["w", "w+"] {
        let refusal = "failed to commit persistent state to disk: Is a directory";
        assert_eq!(machine.open("/file", mode), Err(refusal.into()));
        assert_eq!(fs::read(machine.path("file")).unwrap(), b"0123456789");
    }
    fs::remove_dir(&blocker).unwrap();
    machine.open("/file", "w").unwrap();
    assert_eq!(fs::read(machine.path("file")).unwrap(), b"");
}

#[test]
fn modes_are_those_of_fopen() {
    let machine = Machine::new();
    let modes =
        ["r", "rb", "r+", "rb+", "r+b", "a", "ab", "a+", "ab+", "a+b", "w", "wb", "w+", "wb+", "w+b"].into_iter();
    for mode in modes {
        assert!(machine.open("/file", mode).is_ok(), "{mode}");
    }
    for mode in ["", "rw", "wx", "rt", "R", "+r", "rbb", "r++", "r\n"] {
        assert_eq!(machine.open("/file", mode), Err(format!("invalid file open mode '{mode}'")));
    }
}

#[test]
fn an_open_that_fails_gives_the_reason() {
    let machine = Machine::new();
    let check = |path: &str, mode: &str, why: &str| {
        let expected = format!("failed to open file '{path}' (mode: '{mode}'): {why}");
        assert_eq!(machine.open(path, mode), Err(expected));
    };
    mkfifo(&machine.path("pipe"), Mode::S_IRWXU).unwrap();
    std::os::unix::fs::symlink("/nowhere", machine.path("dangling")).unwrap();
    check("/none", "r", "No such file or directory");
    check("/none", "r+", "No such file or directory");
    check("", "r", "No such file or directory");
    check("/", "w", "Is a directory");
    check("/file/below", "w", "Not a directory");
    check("/dangling", "w", "No such file or directory");
    check("/pipe", "w", "No such device or address");
    check("/a\nb", "r", "No such file or directory");
    check("/a\0b", "w", "the path has a NUL in it");
    check(&format!("/{}", "x".repeat(5000)), "w", "File name too long");
}

#[test]
fn a_new_file_is_0644_and_an_old_one_keeps_its_permissions() {
    let machine = Machine::new();
    let permissions = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    machine.open("/new", "w").unwrap();
    assert_eq!(permissions(&machine.path("new")), 0o644);
    fs::set_permissions(machine.path("file"), fs::Permissions::from_mode(0o600)).unwrap();
    machine.open("/file", "a").unwrap();
    assert_eq!(permissions(&machine.path("file")), 0o600);
}

#[test]
fn the_read_that_reaches_the_end_reports_it() {
    let machine = Machine::new();
    let handle = machine.open("/file", "r").unwrap();
    assert_eq!(machine.read(handle, 4), Ok((b"0123".into(), false)));
    assert_eq!(machine.read(handle, 6), Ok((b"456789".into(), false)));
    assert_eq!(machine.read(handle, 6), Ok((b"".into(), true)));
    assert_eq!(machine.read(handle, 0), Ok((b"".into(), false)));
    fs::write(machine.path("file"), "0123456789 and more").unwrap();
    assert_eq!(machine.read(handle, 100), Ok((b" and more".into(), true)));
}

#[test]
fn counts_are_within_their_limits() {
    let machine = Machine::new();
    let handle = machine.open("/file", "r+").unwrap();
    for count in [-1, 10_000_000_000, 50_331_649, i64::MIN, i64::MAX] {
        assert_eq!(machine.read(handle, count), Err(format!("value '{count}' is invalid for argument count")));
    }
    assert_eq!(machine.read(handle, 50_331_648), Ok((b"0123456789".into(), true)));
    let write = |count| {
        let write = FileWrite { handle, buf_b64: b"abc".to_vec().into(), count: Some(count) };
        write.run(&machine.guest).map(|written| written.count)
    };
    assert_eq!(write(2), Ok(2));
    assert_eq!(write(0), Ok(0));
    for count in [-1, 4] {
        assert_eq!(write(count), Err(Error::generic(format!("value '{count}' is invalid for argument count"))));
    }
    assert_eq!(fs::read(machine.path("file")).unwrap(), b"0123456789ab");
}

#[test]
fn invalid_base64_is_reported_before_an_invalid_count() {
    let machine = Machine::new();
    let handle = machine.open("/file", "w").unwrap();
    let write = FileWrite { handle, buf_b64: qga::wire::base64::Base64::decode(b"YWJj\r\n"), count: Some(-1) };
    assert_eq!(write.run(&machine.guest), Err(Error::generic("Base64 data contains invalid characters")));
}

#[test]
fn reading_and_writing_share_one_position() {
    let machine = Machine::new();
    let handle = machine.open("/file", "r+").unwrap();
    assert_eq!(machine.read(handle, 3), Ok((b"012".into(), false)));
    assert_eq!(machine.write(handle, b"X"), Ok(1));
    assert_eq!(machine.read(handle, 3), Ok((b"456".into(), false)));
    assert_eq!(machine.seek(handle, 0, Whence::Current), Ok(7));
    assert_eq!(fs::read(machine.path("file")).unwrap(), b"012X456789");
}

#[test]
fn appending_moves_the_position_to_the_end_for_writes_only() {
    let machine = Machine::new();
    let handle = machine.open("/file", "a+").unwrap();
    assert_eq!(machine.read(handle, 3), Ok((b"012".into(), false)));
    assert_eq!(machine.write(handle, b"X"), Ok(1));
    assert_eq!(machine.seek(handle, 0, Whence::Current), Ok(11));
    assert_eq!(machine.seek(handle, 0, Whence::Set), Ok(0));
    assert_eq!(machine.write(handle, b"Y"), Ok(1));
    assert_eq!(fs::read(machine.path("file")).unwrap(), b"0123456789XY");
}

#[test]
fn reading_or_writing_a_file_not_opened_for_it_is_an_error() {
    let machine = Machine::new();
    let handle = machine.open("/file", "r").unwrap();
    assert_eq!(machine.write(handle, b"x"), Err("failed to write to file: Bad file descriptor".into()));
    let handle = machine.open("/file", "a").unwrap();
    assert_eq!(machine.read(handle, 1), Err("failed to read file: Bad file descriptor".into()));
    let handle = machine.open("/", "r").unwrap();
    assert_eq!(machine.read(handle, 1), Err("failed to read file: Is a directory".into()));
}

#[test]
fn a_position_may_be_beyond_the_end_and_not_before_the_beginning() {
    const FIVE_GIB: i64 = 5 << 30;
    let machine = Machine::new();
    let handle = machine.open("/file", "r+").unwrap();
    assert_eq!(machine.seek(handle, FIVE_GIB, Whence::Set), Ok(FIVE_GIB));
    assert_eq!(machine.read(handle, 1), Ok((b"".into(), true)));
    assert_eq!(machine.write(handle, b"x"), Ok(1));
    assert_eq!(machine.seek(handle, -1, Whence::End), Ok(FIVE_GIB));
    assert_eq!(machine.read(handle, 4), Ok((b"x".into(), true)));
    let invalid = Err("failed to seek file: Invalid argument".to_owned());
    assert_eq!(machine.seek(handle, -1, Whence::Set), invalid);
    assert_eq!(machine.seek(handle, i64::MIN, Whence::Current), invalid);
    assert_eq!(machine.seek(handle, 0, Whence::Unknown(9)), Err("invalid whence code 9".into()));
}

#[test]
fn a_pipe_without_data_loses_nothing() {
    let machine = Machine::new();
    mkfifo(&machine.path("pipe"), Mode::S_IRWXU).unwrap();
    let reader = machine.open("/pipe", "r").unwrap();
    assert_eq!(machine.read(reader, 10), Ok((b"".into(), true)), "nobody writes yet");
    let writer = machine.open("/pipe", "w").unwrap();
    let empty = Err("failed to read file: Resource temporarily unavailable".to_owned());
    assert_eq!(machine.read(reader, 10).map(|_| ()), empty);
    assert_eq!(machine.write(writer, b"abc"), Ok(3));
    assert_eq!(machine.read(reader, 10), Ok((b"abc".into(), false)));
    assert_eq!(machine.seek(reader, 0, Whence::Set), Err("failed to seek file: Illegal seek".into()));
}

#[test]
fn a_write_to_a_pipe_is_as_long_as_there_is_room() {
    let machine = Machine::new();
    mkfifo(&machine.path("pipe"), Mode::S_IRWXU).unwrap();
    let reader = machine.open("/pipe", "r").unwrap();
    let writer = machine.open("/pipe", "w").unwrap();
    let sent: Vec<u8> = (0..=255).cycle().take(1_000_000).collect();
    let taken = machine.write(writer, &sent).unwrap();
    assert!((1..1_000_000).contains(&taken), "{taken}");
    let full = Err("failed to write to file: Resource temporarily unavailable".to_owned());
    assert_eq!(machine.write(writer, b"x"), full);
    let (received, _) = machine.read(reader, 1_000_000).unwrap();
    assert_eq!(received, sent[..usize::try_from(taken).unwrap()]);
}

#[test]
fn the_number_of_open_files_is_bounded() {
    let machine = Machine::new();
    let handles: Vec<_> = (0..MAX_OPEN_FILES).map(|_| machine.open("/file", "r").unwrap()).collect();
    let refused = "failed to open file '/new' (mode: 'w'): 256 files are open already";
    assert_eq!(machine.open("/new", "w"), Err(refused.into()));
    assert!(!machine.path("new").exists());
    machine.close(handles[0]).unwrap();
    assert!(machine.open("/new", "w").is_ok());
}
