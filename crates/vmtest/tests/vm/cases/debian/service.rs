//! The unit and the udev rule of `packaging`.

use anyhow::Result;
use qga::{
    client::{Client, GuestFile},
    commands::{
        clock::SetTime,
        exec::{Exec, ExecStatus},
        freeze::{Freeze, FreezeState, FreezeStatus, Thaw},
        network::GetInterfaces,
        storage::{GetDisks, GetFsinfo},
        system::{GetHostName, GetOsinfo},
        users::{GetUsers, SetUserPassword},
    },
};
use vmtest::{
    transcript::Recorded,
    vm::{AGENT_PORT, Builder, TIMEOUT, Vm},
};

use super::{mount_hidden, tool, unmount_hidden, watchdog};
use crate::cases::{answered, jobs, soon};

/// Prints the agent's process, 0 when it does not run.
const MAIN_PID: &str = "systemctl show --value -p MainPID qgad";
const SECRET: &str = "correct-horse-battery-staple";

pub(crate) fn runs_as_its_unit_says(builder: Builder<'_>) -> Result<()> {
    let mut vm = builder.boot()?;
    starts_by_the_udev_rule(&mut vm)?;
    takes_the_place_of_the_other_agents_unit(&mut vm)?;
    leaves_programs_alone_when_it_restarts(&mut vm)?;
    jobs::outlive_their_unit(&mut vm)?;
    stays_frozen_when_it_restarts(&mut vm)?;
    watchdog::replaces_an_agent_that_hangs(&mut vm)?;
    survives_another_systemd(&mut vm)?;
    is_started_again(&mut vm)?;
    comes_and_goes_with_its_port(&mut vm)?;
    tells_the_journal_priorities_and_no_secrets(&mut vm)?;
    serves_all_but_programs_under_the_drop_in(&mut vm)?;
    assert_eq!(vm.sh("systemctl is-system-running")?, "running", "{}", vm.sh("systemctl --failed")?);
    tool::powers_off(&vm)?;
    let end = vm.qmp.wait_event("SHUTDOWN", soon())?;
    assert_eq!(end["reason"], "guest-shutdown");
    Ok(())
}

fn starts_by_the_udev_rule(vm: &mut Vm) -> Result<()> {
    let mut agent = answered(vm)?;
    let system = agent.call(&GetOsinfo {}, soon())?;
    assert_eq!(system.id.as_deref(), Some("debian"));
    assert_eq!(system.version_id, Some(vm.sh(". /etc/os-release; echo $VERSION_ID")?));
    assert_eq!(system.kernel_release, Some(vm.sh("uname -r")?));
    assert_eq!(agent.call(&GetHostName {}, soon())?.host_name, vm.sh("cat /etc/hostname")?);
    assert_eq!(vm.sh("systemctl is-enabled qgad || true")?, "disabled");
    assert_eq!(vm.sh("systemctl is-active qgad")?, "active");
    let status = format!("serving the host on /dev/virtio-ports/{AGENT_PORT}");
    assert_eq!(vm.sh("systemctl show --value -p StatusText qgad")?, status);
    assert_eq!(vm.wait_until("systemctl is-system-running --wait")?, "running");
    Ok(())
}

fn takes_the_place_of_the_other_agents_unit(vm: &mut Vm) -> Result<()> {
    assert_eq!(vm.sh("systemd-analyze verify qgad.service 2>&1")?, "");
    vm.sh("systemctl enable qgad")?;
    assert_eq!(vm.sh("systemctl show --value -p Id qemu-guest-agent")?, "qgad.service");
    assert_eq!(vm.sh("systemctl is-active qgad qemu-guest-agent")?, "active\nactive");
    Ok(())
}

fn leaves_programs_alone_when_it_restarts(vm: &mut Vm) -> Result<()> {
    let mut agent = answered(vm)?;
    let before = agent_pid(vm)?;
    let program = start(&mut agent, "/bin/sleep", &["infinity"])?;
    assert_eq!(vm.sh(&format!("cat /proc/{before}/oom_score_adj"))?, "-900");
    assert_eq!(vm.sh(&format!("cat /proc/{program}/oom_score_adj"))?, "0");
    vm.sh("systemctl restart qgad")?;
    agent.sync(soon())?;
    assert_ne!(agent_pid(vm)?, before);
    assert_eq!(vm.sh(&format!("cat /proc/{program}/comm"))?, "sleep");
    let refusal = agent.call(&ExecStatus { pid: program }, soon()).unwrap_err();
    assert!(refusal.to_string().contains("does not exist"), "{refusal}");
    vm.sh(&format!("kill {program}"))?;
    Ok(())
}

