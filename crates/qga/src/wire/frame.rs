//! Bytes to messages: finds where each JSON value of a stream ends.
//!
//! A message ends at its outermost closing bracket; no newline is needed, and white space between tokens is dropped.
//! A byte that cannot begin or continue a token, 0xFF above all, makes the framer report it, forget the half message
//! and skip to the next structural or control character: that is how a host brings a stream of unknown state in step.
//! Everything held is bounded by [`MAX_MESSAGE_BYTES`], [`MAX_TOKENS`] and [`MAX_DEPTH`]. A message beyond a limit gives
//! one error and the rest of it is skipped, never read as if it were a message of its own: it may hold anything.
//! How the input is cut into pieces changes nothing, and no byte is looked at more than a constant number of times.

use memchr::memchr2;

use super::message::Error;

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
    /// Bytes that are no message; the peer is owed this error.
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

/// How much of a number was read, by what may follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Number {
    Minus,
    Zero,
    Integer,
    Point,
    Fraction,
    Exponent,
    ExponentSign,
    ExponentDigits,
}

/// What a byte means to a number.
pub(super) enum Step {
    Continues(Number),
    /// The number ended before this byte.
    Ends,
    Breaks,
}

impl Number {
    /// A number that begins with this byte.
    pub(super) fn begin(byte: u8) -> Option<Self> {
        match byte {
            b'-' => Some(Self::Minus),
            b'0' => Some(Self::Zero),
            b'1'..=b'9' => Some(Self::Integer),
            _ => None,
        }
    }

    pub(super) fn step(self, byte: u8) -> Step {
        use Number::{Exponent, ExponentDigits, ExponentSign, Fraction, Integer, Minus, Point, Zero};
        match (self, byte) {
            (Minus, b'0') => Step::Continues(Zero),
            (Minus, b'1'..=b'9') | (Integer, b'0'..=b'9') => Step::Continues(Integer),
            (Zero | Integer, b'.') => Step::Continues(Point),
            (Point | Fraction, b'0'..=b'9') => Step::Continues(Fraction),
            (Integer | Fraction, b'e' | b'E') => Step::Continues(Exponent),
            (Exponent, b'+' | b'-') => Step::Continues(ExponentSign),
            (Exponent | ExponentSign | ExponentDigits, b'0'..=b'9') => Step::Continues(ExponentDigits),
            (Minus | Point | Exponent | ExponentSign, _) | (Zero, b'0'..=b'9') => Step::Breaks,
            (Zero | Integer | Fraction | ExponentDigits, _) => Step::Ends,
        }
    }
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
                return self.take(1, input).or_else(|| self.end_token(byte));
            }
            (b'"' | b'\'', _) => State::String { quote: byte },
            (b'a'..=b'z', _) => State::Keyword,
            _ => return Some(self.stray(input)),
        };
        self.take(1, input)
    }

    fn continue_string(&mut self, quote: u8, input: &mut &[u8]) -> Option<Frame> {
        let end = memchr2(quote, b'\\', input).unwrap_or(input.len());
        if let Some(forbidden) = first_forbidden_in_string(&input[..end]) {
            return self.take(forbidden, input).or_else(|| Some(self.stray(input)));
        }
        let Some(&delimiter) = input.get(end) else { return self.take(end, input) };
        if delimiter == quote {
            return self.take(end + 1, input).or_else(|| self.end_token(quote));
        }
        self.state = State::Escape { quote };
        self.take(end + 1, input)
    }

    fn continue_escape(&mut self, quote: u8, byte: u8, input: &mut &[u8]) -> Option<Frame> {
        if is_forbidden_in_string(byte) {
            return Some(self.stray(input));
        }
        self.state = State::String { quote };
        self.take(1, input)
    }

    fn continue_keyword(&mut self, input: &mut &[u8]) -> Option<Frame> {
        let end = input.iter().position(|byte| !byte.is_ascii_lowercase()).unwrap_or(input.len());
        let is_complete = end < input.len();
        self.take(end, input).or_else(|| if is_complete { self.end_token(b'a') } else { None })
    }

    fn continue_number(&mut self, number: Number, byte: u8, input: &mut &[u8]) -> Option<Frame> {
        match number.step(byte) {
            Step::Continues(next) => {
                self.state = State::Number(next);
                self.take(1, input)
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
    fn take(&mut self, count: usize, input: &mut &[u8]) -> Option<Frame> {
        let (taken, rest) = input.split_at(count);
        *input = rest;
        if self.oversized {
            return None;
        }
        if self.message.len() - self.blanks + count > MAX_MESSAGE_BYTES {
            return Some(self.go_beyond("token size"));
        }
        self.message.extend_from_slice(taken);
        None
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
        if self.braces < 0 || self.brackets < 0 || (self.braces, self.brackets) == (0, 0) {
            let (message, oversized) = (std::mem::take(&mut self.message), self.oversized);
            self.reset(State::Between);
            return (!oversized).then_some(Frame::Message(message));
        }
        if self.oversized {
            return None;
        }
        if self.braces + self.brackets > MAX_DEPTH {
            return Some(self.go_beyond("nesting depth"));
        }
        if self.tokens > MAX_TOKENS {
            return Some(self.go_beyond("token count"));
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

    fn go_beyond(&mut self, limit: &str) -> Frame {
        self.message = Vec::new();
        self.token_start = 0;
        self.oversized = true;
        Frame::Invalid(Error::generic(format!("JSON {limit} limit exceeded")))
    }

    fn reset(&mut self, state: State) {
        *self = Self { state, ..Self::default() };
    }
}

fn is_forbidden_in_string(byte: u8) -> bool {
    !(0x20..=0xFD).contains(&byte)
}

/// Where the first byte that no string may hold stands. Looks at blocks, so that the check is done many bytes at a time.
fn first_forbidden_in_string(bytes: &[u8]) -> Option<usize> {
    const BLOCK: usize = 256;
    let is_clean = |block: &[u8]| !block.iter().fold(false, |found, &byte| found | is_forbidden_in_string(byte));
    let dirty = bytes.chunks(BLOCK).position(|block| !is_clean(block))?;
    let start = dirty * BLOCK;
    bytes[start..].iter().position(|&byte| is_forbidden_in_string(byte)).map(|offset| start + offset)
}

fn is_recovery_point(byte: u8) -> bool {
    matches!(byte, b'{' | b'}' | b'[' | b']' | b',' | b':' | 0xFE | 0xFF) || (byte < 0x20 && byte != b'\t')
}
