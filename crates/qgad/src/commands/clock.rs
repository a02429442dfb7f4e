//! The guest's clock and its time zone.
//!
//! The zone is looked up at each call, so that a changed `/etc/localtime` shows at once. It is `TZ` where that is set:
//! the name of a file of the zone database, or a rule such as `CET-1CEST,M3.5.0,M10.5.0/3`. What cannot be understood
//! is UTC.

use std::{
    io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use qga::{
    commands::clock::{GetTime, GetTimezone, Timezone},
    wire::message::Error,
};
use tz::{TimeZone, TimeZoneSettings};

use super::Result;
use crate::{dispatch::Run, guest::Guest, root::Root};

/// The zone where nothing else is said.
const LOCAL_TIME: &str = "/etc/localtime";
/// Where zones are found by name.
const ZONE_DATABASE: &str = "/usr/share/zoneinfo";

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
