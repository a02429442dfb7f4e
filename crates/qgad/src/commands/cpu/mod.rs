//! Logical processors and their load.
//!
//! The list is in the order of the kernel's directory and stable between calls: clients index one reply with another.
//! Numbers may have gaps. A processor without an `online` file cannot be taken offline. A hot-plugged one that is
//! offline can be brought online, and has `can-offline` set.
//! `set` stops at the first failure and returns how many processors it has set. It is an error only if the first one
//! fails.

use std::io;

use nix::{
    fcntl::OFlag,
    unistd::{SysconfVar, sysconf},
};
use qga::{
    commands::cpu::{CpuStats, CpuStatsType, GetCpustats, GetLoad, GetVcpus, Load, LogicalProcessor, SetVcpus},
    kernel,
    wire::message::Error,
};

use super::{Result, Run};
use crate::{
    guest::Guest,
    logging::audit,
    root::Root,
    util::errno::{self, could_not_open},
};

const PROCESSORS: &str = "/sys/devices/system/cpu";
pub(super) const STATISTICS: &str = "/proc/stat";
pub(super) const LOAD: &str = "/proc/loadavg";
/// Ticks a second in `/proc/stat` if the C library does not know: the value of all common machines.
const USUAL_TICKS: u64 = 100;

impl Run for GetVcpus {
    fn run(self, guest: &Guest) -> Result<Vec<LogicalProcessor>> {
        processors(&guest.root)
    }
}

impl Run for SetVcpus {
    fn run(self, guest: &Guest) -> Result<i64> {
        let mut done = 0;
        for processor in &self.vcpus {
            match set_processor(&guest.root, processor) {
                Ok(()) => done += 1,
                Err(error) if done == 0 => return Err(error),
                Err(error) => {
                    log::warn!("logical processor {}: {error}", processor.logical_id);
                    break;
                }
            }
        }
        Ok(done)
    }

    fn audit_subject(&self) -> Option<String> {
        let set = self.vcpus.iter().map(|cpu| format!("{}={}", cpu.logical_id, u8::from(cpu.online)));
        Some(audit::list(set))
    }
}

impl Run for GetCpustats {
    fn run(self, guest: &Guest) -> Result<Vec<CpuStats>> {
        let contents = guest.root.read(STATISTICS).map_err(|error| could_not_open(STATISTICS, error))?;
        Ok(statistics(&contents, ticks_per_second()))
    }
}

impl Run for GetLoad {
    fn run(self, guest: &Guest) -> Result<Load> {
        let cannot = |cause: String| Error::generic(format!("cannot query load average: {cause}"));
        let contents = guest.root.read(LOAD).map_err(|error| cannot(errno::describe(error)))?;
        kernel::load(&contents).ok_or_else(|| cannot(format!("{LOAD} makes no sense")))
    }
}

fn processors(root: &Root) -> Result<Vec<LogicalProcessor>> {
    let names = root.names(PROCESSORS).map_err(|error| could_not_open(PROCESSORS, error))?;
    let mut processors = Vec::new();
    for name in names {
        let Some(logical_id) = name.to_str().and_then(processor_number) else { continue };
        let directory = directory(logical_id);
        let (online, can_offline) = match read_online_file(root, &directory) {
            Ok(byte) => (byte? != b'0', true),
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(could_not_open(&online_file(&directory), error));
            }
            Err(_) if root.open(&directory, OFlag::O_DIRECTORY).is_err() => continue,
            Err(_) => (true, false),
        };
        processors.push(LogicalProcessor { logical_id, online, can_offline: Some(can_offline) });
    }
    Ok(processors)
}

fn set_processor(root: &Root, processor: &LogicalProcessor) -> Result<()> {
    let LogicalProcessor { logical_id, online, .. } = *processor;
    let directory = directory(logical_id);
    root.open(&directory, OFlag::O_DIRECTORY).map_err(|error| could_not_open(&directory, error))?;
    let file = online_file(&directory);
    let current = match read_online_file(root, &directory) {
        Ok(byte) => byte? != b'0',
        Err(error) if error.kind() == io::ErrorKind::NotFound && online => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Error::generic(format!("logical processor #{logical_id} can't be offlined")));
        }
        Err(error) => return Err(could_not_open(&file, error)),
    };
    if current == online {
        return Ok(());
    }
    let wanted: &[u8] = if online { b"1" } else { b"0" };
    root.write(&file, wanted).map_err(|error| Error::generic(format!("pwrite(\"{file}\"): {}", errno::describe(error))))
}

/// Reads the first byte of a processor's `online` file. The outer error means that the file cannot be opened.
fn read_online_file(root: &Root, directory: &str) -> io::Result<Result<u8>> {
    let file = online_file(directory);
    let contents = root.read(&file)?;
    Ok(contents.first().copied().ok_or_else(|| Error::generic(format!("pread(\"{file}\"): unexpected EOF"))))
}

fn directory(logical_id: i64) -> String {
    format!("{PROCESSORS}/cpu{logical_id}/")
}

fn online_file(directory: &str) -> String {
    format!("{directory}/online")
}

/// The number of a processor, from the name of its directory. Other names begin the same way: `cpufreq`.
fn processor_number(name: &str) -> Option<i64> {
    let digits = name.strip_prefix("cpu")?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// The unit of the times in `/proc/stat`.
pub(super) fn ticks_per_second() -> u64 {
    let ticks = sysconf(SysconfVar::CLK_TCK).ok().flatten().and_then(|ticks| u64::try_from(ticks).ok());
    ticks.filter(|ticks| *ticks > 0).unwrap_or(USUAL_TICKS)
}

/// How each processor has spent its time, from `/proc/stat`. Missing columns are absent.
pub(super) fn statistics(contents: &[u8], ticks_per_second: u64) -> Vec<CpuStats> {
    let mut statistics = Vec::new();
    for line in contents.split(|byte| *byte == b'\n') {
        let Some(line) = line.strip_prefix(b"cpu").and_then(|line| str::from_utf8(line).ok()) else { continue };
        let mut words = line.split(' ');
        // The line for all processors together has no number.
        let Some(cpu) = words.next().and_then(|number| number.parse().ok()) else { continue };
        let times: Vec<u64> = words
            .filter(|word| !word.is_empty())
            .map_while(|word| word.parse().ok())
            .map(|ticks: u64| ticks.saturating_mul(1000) / ticks_per_second)
            .collect();
        let [user, nice, system, idle, ..] = times[..] else { break };
        let further = |column| times.get(column).copied();
        statistics.push(CpuStats {
            kind: CpuStatsType::Linux,
            cpu,
            user,
            nice,
            system,
            idle,
            iowait: further(4),
            irq: further(5),
            softirq: further(6),
            steal: further(7),
            guest: further(8),
            guestnice: further(9),
        });
    }
    statistics
}

#[cfg(test)]
mod tests;