fn stays_frozen_when_it_restarts(vm: &mut Vm) -> Result<()> {
    let mut agent = answered(vm)?;
    assert!(agent.call(&Freeze { lease: None }, soon())? > 0);
    for script in ["systemctl restart qgad", &format!("kill -KILL $({MAIN_PID})")] {
        let before = agent_pid(vm)?;
        vm.sh(script)?;
        vm.wait_until(&format!("pid=$({MAIN_PID}); [ $pid != 0 ] && [ $pid != {before} ]"))?;
        agent.sync(soon())?;
        assert_eq!(agent.call(&FreezeStatus {}, soon())?, FreezeState::Frozen, "{script}");
    }
    assert!(agent.call(&Thaw {}, soon())? > 0);
    vm.sh("echo >/etc/thawed && sync -f /etc/thawed")?;
    Ok(())
}

fn survives_another_systemd(vm: &mut Vm) -> Result<()> {
    let before = agent_pid(vm)?;
    vm.sh("systemctl daemon-reexec")?;
    answered(vm)?;
    assert_eq!(agent_pid(vm)?, before);
    Ok(())
}

fn is_started_again(vm: &mut Vm) -> Result<()> {
    let mut agent = answered(vm)?;
    // Once more than systemd's usual limit allows.
    for _ in 0..6 {
        let before = agent_pid(vm)?;
        vm.sh(&format!("kill -KILL {before}"))?;
        // What the host sends until the killed agent's port is closed is lost with it.
        vm.wait_until(&format!("pid=$({MAIN_PID}); [ $pid != 0 ] && [ $pid != {before} ]"))?;
        agent.sync(soon())?;
    }
    Ok(())
}

fn comes_and_goes_with_its_port(vm: &mut Vm) -> Result<()> {
    for _ in 0..2 {
        vm.unplug_port()?;
        vm.wait_until("[ $(systemctl is-active qgad) = inactive ]")?;
        vm.plug_port()?;
        vm.wait_until("systemctl is-active qgad")?;
        answered(vm)?;
    }
    Ok(())
}

fn tells_the_journal_priorities_and_no_secrets(vm: &mut Vm) -> Result<()> {
    vm.sh("mkdir -p /etc/qemu; printf '[general]\nverbose=true\nblock-rpcs=guest-no-such\n' >/etc/qemu/qemu-ga.conf")?;
    vm.sh("systemctl restart qgad")?;
    let mut agent = answered(vm)?;
    start(&mut agent, "/bin/echo", &[SECRET])?;
    drop(agent);
    vm.sh("rm /etc/qemu/qemu-ga.conf; systemctl restart qgad")?;
    answered(vm)?;
    vm.sh("journalctl --sync")?;
    let journal = |vm: &mut Vm, priority| vm.sh(&format!("journalctl -b -o cat -p {priority}..{priority} _COMM=qgad"));
    assert!(journal(vm, "warning")?.contains("a command that does not exist: 'guest-no-such'"));
    assert!(journal(vm, "info")?.contains("qgad"));
    assert_eq!(vm.sh(&format!("journalctl -b | grep -c {SECRET} || true"))?, "0");
    Ok(())
}

/// Something of each kind; the case's own end is a shutdown under it.
fn serves_all_but_programs_under_the_drop_in(vm: &mut Vm) -> Result<()> {
    let lines = include_str!("../../../../../../packaging/systemd/no-programs.conf");
    let directory = "/etc/systemd/system/qgad.service.d";
    vm.sh(&format!("mkdir -p {directory}; cat >{directory}/no-programs.conf <<'END'\n{lines}END\n"))?;
    vm.sh("systemctl daemon-reload; systemctl restart qgad")?;
    assert_eq!(vm.sh("systemctl show --value -p NoNewPrivileges qgad")?, "yes");
    let mut agent = answered(vm)?;
    assert!(!agent.call(&GetFsinfo {}, soon())?.is_empty());
    assert!(!agent.call(&GetDisks {}, soon())?.is_empty());
    assert!(!agent.call(&GetInterfaces {}, soon())?.is_empty());
    agent.call(&GetUsers {}, soon())?;
    agent.call(&SetTime { time: None }, soon())?;
    let password = SetUserPassword { username: "root".into(), password: b"word".to_vec().into(), crypted: false };
    agent.call(&password, soon())?;
    let mut file = GuestFile::open(&mut agent, "/root/written", "w", TIMEOUT)?;
    file.write_all(b"text")?;
    file.close()?;
    assert_eq!(vm.sh("cat /root/written")?, "text");
    let count = agent.call(&Freeze { lease: None }, soon())?;
    assert_eq!(agent.call(&Thaw {}, soon())?, count);
    mount_hidden(vm)?;
    assert_eq!(agent.call(&Freeze { lease: None }, soon())?, count + 1);
    assert_eq!(agent.call(&Thaw {}, soon())?, count + 1);
    unmount_hidden(vm)?;
    Ok(())
}

fn start(agent: &mut Client<Recorded>, path: &str, arguments: &[&str]) -> Result<i64> {
    let arguments = Some(arguments.iter().map(|argument| (*argument).to_owned()).collect());
    let program = Exec { path: path.into(), arg: arguments, env: None, input_data: None, capture_output: None };
    Ok(agent.call(&program, soon())?.pid)
}

/// The process of the agent as a service.
pub(super) fn agent_pid(vm: &mut Vm) -> Result<String> {
    vm.sh(MAIN_PID)
}
