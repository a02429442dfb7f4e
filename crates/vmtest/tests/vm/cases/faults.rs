//! Full disks.

use anyhow::{Context, Result, ensure};
use qga::{
    client::{Client, Error},
    commands::{
        exec::{CaptureOutput, Exec},
        file::FileOpen,
        freeze::{Freeze, Thaw},
        session::Ping,
    },
};
use serde_json::Value;
use vmtest::{
    transcript::Recorded,
    vm::{Builder, TIMEOUT, Vm},
};

use super::{
    agent_pid, answered,
    freeze::{boot, configure, refusal},
    soon,
    storage::disks::Content,
};

/// Where the state, the log and the audit are kept, each on a disk of its own.
const DIRECTORIES: &str = "/tmp /var/log /root";
const CONFIGURATION: &str = "logfile=/var/log/agent.log\naudit-file=/root/audit.log\nverbose=true\n";
/// Enough to leave more lines than a page of a file holds.
const POLLS: usize = 100;
const RUNS: usize = 50;
const NO_ROOM: &str = "No space left on device";
const COMPLAINT: &str = "failed to write to the log's file: No space left on device";

type Agent = Client<Recorded>;

pub(crate) fn full_disks(builder: Builder<'_>) -> Result<()> {
    let (mut vm, _disks) = boot(builder.agent_arguments(&["--statedir", "/tmp"]), &[("a", Content::Ext4)])?;
    vm.sh(&format!("for directory in {DIRECTORIES}; do mount -t tmpfs -o size=256k none $directory; done"))?;
    configure(&mut vm, CONFIGURATION)?;
    let mut agent = answered(&vm)?;
    assert_eq!(open(&mut agent)?, 1000);
    poll(&mut agent)?;

    let state = vm.sh("cat /tmp/qga.state")?;
    fill(&mut vm)?;
    poll(&mut agent)?;
    run(&mut agent)?;
    for _ in 0..2 {
        assert_eq!(refusal(open(&mut agent))?, format!("failed to commit persistent state to disk: {NO_ROOM}"));
    }
    // A host that copies the disk to enlarge it needs it consistent.
    assert_eq!(agent.call(&Freeze::default(), soon())?, 1);
    assert_eq!(agent.call(&Thaw {}, soon())?, 1);
    assert_eq!(agent.call(&Freeze { lease: Some(1) }, soon())?, 1);
    vm.wait_until("! ls /tmp/qga.state.isfrozen")?;
    assert_eq!(
        refusal(agent.call(&Thaw {}, soon()))?,
        "the freeze ended by itself: what was copied since then may be inconsistent"
    );
    assert_eq!(vm.sh("ls -A /tmp; cat /tmp/qga.state")?, format!("filler\nqga.state\n{state}"));
    vm.wait_console(COMPLAINT)?;

    vm.sh(&format!("for directory in {DIRECTORIES}; do rm $directory/filler; done"))?;
    poll(&mut agent)?;
    run(&mut agent)?;
    assert_eq!(open(&mut agent)?, 1003);
    assert_eq!(vm.sh("cat /tmp/qga.state")?, "[global]\nfd_counter=1004");
    // What is logged is written in its order.
    vm.wait_until("tail -n 1 /root/audit.log | grep -q guest-file-open")?;
    check_log(&vm.sh("cat /var/log/agent.log")?)?;
    check_audit(&vm.sh("cat /root/audit.log")?)?;

    let console = vm.console().text()?;
    assert_eq!(console.matches(COMPLAINT).count(), 1);

    // The first start of an agent meets full disks.
    drop(agent);
    vm.sh("rm /tmp/qga.state")?;
    fill(&mut vm)?;
    restart(&mut vm)?;
    let mut agent = answered(&vm)?;
    assert_eq!(refusal(open(&mut agent))?, format!("failed to commit persistent state to disk: {NO_ROOM}"));
    vm.sh("rm /tmp/filler")?;
    assert_eq!(open(&mut agent)?, 1001);
    Ok(())
}

/// Leaves no room except in the last pages of files.
fn fill(vm: &mut Vm) -> Result<()> {
    vm.sh(&format!("for directory in {DIRECTORIES}; do cat /dev/zero >$directory/filler 2>/dev/null; done; true"))
        .map(drop)
}

fn restart(vm: &mut Vm) -> Result<()> {
    let pid = agent_pid(vm)?;
    vm.sh(&format!("kill {pid}"))?;
    vm.wait_until(&format!("test \"$(cat /run/agent.pid)\" != {pid}"))?;
    Ok(())
}

fn poll(agent: &mut Agent) -> Result<()> {
    (0..POLLS).try_for_each(|_| agent.call(&Ping {}, soon()).map(drop)).map_err(Into::into)
}

fn run(agent: &mut Agent) -> Result<()> {
    let capture_output = Some(CaptureOutput::None);
    let program = Exec { path: "/bin/true".into(), arg: None, env: None, input_data: None, capture_output };
    for _ in 0..RUNS {
        agent.run(&program, TIMEOUT, Some(soon()))?;
    }
    Ok(())
}

fn open(agent: &mut Agent) -> Result<i64, Error> {
    agent.call(&FileOpen { path: "/dev/null".into(), mode: None }, soon())
}

/// Every line is whole but the last one that had room, and how many there is no room for is said once.
fn check_log(log: &str) -> Result<()> {
    let is_whole = |line: &&str| line.split_once(": ").is_some_and(|(time, _)| time.parse::<f64>().is_ok());
    let lines: Vec<_> = log.lines().collect();
    let gap = lines.iter().position(|line| line.contains("lines are missing here")).context("no gap is told of")?;
    let told = lines[gap].split_once("warning: ").context("it is no warning")?.1;
    let lost: usize = told.split_once(' ').context("it has no number")?.0.parse()?;
    assert_eq!(told, format!("{lost} lines are missing here, which could not be written: {NO_ROOM}"));
    ensure!(lines[..gap - 1].iter().chain(&lines[gap..]).all(is_whole), "{log}");
    ensure!(!lines[gap + 1..].iter().any(|line| line.contains("missing")), "{log}");
    let pings = |lines: &[&str]| lines.iter().filter(|line| line.contains("guest-ping called")).count();
    assert_eq!(pings(&lines[gap..]), POLLS);
    // Each ping has two lines: it was read, and it is done.
    let before = pings(&lines[..gap]);
    ensure!(before >= POLLS && lost + 2 * before >= 4 * POLLS, "{lost} lines are missing behind {before} pings");
    Ok(())
}

/// What is there and what is said to be missing make up all that was done.
fn check_audit(audit: &str) -> Result<()> {
    let lines: Vec<_> = audit.lines().map(serde_json::from_str::<Value>).collect();
    let gaps: Vec<_> = lines.iter().flatten().filter(|line| line.get("lost").is_some()).collect();
    let [gap] = gaps[..] else { anyhow::bail!("there are {} gaps in {audit}", gaps.len()) };
    assert_eq!(gap["reason"], NO_ROOM);
    let told = lines.iter().flatten().filter(|line| line.get("command").is_some()).count();
    let lost = usize::try_from(gap["lost"].as_u64().context("it has no number")?)?;
    let (opens, freezes) = (1 + 2 + 1, 4);
    assert_eq!(told + lost, 2 * RUNS + opens + freezes);
    let torn = lines.iter().filter(|line| line.is_err()).count();
    ensure!(torn <= 1, "{torn} lines are torn in {audit}");
    Ok(())
}
