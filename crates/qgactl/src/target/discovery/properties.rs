//! The argument of an option of QEMU: `socket,id=c0,path=/run/a,server=on`, or the same as a JSON object.
//!
//! In the first syntax a comma in a value is doubled, a first word without `=` is the value of the option's implied
//! key, and any other one means `on`. Values are bytes: a path need not be UTF-8. In JSON a nested object's members
//! count as the object's own unless that has the same key: libvirt writes `{"driver": …}` for devices, and a character
//! device may have its path in `backend.data.addr.data`. Facts: qemu(1), and "QEMU QMP Reference Manual", chardev-add.

use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    os::unix::ffi::{OsStrExt, OsStringExt},
};

use serde_json::Value;

/// Deepest nesting of objects that is looked into: QEMU's options have four levels.
const MAX_DEPTH: usize = 8;

/// Keys with their values.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Properties(HashMap<String, OsString>);

impl Properties {
    /// Reads an argument. A text that is neither syntax has no properties.
    pub(super) fn parse(argument: &OsStr, implied_key: &str) -> Self {
        let mut properties = Self::default();
        let bytes = argument.as_bytes();
        if bytes.first() == Some(&b'{') {
            if let Ok(object) = serde_json::from_slice(bytes) {
                properties.add_json(&object, 0);
            }
            return properties;
        }
        for (index, word) in split_at_commas(bytes).into_iter().enumerate() {
            let equals = word.iter().position(|byte| *byte == b'=');
            let (key, value) = match equals {
                Some(equals) => (&word[..equals], &word[equals + 1..]),
                None if index == 0 => (implied_key.as_bytes(), word.as_slice()),
                None => (word.as_slice(), &b"on"[..]),
            };
            let key = String::from_utf8_lossy(key).into_owned();
            properties.0.insert(key, OsString::from_vec(value.to_vec()));
        }
        properties
    }

    /// The value of a key.
    pub(super) fn get(&self, key: &str) -> Option<&OsStr> {
        self.0.get(key).map(OsString::as_os_str)
    }

    /// The value of a key as text; one with other bytes is shown with replacement characters.
    pub(super) fn text(&self, key: &str) -> Option<String> {
        Some(self.get(key)?.to_string_lossy().into_owned())
    }

    /// Whether a key is set to this value.
    pub(super) fn has(&self, key: &str, value: &str) -> bool {
        self.get(key).is_some_and(|is| is == value)
    }

    fn add_json(&mut self, value: &Value, depth: usize) {
        let Value::Object(members) = value else { return };
        for (key, member) in members {
            let text = match member {
                Value::String(text) => text.clone(),
                Value::Number(number) => number.to_string(),
                Value::Bool(is_on) => if *is_on { "on" } else { "off" }.into(),
                _ => continue,
            };
            self.0.entry(key.clone()).or_insert_with(|| text.into());
        }
        for member in members.values().filter(|_| depth < MAX_DEPTH) {
            self.add_json(member, depth + 1);
        }
    }
}

/// The words between commas, of which doubled ones are part of a word.
fn split_at_commas(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut words = vec![Vec::new()];
    let mut rest = bytes.iter().peekable();
    while let Some(byte) = rest.next() {
        let is_separator = *byte == b',' && rest.next_if(|next| **next == b',').is_none();
        match words.last_mut() {
            Some(word) if !is_separator => word.push(*byte),
            _ => words.push(Vec::new()),
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(argument: &str, expected: &[(&str, &str)]) {
        let expected = expected.iter().map(|(key, value)| ((*key).to_owned(), OsString::from(value))).collect();
        assert_eq!(Properties::parse(argument.as_ref(), "driver"), Properties(expected), "{argument}");
    }

    #[test]
    fn keys_and_values_stand_between_commas() {
        check(
            "socket,id=c0,path=/run/a=b,server=on,wait",
            &[("driver", "socket"), ("id", "c0"), ("path", "/run/a=b"), ("server", "on"), ("wait", "on")],
        );
        check("driver=virtserialport", &[("driver", "virtserialport")]);
    }

    #[test]
    fn a_doubled_comma_is_one_of_the_value() {
        check("web,,1", &[("driver", "web,1")]);
        check("a,,,b=c", &[("driver", "a,"), ("b", "c")]);
    }

    #[test]
    fn json_is_the_same_in_other_words() {
        check(
            r#"{"driver":"virtserialport","nr":1,"chardev":"c0","hot":true}"#,
            &[("driver", "virtserialport"), ("nr", "1"), ("chardev", "c0"), ("hot", "on")],
        );
        check(
            r#"{"id":"c0","backend":{"type":"socket",
                "data":{"addr":{"type":"unix","data":{"path":"/a"}},"server":true}}}"#,
            &[("id", "c0"), ("type", "socket"), ("path", "/a"), ("server", "on")],
        );
    }

    #[test]
    fn what_is_not_understood_has_no_properties() {
        check("{\"a\":", &[]);
        check("{}", &[]);
        check(&format!("{}1{}", "{\"a\":".repeat(100), "}".repeat(100)), &[]);
    }
}
