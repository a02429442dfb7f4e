//! The agent as a service.

use anyhow::Result;
use qga::commands::session::Ping;
use vmtest::vm::Builder;

use super::{agent_pid, answered, soon};

pub(crate) fn restarts(builder: Builder<'_>) -> Result<()> {
    let mut vm = builder.boot()?;
    let mut agent = answered(&vm)?;
    let mut ends = Vec::new();
    for (signal, end) in [("KILL", "signal 9"), ("TERM", "exit 0"), ("INT", "exit 0")] {
        let pid = agent_pid(&mut vm)?;
        vm.sh(&format!("kill -{signal} {pid}"))?;
        ends.push(end);
        assert_eq!(
            vm.wait_until(&format!("[ $(wc -l </run/agent.ends) = {} ] && cat /run/agent.ends", ends.len()))?,
            ends.join("\n")
        );
        // The host stayed where it was, and may have a reply of the agent that is gone in its way.
        agent.sync(soon())?;
        agent.call(&Ping {}, soon())?;
        assert_ne!(agent_pid(&mut vm)?, pid);
    }
    Ok(())
}
