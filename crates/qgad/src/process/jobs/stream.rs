//! The bytes of a stream that its reader has not acknowledged yet.
//!
//! An offset counts bytes from the start of the stream. Reading from an offset acknowledges all bytes
//! before it, which are discarded; all others can be read again.

use std::collections::VecDeque;

/// Capacity that a stream without bytes keeps.
const MAX_SPARE_BYTES: usize = 64 * 1024;

/// The part of a stream that was written and not acknowledged.
#[derive(Debug, Default)]
pub(super) struct Window {
    begin: i64,
    bytes: VecDeque<u8>,
}

impl Window {
    /// The offset of the first byte that is kept.
    pub(super) fn begin(&self) -> i64 {
        self.begin
    }

    /// The offset behind the last byte.
    pub(super) fn end(&self) -> i64 {
        self.begin.saturating_add(signed(self.bytes.len()))
    }

    /// How many bytes are kept.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Adds bytes at the end.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
    }

    /// Whether a reader may read from an offset.
    ///
    /// # Errors
    /// When the bytes there are gone, or when there is a gap before them.
    pub(super) fn check(&self, offset: i64, name: &str) -> Result<(), String> {
        if offset < 0 {
            return Err(format!("offset {offset} of {name} is negative"));
        }
        if offset < self.begin {
            return Err(format!(
                "offset {offset} of {name} was acknowledged: {} is the first that is kept",
                self.begin
            ));
        }
        if offset > self.end() {
            return Err(format!("offset {offset} of {name} has not been written: it ends at {}", self.end()));
        }
        Ok(())
    }

    /// Forgets what is before an offset, which must have been checked.
    pub(super) fn acknowledge(&mut self, offset: i64) {
        let count = usize::try_from(offset - self.begin).unwrap_or(0).min(self.bytes.len());
        self.bytes.drain(..count);
        self.begin += signed(count);
        if self.bytes.is_empty() && self.bytes.capacity() > MAX_SPARE_BYTES {
            self.bytes.shrink_to(MAX_SPARE_BYTES);
        }
    }

    /// The first bytes, in at most two pieces.
    pub(super) fn first(&self, count: usize) -> [&[u8]; 2] {
        let (first, second) = self.bytes.as_slices();
        let of_first = count.min(first.len());
        [&first[..of_first], &second[..(count - of_first).min(second.len())]]
    }
}

/// A count, as the protocol has it.
pub(super) fn signed(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A read, as a job does it.
    fn read(window: &mut Window, offset: i64, count: usize) -> Result<Vec<u8>, String> {
        window.check(offset, "it")?;
        window.acknowledge(offset);
        Ok(window.first(count).concat())
    }

    #[test]
    fn a_read_from_the_same_offset_gives_the_same_bytes_until_they_are_acknowledged() {
        let mut window = Window::default();
        window.push(b"abcdef");
        assert_eq!(read(&mut window, 0, 4), Ok(b"abcd".to_vec()));
        assert_eq!(read(&mut window, 0, 100), Ok(b"abcdef".to_vec()));
        assert_eq!(read(&mut window, 4, 100), Ok(b"ef".to_vec()));
        assert_eq!(read(&mut window, 3, 1), Err("offset 3 of it was acknowledged: 4 is the first that is kept".into()));
        assert_eq!(read(&mut window, 6, 1), Ok(Vec::new()));
        assert_eq!(read(&mut window, 7, 1), Err("offset 7 of it has not been written: it ends at 6".into()));
        assert_eq!(read(&mut window, -1, 1), Err("offset -1 of it is negative".into()));
    }

    /// What happens to a stream.
    #[derive(Clone, Debug)]
    enum Event {
        Written(Vec<u8>),
        /// A read from so far behind the first kept byte, and its count.
        Read(i64, usize),
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..300).prop_map(Event::Written),
            (-3..400_i64, 0..400_usize).prop_map(|(distance, count)| Event::Read(distance, count)),
        ]
    }

    proptest! {
        #[test]
        fn every_read_is_a_piece_of_the_stream_or_an_error(events in proptest::collection::vec(event(), 0..60)) {
            let (mut window, mut all) = (Window::default(), Vec::new());
            for event in events {
                match event {
                    Event::Written(bytes) => {
                        window.push(&bytes);
                        all.extend(bytes);
                    }
                    Event::Read(distance, count) => {
                        let (begin, offset) = (window.begin(), window.begin() + distance);
                        match read(&mut window, offset, count) {
                            Ok(bytes) => {
                                let rest = &all[usize::try_from(offset).unwrap()..];
                                prop_assert_eq!(&bytes[..], &rest[..count.min(rest.len())]);
                                prop_assert_eq!(window.begin(), offset);
                            }
                            Err(_) => {
                                prop_assert!(offset < begin || offset > signed(all.len()));
                                prop_assert_eq!(window.begin(), begin);
                            }
                        }
                    }
                }
                prop_assert_eq!(window.end(), signed(all.len()));
            }
        }
    }
}
