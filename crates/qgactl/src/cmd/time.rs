//! `qgactl time`: the guest's clock, its offset from the host's, and setting it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use qga::{
    Command,
    commands::clock::{GetTime, SetTime},
};

use super::{AgentSubcommand, call, print};
use crate::{connect::Agent, render};

const NANOSECONDS: i64 = 1_000_000_000;

/// Show the guest's time and its offset from the host's, after setting it if asked to
#[derive(Args, Debug)]
pub(crate) struct Time {
    /// Set the guest's clocks to the host's time (now), or to seconds since 1970-01-01 UTC, with up to nine decimals
    #[arg(long, value_name = "now|SECONDS", value_parser = parse_time, allow_hyphen_values = true)]
    set: Option<Wanted>,
    /// Set the guest's system clock from its hardware clock
    #[arg(long, conflicts_with = "set")]
    from_rtc: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Now,
    Nanoseconds(i64),
}

impl AgentSubcommand for Time {
    const HAS_JSON: bool = true;

    fn run_with(&self, agent: &mut Agent, json: bool) -> anyhow::Result<()> {
        match self.set {
            Some(Wanted::Nanoseconds(time)) => agent.call(&SetTime { time: Some(time) }).map(drop)?,
            Some(Wanted::Now) => agent.call(&SetTime { time: Some(now()) }).map(drop)?,
            None if self.from_rtc => agent.call(&SetTime { time: None }).map(drop)?,
            None => {}
        }
        if json {
            return call::print_received(agent, GetTime::SPEC.name);
        }
        let before = now();
        let guest = agent.call(&GetTime {})?;
        print(&describe(guest, before, now()))
    }
}

fn now() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since_epoch.as_nanos()).unwrap_or(i64::MAX)
}

/// The guest's time, which it reported between these two times of the host.
fn describe(guest: i64, before: i64, after: i64) -> String {
    let uncertainty = after.saturating_sub(before) / 2;
    let offset = guest.saturating_sub(before.saturating_add(uncertainty));
    let direction = if offset < 0 { "behind" } else { "ahead of" };
    let micros = guest.rem_euclid(NANOSECONDS) / 1000;
    format!(
        "{}.{micros:06} UTC, {} s {direction} the host, give or take {} s\n",
        render::utc(guest.div_euclid(NANOSECONDS)),
        seconds(offset.unsigned_abs()),
        seconds(uncertainty.unsigned_abs()),
    )
}

fn seconds(nanoseconds: u64) -> String {
    let duration = Duration::from_nanos(nanoseconds);
    format!("{}.{:06}", duration.as_secs(), duration.subsec_micros())
}

fn parse_time(text: &str) -> Result<Wanted, String> {
    if text == "now" {
        return Ok(Wanted::Now);
    }
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let are_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let nanoseconds = (!whole.is_empty() && are_digits(whole) && are_digits(decimals) && decimals.len() <= 9)
        .then(|| format!("{whole}{decimals:0<9}").parse().ok());
    nanoseconds.flatten().map(Wanted::Nanoseconds).ok_or_else(|| "neither now nor seconds since 1970-01-01".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_word_or_seconds() {
        for (text, time) in [
            ("now", Wanted::Now),
            ("0", Wanted::Nanoseconds(0)),
            ("1700000000", Wanted::Nanoseconds(1_700_000_000_000_000_000)),
            ("1700000000.5", Wanted::Nanoseconds(1_700_000_000_500_000_000)),
            ("1.000000001", Wanted::Nanoseconds(1_000_000_001)),
        ] {
            assert_eq!(parse_time(text), Ok(time));
        }
        for wrong in ["", "-1", "Now", ".5", "1.0000000001", "1,5", "1e9", "9300000000", "99999999999999999999"] {
            assert!(parse_time(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_offset_is_to_the_middle_of_the_round_trip() {
        let second = NANOSECONDS;
        let expected = "1970-01-01 00:00:10.500000 UTC, 0.500000 s ahead of the host, give or take 1.000000 s\n";
        assert_eq!(describe(10 * second + second / 2, 9 * second, 11 * second), expected);
        let expected = "1970-01-01 00:00:00.000001 UTC, 9.999999 s behind the host, give or take 0.000000 s\n";
        assert_eq!(describe(1_000, 10 * second, 10 * second), expected);
    }
}
