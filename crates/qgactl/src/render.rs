//! Replies as people read them.
//!
//! A hostile guest could send control sequences to the terminal. So all output passes through [`printable`], except
//! what `cat` and `exec` pass on; and text from the guest within a line of ours is a [`piece`].

use std::fmt::Write;

use qga::commands::session::AgentInfo;
use tz::UtcDateTime;

use crate::table::WIDEST_COLUMN;

/// Longest piece that is shown: no path is longer.
const MAX_PIECE_CHARACTERS: usize = 4096;

/// Text that a terminal shows and does not act on: control characters are escaped as in JSON. Line ends and tabs stay.
pub(crate) fn printable(text: &str) -> String {
    escape_controls(text, &['\n', '\t'])
}

/// Text from the guest within a line: line ends and tabs are escaped as well, and a text that is too long is cut.
pub(crate) fn piece(text: &str) -> String {
    match text.char_indices().nth(MAX_PIECE_CHARACTERS) {
        Some((end, _)) => escape_controls(&text[..end], &[]) + "...",
        None => escape_controls(text, &[]),
    }
}

fn escape_controls(text: &str, kept: &[char]) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() && !kept.contains(&character) {
            let _ = write!(escaped, "\\u{:04x}", u32::from(character));
        } else {
            escaped.push(character);
        }
    }
    escaped
}

/// The agent's version, and its commands by name with the state of each.
pub(crate) fn agent_info(info: &AgentInfo) -> String {
    let mut commands: Vec<_> = info.supported_commands.iter().collect();
    commands.sort_by_key(|command| &command.name);
    let width = commands.iter().map(|command| command.name.chars().count()).max().unwrap_or(0).min(WIDEST_COLUMN);
    let enabled = commands.iter().filter(|command| command.enabled).count();
    let mut text =
        format!("version   {}\ncommands  {} known, {enabled} enabled\n", piece(&info.version), commands.len());
    for command in commands {
        let state = if command.enabled { "enabled" } else { "disabled" };
        let silence = if command.success_response { "" } else { ", answers failures only" };
        text += &format!("  {:width$}  {state}{silence}\n", piece(&command.name));
    }
    text
}

/// A second since 1970 as a date and a time of day, in UTC.
pub(crate) fn utc(unix_time: i64) -> String {
    let Ok(time) = UtcDateTime::from_timespec(unix_time, 0) else { return format!("second {unix_time}") };
    let (year, month, day) = (time.year(), time.month(), time.month_day());
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}", time.hour(), time.minute(), time.second())
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
            (i64::MAX, "second 9223372036854775807"),
            (i64::MIN, "second -9223372036854775808"),
        ] {
            assert_eq!(utc(seconds), text);
        }
    }

    #[test]
    fn control_characters_are_escaped() {
        let text = "a\u{1b}[2J\r\0\u{7f}\u{80}\u{9b}31m\u{9f}\u{a0}ü\n\tz\\";
        let escaped = "a\\u001b[2J\\u000d\\u0000\\u007f\\u0080\\u009b31m\\u009f\u{a0}ü";
        assert_eq!(printable(text), format!("{escaped}\n\tz\\"));
        assert_eq!(piece(text), format!("{escaped}\\u000a\\u0009z\\"));
    }

    #[test]
    fn a_piece_is_no_longer_than_a_path() {
        assert_eq!(piece(&"ü".repeat(4096)), "ü".repeat(4096));
        assert_eq!(piece(&"ü".repeat(4097)), "ü".repeat(4096) + "...");
    }

    #[test]
    fn names_of_commands_are_whatever_a_guest_says() {
        let name = "x".repeat(70_000);
        let info = AgentInfo {
            version: "1\n".into(),
            supported_commands: vec![command(&name, true, true), command("\u{1b}c", true, true)],
        };
        let text = agent_info(&info);
        let lines: Vec<_> = text.lines().map(|line| (line.len(), line.split("  ").nth(1).unwrap())).collect();
        assert_eq!(lines[0].1, " 1\\u000a");
        assert_eq!(lines[2], (2 + WIDEST_COLUMN + 9, "\\u001bc"));
        assert!(lines[3].1 == "x".repeat(4096) + "...");
    }
}
