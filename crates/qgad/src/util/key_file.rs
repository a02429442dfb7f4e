//! Key files: `[group]` lines, `key=value` lines, comments.
//!
//! The format of the configuration and of the state file, as GLib reads and writes it. Errors have the texts of GLib,
//! which administrators know. If a key is repeated, the last value counts. Localised keys (`key[de]`) are different
//! keys. Errors do not name the file; the caller does.

use std::collections::HashMap;

/// The contents of a key file. Values are stored with their escapes.
#[derive(Debug, Default)]
pub(crate) struct KeyFile {
    values: HashMap<(String, String), Value>,
    /// The group headers in order, each with its line.
    groups: Vec<(String, usize)>,
    /// Keys that replaced an earlier value, each with its group and line.
    repeated: Vec<(String, String, usize)>,
}

/// A value with its escapes, and its line, counted from one.
#[derive(Debug)]
struct Value {
    text: Vec<u8>,
    line: usize,
}

/// A mistake in a file, and its line, counted from one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mistake {
    /// The line.
    pub(crate) line: usize,
    /// What is wrong with it.
    pub(crate) reason: String,
}

impl KeyFile {
    /// Parses the contents of a file.
    ///
    /// # Errors
    /// The first mistake.
    pub(crate) fn parse(contents: &[u8]) -> Result<Self, String> {
        let (file, mistakes) = Self::parse_all(contents);
        mistakes.into_iter().next().map_or(Ok(file), |mistake| Err(mistake.reason))
    }

    /// Parses the valid lines of a file, and returns all mistakes.
    pub(crate) fn parse_all(contents: &[u8]) -> (Self, Vec<Mistake>) {
        let (mut file, mut mistakes, mut group) = (Self::default(), Vec::new(), None);
        for (index, line) in contents.split(|&byte| byte == b'\n').enumerate() {
            if let Err(reason) = file.take_line(line, index + 1, &mut group) {
                mistakes.push(Mistake { line: index + 1, reason });
            }
        }
        (file, mistakes)
    }

    fn take_line(&mut self, text: &[u8], line: usize, group: &mut Option<String>) -> Result<(), String> {
        let text = text.trim_ascii_start();
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        if text.is_empty() || text.starts_with(b"#") {
            return Ok(());
        }
        if let Some(name) = group_name(text) {
            self.groups.push((name.clone(), line));
            *group = Some(name);
            return Ok(());
        }
        let (key, value) = key_and_value(text).ok_or_else(|| {
            let text = String::from_utf8_lossy(text);
            format!("Key file contains line “{text}” which is not a key-value pair, group, or comment")
        })?;
        let group = group.clone().ok_or("Key file does not start with a group")?;
        if self.values.insert((group.clone(), key.clone()), Value { text: value.to_vec(), line }).is_some() {
            self.repeated.push((group, key, line));
        }
        Ok(())
    }

    /// The group headers in order, each with its line.
    pub(crate) fn groups(&self) -> impl Iterator<Item = (&str, usize)> {
        self.groups.iter().map(|(name, line)| (&**name, *line))
    }

    /// The repeated keys of a group, each with the line of a later occurrence.
    pub(crate) fn repeated(&self, group: &str) -> impl Iterator<Item = (&str, usize)> {
        self.repeated.iter().filter(move |(name, ..)| name == group).map(|(_, key, line)| (&**key, *line))
    }

    /// The keys of a group, each with its line.
    pub(crate) fn keys(&self, group: &str) -> impl Iterator<Item = (&str, usize)> {
        self.values.iter().filter(move |((name, _), _)| name == group).map(|((_, key), value)| (&**key, value.line))
    }

    /// The value of a key, without escapes. `None` when there is no such group or key.
    pub(crate) fn text(&self, group: &str, key: &str) -> Result<Option<String>, String> {
        let Some(value) = self.values.get(&(group.to_owned(), key.to_owned())) else { return Ok(None) };
        let text = str::from_utf8(&value.text).map_err(|_| {
            let value = String::from_utf8_lossy(&value.text);
            format!("Key file contains key “{key}” with value “{value}” which is not UTF-8")
        })?;
        unescape(text).map(Some).ok_or_else(|| cannot_be_interpreted(key))
    }
}

/// The error text for a value that is not valid for its key.
pub(crate) fn cannot_be_interpreted(key: &str) -> String {
    format!("Key file contains key “{key}” which has a value that cannot be interpreted.")
}

