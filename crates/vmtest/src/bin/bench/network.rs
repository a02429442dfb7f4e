//! Interfaces by the thousand, in a network namespace of their own, which needs root and `ip`.
//!
//! They are the ends of veth pairs, as containers have them, or bridges where the kernel lacks veth.

use std::{
    fmt::Write as _,
    io::Write as _,
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context, anyhow, ensure};
use nix::sched::{CloneFlags, unshare};
use serde_json::json;

use super::{agent::Binary, cases::in_turns, client::request};

const SAMPLES: usize = 4;

/// The seconds that each agent takes to list so many interfaces with an address each.
pub(crate) fn list_interfaces(ours: &Binary, theirs: &Binary, count: usize) -> anyhow::Result<[f64; 2]> {
    // The namespace is this thread's, and that of the agents it starts.
    let measure = || {
        unshare(CloneFlags::CLONE_NEWNET).context("a network namespace cannot be made (root is needed)")?;
        make_interfaces(count)?;
        let servers = [ours.start()?.0, theirs.start()?.0];
        let mut clients = [servers[0].connect()?, servers[1].connect()?];
        for client in &mut clients {
            let interfaces = client.call("guest-network-get-interfaces", &json!({}))?;
            let found = interfaces.as_array().map_or(0, Vec::len);
            ensure!(found > count, "an agent lists {found} of {count} interfaces");
        }
        let list = request("guest-network-get-interfaces", &json!({}));
        in_turns(SAMPLES, &mut clients, |client| client.exchange(&list).map(|_| ()))
    };
    thread::scope(|scope| scope.spawn(measure).join()).map_err(|_| anyhow!("the measurement panicked"))?
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
