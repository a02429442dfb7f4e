//! Password hashes, for a guest without chpasswd(8).
//!
//! SHA-512 as in crypt(5), which every C library for Linux supports, with the default number of rounds.

use sha_crypt::{BLOCK_SIZE_SHA512, Params, sha512_crypt};

/// Random bytes for a salt of the maximum length.
pub(crate) const SALT_BYTES: usize = 16;

/// The digits of crypt(3), by value.
const DIGITS: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The hash of a password, with a salt made of random bytes.
pub(crate) fn hash(password: &[u8], random: [u8; SALT_BYTES]) -> String {
    let salt: String = random.iter().map(|byte| char::from(DIGITS[usize::from(byte & 63)])).collect();
    hash_with_salt(password, &salt)
}

fn hash_with_salt(password: &[u8], salt: &str) -> String {
    format!("$6${salt}${}", encode(&sha512_crypt(password, salt.as_bytes(), Params::RECOMMENDED)))
}

/// Each three bytes become four characters, in the order that the scheme defines. One byte remains.
fn encode(hash: &[u8; BLOCK_SIZE_SHA512]) -> String {
    let third = (BLOCK_SIZE_SHA512 - 1) / 3;
    let mut text = String::new();
    for index in 0..third {
        let mut bytes = [hash[index], hash[index + third], hash[index + 2 * third]];
        bytes.rotate_left(index % 3);
        encode_bits(&mut text, u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]), 4);
    }
    encode_bits(&mut text, hash[BLOCK_SIZE_SHA512 - 1].into(), 2);
    text
}

fn encode_bits(text: &mut String, bits: u32, characters: u32) {
    text.extend((0..characters).map(|index| char::from(DIGITS[(bits >> (6 * index) & 63) as usize])));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_the_specification() {
        assert_eq!(
            hash_with_salt(b"Hello world!", "saltstring"),
            "$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1"
        );
    }

    #[test]
    fn a_salt_has_sixteen_digits() {
        let salted = hash(b"x", *b"\0\x01\x3F\x40\xFFabcdefghijk");
        let salt = salted.split('$').nth(2).unwrap();
        assert_eq!((salt.len(), &salt[..5]), (16, "./z.z"));
        assert_eq!(salted.len(), "$6$".len() + 16 + 1 + 86);
    }
}
