//! The grammar of a number, one byte at a time.
//!
//! The framer follows it to find where a number ends, the parser to cut the same bytes out of a message again.

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
