//! Hot-plug of the agent's port.

use anyhow::Result;
use vmtest::vm::{AGENT_PORT, Builder, Vm};

use super::{agent_pid, answered};

pub(crate) fn ends_the_agent(builder: Builder<'_>) -> Result<()> {
    let mut vm = builder.boot()?;
    let agent = answered(&vm)?;
    vm.sh("touch /run/agent.stopped")?;
    unplug(&mut vm)?;
    // In order, since nothing went wrong with the agent.
    assert_eq!(vm.wait_until("grep . /run/agent.ends")?, "exit 0");
    drop(agent);

    // As a service it fails until the port is back.
    vm.sh("rm /run/agent.stopped")?;
    vm.wait_until("grep -q 'exit 1' /run/agent.ends")?;
    plug(&mut vm)?;
    answered(&vm)?;
    Ok(())
}

pub(crate) fn is_waited_for(builder: Builder<'_>) -> Result<()> {
    let mut vm = builder.agent_arguments(&["--retry-path"]).boot()?;
    let pid = agent_pid(&mut vm)?;
    for host_is_connected in [true, false] {
        let agent = answered(&vm)?;
        let agent = host_is_connected.then_some(agent);
        unplug(&mut vm)?;
        drop(agent);
        plug(&mut vm)?;
        answered(&vm)?;
    }
    // Also when the kernel has no further watch on directories.
    vm.sh("echo 0 >/proc/sys/fs/inotify/max_user_instances")?;
    unplug(&mut vm)?;
    plug(&mut vm)?;
    answered(&vm)?;
    assert_eq!(agent_pid(&mut vm)?, pid);
    vm.sh("! test -e /run/agent.ends")?;
    Ok(())
}

pub(crate) fn comes_late(builder: Builder<'_>) -> Result<()> {
    let mut vm = builder.without_port().agent_arguments(&["--retry-path"]).boot()?;
    let pid = agent_pid(&mut vm)?;
    plug(&mut vm)?;
    answered(&vm)?;
    assert_eq!(agent_pid(&mut vm)?, pid);
    vm.sh("! test -e /run/agent.ends")?;
    Ok(())
}

fn unplug(vm: &mut Vm) -> Result<()> {
    vm.unplug_port()?;
    vm.wait_until(&format!("! test -L /dev/virtio-ports/{AGENT_PORT}"))?;
    Ok(())
}

fn plug(vm: &mut Vm) -> Result<()> {
    vm.plug_port()?;
    vm.wait_until(&format!("test -c /dev/virtio-ports/{AGENT_PORT}"))?;
    Ok(())
}
