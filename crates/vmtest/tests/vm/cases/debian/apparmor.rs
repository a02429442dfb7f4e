//! The sample profile for AppArmor: commands of each kind that work under it, and what it forbids.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};
use qga::{
    client::{Client, Ended, GuestFile},
    commands::{
        clock::{GetTimezone, SetTime},
        cpu::GetVcpus,
        exec::{CaptureOutput, Exec},
        freeze::{Freeze, FreezeState, FreezeStatus, Thaw},
        memory::GetMemoryBlocks,
        network::{GetInterfaces, GetRoute},
        ssh::{AddAuthorizedKeys, GetAuthorizedKeys},
        storage::{Fstrim, GetDisks, GetDiskstats, GetFsinfo},
        system::{GetHostName, GetOsinfo},
        users::{GetUsers, SetUserPassword},
    },
    wire::base64::Base64,
};
use vmtest::{
    transcript::Recorded,
    vm::{Builder, TIMEOUT, Vm},
};

use super::{service::agent_pid, tool};
use crate::cases::{answered, jobs, soon};

const PROFILE: &str = "/etc/apparmor.d/usr.sbin.qgad";
/// The refusals that the kernel has logged.
const DENIED: &str = "dmesg | grep 'apparmor=\"DENIED\"' || true";
const USER: &str = "tester";
const CONFINED_USER: &str = "confined";
const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl tester";

pub(crate) fn confines_the_agent(builder: Builder<'_>) -> Result<()> {
    let mut vm = builder.boot()?;
    vm.wait_until("systemctl is-system-running --wait")?;
    vm.sh(&format!("useradd -m -s /bin/bash {USER}"))?;
    let hook = "#!/bin/sh\\necho $1 >>/run/hook.log\\n";
    vm.sh(&format!("mkdir -p /etc/qemu; printf '{hook}' >/etc/qemu/fsfreeze-hook; chmod 755 /etc/qemu/fsfreeze-hook"))?;
    vm.sh("printf '[general]\\nfsfreeze-hook=/etc/qemu/fsfreeze-hook\\n' >/etc/qemu/qemu-ga.conf")?;
    let profile = include_str!("../../../../../../packaging/apparmor/usr.sbin.qgad");
    vm.sh(&format!("cat >{PROFILE} <<'END'\n{profile}END\napparmor_parser -r {PROFILE} && systemctl restart qgad"))?;
    let agent = agent_pid(&mut vm)?;
    assert_eq!(vm.sh(&format!("cat /proc/{agent}/attr/apparmor/current"))?, "qgad (enforce)");
    let mut agent = answered(&vm)?;
    tells_all_facts(&mut agent)?;
    changes_what_it_is_to(&mut vm, &mut agent)?;
    freezes(&mut vm, &mut agent)?;
    jobs::of_each_kind(&mut agent, USER)?;
    assert_eq!(vm.sh(DENIED)?, "");
    opens_what_is_named_only(&mut vm, &mut agent)?;
    runs_programs_outside(&mut vm, &mut agent)?;
    drop(agent);
    tool::powers_off(&vm)?;
    assert_eq!(vm.qmp.wait_event("SHUTDOWN", soon())?["reason"], "guest-shutdown");
    Ok(())
}

fn tells_all_facts(agent: &mut Client<Recorded>) -> Result<()> {
    assert_eq!(agent.call(&GetOsinfo {}, soon())?.id.as_deref(), Some("debian"));
    agent.call(&GetHostName {}, soon())?;
    agent.call(&GetTimezone {}, soon())?;
    let root = agent.call(&GetFsinfo {}, soon())?;
    let root = root.iter().find(|file_system| file_system.mountpoint == "/");
    assert!(root.is_some_and(|root| root.total_bytes.is_some() && !root.disk.is_empty()), "{root:?}");
    assert!(!agent.call(&GetDisks {}, soon())?.is_empty());
    assert!(!agent.call(&GetDiskstats {}, soon())?.is_empty());
    assert!(!agent.call(&GetInterfaces {}, soon())?.is_empty());
    agent.call(&GetRoute {}, soon())?;
    assert_eq!(agent.call(&GetVcpus {}, soon())?.len(), 1);
    assert!(!agent.call(&GetMemoryBlocks {}, soon())?.is_empty());
    agent.call(&GetUsers {}, soon())?;
    Ok(())
}