/// Escapes a value so that it is read back unchanged.
pub(crate) fn escape(value: &[u8]) -> Vec<u8> {
    let mut escaped = Vec::with_capacity(value.len());
    let mut is_leading = true;
    for &byte in value {
        match byte {
            b' ' if is_leading => escaped.extend(br"\s"),
            b'\t' if is_leading => escaped.extend(br"\t"),
            b'\n' => escaped.extend(br"\n"),
            b'\r' => escaped.extend(br"\r"),
            b'\\' => escaped.extend(br"\\"),
            _ => escaped.push(byte),
        }
        is_leading &= matches!(byte, b' ' | b'\t');
    }
    escaped
}

fn unescape(text: &str) -> Option<String> {
    let mut value = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        value.push(match character {
            '\\' => match characters.next()? {
                's' => ' ',
                'n' => '\n',
                't' => '\t',
                'r' => '\r',
                '\\' => '\\',
                _ => return None,
            },
            other => other,
        });
    }
    Some(value)
}

fn group_name(line: &[u8]) -> Option<String> {
    let name = line.strip_prefix(b"[")?.trim_ascii_end().strip_suffix(b"]")?;
    let is_valid = !name.is_empty() && !name.iter().any(|byte| matches!(byte, b'[' | b']') || byte.is_ascii_control());
    is_valid.then(|| String::from_utf8(name.to_vec()).ok()).flatten()
}

fn key_and_value(line: &[u8]) -> Option<(String, &[u8])> {
    let split = line.iter().position(|&byte| byte == b'=')?;
    let key = str::from_utf8(line[..split].trim_ascii_end()).ok().filter(|key| !key.is_empty())?;
    Some((key.to_owned(), line[split + 1..].trim_ascii_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(contents: &str, expected: Result<Option<&str>, &str>) {
        let value = KeyFile::parse(contents.as_bytes()).and_then(|file| file.text("general", "key"));
        assert_eq!(value, expected.map(|value| value.map(Into::into)).map_err(Into::into), "{contents:?}");
    }

    #[test]
    fn a_value_is_what_follows_the_first_equals_sign() {
        check("[general]\nkey=value\n", Ok(Some("value")));
        check("[general]\n  key  =  a=b  ", Ok(Some("a=b  ")));
        check("[general]\r\nkey=value\r\n", Ok(Some("value")));
        check("[general]\nkey=\n", Ok(Some("")));
    }

    #[test]
    fn the_last_value_of_a_repeated_key_counts_even_across_repeated_groups() {
        check("[general]\nkey=a\nkey=b\n[other]\nkey=x\n[general]\nkey=c\n", Ok(Some("c")));
    }

    #[test]
    fn other_groups_keys_and_comments_are_ignored() {
        check("# comment\n\n[other]\nkey=x\n[general]\n#key=y\nkey[de]=z\nfoo=bar\n", Ok(None));
        check("", Ok(None));
    }

    #[test]
    fn escapes_are_resolved() {
        check(
            r"[general]
key=\s\ta\\b\n\r",
            Ok(Some(" \ta\\b\n\r")),
        );
        let refusal = "Key file contains key “key” which has a value that cannot be interpreted.";
        check("[general]\nkey=\\q\n", Err(refusal));
        check("[general]\nkey=\\", Err(refusal));
    }

    #[test]
    fn a_line_without_meaning_is_refused() {
        let refusal = "Key file contains line “garbage” which is not a key-value pair, group, or comment";
        check("[general]\ngarbage\n", Err(refusal));
        check("garbage", Err(refusal));
        for (contents, line) in [("[general", "[general"), ("[]", "[]"), ("[general]\n=x", "=x")] {
            let refusal = format!("Key file contains line “{line}” which is not a key-value pair, group, or comment");
            check(contents, Err(&refusal));
        }
    }

    #[test]
    fn a_key_before_any_group_is_refused() {
        check("key=value\n", Err("Key file does not start with a group"));
    }

    #[test]
    fn a_value_that_is_not_utf_8_is_refused_when_it_is_read() {
        let file = KeyFile::parse(b"[general]\nkey=\xFF\nother=x\n").unwrap();
        assert_eq!(file.text("general", "other"), Ok(Some("x".into())));
        let refusal = "Key file contains key “key” with value “\u{FFFD}” which is not UTF-8";
        assert_eq!(file.text("general", "key"), Err(refusal.into()));
    }

    #[test]
    fn an_escaped_value_is_read_back_unchanged() {
        for value in ["", " leading", "\t \ttabs", "trailing ", "back\\slash", "line\nfeed\r"] {
            let contents = [b"[general]\nkey=".as_slice(), &escape(value.as_bytes()), b"\n"].concat();
            check(str::from_utf8(&contents).unwrap(), Ok(Some(value)));
        }
    }
}
