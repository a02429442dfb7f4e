//! Memory is plugged in, and its blocks are brought online and taken offline again.

use anyhow::Result;
use qga::{
    client::Client,
    commands::memory::{GetMemoryBlockInfo, GetMemoryBlocks, MemoryBlock, MemoryBlockOutcome, SetMemoryBlocks},
};
use serde_json::json;
use vmtest::{
    transcript::Recorded,
    vm::{Builder, Vm},
};

use super::{answered, captured, reference, soon};

const PLUGGED_BYTES: u64 = 256 * 1024 * 1024;

pub(crate) fn is_plugged_in(builder: Builder<'_>) -> Result<()> {
    let reference = builder.reference_program().map(ToOwned::to_owned);
    let mut vm = builder.qemu_arguments(&["-m", "size=256M,slots=2,maxmem=1G", "-smp", "3"]).boot()?;
    let mut agent = answered(&vm)?;
    let size = agent.call(&GetMemoryBlockInfo {}, soon())?.size;
    assert_eq!(format!("{size:x}"), vm.sh("cat /sys/devices/system/memory/block_size_bytes")?);
    let first = blocks(&mut agent, &mut vm)?;
    assert!(first.iter().all(|block| block.online), "{first:?}");

    vm.sh("echo offline > /sys/devices/system/memory/auto_online_blocks")?;
    // So that the kernel puts nothing there that cannot be moved away again.
    vm.sh("echo auto-movable > /sys/module/memory_hotplug/parameters/online_policy")?;
    vm.qmp.execute("object-add", &json!({"qom-type": "memory-backend-ram", "id": "ram", "size": PLUGGED_BYTES}))?;
    vm.plug(&json!({"driver": "pc-dimm", "id": "dimm", "memdev": "ram"}))?;
    let expected_count = first.len() as u64 + PLUGGED_BYTES / size;
    // A directory is there before its files are, of which this is the last.
    vm.wait_until(&format!("ls /sys/devices/system/memory/memory*/valid_zones | wc -l | grep -qx {expected_count}"))?;
    let new: Vec<_> = blocks(&mut agent, &mut vm)?.into_iter().filter(|block| !first.contains(block)).collect();
    assert_eq!(new.len() as u64 * size, PLUGGED_BYTES);
    assert!(new.iter().all(|block| !block.online && block.can_offline == Some(true)), "{new:?}");
    if let Some(reference) = &reference {
        reference::start(&mut vm, reference)?;
        compare_with_reference(&mut vm, &mut agent)?;
    }
    vm.sh("echo 0 > /sys/devices/system/cpu/cpu1/online")?;
    let text = captured(&mut vm, "plugged")?;
    assert!(text.contains("/cpu1/online: 0\n") && text.contains("/state: offline\n"), "{text}");

    let before = total_memory(&mut vm)?;
    let mut wanted: Vec<_> = new.iter().map(|block| MemoryBlock { online: true, ..*block }).collect();
    check_all_set(&mut agent, &mut vm, &wanted)?;
    assert_eq!(total_memory(&mut vm)?, before + PLUGGED_BYTES / 1024);
    wanted.iter_mut().for_each(|block| block.online = false);
    check_all_set(&mut agent, &mut vm, &wanted)?;
    assert_eq!(total_memory(&mut vm)?, before);
    Ok(())
}

pub(crate) fn is_answered_for_by_block(builder: Builder<'_>) -> Result<()> {
    let mut vm = builder.boot()?;
    let mut agent = answered(&vm)?;
    // The kernel itself stands in the first block, and nothing at all in the last one.
    let mem_blks = [(0, false), (9999, true), (0, true)].map(|(phys_index, online)| MemoryBlock {
        phys_index,
        online,
        can_offline: Some(true),
    });
    let responses = agent.call(&SetMemoryBlocks { mem_blks: mem_blks.into() }, soon())?;
    let outcomes: Vec<_> = responses.iter().map(|response| (response.phys_index, response.response)).collect();
    assert_eq!(
        outcomes,
        [
            (0, MemoryBlockOutcome::OperationFailed),
            (9999, MemoryBlockOutcome::NotFound),
            (0, MemoryBlockOutcome::Success)
        ]
    );
    assert!(responses[0].error_code.is_some_and(|code| code > 0), "{responses:?}");
    assert_eq!((responses[1].error_code, responses[2].error_code), (Some(2), None));
    blocks(&mut agent, &mut vm)?;
    Ok(())
}

fn compare_with_reference(vm: &mut Vm, agent: &mut Client<Recorded>) -> Result<()> {
    for command in ["guest-get-memory-blocks", "guest-get-memory-block-info"] {
        reference::compare(vm, agent, command, &json!({}), |_, _| {})?;
    }
    let blocks = [(0, false), (9999, true), (9999, false), (0, true)];
    let blocks = blocks.map(|(index, online)| json!({"phys-index": index, "online": online}));
    reference::compare(vm, agent, "guest-set-memory-blocks", &json!({ "mem-blks": blocks }), |_, _| {})
}

/// The blocks, which are those of the guest's own list and in the same state.
fn blocks(agent: &mut Client<Recorded>, vm: &mut Vm) -> Result<Vec<MemoryBlock>> {
    let mut blocks = agent.call(&GetMemoryBlocks {}, soon())?;
    assert_eq!(agent.call(&GetMemoryBlocks {}, soon())?, blocks, "the order is stable");
    blocks.sort();
    let count = vm.sh("ls -d /sys/devices/system/memory/memory* | wc -l")?;
    assert_eq!(blocks.len().to_string(), count);
    for block in &blocks {
        check_state(vm, block)?;
    }
    Ok(blocks)
}

fn check_all_set(agent: &mut Client<Recorded>, vm: &mut Vm, wanted: &[MemoryBlock]) -> Result<()> {
    let responses = agent.call(&SetMemoryBlocks { mem_blks: wanted.to_vec() }, soon())?;
    for (response, block) in responses.iter().zip(wanted) {
        assert_eq!((response.phys_index, response.error_code), (block.phys_index, None), "{responses:?}");
        assert_eq!(response.response, MemoryBlockOutcome::Success);
        check_state(vm, block)?;
    }
    assert_eq!(responses.len(), wanted.len());
    Ok(())
}

fn check_state(vm: &mut Vm, block: &MemoryBlock) -> Result<()> {
    let state = vm.sh(&format!("cat /sys/devices/system/memory/memory{}/state", block.phys_index))?;
    assert_eq!(state, if block.online { "online" } else { "offline" }, "{block:?}");
    Ok(())
}

/// In KiB.
fn total_memory(vm: &mut Vm) -> Result<u64> {
    Ok(vm.sh("awk '/^MemTotal:/ { print $2 }' /proc/meminfo")?.parse()?)
}
