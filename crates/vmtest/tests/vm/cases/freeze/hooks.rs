//! The administrator's programs around a freeze.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use qga::{
    Command,
    commands::{
        freeze::{Freeze, FreezeState, FreezeStatus, Thaw},
        system::GetHostName,
    },
};
use vmtest::vm::{Builder, Vm};

use super::{Agent, Content, agent_pid, answered, boot, configure, refusal, soon, timed};

/// How long the answer of an agent is waited for that is killed by the command.
const LOSS: Duration = Duration::from_secs(5);

pub(crate) fn run(builder: Builder<'_>) -> Result<()> {
    let (mut vm, _disks) = boot(builder, &[("a", Content::Ext4)])?;
    vm.sh("mkdir -p /etc/qemu/hook.d && chmod 755 /etc /etc/qemu /etc/qemu/hook.d")?;
    for name in ["10-first", "20-second"] {
        // What it does with an argument, a file says.
        let script = format!("#!/bin/sh\necho {name} $1 >>/run/hook.log\n. /run/{name}.$1\n");
        vm.sh(&format!("printf '%s' '{script}' >/etc/qemu/hook.d/{name} && chmod 755 /etc/qemu/hook.d/{name}"))?;
    }
    configure(&mut vm, "fsfreeze-hook=/etc/qemu/hook\nfsfreeze-hook-timeout=3\n")?;
    let mut agent = answered(&vm)?;

    let all = "10-first freeze\n20-second freeze\n20-second thaw\n10-first thaw";
    behave(&mut vm, &[])?;
    assert_eq!(agent.call(&Freeze::default(), soon())?, 1);
    assert_eq!(agent.call(&Thaw {}, soon())?, 1);
    assert_eq!(vm.sh("cat /run/hook.log")?, all);

    behave(&mut vm, &[("20-second.freeze", "echo the database is busy >&2; exit 7")])?;
    let error = refusal(agent.call(&Freeze::default(), soon()))?;
    assert_eq!(error, "child process has failed to execute fsfreeze hook: the database is busy\n");
    check_thawed(&mut agent)?;
    assert_eq!(vm.sh("cat /run/hook.log")?, all);

    behave(&mut vm, &[("10-first.freeze", "exec sleep 1000")])?;
    let error = refusal(timed("freeze with a hook that hangs, of 3 s", || agent.call(&Freeze::default(), soon())))?;
    assert_eq!(error, "child process has failed to execute fsfreeze hook: timed out after 3 s");
    check_thawed(&mut agent)?;
    assert_eq!(vm.sh("cat /run/hook.log")?, "10-first freeze\n10-first thaw");
    vm.wait_until("! grep -l '^sleep' /proc/[0-9]*/comm")?;

    behave(&mut vm, &[("20-second.thaw", "exit 3")])?;
    assert_eq!(agent.call(&Freeze::default(), soon())?, 1);
    let error = refusal(agent.call(&Thaw {}, soon()))?;
    assert_eq!(error, "child process has failed to execute fsfreeze hook: exit status 3");
    check_thawed(&mut agent)?;
    assert_eq!(vm.sh("cat /run/hook.log")?, all);
    vm.sh("echo x >/mnt/a/file")?;

    // An agent that ends in the middle leaves the rest to the next one, which thaws all.
    let kill = "[ -e /run/killed ] || { touch /run/killed; kill -KILL $(cat /run/agent.pid); }";
    behave(&mut vm, &[("10-first.freeze", kill)])?;
    let mut agent = lose_agent(&mut vm, agent, &Freeze::default())?;
    wait_for_log(&mut vm, "10-first freeze\n20-second thaw\n10-first thaw")?;
    behave(&mut vm, &[("20-second.thaw", kill)])?;
    assert_eq!(agent.call(&Freeze::default(), soon())?, 1);
    let mut agent = lose_agent(&mut vm, agent, &Thaw {})?;
    wait_for_log(&mut vm, "10-first freeze\n20-second freeze\n20-second thaw\n20-second thaw\n10-first thaw")?;
    check_thawed(&mut agent)?;
    vm.sh("! ls /run/qga.state.hooks")?;

    // One that anybody can change is not run.
    vm.sh("chmod 777 /etc/qemu/hook.d/20-second")?;
    behave(&mut vm, &[])?;
    let error = refusal(agent.call(&Freeze::default(), soon()))?;
    assert!(error.contains("/etc/qemu/hook.d/20-second"), "{error}");
    check_thawed(&mut agent)?;
    assert_eq!(vm.sh("cat /run/hook.log 2>/dev/null; true")?, "");
    Ok(())
}

