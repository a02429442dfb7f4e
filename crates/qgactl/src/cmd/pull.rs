//! `qgactl pull`: a file out of the guest.
//!
//! The local file appears under its name only once it is complete and compared; until then it has a hidden name beside
//! it, and a transfer that fails or is interrupted leaves nothing. An existing file keeps its contents until then.
//! A file that never ends does not fill the host's disk: as many bytes are copied as the file has when it is opened. If
//! the file grows, the rest is left out, with a message. Of a file without a size, at most [`MAX_UNSIZED_BYTES`] are
//! copied.

use std::{
    fs::{self, Permissions},
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use clap::Args;
use qga::{client::GuestFile, commands::file::FileRead};
use tempfile::NamedTempFile;

use super::AgentSubcommand;
use crate::{
    checksum::{Checksum, Verdict},
    connect::{Agent, named},
    failure::say,
    interrupt::Interrupt,
    progress,
};

/// Most bytes of a file without a size: more than any file in /proc has, and quickly received.
const MAX_UNSIZED_BYTES: u64 = 64 * 1024 * 1024;

/// Copy a file from the guest to the host
#[derive(Args, Debug)]
pub(crate) struct Pull {
    /// The file in the guest
    remote: String,
    /// The file on the host, or the directory to create it in
    local: PathBuf,
    /// Do not compare the copy with the guest's file, for instance because it keeps changing
    #[arg(long)]
    no_check: bool,
}

impl AgentSubcommand for Pull {
    const HAS_JSON: bool = false;

    fn run_with(&self, agent: &mut Agent, _: bool) -> anyhow::Result<()> {
        let local = destination(&self.local, &self.remote)?;
        let half = half_file(&local).with_context(|| format!("failed to create a file beside {}", local.display()))?;
        let interrupt = Interrupt::watch(Some(half.path().to_owned()))?;
        let (checksum, size) = self.receive(agent, half.as_file(), &interrupt)?;
        let bytes = checksum.bytes();
        let comparison = match self.no_check {
            true => match size {
                Some(size) if size > bytes => format!("not compared; the file has grown to {size} bytes since"),
                _ => "not compared".into(),
            },
            false => match checksum.compare(agent, &self.remote, size)? {
                Verdict::Fine(comparison) => comparison,
                Verdict::Different(how) => {
                    bail!("{}: {how}: the file changes, or the copy is damaged (--no-check keeps it)", self.remote)
                }
            },
        };
        interrupt.check()?;
        half.as_file().sync_all().with_context(|| format!("failed to write {}", local.display()))?;
        half.persist(&local)
            .map_err(|error| error.error)
            .with_context(|| format!("failed to rename the copy to {}", local.display()))?;
        say(&format!("pulled {bytes} bytes; {comparison}"));
        Ok(())
    }
}

impl Pull {
    /// Receives what the file has now, and returns its checksum and the size that the guest reports at the end.
    fn receive(
        &self,
        agent: &mut Agent,
        mut local: &fs::File,
        interrupt: &Interrupt,
    ) -> anyhow::Result<(Checksum, Option<u64>)> {
        let read = named::<FileRead>;
        let mut file = agent.open(&self.remote, "r")?;
        let size = file.size().map_err(read)?.filter(|&size| size > 0);
        let progress = progress::bar(size);
        let mut checksum = Checksum::default();
        while size.is_none_or(|size| checksum.bytes() < size) {
            let Some(mut bytes) = file.read().map_err(read)? else { break };
            interrupt.check()?;
            let room = size.unwrap_or(MAX_UNSIZED_BYTES) - checksum.bytes();
            if let Ok(room) = usize::try_from(room)
                && bytes.len() > room
            {
                if size.is_none() {
                    let most = MAX_UNSIZED_BYTES >> 20;
                    bail!("{} has no size, and does not end within {most} MiB (qgactl cat has no limit)", self.remote);
                }
                bytes.truncate(room);
            }
            local.write_all(&bytes).context("failed to write the local file")?;
            checksum.update(&bytes);
            progress.inc(bytes.len() as u64);
        }
        progress.finish_and_clear();
        let size = file.size().map_err(read)?;
        GuestFile::close(file).map_err(read)?;
        Ok((checksum, size))
    }
}

/// Where the copy goes: only where it can be put without destroying anything but a file's contents.
fn destination(local: &Path, remote: &str) -> anyhow::Result<PathBuf> {
    let name = Path::new(remote).file_name();
    let path = match name {
        Some(name) if local.is_dir() => local.join(name),
        _ => local.to_owned(),
    };
    match fs::canonicalize(&path) {
        // A link stays, and leads to the copy.
        Ok(existing) if existing.is_file() => Ok(existing),
        Ok(_) => bail!("{} exists and is not a regular file", path.display()),
        Err(_) => Ok(path),
    }
}

fn half_file(local: &Path) -> std::io::Result<NamedTempFile> {
    let directory = match local.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    // As any program creates files: readable and writable by all, less the umask.
    let permissions = Permissions::from_mode(0o666);
    tempfile::Builder::new().prefix(".qgactl-").permissions(permissions).tempfile_in(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_gets_a_file_of_the_guests_name() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(destination(directory.path(), "/var/log/syslog").unwrap(), directory.path().join("syslog"));
    }

    #[test]
    fn what_is_not_a_regular_file_is_not_replaced() {
        assert!(destination(Path::new("/dev/null"), "/etc/hostname").is_err());
    }

    #[test]
    fn a_link_stays_and_its_target_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("target").canonicalize().unwrap_or(directory.path().join("target"));
        fs::write(&target, "").unwrap();
        std::os::unix::fs::symlink(&target, directory.path().join("link")).unwrap();
        assert_eq!(destination(&directory.path().join("link"), "x").unwrap(), target.canonicalize().unwrap());
    }
}
