//! Modified UTF-8, the encoding of strings on the wire: U+0000 may be the two bytes C0 80, and noncharacters are
//! illegal.

/// Whether Unicode assigns the code point to a character, now or ever.
pub(super) fn is_character(character: char) -> bool {
    let code = u32::from(character);
    !(0xFDD0..=0xFDEF).contains(&code) && code & 0xFFFE != 0xFFFE
}

/// Decodes bytes that may not be text. Each invalid sequence becomes one U+FFFD, whatever length its first byte
/// announces.
pub(super) fn decode_lossy(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(&lead) = rest.first() {
        let announced = match lead {
            0xC0..0xE0 => 2,
            0xE0..0xF0 => 3,
            0xF0..0xF8 => 4,
            0xF8..0xFC => 5,
            0xFC..0xFE => 6,
            _ => 1,
        };
        let continuation = rest[1..].iter().take(announced - 1).take_while(|&byte| byte & 0xC0 == 0x80).count();
        let (sequence, behind) = rest.split_at(1 + continuation);
        let character = match sequence {
            [0xC0, 0x80] => Some('\0'),
            _ => {
                std::str::from_utf8(sequence).ok().and_then(|text| text.chars().next()).filter(|&one| is_character(one))
            }
        };
        text.push(character.unwrap_or(char::REPLACEMENT_CHARACTER));
        rest = behind;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8], expected: &str) {
        assert_eq!(decode_lossy(bytes), expected, "{bytes:x?}");
    }

    #[test]
    fn sound_text_stays_as_it_is() {
        check(b"", "");
        check("a\u{7F}é₂😀".as_bytes(), "a\u{7F}é₂😀");
    }

    #[test]
    fn c0_80_is_nul_and_other_overlong_forms_are_no_text() {
        check(b"\xC0\x80", "\0");
        check(b"\xC1\xBF", "\u{FFFD}");
        check(b"\xE0\x80\x80", "\u{FFFD}");
    }

    #[test]
    fn surrogates_noncharacters_and_what_lies_beyond_unicode_are_no_text() {
        check(b"\xED\xA0\x80", "\u{FFFD}");
        check(b"\xEF\xBF\xBE", "\u{FFFD}");
        check(b"\xEF\xB7\x90", "\u{FFFD}");
        check(b"\xF4\x8F\xBF\xBF", "\u{FFFD}");
        check(b"\xF4\x90\x80\x80", "\u{FFFD}");
        check(b"\xF8\x88\x80\x80\x80", "\u{FFFD}");
        check(b"\xFD\xBF\xBF\xBF\xBF\xBF\x80", "\u{FFFD}\u{FFFD}");
    }

    #[test]
    fn a_sequence_cut_short_costs_one_replacement_and_nothing_behind_it() {
        check(b"\x80\x80", "\u{FFFD}\u{FFFD}");
        check(b"\xC3\xC3", "\u{FFFD}\u{FFFD}");
        check(b"\xE2\x82!", "\u{FFFD}!");
        check(b"\xF0\x9F\xC3\xA9", "\u{FFFD}é");
    }
}