pub(crate) fn are_trusted(builder: Builder<'_>) -> Result<()> {
    let (mut vm, _disks) = boot(builder, &[("a", Content::Ext4)])?;
    vm.sh(
        "chmod 755 / /etc; mkdir -p /nix/store /etc/links /srv/own; chown 0:30000 /nix/store; chmod 1775 /nix/store; \
         printf '#!/bin/sh\\necho $1 >>/run/hook.log\\n' >/nix/store/abc-hook; chmod 555 /nix/store/abc-hook; \
         ln -s /nix/store/abc-hook /etc/links/hook; ln -s /nix/store/abc-hook /nix/store/link; \
         chown -h 1000 /nix/store/link; ln -s /etc/links/hook /srv/own/hook; chown 1000 /srv/own",
    )?;
    let log = "cat /run/hook.log 2>/dev/null; rm -f /run/hook.log";
    for path in ["/nix/store/abc-hook", "/etc/links/hook"] {
        configure(&mut vm, &format!("fsfreeze-hook={path}\\n"))?;
        let mut agent = answered(&vm)?;
        assert_eq!(agent.call(&Freeze::default(), soon())?, 1);
        assert_eq!(agent.call(&Thaw {}, soon())?, 1);
        assert_eq!(vm.sh(log)?, "freeze\nthaw", "{path}");
    }
    let refused = |vm: &mut Vm, path: &str, reason: &str| {
        configure(vm, &format!("fsfreeze-hook={path}\\n"))?;
        let error = refusal(answered(vm)?.call(&Freeze::default(), soon()))?;
        assert_eq!(error, format!("failed to execute fsfreeze hook '{path}': {reason}"));
        assert_eq!(vm.sh(log)?, "");
        anyhow::Ok(())
    };
    refused(
        &mut vm,
        "/nix/store/link",
        "'/nix/store/link', in a directory that others can write, is not owned by root; this mends it: chown -h root \
         '/nix/store/link'",
    )?;
    let reason = "its directory '/srv/own' is not owned by root; this mends it: chown -h root '/srv/own'";
    refused(&mut vm, "/srv/own/hook", reason)?;
    vm.sh("chmod 757 /etc/links")?;
    let reason =
        "its directory '/etc/links' can be written by others than its owner; this mends it: chmod go-w '/etc/links'";
    refused(&mut vm, "/etc/links/hook", reason)?;
    vm.sh("chmod go-w /etc/links; chown 1000 /nix/store/abc-hook")?;
    refused(
        &mut vm,
        "/etc/links/hook",
        "'/nix/store/abc-hook', in a directory that others can write, is not owned by root; this mends it: chown -h \
         root '/nix/store/abc-hook'",
    )
}

/// Calls what a hook kills the agent for, and goes on with the next agent.
fn lose_agent(vm: &mut Vm, mut agent: Agent, command: &impl Command) -> Result<Agent> {
    let pid = agent_pid(vm)?;
    ensure!(agent.call(command, Instant::now() + LOSS).is_err(), "the agent was not killed");
    drop(agent);
    vm.wait_until(&format!("grep . /run/agent.pid && test \"$(cat /run/agent.pid)\" != {pid}"))?;
    answered(vm)
}

fn wait_for_log(vm: &mut Vm, log: &str) -> Result<()> {
    vm.wait_until(&format!("[ \"$(cat /run/hook.log)\" = \"{log}\" ]"))?;
    Ok(())
}

/// Gives some hooks a behaviour; the others succeed. Empties their log.
fn behave(vm: &mut Vm, scripts: &[(&str, &str)]) -> Result<()> {
    vm.sh("rm -f /run/hook.log /run/killed; for name in 10-first 20-second; do \
         for verb in freeze thaw; do echo true >/run/$name.$verb; done; done")?;
    for (name, script) in scripts {
        vm.sh(&format!("echo '{script}' >/run/{name}"))?;
    }
    Ok(())
}

fn check_thawed(agent: &mut Agent) -> Result<()> {
    assert_eq!(agent.call(&FreezeStatus {}, soon())?, FreezeState::Thawed);
    agent.call(&GetHostName {}, soon())?;
    Ok(())
}
