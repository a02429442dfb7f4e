//! Guests larger than this machine: namespaces in which things are by the thousand. Making them needs root.

use std::thread;

use anyhow::{Context, anyhow, ensure};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use serde_json::json;

use super::{agent::Binary, cases::in_turns, client::request};

/// A command whose answer is a list, to be measured.
pub(crate) struct List {
    pub(crate) command: &'static str,
    /// How many entries there are at least.
    pub(crate) count: usize,
    /// How often each agent is asked.
    pub(crate) samples: usize,
}

/// The seconds that each agent takes to answer in a namespace of its own, in which something was made before.
pub(crate) fn time_list(
    ours: &Binary,
    theirs: &Binary,
    list: &List,
    kind: CloneFlags,
    make: impl FnOnce() -> anyhow::Result<()> + Send,
) -> anyhow::Result<[f64; 2]> {
    // The namespace is this thread's, and that of the agents it starts; with them it goes, and what was made in it.
    let measure = || {
        unshare(kind).context("a namespace cannot be made (root is needed)")?;
        if kind.contains(CloneFlags::CLONE_NEWNS) {
            mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
        }
        make()?;
        let servers = [ours.start()?.0, theirs.start()?.0];
        let mut clients = [servers[0].connect()?, servers[1].connect()?];
        for client in &mut clients {
            let entries = client.call(list.command, &json!({}))?;
            let found = entries.as_array().map_or(0, Vec::len);
            ensure!(found >= list.count, "an agent lists {found} of {}: {}", list.count, list.command);
        }
        let request = request(list.command, &json!({}));
        in_turns(list.samples, &mut clients, |client| client.exchange(&request).map(|_| ()))
    };
    thread::scope(|scope| scope.spawn(measure).join()).map_err(|_| anyhow!("the measurement panicked"))?
}
