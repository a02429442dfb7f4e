//! `qgactl passwd`: sets a user's password.
//!
//! qgactl prompts for the password at the terminal, or reads it from standard input. It is never an argument, which
//! every user on the host could see.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Write},
};

use anyhow::{Context, bail};
use clap::Args;
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use qga::commands::users::SetUserPassword;

use super::AgentSubcommand;
use crate::{connect::Agent, failure::Failure};

const TERMINAL: &str = "/dev/tty";
/// Longest password that is read: more than any system accepts.
const MAX_PASSWORD_BYTES: u64 = 4096;
/// The character of Ctrl-C, where it does not send a signal.
const INTERRUPT: u8 = 3;

/// Set a user's password; qgactl prompts for it
#[derive(Args, Debug)]
pub(crate) struct Passwd {
    /// The user's name
    user: String,
    /// Read the password from standard input, up to the end of its first line
    #[arg(long)]
    stdin: bool,
    /// The input is not the password, but its hash as crypt(3) computes and mkpasswd prints it
    #[arg(long)]
    crypted: bool,
}

impl AgentSubcommand for Passwd {
    const HAS_JSON: bool = false;

    fn run_with(&self, agent: &mut Agent, _: bool) -> anyhow::Result<()> {
        let password = match self.stdin {
            true => read_line(io::stdin()).context("failed to read standard input")?,
            false => ask(&self.user)?,
        };
        agent.call(&SetUserPassword {
            username: self.user.clone(),
            password: password.into(),
            crypted: self.crypted,
        })?;
        Ok(())
    }
}

/// Prompts twice at the terminal.
fn ask(user: &str) -> anyhow::Result<Vec<u8>> {
    let opening = || format!("failed to open {TERMINAL} to ask for the password, which --stdin reads from elsewhere");
    let terminal = File::options().read(true).write(true).open(TERMINAL).with_context(opening)?;
    let hidden = Hidden::begin(&terminal).context("failed to hide what is typed")?;
    let line = |prompt: &str| -> anyhow::Result<_> {
        write!(&terminal, "{prompt}")?;
        let line = read_line(&terminal)?;
        writeln!(&terminal)?;
        match line.contains(&INTERRUPT) {
            true => Err(Failure::Interrupted { signal: nix::sys::signal::Signal::SIGINT as i32 }.into()),
            false => Ok(line),
        }
    };
    let (first, second) = (line(&format!("New password of {user}: "))?, line("The same again: ")?);
    drop(hidden);
    if first != second {
        bail!("the two passwords differ");
    }
    Ok(first)
}

/// A line without its end; an empty one only if it is there.
fn read_line(from: impl Read) -> anyhow::Result<Vec<u8>> {
    let mut line = Vec::new();
    BufReader::new(from.take(MAX_PASSWORD_BYTES + 1)).read_until(b'\n', &mut line)?;
    match line.last() {
        None => bail!("no password was given"),
        Some(b'\n') => drop(line.pop()),
        Some(_) if line.len() as u64 > MAX_PASSWORD_BYTES => bail!("a line of more than {MAX_PASSWORD_BYTES} bytes"),
        Some(_) => {}
    }
    Ok(line)
}

/// A terminal with echo off, until this is dropped.
///
/// Keys that would send a signal are read as characters, so that the terminal is never left with echo off.
struct Hidden<'a> {
    terminal: &'a File,
    before: Termios,
}

impl<'a> Hidden<'a> {
    fn begin(terminal: &'a File) -> nix::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut hidden = before.clone();
        hidden.local_flags.remove(LocalFlags::ECHO | LocalFlags::ISIG);
        tcsetattr(terminal, SetArg::TCSAFLUSH, &hidden)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Hidden<'_> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.terminal, SetArg::TCSAFLUSH, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::read_line;

    #[test]
    fn a_password_is_the_first_line() {
        for (input, password) in [("a b\n", "a b"), ("a\r\nb\n", "a\r"), ("a", "a"), ("\n", "")] {
            assert_eq!(read_line(input.as_bytes()).unwrap(), password.as_bytes());
        }
    }

    #[test]
    fn nothing_is_no_password() {
        assert!(read_line(&b""[..]).is_err());
    }

    #[test]
    fn a_password_is_read_whole_or_not_at_all() {
        let longest = "x".repeat(4096);
        assert_eq!(read_line(format!("{longest}\n").as_bytes()).unwrap(), longest.as_bytes());
        assert_eq!(read_line(longest.as_bytes()).unwrap(), longest.as_bytes());
        assert!(read_line(format!("{longest}x\n").as_bytes()).is_err());
    }
}
