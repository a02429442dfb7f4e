//! The figures of a machine whose agent has no command for them, such as `qemu-ga`.
//!
//! Its commands and the kernel's files give the same figures where they know them. They do not know inodes, the number
//! of processes, the clock and most of the agent itself. An agent that does not let files be read leaves out memory,
//! pressure and processes; which interfaces are physical is unknown then, and those without an address are missing.
//! Where an old agent does not tell what a file system keeps for the administrator, its size is without that.
//! While file systems are frozen such an agent answers nothing else, and reading a file might wait for the thaw.

use std::time::Instant;

use qga::{
    Command,
    client::{Error, GuestFile},
    commands::{
        cpu::{GetCpustats, GetLoad},
        freeze::{FreezeState, FreezeStatus},
        metrics::{
            AgentMetrics, FileSystemLeftOut, FileSystemMetrics, InterfaceMetrics, LeftOutReason, Metrics,
            NetworkMetrics, PressureMetrics,
        },
        network::GetInterfaces,
        session::Info,
        storage::{DiskStatsInfo, FileSystem, GetDiskstats, GetFsinfo},
    },
    kernel,
};

use super::{Figures, is_refusal};
use crate::{connect::Agent, failure::Failure};

/// Largest file that is read: files in /proc of a guest with a thousand processors are smaller.
const MAX_FILE_BYTES: usize = 1024 * 1024;
/// Most interfaces of which it is asked whether they are physical: a question takes two round trips.
const MAX_INTERFACES: usize = 64;

/// An agent that is asked until a deadline.
struct Source<'a> {
    agent: &'a mut Agent,
    deadline: Instant,
}

/// Gathers what the agent lets be known.
///
/// # Errors
/// When the connection fails or the deadline passes.
pub(super) fn figures(agent: &mut Agent, deadline: Instant) -> Result<Figures, Failure> {
    let mut source = Source { agent, deadline };
    let is_frozen = source.ask(&FreezeStatus {})?.map(|state| state == FreezeState::Frozen);
    let version = source.ask(&Info {})?.map(|info| info.version);
    let agent = Some(AgentMetrics { version, ..AgentMetrics::default() });
    if is_frozen == Some(true) {
        return Ok(Figures { metrics: Metrics { agent, ..Metrics::default() }, is_frozen });
    }
    let loadavg = source.read("/proc/loadavg")?;
    let load = loadavg.as_deref().and_then(kernel::load);
    let (file_systems, left_out) = match source.ask(&GetFsinfo {})? {
        Some(list) => file_systems(list),
        None => (None, None),
    };
    let metrics = Metrics {
        uptime: source.read("/proc/uptime")?.and_then(|contents| kernel::uptime(&contents)),
        boot_id: source
            .read("/proc/sys/kernel/random/boot_id")?
            .and_then(|id| String::from_utf8(id).ok())
            .map(|id| id.trim().into()),
        memory: source.read("/proc/meminfo")?.map(|contents| kernel::memory(&contents)),
        pressure: source.pressure()?,
        load: if load.is_some() { load } else { source.ask(&GetLoad {})? },
        processors: source.ask(&GetCpustats {})?,
        disks: source.ask(&GetDiskstats {})?.map(with_requests),
        file_systems,
        file_systems_left_out: left_out,
        network: source.network()?,
        processes: source.read("/proc/stat")?.map(|stat| kernel::processes(&stat, &loadavg.unwrap_or_default())),
        clock: None,
        agent,
    };
    Ok(Figures { metrics, is_frozen })
}

