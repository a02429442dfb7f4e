//! Files and programs over virtio-serial.

use std::{
    io::Write,
    os::unix::net::UnixStream,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use qga::{
    client::{Client, Ended, GuestFile},
    commands::{
        exec::{CaptureOutput, Exec, ProgramStatus},
        file::{FileClose, FileOpen, FileRead, FileWrite},
        session::Ping,
    },
    wire::base64::Base64,
};
use vmtest::vm::{Builder, TIMEOUT, Vm};

use super::{agent_pid, answered, soon};

/// How long moving a large file may take on an emulated processor.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(600);
const LARGE_FILE_BYTES: usize = 200 * 1024 * 1024;

pub(crate) fn large_file(builder: Builder<'_>) -> Result<()> {
    let vm = builder.memory_mib(1024).boot()?;
    // Not recorded: a transcript of it would be half a gigabyte.
    let mut agent = Client::new(UnixStream::connect(vm.socket())?);
    let original = random_bytes(LARGE_FILE_BYTES);

    let begin = Instant::now();
    let mut file = GuestFile::open(&mut agent, "/tmp/large", "w", TIMEOUT)?;
    let mut rest = original.as_slice();
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at(file.piece().min(rest.len()));
        file.write_all(piece)?;
        rest = behind;
    }
    file.close()?;
    let pushed = begin.elapsed();

    let begin = Instant::now();
    let mut copy = Vec::with_capacity(LARGE_FILE_BYTES);
    let mut file = GuestFile::open(&mut agent, "/tmp/large", "r", TIMEOUT)?;
    while let Some(piece) = file.read()? {
        copy.extend_from_slice(&piece);
    }
    file.close()?;
    let pulled = begin.elapsed();

    assert!(copy == original, "the copy is not the original");
    let hash = run(&mut agent, &program("sha256sum", &["/tmp/large"]))?;
    assert_eq!(output(hash).split_whitespace().next(), Some(sha256(&original)?.as_str()));
    println!("200 MiB: pushed in {:.1} s, pulled in {:.1} s", pushed.as_secs_f64(), pulled.as_secs_f64());
    Ok(())
}

pub(crate) fn host_leaves_halfway(builder: Builder<'_>) -> Result<()> {
    let vm = builder.boot()?;
    let mut agent = answered(&vm)?;
    let handle = agent.call(&FileOpen { path: "/tmp/halfway".into(), mode: Some("w+".into()) }, soon())?;
    let bytes = Base64::from(random_bytes(3 * 1024 * 1024));
    let write = FileWrite { handle, buf_b64: bytes, count: None };
    let message = format!("{{\"execute\": \"guest-file-write\", \"arguments\": {}}}", serde_json::to_string(&write)?);
    let (half, _) = message.as_bytes().split_at(message.len() / 2);
    agent.transport().write_all(half)?;
    drop(agent);

    // The file is still open, and nothing of the broken write is in it.
    let mut agent = answered(&vm)?;
    let empty = agent.call(&FileRead { handle, count: None }, soon())?;
    assert_eq!((empty.count, empty.eof), (0, true));
    assert_eq!(agent.call(&write, soon())?.count, 3 * 1024 * 1024);
    agent.call(&FileClose { handle }, soon())?;
    Ok(())
}

pub(crate) fn restart_between_open_and_read(builder: Builder<'_>) -> Result<()> {
    let mut vm = builder.boot()?;
    let mut agent = answered(&vm)?;
    let open = FileOpen { path: "/etc/os-release".into(), mode: None };
    let handle = agent.call(&open, soon())?;
    let pid = agent_pid(&mut vm)?;
    vm.sh(&format!("kill -KILL {pid}"))?;
    vm.wait_until(&format!("[ -e /run/agent.pid ] && [ $(cat /run/agent.pid) != {pid} ]"))?;
    agent.sync(soon())?;
    let refusal = agent.call(&FileRead { handle, count: None }, soon()).unwrap_err();
    assert_eq!(refusal.to_string(), format!("handle '{handle}' has not been found"));
    let next = agent.call(&open, soon())?;
    assert!(next > handle, "handle {handle} came again as {next}");
    Ok(())
}

