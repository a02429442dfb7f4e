//! Files, by handles.
//!
//! Everything is opened non-blocking. Without data or room, a command returns at once, with what it has read or written
//! until then. Nothing is buffered: bytes that a write reports are with the kernel. Reading, writing and seeking share
//! one position, so that changing between them needs no flush.
//! A new file has mode 0644, independent of the agent's umask, and nobody can open it before it has.
//! An open that fails leaves a file's contents unchanged.
//! A write that fails half-way reports the failure, not the part; the file's position shows how far it got.

use std::{
    fs::File,
    io::{self, Write},
    path::Path,
    sync::Arc,
    time::Instant,
};

use nix::{
    fcntl::OFlag,
    sys::stat::{Mode, fchmod},
    unistd,
};
use qga::{
    Command,
    commands::{
        file::{
            DEFAULT_READ_BYTES, FileClose, FileFlush, FileOpen, FilePosition, FileRead, FileSeek, FileWrite,
            MAX_READ_BYTES, ReadBytes, Whence, WrittenBytes,
        },
        session::Nothing,
    },
    wire::message::Error,
};

use super::{Result, Run};
use crate::{
    guest::Guest,
    logging::audit,
    open_files::{Idle, MAX_IDLE, MAX_OPEN_FILES, Room},
    policy::{AllowedPath, refused_by},
    storage::lookup::Lookup,
    sys,
    util::{errno, in_use::Use},
};

/// Most bytes that the I/O thread reads from the page cache: half a millisecond in which no other peer is served.
const MAX_INLINE_READ_BYTES: usize = 1024 * 1024;
/// Permissions of a new file.
const NEW_FILE_MODE: u32 = 0o644;

impl Run for FileOpen {
    fn run(self, guest: &Guest) -> Result<i64> {
        let mode = self.mode.as_deref().unwrap_or("r");
        let flags = flags(mode).ok_or_else(|| Error::generic(format!("invalid file open mode '{mode}'")))?;
        let failed = |why: &str| Error::generic(format!("failed to open file '{}' (mode: '{mode}'): {why}", self.path));
        let failed_by = |error| Error { refused: refused_by(&error), ..failed(&errno::describe(error)) };
        if self.path.contains('\0') {
            return Err(failed("the path has a NUL in it"));
        }
        let command = guest.begin_use(&Self::SPEC);
        if !make_room(guest, &command) {
            return Err(failed(&format!("{MAX_OPEN_FILES} files are open already")));
        }
        let path = Path::new(&self.path);
        let resource =
            Lookup::new(&guest.root).follow(path, &command).map_err(|error| failed(&errno::describe(error)))?;
        let path = guest.policy.path(&guest.root, path, flags);
        // Truncated after a handle is certain, so that an open that fails leaves the contents.
        let truncates = flags.contains(OFlag::O_TRUNC);
        let file = path.and_then(|path| open(&path, flags.difference(OFlag::O_TRUNC))).map_err(failed_by)?;
        let handle = guest.state.take_handle()?;
        if truncates {
            truncate(&file).map_err(failed_by)?;
        }
        guest.files.insert(handle, file, resource);
        Ok(handle)
    }

    fn audit_subject(&self) -> Option<String> {
        Some(format!("{} (mode: '{}')", audit::path(&self.path), audit::path(self.mode.as_deref().unwrap_or("r"))))
    }
}

impl Run for FileClose {
    fn run(self, guest: &Guest) -> Result<Nothing> {
        let command = guest.begin_use(&Self::SPEC);
        command
            .turn_to(guest.files.resource(self.handle)?)
            .map_err(|error| failure("failed to close handle", error))?;
        let file = guest.files.remove(self.handle)?;
        // If another command still uses the file, that one closes it, and a failure cannot be reported.
        if let Some(file) = Arc::into_inner(file) {
            unistd::close(file).map_err(|error| failure("failed to close handle", error))?;
        }
        Ok(Nothing {})
    }
}

impl Run for FileRead {
    fn run(self, guest: &Guest) -> Result<ReadBytes> {
        let file = guest.files.get(self.handle)?;
        let command = guest.begin_use(&Self::SPEC);
        command.turn_to(guest.files.resource(self.handle)?).map_err(|error| failure("failed to read file", error))?;
        let count = match self.count {
            None => DEFAULT_READ_BYTES,
            Some(count) => checked_count(count, MAX_READ_BYTES)?,
        };
        read(&file, count).map_err(|error| failure("failed to read file", error))
    }

    /// Most reads are served from the page cache, where a small piece takes less time than a switch of threads.
    fn run_inline(&self, guest: &Guest) -> Option<Result<ReadBytes>> {
        let count = checked_count(self.count.unwrap_or(signed(DEFAULT_READ_BYTES)), MAX_INLINE_READ_BYTES).ok()?;
        guest.files.with_unused(self.handle, |file| read_cached(file, count)).map(Ok)
    }
}

impl Run for FileWrite {
    fn run(self, guest: &Guest) -> Result<WrittenBytes> {
        let file = guest.files.get(self.handle)?;
        let command = guest.begin_use(&Self::SPEC);
        command
            .turn_to(guest.files.resource(self.handle)?)
            .map_err(|error| failure("failed to write to file", error))?;
        let bytes = self.buf_b64.into_bytes()?;
        let count = match self.count {
            None => bytes.len(),
            Some(count) => checked_count(count, bytes.len())?,
        };
        let written = write(&file, &bytes[..count]).map_err(|error| failure("failed to write to file", error))?;
        Ok(WrittenBytes { count: signed(written), eof: false })
    }
}

