//! A user's file system that never answers a read, and a write that waits for it while it keeps a freeze waiting.
//!
//! It implements only what the kernel needs to open the one file `data`, see linux/fuse.h. The write is a sendfile(2)
//! from that file: the kernel (until 6.7) has begun the write when it asks for the data. With a later one, a mapped
//! page of the file would be needed, which takes unsafe code.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    os::fd::AsRawFd,
    path::Path,
    thread,
};

use anyhow::{Context, Result};
use nix::{
    libc,
    mount::{MsFlags, mount},
    sys::sendfile::sendfile,
    unistd::{Gid, Uid, setgid, setgroups, setuid},
};

/// The user whose file system it is.
const USER: u32 = 12345;
const FILE_NAME: &str = "data";
const FILE_BYTES: u64 = 4096;
const ROOT: u64 = 1;
const DATA: u64 = 2;
/// The kernel's requests are this long at most.
const MAX_REQUEST_BYTES: usize = 128 * 1024;

// Operation codes of linux/fuse.h.
const LOOKUP: u32 = 1;
const GETATTR: u32 = 3;
const OPEN: u32 = 14;
const READ: u32 = 15;
const FORGET: u32 = 2;
const INTERRUPT: u32 = 36;
const INIT: u32 = 26;

/// Mounts the file system on a directory, and writes from its file to another one, as the user.
///
/// # Errors
/// When it cannot be mounted. The write returns only when the connection to the file system is aborted.
pub(crate) fn write_from(directory: &Path, target: &Path) -> Result<()> {
    let device = OpenOptions::new().read(true).write(true).open("/dev/fuse").context("failed to open /dev/fuse")?;
    let options = format!("fd={},rootmode=40000,user_id={USER},group_id={USER}", device.as_raw_fd());
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("vmtest"), directory, Some("fuse.vmtest"), flags, Some(options.as_str())).context("failed to mount")?;
    setgroups(&[])?;
    setgid(Gid::from_raw(USER))?;
    setuid(Uid::from_raw(USER))?;
    thread::spawn(move || serve(device));
    let data = File::open(directory.join(FILE_NAME)).context("failed to open the file")?;
    let target = OpenOptions::new().create(true).append(false).write(true).truncate(false).open(target)?;
    sendfile(&target, &data, None, FILE_BYTES.try_into()?)?;
    Ok(())
}

/// Answers everything but reads, until the connection ends.
fn serve(mut device: File) {
    let mut buffer = vec![0; MAX_REQUEST_BYTES];
    while let Ok(length) = device.read(&mut buffer) {
        let Some(request) = Request::parse(&buffer[..length]) else { return };
        let reply = match request.operation {
            READ | FORGET | INTERRUPT => continue,
            INIT => Ok(numbers(&[7, 31, 0, 0, 0, 4096, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0])),
            LOOKUP if request.name == FILE_NAME.as_bytes() => Ok([entry(DATA), attributes(DATA)].concat()),
            LOOKUP => Err(libc::ENOENT),
            GETATTR => Ok([vec![0; 16], attributes(request.node)].concat()),
            OPEN => Ok(vec![0; 16]),
            _ => Err(libc::ENOSYS),
        };
        if device.write_all(&request.reply(reply)).is_err() {
            return;
        }
    }
}

/// The header of a request, and what follows it up to a NUL.
struct Request<'a> {
    operation: u32,
    unique: [u8; 8],
    node: u64,
    name: &'a [u8],
}

impl<'a> Request<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (header, rest) = bytes.split_first_chunk::<40>()?;
        let name = rest.split(|&byte| byte == 0).next()?;
        Some(Self {
            operation: u32::from_ne_bytes(header[4..8].try_into().ok()?),
            unique: header[8..16].try_into().ok()?,
            node: u64::from_ne_bytes(header[16..24].try_into().ok()?),
            name,
        })
    }

    fn reply(&self, result: Result<Vec<u8>, i32>) -> Vec<u8> {
        let (error, payload) = match result {
            Ok(payload) => (0, payload),
            Err(errno) => (-errno, Vec::new()),
        };
        let length = u32::try_from(16 + payload.len()).unwrap_or(u32::MAX);
        [&length.to_ne_bytes()[..], &error.to_ne_bytes(), &self.unique, &payload].concat()
    }
}

/// The part of a `fuse_entry_out` before its attributes: nothing is cached.
fn entry(node: u64) -> Vec<u8> {
    [&node.to_ne_bytes()[..], &[0; 32]].concat()
}

/// A `fuse_attr`.
fn attributes(node: u64) -> Vec<u8> {
    let (mode, size) = match node {
        ROOT => (libc::S_IFDIR | 0o755, 0),
        _ => (libc::S_IFREG | 0o644, FILE_BYTES),
    };
    let longs: Vec<u8> = [node, size, 0, 0, 0, 0].into_iter().flat_map(u64::to_ne_bytes).collect();
    [longs, numbers(&[0, 0, 0, mode, 1, USER, USER, 0, 4096, 0])].concat()
}

fn numbers(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().copied().flat_map(u32::to_ne_bytes).collect()
}
