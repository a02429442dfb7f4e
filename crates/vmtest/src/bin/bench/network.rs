//! Interfaces by the thousand, each with an address, which needs `ip`.
//!
//! They are the ends of veth pairs, as containers have them, or bridges where the kernel lacks veth.

use std::{
    fmt::Write as _,
    io::Write as _,
    process::{Command, Stdio},
};

use anyhow::{Context, ensure};
use nix::sched::CloneFlags;

use super::{
    agent::Binary,
    namespace::{List, time_list},
};

/// The seconds that each agent takes to list so many interfaces.
pub(crate) fn list_interfaces(ours: &Binary, theirs: &Binary, count: usize) -> anyhow::Result<[f64; 2]> {
    let list = List { command: "guest-network-get-interfaces", count, samples: 4 };
    time_list(ours, theirs, &list, CloneFlags::CLONE_NEWNET, || make_interfaces(count))
}

fn make_interfaces(count: usize) -> anyhow::Result<()> {
    let is_there = Command::new("ip").args("link add try type veth peer name try2".split(' ')).output();
    let has_veth = is_there.context("ip is needed (Debian package iproute2)")?.status.success();
    let mut batch = String::new();
    for number in 0..count {
        let (pair, is_second) = (number / 2, number % 2 == 1);
        match (has_veth, is_second) {
            (true, false) => writeln!(batch, "link add p{number} type veth peer name p{}", number + 1)?,
            (true, true) => {}
            (false, _) => writeln!(batch, "link add p{number} type bridge")?,
        }
        let host = if is_second { 2 } else { 1 };
        writeln!(batch, "addr add 10.{}.{}.{host}/30 dev p{number}", pair / 250, pair % 250)?;
    }
    let mut ip = Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn()?;
    ip.stdin.take().context("a pipe to ip")?.write_all(batch.as_bytes())?;
    ensure!(ip.wait()?.success(), "ip cannot make {count} interfaces");
    Ok(())
}
