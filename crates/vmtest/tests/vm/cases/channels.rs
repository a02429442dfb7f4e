//! Each channel, end to end.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use qga::commands::{
    clock::{GetTime, GetTimezone, Timezone},
    session::{Info, Sync},
    system::{GetHostName, GetOsinfo},
};
use vmtest::{
    image::{HOST_NAME, ZONE, ZONE_OFFSET},
    vm::{Builder, Transport},
};

use super::{answered, soon};

/// How far the guest's clock may be from the host's: it is set to a second at boot, and emulation may lag.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(60);

pub(crate) fn virtio_serial(builder: Builder<'_>) -> Result<()> {
    let mut vm = builder.boot()?;
    let mut agent = answered(&vm)?;
    assert_eq!(agent.call(&Sync { id: 1234 }, soon())?, 1234);
    let info = agent.call(&Info {}, soon())?;
    assert!(info.supported_commands.iter().any(|command| command.name == "guest-sync-delimited" && command.enabled));

    let system = agent.call(&GetOsinfo {}, soon())?;
    assert_eq!(system.kernel_release, Some(vm.sh("uname -r")?));
    assert_eq!(system.kernel_version, Some(vm.sh("uname -v")?));
    assert_eq!(system.machine, Some(vm.sh("uname -m")?));
    assert_eq!(system.id.as_deref(), Some("vmtest"));
    assert_eq!(system.name.as_deref(), Some("Throwaway VM"));
    assert_eq!(system.pretty_name.as_deref(), Some("Throwaway VM 1 (Debian kernel, busybox)"));
    assert_eq!(system.version.as_deref(), Some("1 (busybox)"));
    assert_eq!(system.version_id.as_deref(), Some("1"));
    assert_eq!(system.variant.as_deref(), Some("Initramfs"));
    assert_eq!(system.variant_id.as_deref(), Some("initramfs"));
    assert_eq!(agent.call(&GetHostName {}, soon())?.host_name, HOST_NAME);

    let zone = agent.call(&GetTimezone {}, soon())?;
    assert_eq!(zone, Timezone { zone: Some(ZONE.into()), offset: ZONE_OFFSET.into() });
    let before: i64 = vm.sh("date +%s")?.parse()?;
    let time = agent.call(&GetTime {}, soon())?;
    let after: i64 = vm.sh("date +%s")?.parse()?;
    assert!((before..=after).contains(&(time / 1_000_000_000)), "{before} {time} {after}");
    let host = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let guest = Duration::from_nanos(time.unsigned_abs());
    assert!(host.abs_diff(guest) < CLOCK_TOLERANCE, "the guest says {guest:?}, the host {host:?}");
    Ok(())
}

pub(crate) fn isa_serial(builder: Builder<'_>) -> Result<()> {
    let mut vm = builder.machine("q35").transport(Transport::IsaSerial).boot()?;
    // What is sent before the agent has opened the port is lost, as on any serial line.
    vm.wait_until("ls -l /proc/$(cat /run/agent.pid)/fd | grep ttyS1")?;
    let mut agent = vm.client()?;
    agent.sync_undelimited(soon())?;
    assert_eq!(agent.call(&GetHostName {}, soon())?.host_name, HOST_NAME);
    // A byte 0xFF, and more than the line's buffer holds.
    agent.sync(soon())?;
    for _ in 0..20 {
        agent.call(&Info {}, soon())?;
    }
    drop(agent);
    answered(&vm)?;
    Ok(())
}

pub(crate) fn vsock(builder: Builder<'_>) -> Result<()> {
    let agent = builder.agent_program().to_owned();
    let mut vm = builder.without_agent().boot()?;
    let start = format!("{agent} -m vsock-listen -p 1:1024 -t /run >/run/agent.log 2>&1 & echo $! >/run/agent.pid");
    vm.sh(&start)?;
    // The loopback is not the host.
    vm.wait_until(
        r#"echo '{"execute": "guest-ping"}' | /init vsock 1 1024; grep 'refused a peer.* CID 1,' /run/agent.log"#,
    )?;
    vm.sh("kill -TERM $(cat /run/agent.pid)")?;
    vm.wait_until("! kill -0 $(cat /run/agent.pid) 2>/dev/null")?;
    vm.sh("printf '[general]\\nvsock-allow=1\\n' >/run/vsock.conf")?;
    vm.sh(&format!("QGA_CONF=/run/vsock.conf {start}"))?;
    for client in 0..3 {
        let request = format!(r#"{{"execute": "guest-sync", "arguments": {{"id": {client}}}}}"#);
        let reply = vm.wait_until(&format!("echo '{request}' | /init vsock 1 1024 | grep ."))?;
        assert_eq!(reply, format!(r#"{{"return": {client}}}"#));
    }
    vm.sh("kill -TERM $(cat /run/agent.pid)")?;
    vm.wait_until("! kill -0 $(cat /run/agent.pid) 2>/dev/null")?;
    Ok(())
}
