//! The limits on what a peer may send, start or hold. The manual page and the README get them from the constants.

use std::time::Duration;

use qga::{
    command::{HELPER_TIMEOUT, QUERY_TIMEOUT},
    commands::{
        exec::MAX_OUTPUT_BYTES,
        file::{DEFAULT_READ_BYTES, MAX_READ_BYTES},
        freeze::MAX_LEASE_SECONDS,
        storage::TRIM_TIMEOUT,
    },
    wire::frame::{MAX_DEPTH, MAX_MESSAGE_BYTES, MAX_TOKENS},
};

use crate::{
    config::settings::{FREEZE_LEASE, FREEZE_TIMEOUT, HOOK_TIMEOUT},
    freeze::GUARD_GRACE,
    logging,
    open_files::{MAX_IDLE, MAX_OPEN_FILES},
    process::programs::{GRACE, MAX_AGE, MAX_KEPT_BYTES, MAX_RUNNING, MAX_WAITING_BYTES},
    serve::{executor::MAX_BUSY, server::MAX_CONNECTIONS},
};

/// Each limit: what it applies to, and its value.
pub(super) fn limits() -> Vec<(&'static str, String)> {
    vec![
        ("one message", format!("{}, {MAX_TOKENS} tokens, {MAX_DEPTH} levels deep", bytes(MAX_MESSAGE_BYTES + 1))),
        ("one `guest-file-read`", format!("{}; {} without `count`", bytes(MAX_READ_BYTES), bytes(DEFAULT_READ_BYTES))),
        (
            "open files",
            format!("{MAX_OPEN_FILES}; a file that nobody used for {} is closed to make room", duration(MAX_IDLE)),
        ),
        ("connections at once", format!("{MAX_CONNECTIONS}")),
        ("commands in progress, stuck ones included", format!("{MAX_BUSY}")),
        ("running programs", format!("{MAX_RUNNING}")),
        (
            "captured output",
            format!(
                "{} per stream, {} for all programs; kept for {}",
                bytes(MAX_OUTPUT_BYTES),
                bytes(MAX_KEPT_BYTES),
                duration(MAX_AGE)
            ),
        ),
        ("input that programs have not read yet", bytes(MAX_WAITING_BYTES)),
        ("output of a program's descendants", format!("captured until {} after the program's end", duration(GRACE))),
        (
            "timeout of a command",
            format!(
                "{}; {} if it waits for a program or a file; {} for a trim",
                duration(QUERY_TIMEOUT),
                duration(HELPER_TIMEOUT),
                duration(TRIM_TIMEOUT)
            ),
        ),
        ("timeout of a freeze hook", format!("{} (`fsfreeze-hook-timeout`)", duration(HOOK_TIMEOUT))),
        ("timeout of freezing all file systems", format!("{} (`fsfreeze-timeout`)", duration(FREEZE_TIMEOUT))),
        (
            "duration of a freeze",
            format!(
                "{} (`fsfreeze-lease`); a host may ask for up to {}",
                duration(FREEZE_LEASE),
                duration(Duration::from_secs(MAX_LEASE_SECONDS.unsigned_abs()))
            ),
        ),
        ("duration of a freeze after its agent has gone", duration(GUARD_GRACE)),
        (
            "log and audit held in memory during a freeze",
            format!("{} each; the oldest lines are dropped first", bytes(logging::MAX_KEPT_BYTES)),
        ),
    ]
}

/// In the largest unit that leaves a whole number.
fn bytes(count: usize) -> String {
    const UNITS: [(usize, &str); 2] = [(1024 * 1024, "MiB"), (1024, "KiB")];
    let unit = UNITS.into_iter().find(|(size, _)| count.is_multiple_of(*size));
    unit.map_or_else(|| format!("{count} bytes"), |(size, name)| format!("{} {name}", count / size))
}

fn duration(time: Duration) -> String {
    const UNITS: [(u64, &str); 2] = [(3600, "h"), (60, "min")];
    let seconds = time.as_secs();
    let unit = UNITS.into_iter().find(|(length, _)| seconds.is_multiple_of(*length));
    unit.map_or_else(|| format!("{seconds} s"), |(length, name)| format!("{} {name}", seconds / length))
}
