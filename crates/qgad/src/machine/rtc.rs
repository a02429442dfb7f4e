//! The hardware clock, for a guest without hwclock(8).
//!
//! The clock counts whole seconds. So it is read when a second begins. It is set in the middle of a second, because
//! most clocks begin their next second half a second after they were set. It keeps UTC unless `/etc/adjtime` says
//! local time.

use std::{
    io, thread,
    time::{Duration, Instant, SystemTime},
};

use nix::{fcntl::OFlag, sys::time::TimeSpec};

use crate::{
    root::Root,
    sys::rtc::{self, RtcTime},
};

/// Paths of the clock. The first one that exists is used.
const DEVICES: [&str; 2] = ["/dev/rtc0", "/dev/rtc"];
/// Its third line says whether the clock keeps UTC or local time, see hwclock(8).
const ADJTIME: &str = "/etc/adjtime";
/// Longest wait for a second to begin: twice a second, because the machine may be busy.
const TICK_TIMEOUT: Duration = Duration::from_secs(2);
/// How often the clock is read: the error in finding the beginning of a second.
const TICK_INTERVAL: Duration = Duration::from_millis(2);
const SECONDS_A_DAY: i64 = 86400;

/// A hardware clock.
#[derive(Debug)]
pub(crate) struct Rtc {
    device: std::os::fd::OwnedFd,
}

impl Rtc {
    /// Opens the clock.
    pub(crate) fn open(root: &Root) -> io::Result<Self> {
        for device in DEVICES {
            match root.open(device, OFlag::O_RDONLY) {
                Ok(device) => return Ok(Self { device }),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::other("there is none"))
    }

    /// Whether the guest has a clock. It is not opened: only one program at a time can do that.
    pub(crate) fn exists(root: &Root) -> bool {
        DEVICES.iter().any(|device| root.open(device, OFlag::O_PATH).is_ok())
    }

    /// Waits for a second to begin, and returns the time on the clock, in seconds since the epoch.
    pub(crate) fn next_second(&self) -> io::Result<i64> {
        let first = rtc::read(&self.device)?;
        let deadline = Instant::now() + TICK_TIMEOUT;
        loop {
            let time = rtc::read(&self.device)?;
            if time != first {
                return Ok(to_unix(&time));
            }
            if Instant::now() >= deadline {
                return Err(io::Error::other("it stands still"));
            }
            thread::sleep(TICK_INTERVAL);
        }
    }

    /// Sets the clock from the system time, plus the seconds that its time zone is east of UTC.
    pub(crate) fn set_from_system(&self, seconds_east: i64) -> io::Result<()> {
        thread::sleep(until_half_second(since_epoch()));
        let seconds = i64::try_from(since_epoch().as_secs()).map_err(|_| io::ErrorKind::InvalidInput)?;
        Ok(rtc::set(&self.device, &from_unix(seconds + seconds_east))?)
    }
}

/// Whether the clock keeps local time rather than UTC.
pub(crate) fn keeps_local_time(root: &Root) -> bool {
    let contents = root.read(ADJTIME).unwrap_or_default();
    contents.split(|byte| *byte == b'\n').nth(2).is_some_and(|line| line.trim_ascii() == b"LOCAL")
}

/// A time of whole seconds, for setting the system clock.
pub(crate) fn whole_seconds(seconds: i64) -> TimeSpec {
    TimeSpec::new(seconds, 0)
}

fn since_epoch() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

fn until_half_second(now: Duration) -> Duration {
    const SECOND: u32 = 1_000_000_000;
    Duration::from_nanos(((SECOND + SECOND / 2 - now.subsec_nanos()) % SECOND).into())
}

/// Days from the epoch to a date, with the month from 1.
///
/// Years begin in March here, so that leap days come last. 400 years always have the same number of days.
fn days_from_date(year: i64, month: i64, day: i64) -> i64 {
    let year = if month > 2 { year } else { year - 1 };
    let (era, year) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year * 365 + year / 4 - year / 100 + day_of_year - 719_468
}

/// The reverse: year, month and day of the month.
fn date_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year + year / 4 - year / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (era * 400 + year + i64::from(month <= 2), month, day)
}

fn to_unix(time: &RtcTime) -> i64 {
    let days = days_from_date(i64::from(time.year) + 1900, i64::from(time.month) + 1, time.day.into());
    days * SECONDS_A_DAY + i64::from(time.hour) * 3600 + i64::from(time.minute) * 60 + i64::from(time.second)
}

fn from_unix(seconds: i64) -> RtcTime {
    let (days, of_day) = (seconds.div_euclid(SECONDS_A_DAY), seconds.rem_euclid(SECONDS_A_DAY));
    let (year, month, day) = date_from_days(days);
    let small = |number: i64| i32::try_from(number).unwrap_or(i32::MAX);
    RtcTime {
        second: small(of_day % 60),
        minute: small(of_day / 60 % 60),
        hour: small(of_day / 3600),
        day: small(day),
        month: small(month - 1),
        year: small(year - 1900),
        unused: [0; 3],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(seconds: i64, year: i32, month: i32, day: i32, hour: i32, minute: i32, second: i32) {
        let time = RtcTime { second, minute, hour, day, month: month - 1, year: year - 1900, unused: [0; 3] };
        assert_eq!(from_unix(seconds), time);
        assert_eq!(to_unix(&time), seconds);
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        check(0, 1970, 1, 1, 0, 0, 0);
        check(951_827_696, 2000, 2, 29, 12, 34, 56);
        check(1_709_251_199, 2024, 2, 29, 23, 59, 59);
        check(3_155_759_999, 2069, 12, 31, 23, 59, 59);
        check(4_107_542_400, 2100, 3, 1, 0, 0, 0);
        check(-1, 1969, 12, 31, 23, 59, 59);
    }

    #[test]
    fn each_day_follows_the_one_before() {
        for day in -40_000..80_000 {
            let (year, month, day_of_month) = date_from_days(day);
            assert_eq!(days_from_date(year, month, day_of_month), day);
        }
    }

    #[test]
    fn the_middle_of_a_second_is_waited_for() {
        for (now, wait) in [(0, 500), (499, 1), (500, 0), (501, 999), (999, 501)] {
            assert_eq!(until_half_second(Duration::from_millis(now)), Duration::from_millis(wait), "{now}");
        }
    }

    #[test]
    fn the_clock_keeps_local_time_only_where_a_file_says_so() {
        for (text, local) in [
            ("etc/adjtime:\n| 0.0 0 0.0\n| 0\n| LOCAL\n", true),
            ("etc/adjtime:\n| 0.0 0 0.0\n| 0\n| UTC\n", false),
            ("etc/adjtime: LOCAL\n", false),
            ("etc/\n", false),
        ] {
            assert_eq!(keeps_local_time(&Root::from_text(text).0), local, "{text}");
        }
    }

    #[test]
    fn a_guest_may_have_no_clock() {
        let (root, _directory) = Root::from_text("dev/\n");
        assert!(!Rtc::exists(&root));
        assert_eq!(Rtc::open(&root).unwrap_err().to_string(), "there is none");
    }

    #[test]
    fn a_file_that_is_no_clock_is_an_error() {
        let (root, _directory) = Root::from_text("dev/rtc0:\n");
        assert!(Rtc::open(&root).unwrap().next_second().is_err());
    }
}
