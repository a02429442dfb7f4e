//! exec --tty and shell: a terminal here that belongs to a program in the guest, and is given back.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

mod support;

use std::{
    fs::{self, File},
    io::{Read, Write},
    os::fd::{AsFd, OwnedFd},
    process::{Child, Command, Stdio},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    pty::{Winsize, openpty},
    sys::{
        signal::{Signal, kill},
        termios::{LocalFlags, Termios, tcgetattr},
    },
    unistd::{Pid, ttyname},
};
use support::{Agent, TIMEOUT, wait_until};

/// qgactl on a terminal of its own.
struct Terminal {
    user: File,
    program_side: OwnedFd,
    before: Termios,
    process: Child,
    seen: String,
}

impl Terminal {
    fn start(agent: &Agent, arguments: &[&str]) -> Self {
        let size = Winsize { ws_row: 30, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
        let pair = openpty(&size, None).unwrap();
        let side = || Stdio::from(pair.slave.try_clone().unwrap());
        let mut command = Command::new("setsid");
        command.args(["--ctty", "--wait", env!("CARGO_BIN_EXE_qgactl"), "--socket"]).arg(agent.socket());
        command.args(arguments).env("TERM", "xterm-256color");
        let process = command.stdin(side()).stdout(side()).stderr(side()).spawn().unwrap();
        let before = tcgetattr(&pair.slave).unwrap();
        Self { user: pair.master.into(), program_side: pair.slave, before, process, seen: String::new() }
    }

    fn write(&mut self, typed: &str) {
        self.user.write_all(typed.as_bytes()).unwrap();
    }

    /// Reads until the text is there, and drops all up to its end.
    fn expect(&mut self, text: &str) {
        loop {
            if let Some(found) = self.seen.find(text) {
                self.seen.drain(..found + text.len());
                return;
            }
            let timeout = PollTimeout::try_from(TIMEOUT).unwrap();
            let ready = poll(&mut [PollFd::new(self.user.as_fd(), PollFlags::POLLIN)], timeout).unwrap();
            assert!(ready > 0, "{text:?} is not in {:?}", self.seen);
            self.read();
        }
    }

    fn read(&mut self) {
        let mut bytes = [0; 4096];
        let count = self.user.read(&mut bytes).unwrap();
        self.seen += &String::from_utf8_lossy(&bytes[..count]);
    }

    fn resize(&self, rows: u16, columns: u16) {
        let path = ttyname(&self.program_side).unwrap();
        let mut stty = Command::new("stty");
        stty.arg("-F").arg(path).args(["rows", &rows.to_string(), "columns", &columns.to_string()]);
        assert!(stty.status().unwrap().success());
    }

    fn mode(&self) -> Termios {
        tcgetattr(&self.program_side).unwrap()
    }

    fn is_raw(&self) -> bool {
        !self.mode().local_flags.contains(LocalFlags::ICANON)
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.process.id().try_into().unwrap()), signal).unwrap();
    }

    fn is_stopped(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id())).unwrap();
        stat.rsplit_once(") ").unwrap().1.starts_with('T')
    }

    /// Waits for the end, and checks its status and that the terminal is as it was.
    fn finish(mut self, status: i32) -> String {
        let mut ended = None;
        wait_until("qgactl has ended", || {
            ended = self.process.try_wait().unwrap();
            ended.is_some()
        });
        let ended = ended.unwrap();
        assert_eq!(ended.code(), Some(status), "{}", self.seen);
        assert_eq!(self.mode(), self.before);
        while poll(&mut [PollFd::new(self.user.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO).unwrap() > 0 {
            self.read();
        }
        std::mem::take(&mut self.seen)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// A shell in the guest that has shown its prompt.
fn shell(agent: &Agent) -> Terminal {
    let mut terminal = Terminal::start(agent, &["exec", "-t", "-e", "PS1=ready>", "-e", "ENV=", "sh", "-i"]);
    terminal.expect("ready>");
    assert!(terminal.is_raw());
    terminal
}

fn jobs(agent: &Agent) -> usize {
    agent.qgactl(&["jobs"]).success().lines().count() - 1
}

#[test]
fn a_shell_has_the_size_and_the_type_of_our_terminal_and_follows_its_size() {
    let Some(agent) = Agent::ours(&[]) else { return };
    let mut terminal = shell(&agent);
    terminal.write("stty size; echo =$TERM=\r");
    terminal.expect("\r\n30 100\r\n=xterm-256color=\r\n");
    terminal.expect("ready>");
    terminal.resize(50, 132);
    terminal.write("until test \"$(stty size)\" = '50 132'; do sleep 0.05; done; echo the new size\r");
    terminal.expect("\r\nthe new size\r\n");
    terminal.expect("ready>");
    terminal.write("exit 7\r");
    terminal.finish(7);
    assert_eq!(jobs(&agent), 0);
}

#[test]
fn keys_of_the_guest_interrupt_and_stop_programs_there() {
    let Some(agent) = Agent::ours(&[]) else { return };
    let mut terminal = shell(&agent);
    // The program itself says that it is there, so that the key finds it.
    let program = "sh -c 'echo begin; exec sleep 1000'; echo status=$?\r";
    terminal.write(program);
    terminal.expect("\r\nbegin\r\n");
    terminal.write("\x03");
    terminal.expect("ready>");
    terminal.write("echo interrupted=$?\r");
    terminal.expect("\r\ninterrupted=130\r\n");
    terminal.expect("ready>");
    terminal.write(program);
    terminal.expect("\r\nbegin\r\n");
    terminal.write("\x1a");
    terminal.expect("ready>");
    terminal.write("jobs; kill -9 %1\r");
    terminal.expect("Stopped");
    terminal.expect("ready>");
    assert!(!terminal.is_stopped());
    terminal.write("cat; echo ended\r\x04");
    terminal.expect("\r\nended\r\n");
    terminal.expect("ready>");
    terminal.write("exec sh -c 'exit 9'\r");
    terminal.finish(9);
}

#[test]
fn the_way_out_leaves_the_job_to_which_attach_returns() {
    let Some(agent) = Agent::ours(&[]) else { return };
    let mut terminal = shell(&agent);
    terminal.write("A=kept\r");
    terminal.expect("ready>");
    terminal.write("~.");
    let said = terminal.finish(0);
    assert!(said.contains("goes on in the guest; `qgactl jobs attach "), "{said}");
    let list = agent.qgactl(&["jobs"]).success();
    let id = list.lines().nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    agent.qgactl(&["jobs", "attach", &id]).check(125, "standard input is no terminal");
    let mut terminal = Terminal::start(&agent, &["jobs", "attach", &id]);
    terminal.write("echo =$A=; exit 3\r");
    terminal.expect("=kept=\r\n");
    terminal.finish(3);
    assert_eq!(jobs(&agent), 0);
}

#[test]
fn a_signal_that_ends_us_gives_the_terminal_back_and_leaves_the_job() {
    let Some(agent) = Agent::ours(&[]) else { return };
    for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT] {
        let terminal = shell(&agent);
        terminal.signal(signal);
        let said = terminal.finish(128 + signal as i32);
        assert!(said.contains("goes on in the guest"), "{said}");
    }
    assert_eq!(jobs(&agent), 4);
}

#[test]
fn while_we_are_stopped_the_terminal_is_as_it_was_and_then_raw_again() {
    let Some(agent) = Agent::ours(&[]) else { return };
    let mut terminal = shell(&agent);
    terminal.signal(Signal::SIGTSTP);
    wait_until("it has stopped", || terminal.is_stopped());
    assert_eq!(terminal.mode(), terminal.before);
    terminal.signal(Signal::SIGCONT);
    wait_until("it is raw again", || terminal.is_raw());
    terminal.write("exit 4\r");
    terminal.finish(4);
}

#[test]
fn a_program_that_cannot_start_and_an_agent_that_is_lost_give_the_terminal_back() {
    let Some(mut agent) = Agent::ours(&[]) else { return };
    Terminal::start(&agent, &["exec", "-t", "/nonexistent"]).finish(125);
    let mut terminal = shell(&agent);
    let socket = agent.socket();
    agent.restart(|| {
        fs::remove_file(socket).ok();
        terminal.expect("qgactl: the agent was lost, and is looked for\r\n");
        terminal.write("\r~.");
        terminal.finish(0);
    });
}

#[test]
fn the_login_shell_is_one_of_a_login() {
    let Some(agent) = Agent::ours(&[]) else { return };
    let mut terminal = Terminal::start(&agent, &["shell", "-w", "/usr", "-e", "A=1"]);
    terminal.write("echo =$A=$PWD=; kill -9 $$\r");
    terminal.expect("=1=/usr=\r\n");
    terminal.finish(137);
}
