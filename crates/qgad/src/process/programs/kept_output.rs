//! The output that is kept of a stream of a program.
//!
//! It grows by pieces that are never moved. A growing contiguous buffer would be copied, and with many programs at once
//! the free memory of earlier sizes would be as large as that in use.

/// Largest piece in bytes; smaller ones double what there is, because most programs write little.
const PIECE_BYTES: usize = 64 * 1024;

/// Bytes in order.
#[derive(Debug, Default)]
pub(super) struct KeptOutput {
    pieces: Vec<Vec<u8>>,
    length: usize,
    allocated: usize,
}

impl KeptOutput {
    /// How many bytes there are.
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// How many bytes of memory they take.
    pub(super) fn allocated(&self) -> usize {
        self.allocated
    }

    /// How much more memory is to be allocated for so many further bytes.
    pub(super) fn cost(&self, count: usize) -> usize {
        match count.saturating_sub(self.spare()) {
            0 => 0,
            rest => rest.max(self.allocated.min(PIECE_BYTES)),
        }
    }

    /// Adds bytes at the end, as many as can be kept with at most so much more memory. Returns how many that is.
    pub(super) fn append(&mut self, bytes: &[u8], most_memory: usize) -> usize {
        let cost = self.cost(bytes.len()).min(most_memory);
        let (first, rest) = bytes.split_at(bytes.len().min(self.spare()));
        let rest = &rest[..rest.len().min(cost)];
        if let Some(last) = self.pieces.last_mut() {
            last.extend_from_slice(first);
        }
        if !rest.is_empty() {
            let mut piece = Vec::with_capacity(cost);
            piece.extend_from_slice(rest);
            self.allocated += piece.capacity();
            self.pieces.push(piece);
        }
        let kept = first.len() + rest.len();
        self.length += kept;
        kept
    }

    /// All bytes, as one buffer.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.length);
        // Each piece is freed as soon as it is copied.
        self.pieces.into_iter().for_each(|piece| bytes.extend_from_slice(&piece));
        bytes
    }

    fn spare(&self) -> usize {
        self.pieces.last().map_or(0, |piece| piece.capacity() - piece.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_in_order_and_take_little_more_memory_than_they_are_long() {
        for piece in [1, 100, 5000, PIECE_BYTES] {
            let (mut output, mut expected) = (KeptOutput::default(), Vec::new());
            for index in 0..200_u8 {
                let bytes = vec![index; piece];
                let cost = output.cost(bytes.len());
                let before = output.allocated();
                assert_eq!(output.append(&bytes, usize::MAX), piece);
                assert_eq!(output.allocated() - before, cost);
                expected.extend(bytes);
                let spare = output.allocated() - output.len();
                assert!(spare <= output.len().min(PIECE_BYTES), "{spare} bytes are spare");
            }
            assert_eq!(output.len(), expected.len());
            assert!(output.into_bytes() == expected, "pieces of {piece}");
        }
    }

    #[test]
    fn no_more_is_kept_than_there_is_memory_for() {
        let mut output = KeptOutput::default();
        assert_eq!(output.append(b"abcd", 4), 4);
        assert_eq!(output.append(b"efgh", 3), 3);
        assert_eq!(output.append(b"h", 0), 0);
        assert_eq!((output.allocated(), output.into_bytes()), (7, b"abcdefg".to_vec()));
    }
}
