//! What is stored of a password, where the guest has no program that makes it.
//!
//! SHA-512 in the scheme of crypt(3), which every C library for Linux knows, with the scheme's usual number of rounds.

use sha_crypt::{BLOCK_SIZE_SHA512, Params, sha512_crypt};

/// Random bytes that make a salt of the greatest length.
pub(crate) const SALT_BYTES: usize = 16;

/// The characters of crypt(3), by their value.
const DIGITS: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The hash of a password, with a salt made of random bytes.
pub(crate) fn hash(password: &[u8], random: [u8; SALT_BYTES]) -> String {
    let salt: String = random.iter().map(|byte| char::from(DIGITS[usize::from(byte & 63)])).collect();
    hash_with_salt(password, &salt)
}

fn hash_with_salt(password: &[u8], salt: &str) -> String {
    format!("$6${salt}${}", spell(&sha512_crypt(password, salt.as_bytes(), Params::RECOMMENDED)))
}

/// Three bytes make four characters, in an order of the scheme's own; one byte is left over.
fn spell(hash: &[u8; BLOCK_SIZE_SHA512]) -> String {
    let third = (BLOCK_SIZE_SHA512 - 1) / 3;
    let mut text = String::new();
    for place in 0..third {
        let mut bytes = [hash[place], hash[place + third], hash[place + 2 * third]];
        bytes.rotate_left(place % 3);
        spell_bits(&mut text, u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]), 4);
    }
    spell_bits(&mut text, hash[BLOCK_SIZE_SHA512 - 1].into(), 2);
    text
}

fn spell_bits(text: &mut String, bits: u32, characters: u32) {
    text.extend((0..characters).map(|place| char::from(DIGITS[(bits >> (6 * place) & 63) as usize])));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_the_schemes_author() {
        assert_eq!(
            hash_with_salt(b"Hello world!", "saltstring"),
            "$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1"
        );
    }

    #[test]
    fn a_salt_has_sixteen_characters_of_the_scheme() {
        let salted = hash(b"x", *b"\0\x01\x3F\x40\xFFabcdefghijk");
        let salt = salted.split('$').nth(2).unwrap();
        assert_eq!((salt.len(), &salt[..5]), (16, "./z.z"));
        assert_eq!(salted.len(), "$6$".len() + 16 + 1 + 86);
    }
}
