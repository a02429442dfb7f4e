//! Passwords, logins, keys and the clock, as commands and by the host's tool, and in the end a halt.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use nix::poll::poll;
use qga::{
    client::Client,
    commands::{
        clock::{GetTime, SetTime},
        ssh::{AddAuthorizedKeys, GetAuthorizedKeys},
        users::{GetUsers, SetUserPassword},
    },
};
use serde_json::json;
use vmtest::{
    transcript::Recorded,
    vm::{Builder, Vm},
};

use super::{
    terminal::{Line, Terminal},
    tool,
};
use crate::cases::{answered, soon};

const USER: &str = "tester";
const OTHER_USER: &str = "another";
const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl tester";
/// Long enough to be told from what emulation on a busy machine costs, half of which is the tolerance.
const PAUSE: Duration = Duration::from_secs(10);

pub(crate) fn are_looked_after(builder: Builder<'_>) -> Result<()> {
    let line = Line::new()?;
    let mut vm = line.plug_into(builder).start()?;
    tool::waits_for_the_agent(&vm)?;
    vm.wait_booted()?;
    vm.wait_until("systemctl is-system-running --wait")?;
    vm.sh(&format!("useradd -m -s /bin/bash {USER}; useradd -m -s /bin/bash {OTHER_USER}"))?;
    let mut agent = answered(&vm)?;
    let mut terminal = line.open(&mut vm)?;
    passwords_let_people_log_in(&mut vm, &mut agent, &mut terminal)?;
    logins_are_told(&mut vm, &mut agent)?;
    terminal.log_out()?;
    keys_go_where_the_user_may_write(&mut vm, &mut agent)?;
    the_clock_is_set(&mut vm, &mut agent)?;
    // The port serves one host at a time.
    drop(agent);
    tool::manages_accounts(&vm, &mut terminal, USER, KEY)?;
    tool::sets_the_clock(&mut vm)?;
    tool::halts(&mut vm)
}

fn passwords_let_people_log_in(vm: &mut Vm, agent: &mut Client<Recorded>, terminal: &mut Terminal) -> Result<()> {
    let (first, second) = ("first: pass'word", "zweites Passwört");
    let mut set = |username: &str, password: &str, crypted| {
        let password = password.as_bytes().to_vec().into();
        agent.call(&SetUserPassword { username: username.into(), password, crypted }, soon())
    };
    set(USER, first, false)?;
    assert!(terminal.log_in(USER, first)?, "the first password is refused");
    terminal.log_out()?;
    set(USER, second, false)?;
    assert!(!terminal.log_in(USER, first)?, "the first password is still taken");
    assert!(terminal.log_in(USER, second)?, "the second password is refused");
    terminal.log_out()?;

    let crypted = vm.sh(&format!("getent shadow {USER} | cut -d: -f2"))?;
    set(OTHER_USER, &crypted, true)?;
    assert!(terminal.log_in(OTHER_USER, second)?, "a crypted password is refused");

    let before = vm.sh("sha256sum /etc/shadow")?;
    for (user, password) in [("nobody-of-this-name", "x"), (USER, "two\nlines"), (USER, "a\0b")] {
        assert!(set(user, password, false).is_err(), "{user} {password:?}");
    }
    assert_eq!(vm.sh("sha256sum /etc/shadow")?, before);
    assert_eq!(vm.sh("journalctl -b | grep -c -e \"pass'word\" -e zweites || true")?, "0");
    Ok(())
}

fn logins_are_told(vm: &mut Vm, agent: &mut Client<Recorded>) -> Result<()> {
    let login: f64 = vm.sh("stat -c %Y /run/utmp")?.parse()?;
    for source in ["utmp", "logind"] {
        let users = agent.call(&GetUsers {}, soon())?;
        let [user] = &users[..] else { panic!("{source}: {users:?}") };
        assert_eq!(user.user, OTHER_USER, "{source}");
        assert!((login - user.login_time).abs() < PAUSE.as_secs_f64(), "{source}: {user:?}, not {login}");
        // Such as newer releases are without.
        vm.sh("mv /run/utmp /run/no-utmp 2>/dev/null || true")?;
    }
    vm.sh("mv /run/no-utmp /run/utmp")?;
    Ok(())
}

