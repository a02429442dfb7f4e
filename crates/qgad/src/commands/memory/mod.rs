//! Memory blocks.
//!
//! The list is in the order of the kernel's directory and stable between calls. A block is online only if the kernel
//! says so: one that is about to go offline is not. A kernel without memory blocks has an empty list; one that has the
//! directory and no blocks is an error.
//! `set` returns a result for every block in the request, in its order; a failure does not stop it.

use std::io;

use nix::fcntl::OFlag;
use qga::{
    commands::memory::{
        GetMemoryBlockInfo, GetMemoryBlocks, MemoryBlock, MemoryBlockInfo, MemoryBlockOutcome, MemoryBlockResponse,
        SetMemoryBlocks,
    },
    wire::message::Error,
};

use super::{Result, Run};
use crate::{
    guest::Guest,
    logging::audit,
    root::Root,
    util::errno::{self, could_not_open},
};

const BLOCKS: &str = "/sys/devices/system/memory/";

impl Run for GetMemoryBlocks {
    fn run(self, guest: &Guest) -> Result<Vec<MemoryBlock>> {
        blocks(&guest.root)
    }
}

impl Run for SetMemoryBlocks {
    fn run(self, guest: &Guest) -> Result<Vec<MemoryBlockResponse>> {
        let exists = guest.root.open(BLOCKS, OFlag::O_DIRECTORY);
        let set = |block: &MemoryBlock| {
            let (response, error) = match &exists {
                Ok(_) => set_block(&guest.root, block),
                Err(error) => (MemoryBlockOutcome::OperationNotSupported, error.raw_os_error()),
            };
            MemoryBlockResponse { phys_index: block.phys_index, response, error_code: error.map(Into::into) }
        };
        Ok(self.mem_blks.iter().map(set).collect())
    }

    fn audit_subject(&self) -> Option<String> {
        let set = self.mem_blks.iter().map(|block| format!("{}={}", block.phys_index, u8::from(block.online)));
        Some(audit::list(set))
    }
}

impl Run for GetMemoryBlockInfo {
    fn run(self, guest: &Guest) -> Result<MemoryBlockInfo> {
        guest
            .root
            .open(BLOCKS, OFlag::O_DIRECTORY)
            .map_err(|error| Error::generic(format!("open(\"{BLOCKS}\"): {}", errno::describe(error))))?;
        let contents = guest.root.read(format!("{BLOCKS}block_size_bytes")).map_err(|error| {
            Error::generic(format!("open sysfs file \"block_size_bytes\": {}", errno::describe(error)))
        })?;
        Ok(MemoryBlockInfo { size: block_size(&contents) })
    }
}

fn blocks(root: &Root) -> Result<Vec<MemoryBlock>> {
    let names = match root.names(BLOCKS) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        names => names.map_err(|error| could_not_open(BLOCKS, error))?,
    };
    let mut blocks = Vec::new();
    for name in names {
        let Some(phys_index) = name.to_str().and_then(block_number) else { continue };
        blocks.extend(read_block(root, phys_index)?);
    }
    if blocks.is_empty() {
        return Err(Error::generic("guest reported zero memory blocks!"));
    }
    Ok(blocks)
}

/// A block's current state, or `None` if the block is gone.
fn read_block(root: &Root, phys_index: u64) -> Result<Option<MemoryBlock>> {
    let directory = directory(phys_index);
    let (online, can_offline) = match root.read(format!("{directory}state")) {
        Ok(state) => (is_online(&state)?, is_removable(root, &directory)?),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(cannot_open_file("state", error)),
        Err(_) if root.open(&directory, OFlag::O_DIRECTORY).is_err() => return Ok(None),
        Err(_) => (true, false),
    };
    Ok(Some(MemoryBlock { phys_index, online, can_offline: Some(can_offline) }))
}

fn is_removable(root: &Root, directory: &str) -> Result<bool> {
    match root.read(format!("{directory}removable")) {
        Ok(removable) => removable.first().map(|byte| *byte != b'0').ok_or_else(|| ends_early("removable")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(cannot_open_file("removable", error)),
    }
}

fn is_online(state: &[u8]) -> Result<bool> {
    if state.is_empty() {
        return Err(ends_early("state"));
    }
    Ok(state.starts_with(b"online"))
}

/// Sets a block's state. Returns the outcome, with the kernel's error number if it failed.
fn set_block(root: &Root, block: &MemoryBlock) -> (MemoryBlockOutcome, Option<i32>) {
    let directory = directory(block.phys_index);
    if let Err(error) = root.open(&directory, OFlag::O_DIRECTORY) {
        return (MemoryBlockOutcome::NotFound, error.raw_os_error());
    }
    let file = format!("{directory}state");
    let state = match root.read(&file) {
        Ok(state) => state,
        Err(error) if error.kind() == io::ErrorKind::NotFound && block.online => {
            return (MemoryBlockOutcome::Success, None);
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return (MemoryBlockOutcome::OperationNotSupported, error.raw_os_error());
        }
        Err(error) => return (MemoryBlockOutcome::OperationFailed, error.raw_os_error()),
    };
    if state.starts_with(b"online") == block.online {
        return (MemoryBlockOutcome::Success, None);
    }
    let wanted: &[u8] = if block.online { b"online" } else { b"offline" };
    match root.write(&file, wanted) {
        Ok(()) => (MemoryBlockOutcome::Success, None),
        Err(error) => (MemoryBlockOutcome::OperationFailed, error.raw_os_error()),
    }
}

fn directory(phys_index: u64) -> String {
    format!("{BLOCKS}memory{phys_index}/")
}

/// The number of a block, from the name of its directory.
fn block_number(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("memory")?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// The size in bytes, which the kernel prints in hexadecimal; 0 if it cannot be parsed.
fn block_size(contents: &[u8]) -> u64 {
    let text = str::from_utf8(contents).unwrap_or_default().trim();
    u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap_or(0)
}

fn cannot_open_file(name: &str, error: io::Error) -> Error {
    Error::generic(format!("open sysfs file \"{name}\": {}", errno::describe(error)))
}

fn ends_early(name: &str) -> Error {
    Error::generic(format!("pread sysfs file \"{name}\": unexpected EOF"))
}

#[cfg(test)]
mod tests;
