//! A daemon, as an init script starts it: without a log file, and with nobody on its standard error.

use anyhow::{Result, ensure};
use vmtest::vm::{Builder, Vm};

/// Something that is audited, and fails.
const REQUEST: &str = r#"{"execute": "guest-file-open", "arguments": {"path": "/no/such/file"}}"#;

pub(crate) fn logs_to_the_system_log(builder: Builder<'_>) -> Result<()> {
    let program = builder.agent_program().to_owned();
    let mut vm = builder.without_agent().boot()?;
    vm.sh("printf '[general]\nvsock-allow=1\n' >/run/vsock.conf")?;
    let start = format!("{program} -d -v -c /run/vsock.conf -m vsock-listen -p 1:1024 -t /run -f /run/agent.pid");
    let ask = format!("echo '{REQUEST}' | /init vsock 1 1024 | grep 'No such file'");

    let said = vm.sh(&format!("{start} 2>&1"))?;
    ensure!(said.contains("nothing will be logged") && said.contains("the system log cannot be reached"), "{said}");
    vm.wait_until(&ask)?;
    stop(&mut vm)?;

    vm.sh("busybox syslogd -O /run/messages")?;
    vm.wait_until("test -S /dev/log || test -S $(readlink /dev/log)")?;
    let said = vm.sh(&format!("{start} 2>&1"))?;
    ensure!(!said.contains("nothing will be logged"), "{said}");
    vm.wait_until(&ask)?;
    vm.wait_until(
        r#"grep 'daemon.info qgad\[[0-9]*\]: audit: {.*"touched": "/no/such/file (mode: .r.)".*"error"' /run/messages"#,
    )?;
    stop(&mut vm)?;
    vm.wait_until("grep 'daemon.info qgad.*received signal 15, leaving' /run/messages")?;
    Ok(())
}

fn stop(vm: &mut Vm) -> Result<()> {
    let pid = vm.sh("cat /run/agent.pid")?;
    vm.sh(&format!("kill {pid}"))?;
    vm.wait_until(&format!("! test -e /proc/{pid}"))?;
    Ok(())
}