impl Source<'_> {
    /// The reply, or nothing if the agent refuses it.
    fn ask<C: Command>(&mut self, command: &C) -> Result<Option<C::Reply>, Failure> {
        known(self.agent.call_until(command, self.deadline))
    }

    /// A file's contents, or nothing if it cannot be read.
    fn read(&mut self, path: &str) -> Result<Option<Vec<u8>>, Failure> {
        self.check_deadline(path)?;
        let failed = |error| Failure::Command { name: path.into(), error };
        let Some(mut file) = known(self.agent.open(path, "r"))? else { return Ok(None) };
        let mut contents = Vec::new();
        while contents.len() <= MAX_FILE_BYTES {
            match known(file.read().map_err(failed))? {
                Some(Some(piece)) => contents.extend(piece),
                Some(None) => break,
                None => return Ok(None),
            }
        }
        known(GuestFile::close(file).map_err(failed))?;
        Ok((contents.len() <= MAX_FILE_BYTES).then_some(contents))
    }

    fn exists(&mut self, path: &str) -> Result<bool, Failure> {
        self.check_deadline(path)?;
        Ok(known(self.agent.open(path, "r"))?.is_some())
    }

    /// Reading a file has a timeout for each reply, so the deadline is looked at before each file.
    fn check_deadline(&self, path: &str) -> Result<(), Failure> {
        match Instant::now() < self.deadline {
            true => Ok(()),
            false => Err(Failure::Command { name: path.into(), error: Error::TimedOut }),
        }
    }

    fn pressure(&mut self) -> Result<Option<PressureMetrics>, Failure> {
        let mut read = |path| Ok::<_, Failure>(self.read(path)?.map(|contents| kernel::pressure(&contents)));
        let pressure = PressureMetrics {
            cpu: read("/proc/pressure/cpu")?,
            memory: read("/proc/pressure/memory")?,
            io: read("/proc/pressure/io")?,
        };
        Ok((pressure != PressureMetrics::default()).then_some(pressure))
    }

    fn network(&mut self) -> Result<Option<NetworkMetrics>, Failure> {
        let Some(contents) = self.read("/proc/net/dev")? else {
            let Some(interfaces) = self.ask(&GetInterfaces {})? else { return Ok(None) };
            let counted = interfaces.into_iter().filter_map(|interface| {
                Some(InterfaceMetrics { name: interface.name, statistics: interface.statistics? })
            });
            return Ok(Some(NetworkMetrics { physical: None, other: Some(counted.collect()) }));
        };
        let (mut physical, mut other) = (Vec::new(), Vec::new());
        for (index, (name, statistics)) in kernel::interfaces(&contents).enumerate() {
            let name = String::from_utf8_lossy(name).into_owned();
            // A directory cannot be opened, but this file is in it.
            let uevent = format!("/sys/class/net/{name}/device/uevent");
            let is_physical = index < MAX_INTERFACES && self.exists(&uevent)?;
            let list = if is_physical { &mut physical } else { &mut other };
            list.push(InterfaceMetrics { name, statistics });
        }
        Ok(Some(NetworkMetrics { physical: Some(physical), other: Some(other) }))
    }
}

/// Nothing for a refusal.
fn known<T>(result: Result<T, Failure>) -> Result<Option<T>, Failure> {
    match result {
        Err(failure) if is_refusal(&failure) => Ok(None),
        result => result.map(Some),
    }
}

fn with_requests(mut disks: Vec<DiskStatsInfo>) -> Vec<DiskStatsInfo> {
    disks.retain(|disk| kernel::has_had_requests(&disk.stats));
    disks
}

/// Agents list the file system first that was mounted last.
fn file_systems(list: Vec<FileSystem>) -> (Option<Vec<FileSystemMetrics>>, Option<Vec<FileSystemLeftOut>>) {
    let (mut answered, mut left_out) = (Vec::new(), Vec::new());
    for one in list.into_iter().rev() {
        match (one.used_bytes, one.total_bytes) {
            (Some(used), Some(total)) => answered.push(FileSystemMetrics {
                mountpoint: one.mountpoint,
                name: one.name,
                kind: one.kind,
                size: one.total_bytes_privileged.unwrap_or(total),
                used,
                available: total.saturating_sub(used),
                inodes: None,
                inodes_used: None,
            }),
            _ => left_out.push(FileSystemLeftOut { mountpoint: one.mountpoint, reason: LeftOutReason::Unknown }),
        }
    }
    (Some(answered), Some(left_out))
}
