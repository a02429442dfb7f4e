//! The units for vsock, reached by the guest's own loopback, which is not the host, with the tool in the guest.

use anyhow::Result;
use qga::commands::session::Ping;
use vmtest::vm::Vm;

use crate::cases::{answered, soon};

const CONFIGURATION: &str = "/etc/qemu/qemu-ga.conf";
/// The tool, at the socket's port.
const TOOL: &str = "qgactl --vsock 1:1234";
/// What the agent there has logged of peers that it does not serve.
const REFUSALS: &str = "journalctl --sync; journalctl -b -o cat -u qgad-vsock | grep 'refused a peer'";
/// The statuses that the tool's help tells.
const NO_CONNECTION: &str = "3";
const NOT_ALLOWED: &str = "5";
const BROKEN: &str = "6";

/// The process of the agent there.
const MAIN_PID: &str = "systemctl show --value -p MainPID qgad-vsock";

/// With the package installed, an agent on the port, and `guest-get-users` refused where the packages have options.
pub(super) fn is_served_beside_the_port(vm: &mut Vm) -> Result<()> {
    assert_eq!(fails(vm, &format!("{TOOL} ping"))?, NO_CONNECTION);
    vm.sh("systemctl enable --now qgad-vsock.socket")?;
    assert_eq!(vm.sh("systemctl is-active qgad-vsock.service || true")?, "inactive");
    for _ in 0..3 {
        assert_eq!(fails(vm, &format!("{TOOL} ping"))?, BROKEN);
    }
    let refusals = vm.wait_until(REFUSALS)?;
    assert!(refusals.ends_with("with CID 1, which vsock-allow does not name"), "{refusals}");
    assert_eq!(refusals.lines().count(), 1, "{refusals}");

    vm.sh(&format!("cp {CONFIGURATION} /run/before; echo vsock-allow=1 >>{CONFIGURATION}"))?;
    vm.sh("systemctl restart qgad-vsock.service")?;
    let mut at_the_port = answered(vm)?;
    assert!(vm.sh(&format!("{TOOL} info"))?.contains(env!("CARGO_PKG_VERSION")));
    assert_eq!(vm.sh(&format!("{TOOL} exec -- /bin/echo by vsock"))?, "by vsock");
    vm.sh(&format!("cd /run; head -c 300000 /dev/urandom >sent; {TOOL} push sent /run/arrived; cmp sent arrived"))?;
    vm.sh(&format!("cd /run; {TOOL} pull /run/arrived again; cmp sent again"))?;
    // Two at once, while the agent at the port serves the host.
    let long = format!("{TOOL} exec -- /bin/sh -c 'while [ ! -e /run/go ]; do sleep 0.1; done; echo went'");
    vm.sh(&format!("({long} >/run/long.part && mv /run/long.part /run/long) >/dev/null 2>&1 &"))?;
    assert!(vm.sh(&format!("{TOOL} ping"))?.contains("answered"));
    at_the_port.call(&Ping {}, soon())?;
    vm.sh("touch /run/go")?;
    assert_eq!(vm.wait_until("cat /run/long")?, "went");
    // What the packages' options refuse is refused here, too.
    assert_eq!(fails(vm, &format!("{TOOL} users"))?, NOT_ALLOWED);

    // The socket outlives its agent, and the next peer starts another one.
    vm.sh("systemctl kill --kill-whom=main --signal=KILL qgad-vsock.service")?;
    vm.wait_until(&format!("{TOOL} ping"))?;
    assert_eq!(vm.sh("systemctl show --value -p WatchdogUSec qgad-vsock")?, "10min");
    Ok(())
}

/// Whatever upgrades the package replaces this agent, too.
pub(super) fn is_replaced_by(vm: &mut Vm, upgrade: impl FnOnce(&mut Vm) -> Result<String>) -> Result<()> {
    let before = vm.sh(MAIN_PID)?;
    upgrade(vm)?;
    assert_ne!(vm.sh(MAIN_PID)?, before);
    vm.wait_until(&format!("{TOOL} ping"))?;
    vm.sh(&format!("cp /run/before {CONFIGURATION}; systemctl disable --now qgad-vsock.socket qgad-vsock.service"))?;
    Ok(())
}

/// The status with which a script ends that fails.
fn fails(vm: &mut Vm, script: &str) -> Result<String> {
    vm.sh(&format!("if {script} >/dev/null 2>&1; then echo 0; else echo $?; fi"))
}
