//! Bytes to messages: finds where each JSON value of a stream ends.
//!
//! A message ends at its outermost closing bracket; no newline is needed, and white space between tokens is dropped.
//! A byte that cannot begin or continue a token, 0xFF above all, makes the framer report it, forget the half message
//! and skip to the next structural or control character. This is how a host synchronizes a stream of unknown state.
//! Memory is bounded by [`MAX_MESSAGE_BYTES`], [`MAX_TOKENS`] and [`MAX_DEPTH`]. A message beyond a limit gives one
//! error. The rest of it is skipped and never read as a message of its own: it may hold anything.
//! How the input is cut into pieces changes nothing, and no byte is looked at more than a constant number of times.

use memchr::memchr2;

use super::{
    error::Error,
    number::{Number, Step},
    scan,
};

/// Most bytes of tokens in one message, white space not counted: what a 48 MiB file write needs, as hosts know it.
pub const MAX_MESSAGE_BYTES: usize = 64 * 1024 * 1024 - 1;
/// Most tokens in one message: brackets, commas, colons and scalars.
pub const MAX_TOKENS: usize = 1 << 21;
/// Deepest nesting of arrays and objects.
pub const MAX_DEPTH: i64 = 1024;

/// What the framer found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A complete value: its tokens, lexically sound, at most one blank between two of them.
    Message(Vec<u8>),
    /// Bytes that are no message. The peer gets this error.
    Invalid(Error),
}

/// Cuts a stream into [`Frame`]s.
#[derive(Debug, Default)]
pub struct Framer {
    state: State,
    /// The tokens of the message so far, the one being read included.
    message: Vec<u8>,
    /// Where in `message` the token being read begins.
    token_start: usize,
    /// Blanks in `message`.
    blanks: usize,
    /// White space was dropped since the last token.
    blank_pending: bool,
    tokens: usize,
    /// Braces and brackets opened and not closed, each negative after one too many.
    braces: i64,
    brackets: i64,
    /// The message went beyond a limit: it is followed to its end, but not kept.
    oversized: bool,
    /// The limit that was just passed and that the peer does not know of yet.
    unreported: Option<&'static str>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Before a token.
    #[default]
    Between,
    /// In a string that ends at this quote.
    String { quote: u8 },
    /// In a string, after a backslash.
    Escape { quote: u8 },
    /// In a run of lower-case letters.
    Keyword,
    /// In a number.
    Number(Number),
    /// After a lexical error.
    Recovering,
}

impl Framer {
    /// Consumes input up to the end of the next frame. `None` when the input is used up first.
    pub fn next(&mut self, input: &mut &[u8]) -> Option<Frame> {
        while let Some(&byte) = input.first() {
            let frame = match self.state {
                State::Between => self.begin_token(byte, input),
                State::String { quote } => self.continue_string(quote, input),
                State::Escape { quote } => self.continue_escape(quote, byte, input),
                State::Keyword => self.continue_keyword(input),
                State::Number(number) => self.continue_number(number, byte, input),
                State::Recovering => {
                    self.skip_to_recovery_point(input);
                    None
                }
            };
            if let Some(limit) = self.unreported.take() {
                return Some(Frame::Invalid(Error::generic(format!("JSON {limit} limit exceeded"))));
            }
            if frame.is_some() {
                return frame;
            }
        }
        None
    }

    /// Whether a message has begun and not ended.
    pub fn is_within_message(&self) -> bool {
        self.tokens > 0 || !matches!(self.state, State::Between | State::Recovering)
    }

    /// Bytes of memory that the message so far takes.
    pub fn held_bytes(&self) -> usize {
        self.message.capacity()
    }

