//! The audit of a freeze, whose file is on a frozen file system.

use std::io::{BufRead, BufReader, Write};

use anyhow::{Context, Result, ensure};
use qga::{
    client::Transport,
    commands::{
        exec::{CaptureOutput, Exec},
        freeze::{Freeze, FreezeState, FreezeStatus, Thaw},
    },
};
use serde_json::{Value, json};
use vmtest::vm::{Builder, TIMEOUT, Vm};

use super::{Content, agent_pid, answered, boot, check_frozen, configure, refusal, soon};

const CONFIGURATION: &str = "logfile=/mnt/a/agent.log\naudit-file=/mnt/a/audit.log\nverbose=true\n";
/// In arguments as text and as base64.
const SECRETS: [&str; 2] = ["SECRETsecret", "U0VDUkVUc2VjcmV0"];
/// Commands that are refused in one freeze: their lines are more than are kept.
const FLOOD: usize = 3000;

pub(crate) fn is_written_after_the_thaw(builder: Builder<'_>) -> Result<()> {
    let (mut vm, _disks) = boot(builder, &[("a", Content::Ext4)])?;
    configure(&mut vm, CONFIGURATION)?;
    refused_commands_are_told_of_in_order(&mut vm)?;
    what_is_too_much_is_counted(&mut vm)?;
    an_agent_that_ends_leaves_its_lines_on_standard_error(&mut vm)?;
    let console = vm.console().text()?;
    for secret in SECRETS {
        vm.sh(&format!("! grep -rF {secret} /mnt/a /run /tmp /var/log"))?;
        ensure!(!console.contains(secret), "the console has a secret");
    }
    Ok(())
}

fn refused_commands_are_told_of_in_order(vm: &mut Vm) -> Result<()> {
    let mut agent = answered(vm)?;
    let [text, coded] = SECRETS;
    let exec = Exec {
        path: "/bin/true".into(),
        arg: Some(vec![text.into()]),
        env: Some(vec![format!("A={text}")]),
        input_data: Some(text.as_bytes().to_vec().into()),
        capture_output: Some(CaptureOutput::None),
    };
    agent.run(&exec, TIMEOUT, Some(soon()))?;
    let mut begun = vec![next_second(vm)?];
    assert_eq!(agent.call(&Freeze::default(), soon())?, 1);
    let refused = [
        ("guest-set-user-password", json!({"username": "root", "password": coded, "crypted": false})),
        ("guest-exec", json!({"path": "/bin/true", "arg": [text], "env": [format!("A={text}")], "input-data": coded})),
        ("guest-file-write", json!({"handle": 1000, "buf-b64": coded})),
        ("guest-ssh-add-authorized-keys", json!({"username": "root", "keys": [text]})),
    ];
    for (command, arguments) in &refused {
        begun.push(next_second(vm)?);
        let arguments = arguments.as_object().context("arguments are an object")?;
        let reason = refusal(agent.call_as::<Value>(command, arguments, soon()))?;
        check_frozen(command, &reason)?;
    }
    begun.push(next_second(vm)?);
    assert_eq!(agent.call(&Thaw {}, soon())?, 1);

    let lines = audit(vm)?;
    let told = lines.iter().map(|line| (text_of(line, "command"), text_of(line, "outcome"), text_of(line, "reason")));
    let frozen = |command| (command, "refused", "the agent is in frozen state");
    let expected = [
        ("guest-exec", "ok", ""),
        ("guest-fsfreeze-freeze", "ok", ""),
        frozen("guest-set-user-password"),
        frozen("guest-exec"),
        frozen("guest-ssh-add-authorized-keys"),
        ("guest-fsfreeze-thaw", "ok", ""),
    ];
    ensure!(told.clone().eq(expected), "{:?}", told.collect::<Vec<_>>());
    // Each began after its second had, and before the next one's. What is no part of the audit has a second, too.
    begun.remove(3);
    for (index, line) in lines.iter().skip(1).enumerate() {
        let time = seconds(vm, text_of(line, "time"))?;
        let next = begun.get(index + 1).copied().unwrap_or(i64::MAX);
        ensure!(begun[index] <= time && time < next, "{line} of {time} is not between {} and {next}", begun[index]);
    }
    // So it is in the log.
    let called = |command| format!("grep '{command}' /mnt/a/agent.log | tail -n 1 | cut -d. -f1");
    let logged: i64 = vm.sh(&called("guest-file-write"))?.parse()?;
    ensure!(begun[2] < logged && logged < begun[3], "guest-file-write is logged at {logged}");
    Ok(())
}

