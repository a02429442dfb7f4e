//! `qgactl memory`: the guest's memory blocks.

use clap::Args;
use indicatif::BinaryBytes;
use qga::{
    Command,
    commands::memory::{GetMemoryBlockInfo, GetMemoryBlocks, MemoryBlock},
};

use super::{AgentSubcommand, call, print};
use crate::{connect::Agent, table::table};

/// Show the guest's memory blocks
#[derive(Args, Debug)]
pub(crate) struct Memory {}

impl AgentSubcommand for Memory {
    const HAS_JSON: bool = true;

    fn run_with(&self, agent: &mut Agent, json: bool) -> anyhow::Result<()> {
        if json {
            return call::print_received(agent, GetMemoryBlocks::SPEC.name);
        }
        let size = agent.call(&GetMemoryBlockInfo {})?.size;
        let mut blocks = agent.call(&GetMemoryBlocks {})?;
        blocks.sort();
        print(&describe(&blocks, size))
    }
}

/// One row for each run of adjacent blocks in the same state.
fn describe(blocks: &[MemoryBlock], size: u64) -> String {
    let amount = |count: usize| BinaryBytes(size.saturating_mul(count as u64)).to_string();
    let online = blocks.iter().filter(|block| block.online).count();
    let is_neighbour = |one: &MemoryBlock, next: &MemoryBlock| {
        (one.phys_index.checked_add(1), one.online, one.can_offline)
            == (Some(next.phys_index), next.online, next.can_offline)
    };
    let rows: Vec<_> = blocks
        .chunk_by(is_neighbour)
        .map(|run| {
            let (first, last) = (&run[0], &run[run.len() - 1]);
            let range = match run.len() {
                1 => first.phys_index.to_string(),
                _ => format!("{}-{}", first.phys_index, last.phys_index),
            };
            let line = if first.online { "on" } else { "off" };
            let can_offline = if first.can_offline == Some(true) { "yes" } else { "no" };
            vec![range, amount(run.len()), line.into(), can_offline.into()]
        })
        .collect();
    let (total, size) = (blocks.len(), amount(1));
    format!("{total} blocks of {size}, {online} on line: {} of {}\n\n", amount(online), amount(total))
        + &table(&["blocks", ">size", "line", "can go off line"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_in_the_same_state_share_a_row() {
        let block =
            |(phys_index, online, can_offline)| MemoryBlock { phys_index, online, can_offline: Some(can_offline) };
        let blocks = [(0, true, false), (1, true, true), (2, true, true), (4, true, true), (5, false, true)].map(block);
        let expected = "\
5 blocks of 128.00 MiB, 4 on line: 512.00 MiB of 640.00 MiB

blocks        size  line  can go off line
0       128.00 MiB  on    no
1-2     256.00 MiB  on    yes
4       128.00 MiB  on    yes
5       128.00 MiB  off   yes
";
        assert_eq!(describe(&blocks, 128 << 20), expected);
    }
}
