//! Requests that no host would send: random bytes, and valid requests with random changes.
//!
//! The same seed gives the same requests. They name only queries, which change nothing. A test that sends them to a
//! real agent must have the agent refuse everything else, too.

use qga::{Spec, command::Profile, commands::SPECS};

/// Most bytes of one piece, but for the rare large one.
const PIECE_BYTES: usize = 4096;
/// A string that is larger than all buffers that are kept.
const LARGE_BYTES: usize = 1024 * 1024;
/// Deeper than any parser goes.
const MOST_DEPTH: usize = 5000;
const MOST_DIGITS: usize = 2000;

/// Marsaglia's xorshift.
pub(crate) struct RandomRequests(u64);

/// The commands that change nothing.
pub(crate) fn queries() -> impl Iterator<Item = &'static Spec> {
    SPECS.iter().filter(|spec| spec.profile == Profile::ReadOnly)
}

impl RandomRequests {
    pub(crate) fn new(seed: u64) -> Self {
        // It does not come away from zero.
        Self(seed.max(1))
    }

    /// A number below a limit.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(limit).unwrap()).unwrap()
    }

    /// Whether one of so many chances has come.
    pub(crate) fn once_in(&mut self, chances: usize) -> bool {
        self.below(chances) == 0
    }

    /// The next piece.
    pub(crate) fn piece(&mut self) -> Vec<u8> {
        match self.below(10) {
            0 => self.bytes(PIECE_BYTES),
            1 => vec![0xFF; 1 + self.below(100)],
            2 => self.nesting(),
            3 => self.number(),
            4 => self.string(),
            5 => self.request(),
            6 => {
                let mut half = self.request();
                half.truncate(self.below(half.len()));
                half
            }
            7 => (0..self.below(50)).flat_map(|_| self.request()).collect(),
            _ => {
                let mut request = self.request();
                for _ in 0..=self.below(8) {
                    self.change(&mut request);
                }
                request
            }
        }
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        (0..self.below(most)).map(|_| self.byte()).collect()
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.below(256)).unwrap()
    }

    fn pick<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len())]
    }

    fn request(&mut self) -> Vec<u8> {
        let name = queries().nth(self.below(queries().count())).unwrap().name;
        let arguments = self.pick(&[
            "{}",
            r#"{"id": 1}"#,
            r#"{"username": "no-such-user"}"#,
            r#"{"unknown": [null, true, -1.5e3, "\u00fc\ud83d\ude00"]}"#,
            "[]",
            "null",
        ]);
        // What is refused, and would do nothing either: the audit has something to tell.
        let refused = r#"{"execute": "guest-file-open", "arguments": {"path": "/no/such/directory/file"}}"#;
        let text = match self.below(5) {
            0 => format!(r#"{{"execute": "{name}"}}"#),
            1 => format!(r#"{{"execute": "{name}", "id": {arguments}}}"#),
            2 => format!("{{'execute': '{name}', 'arguments': {}}}\n", arguments.replace('"', "'")),
            3 => format!(r#"{{"execute": "{name}", "arguments": {arguments}}}"#),
            _ => refused.into(),
        };
        text.into_bytes()
    }

    fn change(&mut self, text: &mut Vec<u8>) {
        if text.is_empty() {
            return;
        }
        let at = self.below(text.len());
        match self.below(6) {
            0 => text[at] = self.byte(),
            1 => text[at] ^= 1 << self.below(8),
            2 => drop(text.remove(at)),
            3 => text.insert(at, self.byte()),
            4 => {
                let sign = self.pick(&["{", "}", "[", "]", "\"", "'", ":", ",", "\\", "\u{0}", "\n", "%", "\\u", "-"]);
                text.splice(at..at, sign.bytes());
            }
            _ => {
                let piece = text[at..].to_vec();
                let behind = self.below(text.len());
                text.splice(behind..behind, piece);
            }
        }
    }

    fn nesting(&mut self) -> Vec<u8> {
        let opening = self.pick(&["[", r#"{"a":"#, r#"{"execute":["#, "[[{\"\":", "("]);
        let mut text = opening.repeat(self.below(MOST_DEPTH));
        if self.once_in(2) {
            text += &"]}".repeat(self.below(MOST_DEPTH));
        }
        text.into_bytes()
    }

    fn number(&mut self) -> Vec<u8> {
        let digits: String = (0..=self.below(MOST_DIGITS)).map(|_| self.pick(&["0", "1", "9"])).collect();
        let number = match self.below(4) {
            0 => digits,
            1 => format!("-{digits}"),
            2 => format!("1.{digits}e-{digits}"),
            _ => format!("{}e{digits}", self.byte()),
        };
        format!(r#"{{"execute": "guest-sync", "arguments": {{"id": {number}}}}}"#).into_bytes()
    }

    /// A string with all that strings should not have, and sometimes a large one.
    fn string(&mut self) -> Vec<u8> {
        let content = match self.below(20) {
            0 => vec![b'A'; LARGE_BYTES],
            1..5 => self.pick(&["\\ud800", "\\u0000", "\\x", "\u{7}", "\\u12", "\t\r"]).repeat(20).into_bytes(),
            _ => (0..self.below(100)).map(|_| 0x80 | self.byte()).collect(),
        };
        let name = self.pick(&["id", "execute", "arguments"]);
        [format!(r#"{{"execute": "guest-ping", "{name}": ""#).as_bytes(), &content, b"\"}"].concat()
    }
}
