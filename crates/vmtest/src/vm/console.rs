//! The guest's console: what its kernel, its init and the agent print.
//!
//! QEMU appends it to a file of the VM's folder, which outlives the VM. Whatever goes wrong with a guest is explained
//! here, so an error of a VM carries the last lines.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use nix::poll::poll;

use super::POLL_INTERVAL_MS;

/// Most lines of the console that an error shows: more than a kernel's panic takes.
const TAIL_LINES: usize = 30;

/// The console of one VM.
#[derive(Debug)]
pub struct Console {
    path: PathBuf,
}

impl Console {
    /// The console of a VM, by the VM's folder.
    pub fn new(folder: &Path) -> Self {
        Self { path: Self::path_in(folder) }
    }

    /// The file that QEMU appends to.
    pub(super) fn path_in(folder: &Path) -> PathBuf {
        folder.join("console.log")
    }

    /// Everything that was printed so far.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn text(&self) -> Result<String> {
        let bytes = fs::read(&self.path).with_context(|| format!("failed to read {}", self.path.display()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The last lines that are not empty.
    pub fn tail(&self) -> String {
        let text = self.text().unwrap_or_default();
        let lines: Vec<_> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }

    /// Waits until the console shows a text. `exit_status` tells whether QEMU has ended.
    ///
    /// # Errors
    /// When QEMU ends first, or the time is up.
    pub(super) fn wait_for(
        &self,
        text: &str,
        timeout: Duration,
        mut exit_status: impl FnMut() -> Result<Option<ExitStatus>>,
    ) -> Result<()> {
        let deadline = Instant::now() + timeout;
        loop {
            // Before the text: all that QEMU has written before its end is in the file then.
            let ended = exit_status()?;
            if self.text().is_ok_and(|shown| shown.contains(text)) {
                return Ok(());
            }
            if let Some(status) = ended {
                bail!("QEMU ended with {status} before the console showed {text:?}");
            }
            if Instant::now() >= deadline {
                bail!("the console does not show {text:?} within {timeout:?}");
            }
            poll(&mut [], POLL_INTERVAL_MS)?;
        }
    }

    /// Adds the last lines to an error.
    ///
    /// # Errors
    /// The given one.
    pub(super) fn explain<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|error| match self.tail() {
            tail if tail.is_empty() => anyhow!("{error:#}; the guest's console is empty"),
            tail => anyhow!("{error:#}; the end of the guest's console:\n{tail}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    fn console(content: &[u8]) -> (tempfile::TempDir, Console) {
        let folder = tempfile::tempdir().unwrap();
        fs::write(Console::path_in(folder.path()), content).unwrap();
        let console = Console::new(folder.path());
        (folder, console)
    }

    #[test]
    fn the_tail_is_the_last_lines_that_say_something() {
        let lines: String = (0..40).map(|number| format!("line {number}\r\n\r\n")).collect();
        let (_folder, console) = console(lines.as_bytes());
        let tail = console.tail();
        assert_eq!(tail.lines().count(), TAIL_LINES);
        assert!(tail.starts_with("line 10\n") && tail.ends_with("\nline 39"), "{tail}");
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced() {
        assert_eq!(console(b"a\xFFb").1.text().unwrap(), "a\u{FFFD}b");
    }

    #[test]
    fn a_text_is_waited_for_until_it_is_there() {
        let (folder, console) = console(b"booting\n");
        let mut polls = 0;
        let print_at_the_third_poll = || {
            polls += 1;
            if polls == 3 {
                fs::write(Console::path_in(folder.path()), "booting\nSystem halted\n")?;
            }
            Ok(None)
        };
        console.wait_for("System halted", Duration::from_secs(60), print_at_the_third_poll).unwrap();
        assert_eq!(polls, 3);
    }

    #[test]
    fn a_text_that_does_not_come_ends_the_wait_with_the_time_or_with_qemu() {
        let (_folder, console) = console(b"booting\n");
        let error = console.wait_for("x", Duration::ZERO, || Ok(None)).unwrap_err();
        assert_eq!(error.to_string(), "the console does not show \"x\" within 0ns");
        let killed = || Ok(Some(ExitStatus::from_raw(9)));
        let error = console.wait_for("x", Duration::from_secs(60), killed).unwrap_err();
        assert_eq!(error.to_string(), "QEMU ended with signal: 9 (SIGKILL) before the console showed \"x\"");
        console.wait_for("booting", Duration::from_secs(60), killed).unwrap();
    }

    #[test]
    fn an_error_carries_the_tail_or_says_that_there_is_none() {
        let explained = |console: &Console| console.explain::<()>(Err(anyhow!("why"))).unwrap_err().to_string();
        assert_eq!(explained(&console(b"panic\n").1), "why; the end of the guest's console:\npanic");
        assert_eq!(explained(&Console::new(Path::new("/nonexistent"))), "why; the guest's console is empty");
    }
}
