//! Hosts that come early, late and again, that leave in the middle, and that do not read.

use std::io::{BufRead, BufReader, Write};

use anyhow::Result;
use qga::{client::Transport, commands::session::Ping};
use vmtest::vm::{Builder, TIMEOUT};

use super::{agent_pid, answered, idle, soon};

/// Requests of the host that does not read: their replies are far more than the buffers on the way hold.
const UNREAD_REQUESTS: usize = 8_000;

pub(crate) fn connected_before_the_boot(builder: Builder<'_>) -> Result<()> {
    let mut vm = builder.start()?;
    let mut agent = vm.connect()?;
    agent.set_timeout(Some(vmtest::vm::BOOT_TIMEOUT))?;
    agent.write_all(b"{\"execute\": \"guest-sync\", \"arguments\": {\"id\": 7}}\n")?;
    let mut reply = String::new();
    let received = BufReader::new(agent).read_line(&mut reply).map_err(Into::into);
    vm.explain(received)?;
    assert_eq!(reply, "{\"return\": 7}\n");
    vm.wait_booted()
}

pub(crate) fn connects_late_and_again(builder: Builder<'_>) -> Result<()> {
    let mut vm = builder.boot()?;
    // The agent has found the host's side closed.
    vm.wait_until("ls -l /proc/$(cat /run/agent.pid)/fd | grep vport")?;
    idle::wait_until_idle(&mut vm)?;
    let pid = agent_pid(&mut vm)?;
    for _ in 0..3 {
        drop(answered(&vm)?);
        idle::wait_until_idle(&mut vm)?;
    }
    assert_eq!(agent_pid(&mut vm)?, pid);
    Ok(())
}

pub(crate) fn leaves_half_a_message(builder: Builder<'_>) -> Result<()> {
    let mut vm = builder.boot()?;
    answered(&vm)?.transport().write_all(b"{\"execute\": \"guest-pi")?;
    idle::wait_until_idle(&mut vm)?;
    let mut agent = vm.client()?;
    agent.sync_undelimited(soon())?;
    agent.call(&Ping {}, soon())?;
    Ok(())
}

pub(crate) fn does_not_read(builder: Builder<'_>) -> Result<()> {
    let mut vm = builder.boot()?;
    drop(answered(&vm)?);
    let mut host = vm.connect()?;
    host.set_timeout(Some(TIMEOUT))?;
    let request = b"{\"execute\": \"guest-info\"}\n";
    // Requests are buffered on the way, too: the agent takes no further ones while it cannot answer.
    let mut reader = BufReader::new(host.try_clone()?);
    let writer = std::thread::spawn(move || host.write_all(&request.repeat(UNREAD_REQUESTS)));
    idle::wait_until_idle(&mut vm)?;

    let mut line = String::new();
    for _ in 0..UNREAD_REQUESTS {
        line.clear();
        reader.read_line(&mut line)?;
        assert!(line.starts_with("{\"return\": {") && line.ends_with("}\n"), "{line}");
    }
    writer.join().expect("the writer does not panic")?;
    drop(reader);
    answered(&vm)?;
    Ok(())
}
