//! Processors and memory blocks by the hundred: a directory that replaces the kernel's.

use std::fs;

use nix::{
    mount::{MsFlags, mount},
    sched::CloneFlags,
};

use super::{
    agent::Binary,
    namespace::{List, time_list},
};

/// What is replaced; the kernel may lack the directories below it.
const DEVICES: &str = "/sys/devices/system";

/// The seconds that each agent takes to list so many processors.
pub(crate) fn list_processors(ours: &Binary, theirs: &Binary, count: usize) -> anyhow::Result<[f64; 2]> {
    let list = List { command: "guest-get-vcpus", count, samples: 100 };
    time_list(ours, theirs, &list, CloneFlags::CLONE_NEWNS, || make("cpu/cpu", count, &[("online", "1\n")]))
}

/// The seconds that each agent takes to list so many memory blocks.
pub(crate) fn list_memory_blocks(ours: &Binary, theirs: &Binary, count: usize) -> anyhow::Result<[f64; 2]> {
    let list = List { command: "guest-get-memory-blocks", count, samples: 50 };
    let files = [("state", "online\n"), ("removable", "1\n")];
    time_list(ours, theirs, &list, CloneFlags::CLONE_NEWNS, || make("memory/memory", count, &files))
}

/// Creates numbered directories, each with these files.
fn make(name: &str, count: usize, files: &[(&str, &str)]) -> anyhow::Result<()> {
    mount(Some("none"), DEVICES, Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
    for number in 0..count {
        let directory = format!("{DEVICES}/{name}{number}");
        fs::create_dir_all(&directory)?;
        for (file, content) in files {
            fs::write(format!("{directory}/{file}"), content)?;
        }
    }
    Ok(())
}
