//! Replies as people read them.

use qga::commands::session::AgentInfo;

/// The agent's version, and its commands by name with what stands in the way of each.
pub(crate) fn agent_info(info: &AgentInfo) -> String {
    let mut commands: Vec<_> = info.supported_commands.iter().collect();
    commands.sort_by_key(|command| &command.name);
    let width = commands.iter().map(|command| command.name.len()).max().unwrap_or(0);
    let enabled = commands.iter().filter(|command| command.enabled).count();
    let mut text = format!("version   {}\ncommands  {} known, {enabled} enabled\n", info.version, commands.len());
    for command in commands {
        let state = if command.enabled { "enabled" } else { "disabled" };
        let silence = if command.success_response { "" } else { ", answers failures only" };
        text += &format!("  {:width$}  {state}{silence}\n", command.name);
    }
    text
}

/// A second since 1970 as a date and a time of day, in UTC.
pub(crate) fn utc(unix_time: i64) -> String {
    let (days, of_day) = (unix_time.div_euclid(86_400) + 719_468, unix_time.rem_euclid(86_400));
    // Years begin in March here, so that leap days come last; 400 of them always have the same number of days.
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}", of_day / 3600, of_day / 60 % 60, of_day % 60)
}

#[cfg(test)]
mod tests {
    use qga::commands::session::CommandInfo;

    use super::*;

    fn command(name: &str, enabled: bool, success_response: bool) -> CommandInfo {
        CommandInfo { name: name.into(), enabled, success_response }
    }

    #[test]
    fn commands_stand_in_order_with_what_hinders_them() {
        let info = AgentInfo {
            version: "1.2.3".into(),
            supported_commands: vec![
                command("guest-shutdown", true, false),
                command("guest-exec", false, true),
                command("guest-ping", true, true),
            ],
        };
        let expected = "\
version   1.2.3
commands  3 known, 2 enabled
  guest-exec      disabled
  guest-ping      enabled
  guest-shutdown  enabled, answers failures only
";
        assert_eq!(agent_info(&info), expected);
    }

    #[test]
    fn an_agent_without_commands_is_shown_too() {
        let info = AgentInfo { version: "1".into(), supported_commands: Vec::new() };
        assert_eq!(agent_info(&info), "version   1\ncommands  0 known, 0 enabled\n");
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00"),
            (951_827_696, "2000-02-29 12:34:56"),
            (4_107_542_399, "2100-02-28 23:59:59"),
            (4_107_542_400, "2100-03-01 00:00:00"),
            (-1, "1969-12-31 23:59:59"),
        ] {
            assert_eq!(utc(seconds), text);
        }
    }
}