fn what_is_too_much_is_counted(vm: &mut Vm) -> Result<()> {
    vm.sh("true >/mnt/a/audit.log")?;
    answered(vm)?.call(&Freeze::default(), soon())?;
    let mut host = vm.connect()?;
    host.set_timeout(Some(TIMEOUT))?;
    let mut replies = BufReader::new(host.try_clone()?);
    let request = b"{\"execute\": \"guest-shutdown\"}\n";
    let writer = std::thread::spawn(move || host.write_all(&request.repeat(FLOOD)));
    let mut line = String::new();
    for _ in 0..FLOOD {
        line.clear();
        replies.read_line(&mut line)?;
        ensure!(line.contains("frozen state"), "{line}");
    }
    writer.join().expect("the writer does not panic")?;
    drop(replies);
    answered(vm)?.call(&Thaw {}, soon())?;

    let lines = audit(vm)?;
    let (gap, rest) = lines.split_first().context("the audit is empty")?;
    assert_eq!(text_of(gap, "reason"), "file systems were frozen");
    let lost = usize::try_from(gap["lost"].as_u64().context("it has no number")?)?;
    // The freeze was first, and its line was dropped. The line of the thaw was written after it.
    assert_eq!(lost + rest.len(), 1 + FLOOD + 1);
    let (thaw, kept) = rest.split_last().context("nothing is kept")?;
    assert_eq!(text_of(thaw, "command"), "guest-fsfreeze-thaw");
    let other = kept.iter().find(|line| text_of(line, "command") != "guest-shutdown");
    ensure!(kept.len() > 1000 && other.is_none(), "{} lines are kept, {other:?} among them", kept.len());
    // The log had room for all of its own.
    vm.sh("! grep 'lines were dropped' /mnt/a/agent.log")?;
    Ok(())
}

fn an_agent_that_ends_leaves_its_lines_on_standard_error(vm: &mut Vm) -> Result<()> {
    vm.sh("true >/mnt/a/audit.log")?;
    answered(vm)?.call(&Freeze::default(), soon())?;
    let pid = agent_pid(vm)?;
    vm.sh(&format!("kill {pid}"))?;
    vm.wait_console("info: audit: {")?;
    vm.wait_console("received signal 15, leaving")?;
    vm.wait_until(&format!("test \"$(cat /run/agent.pid)\" != {pid}"))?;
    let mut agent = answered(vm)?;
    assert_eq!(agent.call(&FreezeStatus {}, soon())?, FreezeState::Frozen);
    agent.call(&Thaw {}, soon())?;
    let lines = audit(vm)?;
    assert_eq!(lines.iter().map(|line| text_of(line, "command")).collect::<Vec<_>>(), ["guest-fsfreeze-thaw"]);
    Ok(())
}

/// The audit once the last thaw is in it.
fn audit(vm: &mut Vm) -> Result<Vec<Value>> {
    vm.wait_until("tail -n 1 /mnt/a/audit.log | grep -q guest-fsfreeze-thaw")?;
    vm.sh("cat /mnt/a/audit.log")?.lines().map(|line| serde_json::from_str(line).context(line.to_owned())).collect()
}

fn text_of<'a>(line: &'a Value, member: &str) -> &'a str {
    line[member].as_str().unwrap_or_default()
}

/// The guest's clock when a second has just begun there.
fn next_second(vm: &mut Vm) -> Result<i64> {
    let now = vm.sh("date +%s")?;
    Ok(vm.wait_until(&format!("test $(date +%s) != {now} && date +%s"))?.parse()?)
}

/// A time of the audit, as the guest's own tool understands it.
fn seconds(vm: &mut Vm, time: &str) -> Result<i64> {
    let (date, time) = time.split_once('T').context("it has no time of day")?;
    let (time, _) = time.split_once('.').context("it has no fraction")?;
    Ok(vm.sh(&format!("date -u -d '{date} {time}' +%s"))?.parse()?)
}
