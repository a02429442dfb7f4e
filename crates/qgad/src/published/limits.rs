//! The limits of what a peer may send, start or hold, taken from the constants, for the manual page and the README.

use std::time::Duration;

use qga::{
    command::{HELPER_TIMEOUT, QUERY_TIMEOUT},
    commands::{
        exec::MAX_OUTPUT_BYTES,
        file::{DEFAULT_READ_BYTES, MAX_READ_BYTES},
        freeze::MAX_LEASE_SECONDS,
        job::{HANG_UP_AFTER, INPUT_BYTES, KILL_AFTER, MAX_WAIT, STREAM_BYTES},
        storage::TRIM_TIMEOUT,
    },
    wire::frame::{MAX_DEPTH, MAX_MESSAGE_BYTES, MAX_TOKENS},
};

use crate::{
    config::settings::{FREEZE_LEASE, FREEZE_TIMEOUT, HOOK_TIMEOUT},
    freeze::GUARD_GRACE,
    logging,
    open_files::{MAX_IDLE, MAX_OPEN_FILES},
    process::{
        jobs::supervisor,
        programs::{GRACE, MAX_AGE, MAX_KEPT_BYTES, MAX_RUNNING, MAX_WAITING_BYTES},
    },
    serve::{executor::MAX_BUSY_OF_A_CLASS, server::MAX_CONNECTIONS},
};

/// What is limited, and the limit.
pub(super) fn limits() -> Vec<(&'static str, String)> {
    vec![
        ("one message", format!("{}, {MAX_TOKENS} tokens, {MAX_DEPTH} levels deep", bytes(MAX_MESSAGE_BYTES + 1))),
        ("one `guest-file-read`", format!("{}; {} by default", bytes(MAX_READ_BYTES), bytes(DEFAULT_READ_BYTES))),
        (
            "open files",
            format!("{MAX_OPEN_FILES}; beyond that, one that has not been used for {} is closed", duration(MAX_IDLE)),
        ),
        ("peers at once", format!("{MAX_CONNECTIONS}")),
        ("running commands of a class, stuck ones included", format!("{MAX_BUSY_OF_A_CLASS}")),
        ("running programs", format!("{MAX_RUNNING}")),
        (
            "output kept of a program",
            format!(
                "{} a stream, {} of memory in all; for {}",
                bytes(MAX_OUTPUT_BYTES),
                bytes(MAX_KEPT_BYTES),
                duration(MAX_AGE)
            ),
        ),
        ("input that programs have not read", bytes(MAX_WAITING_BYTES)),
        ("output of children that outlive their program", format!("kept for {} after its end", duration(GRACE))),
        ("running jobs", format!("{}", supervisor::MAX_RUNNING)),
        (
            "ended jobs",
            format!("{}, oldest forgotten first; for {}", supervisor::MAX_ENDED, duration(supervisor::MAX_AGE)),
        ),
        (
            "output of a job that nobody has read",
            format!(
                "{} a stream, {} in all; then the job waits",
                bytes(STREAM_BYTES),
                bytes(supervisor::MAX_KEPT_BYTES)
            ),
        ),
        ("input that a job has not read", format!("{}; then the host waits", bytes(INPUT_BYTES))),
        ("waiting for a job's output or input", duration(MAX_WAIT)),
        ("a job after SIGTERM by its timeout", format!("is killed after {}", duration(KILL_AFTER))),
        ("a job with a terminal that no command names", format!("is hung up after {}", duration(HANG_UP_AFTER))),
        (
            "timeout of a command",
            format!(
                "{}; {} for one that waits for a program or a file; {} for a trim",
                duration(QUERY_TIMEOUT),
                duration(HELPER_TIMEOUT),
                duration(TRIM_TIMEOUT)
            ),
        ),
        ("a freeze hook", format!("{} (`fsfreeze-hook-timeout`)", duration(HOOK_TIMEOUT))),
        ("freezing all file systems", format!("{} (`fsfreeze-timeout`)", duration(FREEZE_TIMEOUT))),
        (
            "a freeze",
            format!(
                "{} (`fsfreeze-lease`); a host may ask for {} or less",
                duration(FREEZE_LEASE),
                duration(Duration::from_secs(MAX_LEASE_SECONDS.unsigned_abs()))
            ),
        ),
        ("a freeze without an agent", format!("ends after {}", duration(GUARD_GRACE))),
        (
            "log and audit kept while file systems are frozen",
            format!("{} each, oldest lost first", bytes(logging::MAX_HELD_BYTES)),
        ),
    ]
}

/// Formats a size in the largest unit that gives a whole number.
fn bytes(count: usize) -> String {
    const UNITS: [(usize, &str); 2] = [(1024 * 1024, "MiB"), (1024, "KiB")];
    let unit = UNITS.into_iter().find(|(size, _)| count.is_multiple_of(*size));
    unit.map_or_else(|| format!("{count} bytes"), |(size, name)| format!("{} {name}", count / size))
}

/// Formats a duration in the largest unit that gives a whole number.
fn duration(time: Duration) -> String {
    const UNITS: [(u64, &str); 2] = [(3600, "h"), (60, "min")];
    let seconds = time.as_secs();
    let unit = UNITS.into_iter().find(|(length, _)| seconds.is_multiple_of(*length));
    unit.map_or_else(|| format!("{seconds} s"), |(length, name)| format!("{} {name}", seconds / length))
}