impl Run for FileSeek {
    fn run(self, guest: &Guest) -> Result<FilePosition> {
        let file = guest.files.get(self.handle)?;
        let command = guest.begin_use(&Self::SPEC);
        command.turn_to(guest.files.resource(self.handle)?).map_err(|error| failure("failed to seek file", error))?;
        let whence = match self.whence {
            Whence::Set => unistd::Whence::SeekSet,
            Whence::Current => unistd::Whence::SeekCur,
            Whence::End => unistd::Whence::SeekEnd,
            Whence::Unknown(code) => return Err(Error::generic(format!("invalid whence code {code}"))),
        };
        let position =
            unistd::lseek64(&file, self.offset, whence).map_err(|error| failure("failed to seek file", error))?;
        Ok(FilePosition { position, eof: false })
    }
}

impl Run for FileFlush {
    fn run(self, guest: &Guest) -> Result<Nothing> {
        guest.files.get(self.handle).map(|_| Nothing {})
    }
}

/// Whether one more file may be opened. If too many are open, an idle one is closed for it.
fn make_room(guest: &Guest, command: &Use<'_>) -> bool {
    match guest.files.make_room(Instant::now(), |resource| guest.in_use.check(resource).is_ok()) {
        Room::Free => true,
        Room::None => false,
        Room::AfterClosing(Idle { handle, file, resource }) => {
            log::warn!(
                "handle {handle} is closed: {MAX_OPEN_FILES} files are open, and it was not used for {MAX_IDLE:?}"
            );
            // Refused only if it has become overdue since. Closing it may wait for a disk.
            let _ = command.turn_to(resource);
            drop(file);
            true
        }
    }
}

/// The flags of a mode of fopen(3).
fn flags(mode: &str) -> Option<OFlag> {
    Some(match mode {
        "r" | "rb" => OFlag::O_RDONLY,
        "w" | "wb" => OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC,
        "a" | "ab" => OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_APPEND,
        "r+" | "rb+" | "r+b" => OFlag::O_RDWR,
        "w+" | "wb+" | "w+b" => OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_TRUNC,
        "a+" | "ab+" | "a+b" => OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_APPEND,
        _ => return None,
    })
}

fn open(path: &AllowedPath<'_>, flags: OFlag) -> io::Result<File> {
    let flags = flags | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    if flags.contains(OFlag::O_CREAT) {
        // Created with mode 0, so that nobody opens it before it has its mode.
        match path.open(flags | OFlag::O_EXCL) {
            Ok(file) => {
                if let Err(error) = fchmod(&file, Mode::from_bits_truncate(NEW_FILE_MODE)) {
                    path.remove()?;
                    return Err(error.into());
                }
                return Ok(file.into());
            }
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Err(_) => {}
        }
    }
    path.open(flags.difference(OFlag::O_CREAT)).map(File::from)
}

/// Does what `O_TRUNC` does.
fn truncate(file: &File) -> io::Result<()> {
    if file.metadata()?.is_file() { file.set_len(0) } else { Ok(()) }
}

/// Reads `count` bytes, or fewer at the end of the file.
fn read(file: &File, count: usize) -> io::Result<ReadBytes> {
    // The pages of a large buffer cost memory only when bytes are read into them.
    let mut bytes = Vec::with_capacity(count);
    let mut eof = false;
    while bytes.len() < count && !eof {
        match sys::io::read_to_spare(file, &mut bytes) {
            Ok(read) => eof = read == 0,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // The bytes read until now are returned, and the next read fails.
            Err(_) if !bytes.is_empty() => break,
            Err(error) => return Err(error),
        }
    }
    Ok(ReadBytes { count: signed(bytes.len()), buf_b64: bytes.into(), eof })
}

/// As [`read`], if all bytes are in the page cache. Otherwise the file's position is unchanged.
fn read_cached(file: &File, count: usize) -> Option<ReadBytes> {
    // Without a position, bytes that were read could not be put back.
    unistd::lseek64(file, 0, unistd::Whence::SeekCur).ok()?;
    let mut bytes = Vec::with_capacity(count);
    while bytes.len() < count {
        match sys::io::read_cached_to_spare(file, &mut bytes) {
            Ok(0) => return Some(ReadBytes { count: signed(bytes.len()), buf_b64: bytes.into(), eof: true }),
            Ok(_) => {}
            Err(_) if bytes.is_empty() => return None,
            Err(_) => {
                let _ = unistd::lseek64(file, -signed(bytes.len()), unistd::Whence::SeekCur);
                return None;
            }
        }
    }
    Some(ReadBytes { count: signed(count), buf_b64: bytes.into(), eof: false })
}

/// Writes all bytes, or as many as there is room for; an error if there is room for none.
fn write(mut file: &File, bytes: &[u8]) -> io::Result<usize> {
    let mut written = 0;
    while written < bytes.len() {
        match file.write(&bytes[written..]) {
            Ok(0) => break,
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && written > 0 => break,
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}

fn checked_count(count: i64, most: usize) -> Result<usize> {
    usize::try_from(count)
        .ok()
        .filter(|&count| count <= most)
        .ok_or_else(|| Error::generic(format!("value '{count}' is invalid for argument count")))
}

fn signed(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn failure(what: &str, error: impl Into<io::Error>) -> Error {
    Error::generic(format!("{what}: {}", errno::describe(error)))
}

#[cfg(test)]
mod tests;
