//! What Linux says in its files, in the types of the contract.
//!
//! These are pure functions of the files' contents. The agent reads the files itself; a client that talks to another
//! agent can read them with `guest-file-read`. proc(5) describes the files. A line that is missing or makes no sense
//! leaves its member absent.

use crate::commands::{
    cpu::Load,
    metrics::{MemoryMetrics, Pressure, ProcessMetrics, Stall},
    network::InterfaceStatistics,
    storage::DiskStats,
};

/// Bytes in the unit of the kernel's files, which print `kB`.
const KIBIBYTE: u64 = 1024;

/// Memory and swap, from `/proc/meminfo`.
pub fn memory(contents: &[u8]) -> MemoryMetrics {
    let bytes = |name: &str| kibibytes(contents, name);
    MemoryMetrics {
        total: bytes("MemTotal:"),
        free: bytes("MemFree:"),
        available: bytes("MemAvailable:"),
        buffers: bytes("Buffers:"),
        cached: bytes("Cached:"),
        slab: bytes("Slab:"),
        swap_total: bytes("SwapTotal:"),
        swap_free: bytes("SwapFree:"),
    }
}

/// The value of a line such as `MemTotal:  2048 kB`, in bytes.
fn kibibytes(contents: &[u8], name: &str) -> Option<u64> {
    let value = line(contents, name)?.trim().strip_suffix("kB")?;
    value.trim_end().parse::<u64>().ok()?.checked_mul(KIBIBYTE)
}

/// The waiting for one resource, from a file in `/proc/pressure`.
pub fn pressure(contents: &[u8]) -> Pressure {
    let stall = |name| line(contents, name).map(stall);
    Pressure { some: stall("some "), full: stall("full ") }
}

/// The fields of `avg10=0.12 avg60=0.05 avg300=0.01 total=123456`, the last one in microseconds.
fn stall(line: &str) -> Stall {
    let field = |name: &str| line.split_ascii_whitespace().find_map(|field| field.strip_prefix(name)?.parse().ok());
    Stall {
        avg10: field("avg10="),
        avg60: field("avg60="),
        avg300: field("avg300="),
        total: field("total=").map(|microseconds: f64| microseconds / 1e6),
    }
}

/// Threads, from `/proc/stat` and `/proc/loadavg`. How many processes there are is in neither.
pub fn processes(stat: &[u8], loadavg: &[u8]) -> ProcessMetrics {
    let count = |name| line(stat, name)?.trim().parse().ok();
    // `0.20 0.18 0.12 1/80 11206`: running and existing threads.
    let threads = str::from_utf8(loadavg).ok().and_then(|text| text.split(' ').nth(3)?.split_once('/'));
    ProcessMetrics {
        processes: None,
        threads: threads.and_then(|(_, threads)| threads.parse().ok()),
        running: count("procs_running "),
        blocked: count("procs_blocked "),
        started: count("processes "),
    }
}

/// The load averages, from `/proc/loadavg`.
pub fn load(contents: &[u8]) -> Option<Load> {
    let mut numbers = str::from_utf8(contents).ok()?.split_whitespace().map_while(|word| word.parse().ok());
    Some(Load { load1m: numbers.next()?, load5m: numbers.next()?, load15m: numbers.next()? })
}

/// Whether a disk has had any request since the boot, or has one now.
pub fn has_had_requests(stats: &DiskStats) -> bool {
    let requests = [stats.read_ios, stats.write_ios, stats.discard_ios, stats.flush_ios, stats.ios_pgr];
    requests.iter().flatten().any(|count| *count > 0)
}

/// What each network interface has carried, from `/proc/net/dev`: eight counters of received data, then eight of sent
/// data. Names are bytes.
pub fn interfaces(contents: &[u8]) -> impl Iterator<Item = (&[u8], InterfaceStatistics)> {
    contents.split(|byte| *byte == b'\n').filter_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let fields = str::from_utf8(&line[colon + 1..]).ok()?.split_ascii_whitespace();
        let numbers: Vec<u64> = fields.map_while(|field| field.parse().ok()).collect();
        let [rx_bytes, rx_packets, rx_errs, rx_dropped, _, _, _, _, tx_bytes, tx_packets, tx_errs, tx_dropped, ..] =
            numbers[..]
        else {
            return None;
        };
        let statistics = InterfaceStatistics {
            rx_bytes,
            rx_packets,
            rx_errs,
            rx_dropped,
            tx_bytes,
            tx_packets,
            tx_errs,
            tx_dropped,
        };
        Some((line[..colon].trim_ascii(), statistics))
    })
}