fn keys_go_where_the_user_may_write(vm: &mut Vm, agent: &mut Client<Recorded>) -> Result<()> {
    let keys = || AddAuthorizedKeys { username: USER.into(), keys: vec![KEY.into()], reset: None };
    let home = format!("/home/{USER}");
    let as_user = |script: &str| format!("su {USER} -c '{script}'");
    for (planted, target) in [
        ("mkdir etc; ln -s /etc .ssh", "/etc/authorized_keys"),
        ("mkdir .ssh; ln -s /etc/planted .ssh/authorized_keys", "/etc/planted"),
        ("mkdir .ssh; ln -s /etc/shadow .ssh/authorized_keys", "/etc/shadow"),
    ] {
        vm.sh(&format!("cd {home}; {}", as_user(planted)))?;
        let before = vm.sh(&format!("sha256sum {target} || true"))?;
        let outcome = agent.call(&keys(), soon());
        assert_eq!(vm.sh(&format!("sha256sum {target} || true"))?, before, "{planted}: {outcome:?}");
        vm.sh(&format!("rm -rf {home}/.ssh {home}/etc"))?;
    }
    agent.call(&keys(), soon())?;
    assert_eq!(agent.call(&GetAuthorizedKeys { username: USER.into() }, soon())?.keys, [KEY]);
    let looks = vm.sh(&format!("cd {home}; stat -c '%U %G %a' .ssh .ssh/authorized_keys; cat .ssh/authorized_keys"))?;
    assert_eq!(looks, format!("{USER} {USER} 700\n{USER} {USER} 600\n{KEY}"));
    Ok(())
}

fn the_clock_is_set(vm: &mut Vm, agent: &mut Client<Recorded>) -> Result<()> {
    let set = |agent: &mut Client<Recorded>, time| agent.call(&SetTime { time }, soon());
    let offset = |agent: &mut Client<Recorded>| -> Result<i64> {
        let guest = agent.call(&GetTime {}, soon())?;
        Ok((guest - host_time()?) / 1_000_000_000)
    };
    let tolerance = i64::try_from(PAUSE.as_secs() / 2)?;
    let check = |agent: &mut Client<Recorded>, what: &str| -> Result<()> {
        let offset = offset(agent)?;
        assert!(offset.abs() <= tolerance, "{what}: {offset} s from the host's clock");
        Ok(())
    };
    set(agent, Some(host_time()?))?;
    check(agent, "set")?;
    let hardware: i64 = vm.sh("cat /sys/class/rtc/rtc0/since_epoch")?.parse()?;
    assert!((hardware - host_time()? / 1_000_000_000).abs() <= tolerance, "the hardware clock shows {hardware}");

    // A machine that is paused does not notice; its hardware clock does.
    vm.qmp.execute("stop", &json!({}))?;
    poll(&mut [], u16::try_from(PAUSE.as_millis())?)?;
    vm.qmp.execute("cont", &json!({}))?;
    let lag = offset(agent)?;
    assert!(lag < -tolerance, "the guest is {lag} s from the host's clock after a pause");
    set(agent, Some(host_time()?))?;
    check(agent, "set after a pause")?;

    vm.sh("date -s '-1 hour' >/dev/null")?;
    assert!(offset(agent)? < -3000);
    set(agent, None)?;
    check(agent, "set from the hardware clock")?;

    let millennium = 978_307_200;
    set(agent, Some(millennium * 1_000_000_000))?;
    let seconds: i64 = vm.sh("date +%s")?.parse()?;
    assert!((millennium..millennium + 60).contains(&seconds), "{seconds}");
    set(agent, Some(host_time()?))?;
    Ok(())
}

fn host_time() -> Result<i64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    i64::try_from(now.as_nanos()).context("the host's clock is beyond the year 2262")
}
