//! `qgactl push`: a file into the guest.
//!
//! The guest's file is written in place, because the protocol cannot rename: after a failure it is incomplete, and the
//! error says so.

use std::{
    fs::File,
    io::{self, Read},
    path::PathBuf,
};

use anyhow::{Context, bail};
use clap::Args;
use qga::{client::GuestFile, commands::file::FileWrite};

use super::AgentSubcommand;
use crate::{
    checksum::{Checksum, Verdict},
    connect::{Agent, named},
    failure::say,
    interrupt::Interrupt,
    progress,
};

/// Copy a file from the host to the guest
#[derive(Args, Debug)]
pub(crate) struct Push {
    /// The file on the host
    local: PathBuf,
    /// The file in the guest; an existing one is overwritten
    remote: String,
    /// Do not compare the copy with the local file
    #[arg(long)]
    no_check: bool,
}

impl AgentSubcommand for Push {
    const HAS_JSON: bool = false;

    fn run_with(&self, agent: &mut Agent, _: bool) -> anyhow::Result<()> {
        let reading = || format!("failed to read {}", self.local.display());
        let local = File::open(&self.local).with_context(reading)?;
        let metadata = local.metadata().with_context(reading)?;
        if metadata.is_dir() {
            bail!("{}: Is a directory", reading());
        }
        let length = Some(metadata.len()).filter(|_| metadata.is_file());
        let interrupt = Interrupt::watch(None)?;
        let (checksum, size) = self.send(agent, local, length, &interrupt)?;
        let bytes = checksum.bytes();
        let comparison = match self.no_check {
            true => "not compared".into(),
            false => match checksum.compare(agent, &self.remote, size)? {
                Verdict::Fine(comparison) => comparison,
                Verdict::Different(how) => bail!("{}: {how}: the copy is damaged", self.remote),
            },
        };
        say(&format!("pushed {bytes} bytes; {comparison}"));
        Ok(())
    }
}

impl Push {
    /// Sends the whole file, and returns its checksum and the size that the guest reports at the end.
    fn send(
        &self,
        agent: &mut Agent,
        mut local: File,
        length: Option<u64>,
        interrupt: &Interrupt,
    ) -> anyhow::Result<(Checksum, Option<u64>)> {
        let write = named::<FileWrite>;
        let incomplete = || format!("{} is incomplete in the guest", self.remote);
        let mut file = agent.open(&self.remote, "w")?;
        let progress = progress::bar(length);
        let mut checksum = Checksum::default();
        let mut piece = Vec::new();
        loop {
            interrupt.check().with_context(incomplete)?;
            piece.clear();
            io::copy(&mut (&mut local).take(file.piece() as u64), &mut piece)
                .with_context(|| format!("failed to read {}", self.local.display()))
                .with_context(incomplete)?;
            if piece.is_empty() {
                break;
            }
            file.write_all(&piece).map_err(write).with_context(incomplete)?;
            checksum.update(&piece);
            progress.inc(piece.len() as u64);
        }
        progress.finish_and_clear();
        let size = file.size().map_err(write).with_context(incomplete)?;
        GuestFile::close(file).map_err(write).with_context(incomplete)?;
        Ok((checksum, size))
    }
}