    fn begin_token(&mut self, byte: u8, input: &mut &[u8]) -> Option<Frame> {
        if matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
            let end =
                input.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b'\n' | b'\r')).unwrap_or(input.len());
            *input = &input[end..];
            self.blank_pending = true;
            return None;
        }
        if self.blank_pending && !self.message.is_empty() {
            self.message.push(b' ');
            self.blanks += 1;
        }
        self.blank_pending = false;
        self.token_start = self.message.len();
        self.state = match (byte, Number::begin(byte)) {
            (_, Some(number)) => State::Number(number),
            (b'{' | b'}' | b'[' | b']' | b',' | b':', _) => {
                self.take(1, input);
                return self.end_token(byte);
            }
            (b'"' | b'\'', _) => State::String { quote: byte },
            (b'a'..=b'z', _) => State::Keyword,
            _ => return Some(self.stray(input)),
        };
        self.take(1, input);
        None
    }

    fn continue_string(&mut self, quote: u8, input: &mut &[u8]) -> Option<Frame> {
        let end = memchr2(quote, b'\\', input).unwrap_or(input.len());
        if let Some(forbidden) = first_forbidden_in_string(&input[..end]) {
            self.take(forbidden, input);
            // One frame at a time: a limit passed just now comes first, and this byte is met again.
            return if self.unreported.is_some() { None } else { Some(self.stray(input)) };
        }
        let Some(&delimiter) = input.get(end) else {
            self.take(end, input);
            return None;
        };
        self.take(end + 1, input);
        if delimiter == quote {
            return self.end_token(quote);
        }
        self.state = State::Escape { quote };
        None
    }

    fn continue_escape(&mut self, quote: u8, byte: u8, input: &mut &[u8]) -> Option<Frame> {
        if is_forbidden_in_string(byte) {
            return Some(self.stray(input));
        }
        self.state = State::String { quote };
        self.take(1, input);
        None
    }

    fn continue_keyword(&mut self, input: &mut &[u8]) -> Option<Frame> {
        let end = input.iter().position(|byte| !byte.is_ascii_lowercase()).unwrap_or(input.len());
        let is_complete = end < input.len();
        self.take(end, input);
        if is_complete { self.end_token(b'a') } else { None }
    }

    fn continue_number(&mut self, number: Number, byte: u8, input: &mut &[u8]) -> Option<Frame> {
        match number.step(byte) {
            Step::Continues(next) => {
                self.state = State::Number(next);
                self.take(1, input);
                None
            }
            Step::Ends => self.end_token(b'0'),
            Step::Breaks => Some(self.stray(input)),
        }
    }

    fn skip_to_recovery_point(&mut self, input: &mut &[u8]) {
        match input.iter().position(|&byte| is_recovery_point(byte)) {
            Some(end) => {
                *input = &input[end..];
                self.state = State::Between;
            }
            None => *input = &[],
        }
    }

    /// Moves bytes of the current token into the message, unless that makes it too large.
    fn take(&mut self, count: usize, input: &mut &[u8]) {
        let (taken, rest) = input.split_at(count);
        *input = rest;
        if self.message.len() - self.blanks + count > MAX_MESSAGE_BYTES {
            self.go_beyond("token size");
        }
        if !self.oversized {
            self.message.extend_from_slice(taken);
        }
    }

    /// Ends the current token, which `kind` begins or ends with, and the message if that was its last.
    fn end_token(&mut self, kind: u8) -> Option<Frame> {
        self.state = State::Between;
        self.tokens += 1;
        match kind {
            b'{' => self.braces += 1,
            b'}' => self.braces -= 1,
            b'[' => self.brackets += 1,
            b']' => self.brackets -= 1,
            _ => {}
        }
        if self.braces + self.brackets > MAX_DEPTH {
            self.go_beyond("nesting depth");
        } else if self.tokens > MAX_TOKENS {
            self.go_beyond("token count");
        }
        if self.braces < 0 || self.brackets < 0 || (self.braces, self.brackets) == (0, 0) {
            let (message, oversized) = (std::mem::take(&mut self.message), self.oversized);
            self.reset(State::Between);
            return (!oversized).then_some(Frame::Message(message));
        }
        None
    }

    /// Reports the first byte of the input, which cannot continue the current token, and starts over behind it.
    fn stray(&mut self, input: &mut &[u8]) -> Frame {
        let (byte, rest) = input.split_at(1);
        let mut text = self.message.split_off(self.token_start.min(self.message.len()));
        text.extend_from_slice(byte);
        *input = rest;
        self.reset(State::Recovering);
        // Hosts know these texts from an agent written in C, where a NUL ends a string.
        let quoted = text.split(|&byte| byte == 0).next().unwrap_or_default();
        Frame::Invalid(Error::parse(&[b"stray '", quoted, b"'"].concat()))
    }

    /// Lets go of the message, and has the peer told once.
    fn go_beyond(&mut self, limit: &'static str) {
        if !self.oversized {
            self.oversized = true;
            self.unreported = Some(limit);
            self.message = Vec::new();
            self.blanks = 0;
            self.token_start = 0;
        }
    }

    fn reset(&mut self, state: State) {
        *self = Self { state, unreported: self.unreported, ..Self::default() };
    }
}

