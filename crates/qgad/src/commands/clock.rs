//! The guest's clock and its time zone.
//!
//! Each call reads the zone anew, so that a changed `/etc/localtime` takes effect at once. If `TZ` is set, it is the
//! zone: the name of a file in the zone database, or a rule such as `CET-1CEST,M3.5.0,M10.5.0/3`. An invalid zone is
//! UTC.
//! Setting the clock keeps nanoseconds and also sets the hardware clock: with `/sbin/hwclock` if it exists, because it
//! knows unusual clocks and updates `/etc/adjtime`, else directly. A guest without a hardware clock sets the system
//! clock only. If setting the hardware clock fails, the command fails although the system clock is set.

use std::{
    io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use nix::{
    sys::time::TimeSpec,
    time::{ClockId, clock_settime},
};
use qga::{
    Command,
    commands::{
        clock::{GetTime, GetTimezone, SetTime, Timezone},
        session::Nothing,
    },
    wire::message::Error,
};
use tz::{TimeZone, TimeZoneSettings};

use super::{Result, Run};
use crate::{
    guest::Guest,
    machine::rtc::{Rtc, keeps_local_time, whole_seconds},
    root::Root,
    util::errno,
};

/// The zone if `TZ` is not set.
const LOCAL_TIME: &str = "/etc/localtime";
/// The directory of zones by name.
const ZONE_DATABASE: &str = "/usr/share/zoneinfo";
/// The program that reads and sets the hardware clock.
const HWCLOCK: &str = "/sbin/hwclock";
/// The purpose of running it, for error messages.
const HWCLOCK_ACTION: &str = "set hardware clock to system time";
const NANOSECONDS: i64 = 1_000_000_000;
/// The first second of 2070, in seconds since 1970 in local time. Hosts' tests know this limit.
const MAX_SECONDS: i64 = 36_525 * 86_400;

impl Run for GetTime {
    fn run(self, _: &Guest) -> Result<i64> {
        let since_epoch = time_since_epoch().as_micros() * 1000;
        i64::try_from(since_epoch).map_err(|_| Error::generic("the guest's clock is beyond the year 2262"))
    }
}

impl Run for GetTimezone {
    fn run(self, guest: &Guest) -> Result<Timezone> {
        let now = i64::try_from(time_since_epoch().as_secs()).unwrap_or(i64::MAX);
        Ok(zone_at(&guest.root, guest.environment.text("TZ"), now))
    }
}

impl Run for SetTime {
    fn run(self, guest: &Guest) -> Result<Nothing> {
        match self.time {
            Some(time) => {
                let time = check_time(guest, time)?;
                set_clock(time)?;
                set_hardware_clock(guest)?;
            }
            None => set_from_hardware_clock(guest)?,
        }
        Ok(Nothing {})
    }
}

/// The time, if it is within the limits.
fn check_time(guest: &Guest, nanoseconds: i64) -> Result<TimeSpec> {
    let (seconds, rest) = (nanoseconds.div_euclid(NANOSECONDS), nanoseconds.rem_euclid(NANOSECONDS));
    if (0..MAX_SECONDS).contains(&(seconds + seconds_east(guest, seconds))) {
        Ok(TimeSpec::new(seconds, rest))
    } else {
        Err(Error::generic("Invalid time"))
    }
}

fn set_clock(time: TimeSpec) -> Result<()> {
    clock_settime(ClockId::CLOCK_REALTIME, time)
        .map_err(|error| Error::generic(format!("Failed to set time to guest: {}", errno::describe(error))))
}

fn set_hardware_clock(guest: &Guest) -> Result<()> {
    if !Rtc::exists(&guest.root) {
        log::info!("there is no hardware clock to set");
        return Ok(());
    }
    if guest.helpers().has(HWCLOCK) {
        return run_hwclock(guest, "-w");
    }
    let failed = |error| Error::generic(format!("failed to {HWCLOCK_ACTION}: {}", errno::describe(error)));
    let clock = Rtc::open(&guest.root).map_err(failed)?;
    let now = i64::try_from(time_since_epoch().as_secs()).unwrap_or(i64::MAX);
    clock.set_from_system(hardware_seconds_east(guest, now)).map_err(failed)
}

fn set_from_hardware_clock(guest: &Guest) -> Result<()> {
    if guest.helpers().has(HWCLOCK) {
        return run_hwclock(guest, "-s");
    }
    let failed = |error| Error::generic(format!("failed to read the hardware clock: {}", errno::describe(error)));
    let clock = Rtc::open(&guest.root).map_err(failed)?;
    let shown = clock.next_second().map_err(failed)?;
    set_clock(whole_seconds(shown - hardware_seconds_east(guest, shown)))
}

fn run_hwclock(guest: &Guest, option: &str) -> Result<()> {
    let timeout = guest.timeout(&SetTime::SPEC);
    guest.helpers().run(HWCLOCK, &[option], b"", HWCLOCK_ACTION, timeout).map(drop)
}

/// The offset from UTC of the time that the hardware clock shows, in seconds.
fn hardware_seconds_east(guest: &Guest, unix_time: i64) -> i64 {
    if keeps_local_time(&guest.root) { seconds_east(guest, unix_time) } else { 0 }
}

fn seconds_east(guest: &Guest, unix_time: i64) -> i64 {
    zone_at(&guest.root, guest.environment.text("TZ"), unix_time).offset
}

fn time_since_epoch() -> std::time::Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

fn zone_at(root: &Root, variable: Option<&str>, unix_time: i64) -> Timezone {
    let zone = match variable {
        None => read_zone(root, LOCAL_TIME.into()),
        Some(variable) => zone_by_name(root, variable.strip_prefix(':').unwrap_or(variable)),
    };
    match zone.as_ref().map(|zone| zone.find_local_time_type(unix_time)) {
        Some(Ok(local)) => Timezone {
            zone: Some(local.time_zone_designation()).filter(|name| !name.is_empty()).map(Into::into),
            offset: local.ut_offset().into(),
        },
        _ => Timezone { zone: Some("UTC".into()), offset: 0 },
    }
}

fn zone_by_name(root: &Root, name: &str) -> Option<TimeZone> {
    read_zone(root, Path::new(ZONE_DATABASE).join(name)).or_else(|| {
        let no_files = |_: &str| Err(io::Error::from(io::ErrorKind::NotFound).into());
        TimeZoneSettings::new(&[], no_files).parse_posix_tz(name).ok()
    })
}

fn read_zone(root: &Root, path: PathBuf) -> Option<TimeZone> {
    TimeZone::from_tz_data(&root.read(path).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{environment::Environment, guest::tests::guest_without_a_machine};

    fn check(zone: &str, nanoseconds: i64, expected: Option<(i64, i64)>) {
        let environment = Environment::of(&[("TZ", zone)]);
        let guest = Guest { environment, ..guest_without_a_machine() };
        let time = check_time(&guest, nanoseconds).map(|time| (time.tv_sec(), time.tv_nsec()));
        assert_eq!(time, expected.ok_or_else(|| Error::generic("Invalid time")), "{zone} {nanoseconds}");
    }

    #[test]
    fn a_time_is_kept_to_the_nanosecond() {
        check("UTC0", 1_700_000_000_123_456_789, Some((1_700_000_000, 123_456_789)));
        check("UTC0", 0, Some((0, 0)));
    }

    #[test]
    fn a_time_must_be_between_1970_and_2069_in_the_guests_zone() {
        check("UTC0", 3_155_759_999_999_999_999, Some((3_155_759_999, 999_999_999)));
        check("UTC0", 3_155_760_000_000_000_000, None);
        check("UTC0", i64::MAX, None);
        check("UTC0", i64::MIN, None);
        check("UTC0", -1, None);
        check("X-5:30", 3_155_759_999_000_000_000, None);
        check("X5", 3_155_760_000_000_000_000, Some((3_155_760_000, 0)));
        check("X-1", -1, Some((-1, 999_999_999)));
        check("X1", 0, None);
    }
}
