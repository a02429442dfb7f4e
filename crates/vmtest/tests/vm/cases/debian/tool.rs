//! The host's tool against the agent on Debian: what it prints, its exit status, and what it has done to the guest.
//!
//! No other client may be connected meanwhile: QEMU serves one at a time.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use anyhow::{Context, Result};
use vmtest::{
    needs,
    vm::{BOOT_TIMEOUT, TIMEOUT, Vm},
};

use super::terminal::Terminal;

/// The statuses that the tool's help tells.
const SUCCESS: i32 = 0;
const FAILED: i32 = 1;
const SILENT: i32 = 4;

/// Begins before the guest has booted.
pub(super) fn waits_for_the_agent(vm: &Vm) -> Result<()> {
    let seconds = BOOT_TIMEOUT.as_secs().to_string();
    let said = check(vm, &["wait", "--timeout", &seconds], "", SUCCESS)?;
    assert!(said.starts_with("the agent answered after "), "{said}");
    Ok(())
}

/// No user is logged in before and after.
pub(super) fn manages_accounts(vm: &Vm, terminal: &mut Terminal, user: &str, key: &str) -> Result<()> {
    assert_eq!(check(vm, &["passwd", user, "--stdin"], "by the tool\n", SUCCESS)?, "");
    assert!(terminal.log_in(user, "by the tool")?, "the password is refused");
    let users = check(vm, &["users"], "", SUCCESS)?;
    assert_eq!(users.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect::<Vec<_>>(), [user]);
    terminal.log_out()?;

    let other = "ssh-rsa AAAAB3NzaC1yc2E other";
    check(vm, &["ssh-keys", user, "--replace", "-"], key, SUCCESS)?;
    check(vm, &["ssh-keys", user, "--add", "-"], &format!("# mine\n{other}\n{key}\n"), SUCCESS)?;
    assert_eq!(check(vm, &["ssh-keys", user], "", SUCCESS)?, format!("{key}\n{other}\n"));
    check(vm, &["ssh-keys", user, "--remove", "-"], key, SUCCESS)?;
    assert_eq!(check(vm, &["ssh-keys", user], "", SUCCESS)?, format!("{other}\n"));

    let unknown = "nobody-of-this-name";
    for arguments in [&["passwd", unknown, "--stdin"][..], &["ssh-keys", unknown, "--add", "-"]] {
        let said = check(vm, arguments, "word\n", FAILED)?;
        assert!(said.starts_with("qgactl: guest-"), "{arguments:?}: {said}");
    }
    Ok(())
}

pub(super) fn sets_the_clock(vm: &mut Vm) -> Result<()> {
    vm.sh("date -s '-1 hour' >/dev/null")?;
    let wrong = check(vm, &["time"], "", SUCCESS)?;
    assert!(wrong.contains(" behind the host") && seconds_off(&wrong)? > 3000.0, "{wrong}");
    let right = check(vm, &["time", "--set", "now"], "", SUCCESS)?;
    assert!(seconds_off(&right)? < TIMEOUT.as_secs_f64(), "{right}");
    Ok(())
}

/// A guest that is stopped and still on keeps its port, and answers no more.
pub(super) fn halts(vm: &mut Vm) -> Result<()> {
    assert_eq!(check(vm, &["shutdown", "--halt", "--wait"], "", SUCCESS)?, "");
    vm.wait_console("System halted")?;
    let said = check(vm, &["wait", "--timeout", "1"], "", SILENT)?;
    assert!(said.contains("no agent answered within"), "{said}");
    Ok(())
}

pub(super) fn powers_off(vm: &Vm) -> Result<()> {
    assert_eq!(check(vm, &["shutdown", "--wait"], "", SUCCESS)?, "");
    Ok(())
}

/// Runs the tool, and returns what it printed, or of a failure what it said about it.
fn check(vm: &Vm, arguments: &[&str], input: &str, status: i32) -> Result<String> {
    let mut tool = Command::new(needs::tool()?);
    tool.arg("--socket").arg(vm.socket()).args(arguments);
    let mut tool = tool.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    if !input.is_empty() {
        tool.stdin.as_mut().context("no standard input")?.write_all(input.as_bytes())?;
    }
    let ended = tool.wait_with_output()?;
    let errors = String::from_utf8(ended.stderr)?;
    assert_eq!(ended.status.code(), Some(status), "{arguments:?}: {errors}");
    Ok(if status == SUCCESS { String::from_utf8(ended.stdout)? } else { errors })
}

/// How far the guest's clock is from the host's.
fn seconds_off(told: &str) -> Result<f64> {
    let seconds = told.split_whitespace().nth(3).with_context(|| format!("no seconds in {told:?}"))?;
    seconds.parse().with_context(|| format!("no seconds in {told:?}"))
}