fn is_forbidden_in_string(byte: u8) -> bool {
    !(0x20..=0xFD).contains(&byte)
}

/// Where the first byte that no string may hold stands.
fn first_forbidden_in_string(bytes: &[u8]) -> Option<usize> {
    scan::position(bytes, |word| word | scan::below(word, 0x20), |&byte| is_forbidden_in_string(byte))
}

fn is_recovery_point(byte: u8) -> bool {
    matches!(byte, b'{' | b'}' | b'[' | b']' | b',' | b':' | 0xFE | 0xFF) || (byte < 0x20 && byte != b'\t')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All frames of a stream: a message as its text, an error as `! ` and its text.
    fn frames(framer: &mut Framer, mut input: &[u8]) -> Vec<String> {
        let describe = |frame| match frame {
            Frame::Message(text) => String::from_utf8_lossy(&text).into_owned(),
            Frame::Invalid(error) => format!("! {}", error.desc),
        };
        std::iter::from_fn(|| framer.next(&mut input)).map(describe).collect()
    }

    /// Whole and byte by byte, the stream gives these frames.
    fn check(input: impl AsRef<[u8]>, expected: &[&str]) {
        let input = input.as_ref();
        assert_eq!(frames(&mut Framer::default(), input), expected, "{:?}", String::from_utf8_lossy(input));
        let mut framer = Framer::default();
        let piecewise: Vec<_> = input.chunks(1).flat_map(|byte| frames(&mut framer, byte)).collect();
        assert_eq!(piecewise, expected, "byte by byte: {:?}", String::from_utf8_lossy(input));
    }

    /// A stream too long to be fed byte by byte.
    fn check_large(input: &[u8], expected: &[&str]) {
        let found = frames(&mut Framer::default(), input);
        assert!(found == expected, "{} frames, the first {:.80}", found.len(), found.first().map_or("", |text| text));
    }

    const STRAY_SENTINEL: &str = "! JSON parse error, stray '\u{FFFD}'";

    #[test]
    fn a_message_ends_at_its_outermost_bracket_without_a_newline() {
        check(r#"{"a":[1]}{}"#, &[r#"{"a":[1]}"#, "{}"]);
        check("[[]][]", &["[[]]", "[]"]);
        check(r#"{"a":"}"}"#, &[r#"{"a":"}"}"#]);
        check(r#"{"a":"\"}"}"#, &[r#"{"a":"\"}"}"#]);
        check(r#"{'a':'"}'}"#, &[r#"{'a':'"}'}"#]);
    }

    #[test]
    fn white_space_between_tokens_shrinks_to_one_blank_and_between_messages_to_nothing() {
        check(" \t\r\n{ }\n\n", &["{ }"]);
        check("{\"a b\" :\n\t 1 }", &[r#"{"a b" : 1 }"#]);
    }

    #[test]
    fn a_scalar_ends_at_its_quote_or_at_the_next_byte_that_is_none_of_its_own() {
        check(r#""a""b"'c'"#, &[r#""a""#, r#""b""#, "'c'"]);
        check("true", &[]);
        check("true ", &["true"]);
        check("12", &[]);
        check("12\n", &["12"]);
        check("-1.5e+3{}", &["-1.5e+3", "{}"]);
        check("null[]", &["null", "[]"]);
        check("0e1 ", &["0", "e", "1"]);
        check("1a ", &["1", "a"]);
    }

    #[test]
    fn a_closing_bracket_too_many_is_a_message_of_its_own() {
        check("}{}", &["}", "{}"]);
        check("]", &["]"]);
        check("[}", &["[}"]);
        check("{]{}", &["{]", "{}"]);
    }

    #[test]
    fn the_sentinel_resets_from_any_state_and_is_reported_with_the_token_it_broke() {
        check(b"\xFF", &[STRAY_SENTINEL]);
        check(b"\xFF\xFF{}", &[STRAY_SENTINEL, STRAY_SENTINEL, "{}"]);
        check(b"{\"execute\":\xFF{}", &[STRAY_SENTINEL, "{}"]);
        check(b"[[[\xFF{}", &[STRAY_SENTINEL, "{}"]);
        check(b"{\"guest-pi\xFF{}", &["! JSON parse error, stray '\"guest-pi\u{FFFD}'", "{}"]);
        check(b"{\"a\\\xFF{}", &["! JSON parse error, stray '\"a\\\u{FFFD}'", "{}"]);
        check(b"[-\xFF{}", &["! JSON parse error, stray '-\u{FFFD}'", "{}"]);
        check(b"[tru\xFF{}", &[STRAY_SENTINEL, "{}"]);
    }

    #[test]
    fn after_a_stray_byte_input_is_skipped_to_the_next_structural_or_control_character() {
        check(r#"{"a":NaN}{}"#, &["! JSON parse error, stray 'N'", "}", "{}"]);
        check("% 1 \t true {}", &["! JSON parse error, stray '%'", "{}"]);
        check("%%%\n12 ", &["! JSON parse error, stray '%'", "12"]);
        check(b"%\xFE{}", &["! JSON parse error, stray '%'", STRAY_SENTINEL, "{}"]);
        check("\u{FEFF}{}", &[STRAY_SENTINEL, "{}"]);
    }

    #[test]
    fn bytes_that_begin_no_token_are_strays() {
        for byte in "ANZ_+.%#/*()=;&!@$^~|<>?`\\\x7F".chars() {
            check(byte.to_string(), &[&format!("! JSON parse error, stray '{byte}'")]);
        }
        check(b"\x80", &[STRAY_SENTINEL]);
        check(b"\xFE", &[STRAY_SENTINEL]);
        check(b"\x01", &["! JSON parse error, stray '\u{1}'"]);
        check(b"\0{}", &["! JSON parse error, stray ''", "{}"]);
    }

    #[test]
    fn numbers_have_the_syntax_of_rfc_8259() {
        check("007 ", &["! JSON parse error, stray '00'"]);
        check("-07\n", &["! JSON parse error, stray '-07'"]);
        check("+7\n", &["! JSON parse error, stray '+'"]);
        check(".5\n", &["! JSON parse error, stray '.'"]);
        check("1.\n", &["! JSON parse error, stray '1.\n'"]);
        check("1.e3\n", &["! JSON parse error, stray '1.e'"]);
        check("1e\n", &["! JSON parse error, stray '1e\n'"]);
        check("1e+ ", &["! JSON parse error, stray '1e+ '"]);
        check("--1\n", &["! JSON parse error, stray '--'"]);
    }

    #[test]
    fn a_string_holds_no_control_character_not_even_behind_a_backslash() {
        check("\"text\n", &["! JSON parse error, stray '\"text\n'"]);
        check("'text\t'\n", &["! JSON parse error, stray ''text\t'"]);
        check("\"a\\\n{}", &["! JSON parse error, stray '\"a\\\n'", "{}"]);
        check("\"\x7F\"", &["\"\x7F\""]);
        // The control character stands beyond the first block that is scanned at once.
        let long = "x".repeat(700);
        check(format!("\"{long}\x02"), &[&format!("! JSON parse error, stray '\"{long}\u{2}'")]);
    }

    #[test]
    fn what_is_quoted_of_a_stray_token_is_bounded() {
        let long = "x".repeat(5000);
        let kept = "x".repeat(1023 - "stray '\"".len());
        check(format!("\"{long}\n{{}}"), &[&format!("! JSON parse error, stray '\"{kept}"), "{}"]);
    }

    #[test]
    fn a_message_of_64_mib_less_one_byte_is_accepted_and_one_more_refused() {
        let of_size = |size: usize| [b"{\"a\": \"", "x".repeat(size - 8).as_bytes(), b"\"}{}"].concat();
        let largest = of_size(MAX_MESSAGE_BYTES);
        let text = std::str::from_utf8(&largest[..largest.len() - 2]).unwrap();
        check_large(&largest, &[text, "{}"]);
        check_large(&of_size(MAX_MESSAGE_BYTES + 1), &["! JSON token size limit exceeded", "{}"]);
        check_large(&of_size(MAX_MESSAGE_BYTES + 100), &["! JSON token size limit exceeded", "{}"]);
    }

    #[test]
    fn two_to_the_21_tokens_are_accepted_and_one_more_refused() {
        let of_tokens = |count: usize| format!("[{}]{{}}", "1 ".repeat(count - 2));
        let largest = of_tokens(MAX_TOKENS);
        check_large(largest.as_bytes(), &[&largest[..largest.len() - 2], "{}"]);
        check_large(of_tokens(MAX_TOKENS + 1).as_bytes(), &["! JSON token count limit exceeded", "{}"]);
        check_large(of_tokens(MAX_TOKENS + 2).as_bytes(), &["! JSON token count limit exceeded", "{}"]);
    }

    #[test]
    fn braces_and_brackets_together_nest_1024_deep_and_no_deeper() {
        let of_depth = |depth: usize| format!("{}{}", "[{'a':".repeat(depth / 2), "}]".repeat(depth / 2));
        let deepest = of_depth(1024);
        check(&deepest, &[&deepest]);
        check(format!("[{deepest}]{{}}"), &["! JSON nesting depth limit exceeded", "{}"]);
    }

    #[test]
    fn the_rest_of_a_message_beyond_a_limit_is_never_run() {
        let smuggled = format!("{}{{\"execute\":\"guest-ping\"}}{}", "[".repeat(1025), "]".repeat(1025));
        check(format!("{smuggled}{{}}"), &["! JSON nesting depth limit exceeded", "{}"]);
    }

    #[test]
    fn the_sentinel_ends_a_message_beyond_a_limit() {
        let endless = [vec![b'['; 2000], b"\xFF{}".to_vec()].concat();
        check(endless, &["! JSON nesting depth limit exceeded", STRAY_SENTINEL, "{}"]);
    }

    #[test]
    fn a_message_beyond_a_limit_is_not_kept() {
        let mut framer = Framer::default();
        frames(&mut framer, &vec![b'['; 2000]);
        frames(&mut framer, "'x',".repeat(10_000).as_bytes());
        assert_eq!(framer.message.capacity(), 0);
        assert!(framer.is_within_message());
    }

    #[test]
    fn what_is_held_of_an_endless_string_is_bounded() {
        let mut framer = Framer::default();
        let piece = [b'x'; 64 * 1024];
        frames(&mut framer, b"\"");
        for _ in 0..=MAX_MESSAGE_BYTES / piece.len() {
            frames(&mut framer, &piece);
            assert!(framer.message.len() <= MAX_MESSAGE_BYTES);
        }
        assert!(framer.oversized);
        assert_eq!(framer.message.capacity(), 0);
    }

    #[test]
    fn a_message_has_begun_from_its_first_byte_to_its_last() {
        for (input, expected) in [("", false), (" \n", false), ("{", true), ("\"", true), ("{}", false), ("%", false)] {
            let mut framer = Framer::default();
            frames(&mut framer, input.as_bytes());
            assert_eq!(framer.is_within_message(), expected, "{input}");
        }
    }
}