fn changes_what_it_is_to(vm: &mut Vm, agent: &mut Client<Recorded>) -> Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    agent.call(&SetTime { time: Some(i64::try_from((now + Duration::from_secs(1)).as_nanos())?) }, soon())?;
    agent.call(&SetTime { time: None }, soon())?;
    let before = vm.sh(&format!("getent shadow {USER}"))?;
    let password = SetUserPassword { username: USER.into(), password: b"word".to_vec().into(), crypted: false };
    agent.call(&password, soon())?;
    assert_ne!(vm.sh(&format!("getent shadow {USER}"))?, before);
    // The home of a user whom sshd confines to it is root's.
    vm.sh(&format!(
        "useradd -m {CONFINED_USER}; cd /home; chown root:root {CONFINED_USER}; chmod 755 {CONFINED_USER}"
    ))?;
    for username in [USER, CONFINED_USER, "root"] {
        agent.call(&AddAuthorizedKeys { username: username.into(), keys: vec![KEY.into()], reset: None }, soon())?;
        assert_eq!(agent.call(&GetAuthorizedKeys { username: username.into() }, soon())?.keys, [KEY]);
    }
    let trimmed = agent.call(&Fstrim { minimum: None }, soon())?;
    assert!(trimmed.paths.iter().any(|path| path.path == "/"), "{trimmed:?}");
    let mut file = GuestFile::open(agent, "/tmp/from-the-host", "w", TIMEOUT)?;
    file.write_all(b"text")?;
    file.close()?;
    let mut file = GuestFile::open(agent, "/tmp/from-the-host", "r", TIMEOUT)?;
    assert_eq!(file.read()?, Some(b"text".to_vec()));
    file.close()?;
    Ok(())
}

/// With the hook, with the guard, and with another agent that takes the freeze over.
fn freezes(vm: &mut Vm, agent: &mut Client<Recorded>) -> Result<()> {
    assert!(agent.call(&Freeze { lease: None }, soon())? > 0);
    let before = agent_pid(vm)?;
    assert_eq!(
        vm.sh("cat $(dirname $(grep -lx qgad-guard /proc/[0-9]*/comm))/attr/apparmor/current")?,
        "qgad (enforce)"
    );
    vm.sh(&format!("kill -KILL {before}"))?;
    vm.wait_until(&format!("pid=$(systemctl show --value -p MainPID qgad); [ $pid != 0 ] && [ $pid != {before} ]"))?;
    agent.sync(soon())?;
    assert_eq!(agent.call(&FreezeStatus {}, soon())?, FreezeState::Frozen);
    assert!(agent.call(&Thaw {}, soon())? > 0);
    assert_eq!(vm.sh("cat /run/hook.log")?, "freeze\nthaw");
    Ok(())
}

fn opens_what_is_named_only(vm: &mut Vm, agent: &mut Client<Recorded>) -> Result<()> {
    for (path, mode) in [("/etc/shadow", "r"), ("/etc/cron.d/planted", "w"), ("/tmp/link", "r")] {
        vm.sh("ln -sf /etc/shadow /tmp/link")?;
        let refusal = GuestFile::open(agent, path, mode, TIMEOUT).unwrap_err();
        assert!(refusal.to_string().ends_with("Permission denied"), "{path}: {refusal}");
    }
    let denied = vm.sh(DENIED)?;
    assert!(denied.contains("profile=\"qgad\" name=\"/etc/shadow\""), "{denied}");
    Ok(())
}

fn runs_programs_outside(vm: &mut Vm, agent: &mut Client<Recorded>) -> Result<()> {
    let look = Exec {
        path: "/bin/sh".into(),
        arg: Some(vec!["-c".into(), "cat /proc/self/attr/apparmor/current; cat /etc/shadow >/dev/null".into()]),
        env: None,
        input_data: None,
        capture_output: Some(CaptureOutput::Separated),
    };
    let Ended::Exited(status) = agent.run(&look, TIMEOUT, Some(soon()))? else { bail!("the program does not end") };
    assert_eq!(status.exitcode, Some(0));
    assert_eq!(status.out_data.map(Base64::into_bytes), Some(Ok(b"unconfined\n".to_vec())));

    // As the profile's head says.
    vm.sh(&format!("sed -i '/^  \\/{{.*}}.*\\*\\* PUx,/d' {PROFILE} && apparmor_parser -r {PROFILE}"))?;
    let refusal = agent.call(&look, soon()).unwrap_err();
    assert!(refusal.to_string().contains("Permission denied"), "{refusal}");
    Ok(())
}
