//! Replies as people read them.
//!
//! A hostile guest could send control sequences to the terminal, or characters that hide or reorder what stands beside
//! them. So all output passes through [`printable`], except that of `cat` and of programs; and text from the guest
//! within a line of ours is a [`piece`]. Escapes are those of JSON, so that `--json` prints the same value as received.

use std::{fmt::Write, ops::RangeInclusive};

use qga::commands::session::AgentInfo;
use tz::UtcDateTime;

use crate::table::WIDEST_COLUMN;

/// Longest piece that is shown: no path is longer.
const MAX_PIECE_CHARACTERS: usize = 4096;

/// Characters that show nothing or change how others are shown: those of the general categories Cf, Zl and Zp of
/// Unicode 16, and those with the property `Default_Ignorable_Code_Point`, which includes code points of that kind that
/// are not assigned yet. From `DerivedGeneralCategory.txt` and `DerivedCoreProperties.txt` of the Unicode Character
/// Database.
const INVISIBLE: [RangeInclusive<char>; 25] = [
    '\u{ad}'..='\u{ad}',
    '\u{34f}'..='\u{34f}',
    '\u{600}'..='\u{605}',
    '\u{61c}'..='\u{61c}',
    '\u{6dd}'..='\u{6dd}',
    '\u{70f}'..='\u{70f}',
    '\u{890}'..='\u{891}',
    '\u{8e2}'..='\u{8e2}',
    '\u{115f}'..='\u{1160}',
    '\u{17b4}'..='\u{17b5}',
    '\u{180b}'..='\u{180f}',
    '\u{200b}'..='\u{200f}',
    '\u{2028}'..='\u{202e}',
    '\u{2060}'..='\u{206f}',
    '\u{3164}'..='\u{3164}',
    '\u{fe00}'..='\u{fe0f}',
    '\u{feff}'..='\u{feff}',
    '\u{ffa0}'..='\u{ffa0}',
    '\u{fff0}'..='\u{fffb}',
    '\u{110bd}'..='\u{110bd}',
    '\u{110cd}'..='\u{110cd}',
    '\u{13430}'..='\u{1343f}',
    '\u{1bca0}'..='\u{1bca3}',
    '\u{1d173}'..='\u{1d17a}',
    '\u{e0000}'..='\u{e0fff}',
];

/// Text that a terminal shows as it stands: control and invisible characters are escaped. Line ends and tabs stay.
pub(crate) fn printable(text: &str) -> String {
    escape(text, &['\n', '\t'])
}

/// Text from the guest within a line: line ends and tabs are escaped as well, and a text that is too long is cut.
pub(crate) fn piece(text: &str) -> String {
    match text.char_indices().nth(MAX_PIECE_CHARACTERS) {
        Some((end, _)) => escape(&text[..end], &[]) + "...",
        None => escape(text, &[]),
    }
}

fn escape(text: &str, kept: &[char]) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if (character.is_control() || is_invisible(character)) && !kept.contains(&character) {
            for unit in character.encode_utf16(&mut [0; 2]) {
                let _ = write!(escaped, "\\u{unit:04x}");
            }
        } else {
            escaped.push(character);
        }
    }
    escaped
}

fn is_invisible(character: char) -> bool {
    let next = INVISIBLE.partition_point(|range| *range.end() < character);
    INVISIBLE.get(next).is_some_and(|range| range.contains(&character))
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
    fn invisible_characters_are_escaped_as_json_does_and_letters_are_not() {
        let text = "a\u{202e}b\u{200b}\u{ad}\u{2066}\u{feff}\u{2028}\u{fe0f}\u{e0041}\u{1d173}";
        let escaped = "a\\u202eb\\u200b\\u00ad\\u2066\\ufeff\\u2028\\ufe0f\\udb40\\udc41\\ud834\\udd73";
        assert_eq!((printable(text).as_str(), piece(text).as_str()), (escaped, escaped));
        assert_eq!(serde_json::from_str::<String>(&format!("\"{escaped}\"")).unwrap(), text);
        let letters = "שלום مرحبا e\u{301} 漢字 😀 \u{a0}\u{2010}\u{202f}\u{205f}";
        assert_eq!(printable(letters), letters);
    }

    #[test]
    fn the_ranges_of_invisible_characters_are_in_order() {
        assert!(INVISIBLE.iter().is_sorted_by(|one, next| one.end() < next.start()));
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
