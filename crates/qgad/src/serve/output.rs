//! Pending output of a connection, in order.
//!
//! Small replies share a buffer, so that a batch of them costs one write; a large one is sent from its own and freed as
//! soon as it is gone. Nothing is dropped while the peer is there.

use std::{collections::VecDeque, io};

/// A reply up to this size is copied behind the previous one.
const SMALL_REPLY_BYTES: usize = 16 * 1024;

/// A queue of buffers.
#[derive(Debug, Default)]
pub(crate) struct Output {
    buffers: VecDeque<Vec<u8>>,
    /// How much of the first buffer is sent.
    sent: usize,
    /// Unsent bytes.
    unsent: usize,
}

impl Output {
    /// How many bytes are unsent.
    pub(crate) fn len(&self) -> usize {
        self.unsent
    }

    /// Adds a reply.
    pub(crate) fn push(&mut self, reply: Vec<u8>) {
        self.unsent += reply.len();
        match self.buffers.back_mut() {
            Some(last) if last.len() + reply.len() <= SMALL_REPLY_BYTES => last.extend_from_slice(&reply),
            _ => self.buffers.push_back(reply),
        }
    }

    /// Sends as much as `write` takes.
    ///
    /// # Errors
    /// What `write` fails with, `WouldBlock` included; what it took before is not sent again. `WriteZero` if it takes
    /// nothing: a virtio port does so when its queue is broken or the kernel has no memory for the buffer. poll(2) then
    /// still reports the port as writable, so a wait for an edge might never end.
    pub(crate) fn send(&mut self, mut write: impl FnMut(&[u8]) -> io::Result<usize>) -> io::Result<()> {
        while let Some(first) = self.buffers.front() {
            match write(&first[self.sent..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.mark_sent(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn mark_sent(&mut self, count: usize) {
        self.sent += count;
        self.unsent -= count;
        if self.buffers.front().is_some_and(|first| first.len() == self.sent) {
            self.buffers.pop_front();
            self.sent = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_leave_in_order_however_little_each_write_takes() {
        let mut output = Output::default();
        output.push(b"first ".to_vec());
        output.push(vec![b'x'; SMALL_REPLY_BYTES]);
        output.push(b" last".to_vec());
        let mut received = Vec::new();
        output
            .send(|bytes| {
                let count = bytes.len().min(7);
                received.extend_from_slice(&bytes[..count]);
                Ok(count)
            })
            .unwrap();
        assert_eq!(received, [b"first ".as_slice(), &[b'x'; SMALL_REPLY_BYTES], b" last"].concat());
        assert_eq!(output.len(), 0);
    }

    #[test]
    fn small_replies_leave_in_one_write() {
        let mut output = Output::default();
        (0..100).for_each(|_| output.push(b"{\"return\": {}}\n".to_vec()));
        let mut writes = 0;
        output
            .send(|bytes| {
                writes += 1;
                Ok(bytes.len())
            })
            .unwrap();
        assert_eq!(writes, 1);
    }

    #[test]
    fn a_write_that_takes_nothing_is_an_error_and_is_not_repeated() {
        let mut output = Output::default();
        output.push(b"abc".to_vec());
        let mut writes = 0;
        let sent = output.send(|_| {
            writes += 1;
            assert_eq!(writes, 1, "the write was repeated");
            Ok(0)
        });
        assert_eq!(sent.unwrap_err().kind(), io::ErrorKind::WriteZero);
        assert_eq!(output.len(), 3);
    }

    #[test]
    fn what_was_taken_before_a_failure_is_not_sent_again() {
        let mut output = Output::default();
        output.push(b"abcdef".to_vec());
        let mut room = 4;
        let blocked = output.send(|bytes| {
            let count = bytes.len().min(room);
            room -= count;
            if count == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(count) }
        });
        assert_eq!(blocked.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let mut rest = Vec::new();
        output
            .send(|bytes| {
                rest.extend_from_slice(bytes);
                Ok(bytes.len())
            })
            .unwrap();
        assert_eq!(rest, b"ef");
    }
}