/// Seconds since the boot, from `/proc/uptime`.
pub fn uptime(contents: &[u8]) -> Option<f64> {
    str::from_utf8(contents).ok()?.split_ascii_whitespace().next()?.parse().ok()
}

/// The rest of the first line that begins with a name.
fn line<'a>(contents: &'a [u8], name: &str) -> Option<&'a str> {
    let mut lines = contents.split(|byte| *byte == b'\n');
    str::from_utf8(lines.find_map(|line| line.strip_prefix(name.as_bytes()))?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_in_bytes_and_what_is_missing_is_absent() {
        let contents = b"MemTotal:        2048 kB\nMemFree: 1 kB\nSwapCached: 7 kB\nCached:\t3 kB\n\
            Slab: many kB\nSwapTotal: 0 kB\n";
        let expected = MemoryMetrics {
            total: Some(2048 * 1024),
            free: Some(1024),
            cached: Some(3072),
            swap_total: Some(0),
            ..MemoryMetrics::default()
        };
        assert_eq!(memory(contents), expected);
        assert_eq!(memory(b"MemTotal: 18446744073709551615 kB\nMemFree: -1 kB\n\xFF\n"), MemoryMetrics::default());
    }

    #[test]
    fn pressure_is_in_percent_and_seconds() {
        let contents = b"some avg10=1.50 avg60=0.25 avg300=100.00 total=1500000\nfull avg10=x total=7\n";
        let some = Stall { avg10: Some(1.5), avg60: Some(0.25), avg300: Some(100.0), total: Some(1.5) };
        let full = Stall { total: Some(7e-6), ..Stall::default() };
        assert_eq!(pressure(contents), Pressure { some: Some(some.clone()), full: Some(full) });
        let cpu_of_an_old_kernel = b"some avg10=1.50 avg60=0.25 avg300=100.00 total=1500000\n";
        assert_eq!(pressure(cpu_of_an_old_kernel), Pressure { some: Some(some), full: None });
    }

    #[test]
    fn processes_are_counted_as_the_kernel_does() {
        let stat = b"cpu  1 2\nctxt 5\nprocesses 300\nprocs_running 2\nprocs_blocked x\n";
        let expected =
            ProcessMetrics { threads: Some(80), running: Some(2), started: Some(300), ..ProcessMetrics::default() };
        assert_eq!(processes(stat, b"0.20 0.18 0.12 1/80 11206\n"), expected);
        assert_eq!(processes(b"", b"0.20 0.18\n"), ProcessMetrics::default());
    }

    #[test]
    fn the_load_is_three_numbers() {
        assert_eq!(load(b"0.52 1.58 12.00 2/345 6789\n"), Some(Load { load1m: 0.52, load5m: 1.58, load15m: 12.0 }));
        for contents in ["", "0.52 1.58", "a b c"] {
            assert_eq!(load(contents.as_bytes()), None, "{contents}");
        }
    }

    #[test]
    fn statistics_of_interfaces_are_eight_of_sixteen_numbers() {
        let contents =
            b"Inter-|   Receive  |  Transmit\n face |bytes    packets |bytes\n    lo: 1 2 3 4 91 92 93 94 5 6 7 8 \
            95 96 97 98\n  odd\xE9:0 0 0 0 0 0 0 0 0 0 0 0\n";
        let statistics = InterfaceStatistics {
            rx_bytes: 1,
            rx_packets: 2,
            rx_errs: 3,
            rx_dropped: 4,
            tx_bytes: 5,
            tx_packets: 6,
            tx_errs: 7,
            tx_dropped: 8,
        };
        let expected = [(&b"lo"[..], statistics), (&b"odd\xE9"[..], InterfaceStatistics::default())];
        assert_eq!(interfaces(contents).collect::<Vec<_>>(), expected);
        for odd in ["eth0: 1 2 3\n", "eth0\n", "eth0: a b c d e f g h i j k l\n", ""] {
            assert_eq!(interfaces(odd.as_bytes()).count(), 0, "{odd}");
        }
    }

    #[test]
    fn the_uptime_is_the_first_number() {
        assert_eq!(uptime(b"350735.47 234388.90\n"), Some(350_735.47));
        assert_eq!(uptime(b"\n"), None);
    }
}
