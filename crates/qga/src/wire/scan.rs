//! Looks for the first of a few bytes among many others, sixteen at a time.
//!
//! Every byte of a file that is read or written passes through here. The agent is compiled to be small, so the compiler
//! does not vectorize a loop over bytes; this module does it by hand.
//! A word is sixteen bytes. A test of a word returns a word with the highest bit of some byte set if the test holds for
//! any of the bytes. So tests are combined by `|`, and the word itself is the test for bytes that are not ASCII.

/// Words that are tested together before the result is looked at.
const WORDS: usize = 4;

/// Where the first byte is that `is_wanted`.
///
/// `suspect` answers for a word whether it may hold such a byte; one that is not ASCII must be suspect.
pub(super) fn position(
    bytes: &[u8],
    suspect: impl Fn(u128) -> u128,
    is_wanted: impl Fn(&u8) -> bool + Copy,
) -> Option<usize> {
    let (blocks, rest) = bytes.as_chunks::<{ WORDS * size_of::<u128>() }>();
    for (index, block) in blocks.iter().enumerate() {
        let (words, _) = block.as_chunks();
        let seen = words.iter().fold(0, |seen, &word| seen | suspect(u128::from_ne_bytes(word)));
        if seen & each(0x80) != 0
            && let Some(offset) = block.iter().position(is_wanted)
        {
            return Some(index * block.len() + offset);
        }
    }
    rest.iter().position(is_wanted).map(|offset| bytes.len() - rest.len() + offset)
}

/// Whether one of sixteen ASCII characters is below this one.
pub(super) const fn below(word: u128, limit: u8) -> u128 {
    word.wrapping_sub(each(limit))
}

/// Whether one of sixteen ASCII characters is this one.
pub(super) const fn equal(word: u128, character: u8) -> u128 {
    below(word ^ each(character), 1)
}

const fn each(byte: u8) -> u128 {
    u128::from_ne_bytes([byte; 16])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Wherever the byte stands among others, it is found if it is wanted.
    fn check(suspect: impl Fn(u128) -> u128 + Copy, is_wanted: impl Fn(&u8) -> bool + Copy) {
        for byte in 0..=u8::MAX {
            for place in 0..150 {
                let mut bytes = [b'a'; 150];
                bytes[place] = byte;
                let expected = is_wanted(&byte).then_some(place);
                assert_eq!(position(&bytes, suspect, is_wanted), expected, "{byte} at {place}");
            }
        }
    }

    #[test]
    fn a_byte_is_found_by_its_value() {
        check(|word| word | equal(word, b'"') | equal(word, 0x7F), |byte| [b'"', 0x7F].contains(byte));
    }

    #[test]
    fn a_byte_is_found_because_it_is_small_or_large() {
        check(|word| word | below(word, 0x20), |byte| !(0x20..=0xFD).contains(byte));
    }

    #[test]
    fn nothing_is_found_in_nothing_and_the_first_of_several_is_found() {
        let suspect = |word| word | equal(word, b'b');
        let position = |bytes: &[u8]| position(bytes, suspect, |&byte| byte == b'b');
        assert_eq!(position(b""), None);
        assert_eq!(position(&[[b'a'; 70].as_slice(), &[b'b'; 70]].concat()), Some(70));
        assert_eq!(position(&[[0xFF; 70].as_slice(), &[b'b'; 70]].concat()), Some(70));
    }
}
