//! Memory blocks of fake machines.

use nix::errno::Errno;

use super::*;
use crate::guest::tests::guest_at;

fn check(tree: &str, expected: &[(u64, bool, bool)]) {
    let (root, _directory) = Root::from_text(tree);
    let mut found = blocks(&root).unwrap();
    found.sort();
    let block = |(phys_index, online, can): &(u64, bool, bool)| MemoryBlock {
        phys_index: *phys_index,
        online: *online,
        can_offline: Some(*can),
    };
    assert_eq!(found, expected.iter().map(block).collect::<Vec<_>>(), "{tree}");
}

fn check_refused(tree: &str, expected: &str) {
    let (root, _directory) = Root::from_text(tree);
    assert_eq!(blocks(&root), Err(Error::generic(expected)), "{tree}");
}

/// Sets a block, then checks its state.
fn check_set(tree: &str, block: (u64, bool), expected: (MemoryBlockOutcome, Option<Errno>), state: Option<&str>) {
    let (root, directory) = Root::from_text(tree);
    let (phys_index, online) = block;
    let block = MemoryBlock { phys_index, online, can_offline: None };
    let responses = SetMemoryBlocks { mem_blks: vec![block] }.run(&guest_at(directory.path())).unwrap();
    let (response, error) = expected;
    let error_code = error.map(|error| i64::from(error as i32));
    assert_eq!(responses, [MemoryBlockResponse { phys_index, response, error_code }], "{tree}");
    let state_now = root.read(format!("{}state", super::directory(phys_index))).ok();
    assert_eq!(state_now.as_deref(), state.map(str::as_bytes), "{tree}");
}

const THREE: &str = "\
sys/devices/system/memory/block_size_bytes: 8000000
sys/devices/system/memory/auto_online_blocks: offline
sys/devices/system/memory/memory0/state: online
sys/devices/system/memory/memory0/removable: 0
sys/devices/system/memory/memory1/state: online
sys/devices/system/memory/memory1/removable: 1
sys/devices/system/memory/memory40/state: offline
sys/devices/system/memory/memory40/removable: 1
";

#[test]
fn a_block_has_its_state_and_whether_it_is_removable() {
    check(THREE, &[(0, true, false), (1, true, true), (40, false, true)]);
}

/// A VM with 256 MiB, and 256 MiB hot-plugged memory that is offline.
const CAPTURED: &str = include_str!("../../../tests/roots/plugged.root");

#[test]
fn the_blocks_of_a_captured_machine_are_found() {
    check(CAPTURED, &[(0, true, true), (1, true, true), (32, false, true), (33, false, true)]);
    check_set(CAPTURED, (1, false), (MemoryBlockOutcome::Success, None), Some("offline"));
    let (_root, directory) = Root::from_text(CAPTURED);
    let info = GetMemoryBlockInfo {}.run(&guest_at(directory.path())).unwrap();
    assert_eq!(info.size, 128 * 1024 * 1024);
}

#[test]
fn a_block_that_is_going_offline_is_not_online() {
    check("sys/devices/system/memory/memory3/state: going-offline\n", &[(3, false, false)]);
}

#[test]
fn a_block_without_a_state_file_is_online_and_cannot_be_taken_offline() {
    check("sys/devices/system/memory/memory3/removable: 1\n", &[(3, true, false)]);
}

#[test]
fn a_missing_directory_is_an_empty_list_and_an_empty_directory_is_an_error() {
    check("", &[]);
    let other = "sys/devices/system/memory/memory/state: online\nsys/devices/system/memory/memory1a/state: online\n";
    check_refused(other, "guest reported zero memory blocks!");
}

#[test]
fn an_empty_file_is_an_error() {
    let empty = "sys/devices/system/memory/memory1/state:\n";
    check_refused(empty, "pread sysfs file \"state\": unexpected EOF");
    let empty = "sys/devices/system/memory/memory1/state: online\nsys/devices/system/memory/memory1/removable:\n";
    check_refused(empty, "pread sysfs file \"removable\": unexpected EOF");
}

#[test]
fn a_thousand_blocks_are_each_read_once_and_stay_in_order() {
    let tree: String = (0..1000)
        .map(|number| format!("sys/devices/system/memory/memory{number}/state: online\n"))
        .chain((0..1000).map(|number| format!("sys/devices/system/memory/memory{number}/removable: 1\n")))
        .collect();
    let (root, _directory) = Root::from_text(&tree);
    let before = root.opened();
    let found = blocks(&root).unwrap();
    assert_eq!(root.opened() - before, 1 + 2 * 1000);
    assert_eq!(found.len(), 1000);
    assert_eq!(blocks(&root).unwrap(), found);
}

#[test]
fn a_block_is_written_to_only_if_its_state_differs() {
    let success = (MemoryBlockOutcome::Success, None);
    check_set(THREE, (1, false), success, Some("offline"));
    check_set(THREE, (1, true), success, Some("online\n"));
    check_set(THREE, (40, false), success, Some("offline\n"));
    // A regular file, unlike the kernel's, keeps the bytes behind the word that is written.
    check_set(THREE, (40, true), success, Some("onlinee\n"));
}

#[test]
fn a_block_that_cannot_be_set_has_the_reason() {
    let not_supported = (MemoryBlockOutcome::OperationNotSupported, Some(Errno::ENOENT));
    check_set(THREE, (7, true), (MemoryBlockOutcome::NotFound, Some(Errno::ENOENT)), None);
    check_set("", (0, false), not_supported, None);
    let stateless = "sys/devices/system/memory/memory3/removable: 1\n";
    check_set(stateless, (3, false), not_supported, None);
    check_set(stateless, (3, true), (MemoryBlockOutcome::Success, None), None);
    let odd = "sys/devices/system/memory/memory3/state/\n";
    check_set(odd, (3, false), (MemoryBlockOutcome::OperationFailed, Some(Errno::EISDIR)), None);
}

#[test]
fn every_block_has_a_result_in_the_order_of_the_request() {
    let (_, directory) = Root::from_text(THREE);
    let mem_blks = [(9, true), (1, false), (0, true)].map(|(phys_index, online)| MemoryBlock {
        phys_index,
        online,
        can_offline: Some(true),
    });
    let responses = SetMemoryBlocks { mem_blks: mem_blks.into() }.run(&guest_at(directory.path())).unwrap();
    let outcomes: Vec<_> = responses.iter().map(|response| (response.phys_index, response.response)).collect();
    assert_eq!(
        outcomes,
        [(9, MemoryBlockOutcome::NotFound), (1, MemoryBlockOutcome::Success), (0, MemoryBlockOutcome::Success)]
    );
}

#[test]
fn the_size_of_a_block_is_hexadecimal() {
    let check = |tree: &str, expected: std::result::Result<u64, &str>| {
        let (_, directory) = Root::from_text(tree);
        let info = GetMemoryBlockInfo {}.run(&guest_at(directory.path()));
        assert_eq!(info, expected.map(|size| MemoryBlockInfo { size }).map_err(Error::generic), "{tree}");
    };
    check(THREE, Ok(0x800_0000));
    check("sys/devices/system/memory/block_size_bytes: 0x10000000\n", Ok(0x1000_0000));
    check("sys/devices/system/memory/block_size_bytes: garbage\n", Ok(0));
    check("", Err("open(\"/sys/devices/system/memory/\"): No such file or directory"));
    let without = "sys/devices/system/memory/memory0/\n";
    check(without, Err("open sysfs file \"block_size_bytes\": No such file or directory"));
}
