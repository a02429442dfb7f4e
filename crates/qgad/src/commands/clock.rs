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
use tz::{LocalTimeType, TimeZone, TimeZoneSettings};

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
    match zone.as_ref().and_then(|zone| local_time_type(zone, unix_time)) {
        Some(local) => Timezone {
            zone: Some(local.time_zone_designation()).filter(|name| !name.is_empty()).map(Into::into),
            offset: local.ut_offset().into(),
        },
        None => Timezone { zone: Some("UTC".into()), offset: 0 },
    }
}

/// What holds in a zone at a time. A zone file without a rule for the time after its last transition means, as the C
/// library has it, that what held last holds on: files of version 1, those cut by `zic -r`, and the `right/` zones.
fn local_time_type(zone: &TimeZone, unix_time: i64) -> Option<&LocalTimeType> {
    zone.find_local_time_type(unix_time).ok().or_else(|| {
        let zone = zone.as_ref();
        let last = zone.transitions().last()?;
        zone.local_time_types().get(last.local_time_type_index())
    })
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

    /// A zone file of version 1, which has no rule for the time after its last transition: India's, with one
    /// transition.
    fn version_1_file() -> Vec<u8> {
        let (transitions, types, names): (u32, u32, &[u8]) = (1, 2, b"LMT\0IST\0");
        let counts = [0, 0, 0, transitions, types, u32::try_from(names.len()).unwrap()];
        let mut file = [b"TZif\0".as_slice(), &[0; 15]].concat();
        file.extend(counts.into_iter().flat_map(u32::to_be_bytes));
        file.extend((-764_145_000_i32).to_be_bytes());
        file.push(1);
        for (offset, name) in [(21_208_i32, 0), (19_800, 4)] {
            file.extend(offset.to_be_bytes());
            file.extend([0, name]);
        }
        file.extend(names);
        file
    }

    #[test]
    fn what_held_last_in_a_zone_without_a_closing_rule_holds_on() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("zone"), version_1_file()).unwrap();
        let zone = |time| zone_at(&Root::at(directory.path()), Some("/zone"), time);
        assert_eq!(zone(1_700_000_000), Timezone { zone: Some("IST".into()), offset: 19_800 });
        assert_eq!(zone(-800_000_000), Timezone { zone: Some("LMT".into()), offset: 21_208 });
    }

    /// The zones of the database below a directory, by their names there.
    fn zones_below(directory: &Path, prefix: &str) -> Vec<String> {
        let mut zones = Vec::new();
        for entry in std::fs::read_dir(directory).unwrap().map(std::result::Result::unwrap) {
            let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
            if entry.path().is_dir() {
                zones.extend(zones_below(&entry.path(), &format!("{name}/")));
            } else if std::fs::read(entry.path()).unwrap().starts_with(b"TZif") {
                zones.push(name);
            }
        }
        zones
    }

    #[test]
    fn every_zone_of_the_database_is_what_date_says_now_and_at_other_times() {
        let now = i64::try_from(time_since_epoch().as_secs()).unwrap();
        // 1883, 1918, 1942, 1970, 1986, summer and winter of 2003, 2024, 2037, 2061 and 2100.
        let times = [
            -2_740_000_000,
            -1_620_000_000,
            -880_000_000,
            100,
            520_000_000,
            1_057_000_000,
            1_070_000_000,
            1_720_000_000,
            2_140_000_000,
            2_880_000_000,
            4_100_000_000,
            now,
        ];
        let directory = tempfile::tempdir().unwrap();
        let dates = directory.path().join("dates");
        std::fs::write(&dates, times.map(|time| format!("@{time}\n")).concat()).unwrap();
        let zones = zones_below(Path::new(ZONE_DATABASE), "");
        assert!(zones.len() > 300, "the zone database is installed");
        for zone in zones {
            let mut date = std::process::Command::new("date");
            let output =
                date.env("TZ", &zone).env("LC_ALL", "C").arg("-f").arg(&dates).arg("+%Z %:::z").output().unwrap();
            let output = String::from_utf8(output.stdout).unwrap();
            let ours = times.map(|time| {
                let Timezone { zone: name, offset } = zone_at(&Root::machine(), Some(&zone), time);
                let name = name.unwrap_or_default();
                // Of `-00`, which is no time that is known, date(1) says -00.
                let is_negative = offset < 0 || (offset == 0 && name.starts_with('-'));
                let (sign, offset) = (if is_negative { '-' } else { '+' }, offset.unsigned_abs());
                let (hours, minutes, seconds) = (offset / 3600, offset / 60 % 60, offset % 60);
                let precision = match (minutes, seconds) {
                    (0, 0) => String::new(),
                    (_, 0) => format!(":{minutes:02}"),
                    _ => format!(":{minutes:02}:{seconds:02}"),
                };
                format!("{name} {sign}{hours:02}{precision}")
            });
            assert_eq!(ours.to_vec(), output.lines().collect::<Vec<_>>(), "{zone}");
        }
    }
}
