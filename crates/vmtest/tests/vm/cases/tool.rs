//! qgactl's live programs over virtio-serial, where nothing tells a host that the agent has ended.

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    pty::{Winsize, openpty},
    unistd::ttyname,
};
use vmtest::{
    needs,
    vm::{Builder, TIMEOUT, Vm},
};

use super::{agent_pid, answered};

/// What `seq` is asked for: 14 MB, which is more than all buffers on the way hold.
const LAST_NUMBER: u32 = 2_000_000;
/// How much output is read before each kill.
const PIECE_BYTES: usize = 4_000_000;

pub(crate) fn shell(builder: Builder<'_>) -> Result<()> {
    let mut vm = builder.boot()?;
    drop(answered(&vm)?);
    vm.sh("umount /dev/pts 2>/dev/null; rm -f /dev/ptmx; mkdir -p /dev/pts; \
           mount -t devpts -o gid=5,mode=620,ptmxmode=666 none /dev/pts && ln -s pts/ptmx /dev/ptmx")?;
    let size = Winsize { ws_row: 30, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
    let pair = openpty(&size, None)?;
    let mut tool = tool(&vm, &["setsid", "--ctty"])?;
    tool.args(["exec", "-t", "-e", "PS1=ready>", "sh", "-i"]).stdin(pair.slave.try_clone()?);
    let mut process = tool.stdout(pair.slave.try_clone()?).stderr(pair.slave.try_clone()?).spawn()?;
    let mut user = User { terminal: pair.master.into(), seen: String::new() };
    user.expect("ready>")?;
    user.enter("stty size", "\r\n30 100\r\n")?;
    resize(&pair.slave, 50, 132)?;
    user.enter("until [ \"$(stty size)\" = '50 132' ]; do sleep 0.1; done; echo the new size", "\r\nthe new size\r\n")?;
    // The program itself says that it is there, so that the keys find it.
    let program = "sh -c 'echo begin; exec sleep 1000'\r";
    for (key, check, expected) in
        [("\x03", "echo interrupted=$?", "\r\ninterrupted=130\r\n"), ("\x1a", "jobs; kill -9 %1", "Stopped")]
    {
        user.write(program)?;
        user.expect("\r\nbegin\r\n")?;
        user.write(key)?;
        user.expect("ready>")?;
        user.enter(check, expected)?;
    }
    user.write("exec sh -c 'exit 7'\r")?;
    ensure!(process.wait()?.code() == Some(7), "{}", user.seen);
    Ok(())
}

pub(crate) fn output_of_killed_agents(builder: Builder<'_>) -> Result<()> {
    let mut vm = builder.boot()?;
    drop(answered(&vm)?);
    let mut tool = tool(&vm, &["env"])?;
    let line = format!("seq {LAST_NUMBER}; exit 5");
    let mut process = tool.args(["exec", "sh", "-c", &line]).stdout(Stdio::piped()).spawn()?;
    let (mut stdout, mut output) = (process.stdout.take().context("no output")?, Vec::new());
    for _ in 0..3 {
        let mut piece = vec![0; PIECE_BYTES];
        stdout.read_exact(&mut piece)?;
        output.extend(piece);
        let pid = agent_pid(&mut vm)?;
        vm.sh(&format!("kill -KILL {pid}"))?;
        vm.wait_until(&format!("[ $(cat /run/agent.pid) != {pid} ]"))?;
    }
    stdout.read_to_end(&mut output)?;
    ensure!(process.wait()?.code() == Some(5), "the status of the program is lost");
    let expected: Vec<u8> = (1..=LAST_NUMBER).flat_map(|number| format!("{number}\n").into_bytes()).collect();
    ensure!(output == expected, "{} of {} bytes came, or others", output.len(), expected.len());
    Ok(())
}

/// qgactl on the VM, run by a program that turns into the one that its arguments name.
fn tool(vm: &Vm, program: &[&str]) -> Result<Command> {
    let tool: PathBuf = needs::tool()?;
    let mut command = Command::new(program[0]);
    command.args(&program[1..]).arg(tool).arg("--socket").arg(vm.socket());
    Ok(command)
}

fn resize(terminal: &OwnedFd, rows: u16, columns: u16) -> Result<()> {
    let mut stty = Command::new("stty");
    stty.arg("-F").arg(ttyname(terminal)?).args(["rows", &rows.to_string(), "columns", &columns.to_string()]);
    ensure!(stty.status()?.success(), "stty failed");
    Ok(())
}

/// Who sits at the terminal.
struct User {
    terminal: File,
    seen: String,
}

impl User {
    fn write(&mut self, typed: &str) -> Result<()> {
        Ok(self.terminal.write_all(typed.as_bytes())?)
    }

    /// Types a line, and reads what comes of it and the next prompt.
    fn enter(&mut self, line: &str, expected: &str) -> Result<()> {
        self.write(&format!("{line}\r"))?;
        self.expect(expected)?;
        self.expect("ready>")
    }

    /// Reads until the text is there, and drops all up to its end.
    fn expect(&mut self, text: &str) -> Result<()> {
        loop {
            if let Some(found) = self.seen.find(text) {
                self.seen.drain(..found + text.len());
                return Ok(());
            }
            let mut polled = [PollFd::new(self.terminal.as_fd(), PollFlags::POLLIN)];
            if poll(&mut polled, PollTimeout::try_from(TIMEOUT)?)? == 0 {
                bail!("{text:?} is not in {:?}", self.seen);
            }
            let mut bytes = [0; 4096];
            let count = self.terminal.read(&mut bytes)?;
            self.seen += &String::from_utf8_lossy(&bytes[..count]);
        }
    }
}