pub(crate) fn programs(builder: Builder<'_>) -> Result<()> {
    let mut vm = builder.boot()?;
    let mut agent = answered(&vm)?;
    let mut cat = program("sh", &["-c", "cat; echo to the other stream >&2; exit 7"]);
    cat.input_data = Some(Base64::from(b"through the program".to_vec()));
    let status = run(&mut agent, &cat)?;
    assert_eq!(status.exitcode, Some(7));
    assert_eq!(
        status.err_data.clone().map(|bytes| bytes.into_bytes().ok()),
        Some(Some(b"to the other stream\n".into()))
    );
    assert_eq!(output(status), "through the program");

    let killed = run(&mut agent, &program("sh", &["-c", "kill -9 $$"]))?;
    assert_eq!((killed.exitcode, killed.signal), (None, Some(9)));

    for _ in 0..100 {
        assert_eq!(run(&mut agent, &program("true", &[]))?.exitcode, Some(0));
    }

    // One that never stops writing and one that ignores what can be ignored: the agent answers all the same.
    let endless = agent.call(&program("sh", &["-c", "trap '' TERM INT HUP; yes"]), soon())?;
    for _ in 0..20 {
        agent.call(&Ping {}, soon())?;
    }
    vm.sh(&format!("kill -KILL -{}", endless.pid))?;
    vm.wait_until(&format!("[ ! -e /proc/{} ]", endless.pid))?;
    assert_eq!(no_zombies(&mut vm)?, "0");
    Ok(())
}

pub(crate) fn fork_bomb(builder: Builder<'_>) -> Result<()> {
    let mut vm = builder.boot()?;
    vm.sh("mkdir /run/cgroup && mount -t cgroup2 none /run/cgroup && echo +pids >/run/cgroup/cgroup.subtree_control")?;
    vm.sh("mkdir /run/cgroup/bomb && echo 60 >/run/cgroup/bomb/pids.max")?;
    let mut agent = answered(&vm)?;
    let bomb = "echo $$ >/run/cgroup/bomb/cgroup.procs; bomb() { bomb | bomb & }; while :; do bomb; done";
    agent.call(&program("sh", &["-c", bomb]), soon())?;
    vm.wait_until("grep -v 'max 0' /run/cgroup/bomb/pids.events")?;
    for _ in 0..20 {
        agent.call(&Ping {}, soon())?;
    }
    assert_eq!(run(&mut agent, &program("true", &[]))?.exitcode, Some(0));
    vm.sh("echo 1 >/run/cgroup/bomb/cgroup.kill")?;
    assert_eq!(no_zombies(&mut vm)?, "0");
    Ok(())
}

fn no_zombies(vm: &mut Vm) -> Result<String> {
    let agent = agent_pid(vm)?;
    vm.wait_until(&format!(
        "count=$(grep -l \"^PPid:[[:space:]]*{agent}$\" /proc/[0-9]*/status 2>/dev/null | wc -l); \
         [ $count = 0 ] && echo $count"
    ))
}

fn program(path: &str, arguments: &[&str]) -> Exec {
    Exec {
        path: path.into(),
        arg: Some(arguments.iter().map(ToString::to_string).collect()),
        env: None,
        input_data: None,
        capture_output: Some(CaptureOutput::Separated),
    }
}

fn run<T: qga::client::Transport>(agent: &mut Client<T>, program: &Exec) -> Result<ProgramStatus> {
    match agent.run(program, TIMEOUT, Some(Instant::now() + TRANSFER_TIMEOUT))? {
        Ended::Exited(status) => Ok(status),
        Ended::StillRunning { pid } => bail!("process {pid} does not end"),
    }
}

fn output(status: ProgramStatus) -> String {
    let bytes = status.out_data.and_then(|bytes| bytes.into_bytes().ok()).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The host's own idea of a hash.
fn sha256(bytes: &[u8]) -> Result<String> {
    let mut sha256sum = Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    sha256sum.stdin.take().context("a pipe was asked for")?.write_all(bytes)?;
    let output = String::from_utf8(sha256sum.wait_with_output()?.stdout)?;
    Ok(output.split_whitespace().next().unwrap_or_default().into())
}

/// Bytes that do not repeat, the same in every run (Marsaglia's xorshift).
fn random_bytes(count: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(count).collect()
}
