//! The client of all measurements: a unix socket, lines, and nothing that costs time.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

/// Longest that any reply may take.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How much is read at a time.
const CHUNK: usize = 1 << 20;

/// A conversation.
pub(crate) struct Client {
    pub(crate) stream: UnixStream,
    buffer: Vec<u8>,
}

/// A request, encoded once and sent often.
pub(crate) fn request(command: &str, arguments: &Value) -> Vec<u8> {
    let mut line = json!({ "execute": command, "arguments": arguments }).to_string().into_bytes();
    line.push(b'\n');
    line
}

impl Client {
    pub(crate) fn connect(socket: &Path) -> anyhow::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        Ok(Self { stream, buffer: vec![0; CHUNK] })
    }

    /// Sends a request and waits for the whole reply, whose length it returns.
    pub(crate) fn exchange(&mut self, request: &[u8]) -> anyhow::Result<usize> {
        self.stream.write_all(request)?;
        let mut length = 0;
        loop {
            let piece = self.read_piece()?;
            length += piece.len();
            if piece.ends_with(b"\n") {
                return Ok(length);
            }
        }
    }

    /// Sends a request and returns what its reply holds.
    pub(crate) fn call(&mut self, command: &str, arguments: &Value) -> anyhow::Result<Value> {
        self.stream.write_all(&request(command, arguments))?;
        let mut reply = Vec::new();
        while reply.last() != Some(&b'\n') {
            reply.extend_from_slice(self.read_piece()?);
        }
        let mut reply: Value = serde_json::from_slice(&reply)?;
        ensure!(reply.get("error").is_none(), "{command} was refused: {}", reply["error"]["desc"]);
        Ok(reply["return"].take())
    }

    /// Some bytes of a reply.
    pub(crate) fn read_piece(&mut self) -> anyhow::Result<&[u8]> {
        let count = self.stream.read(&mut self.buffer).context("no reply")?;
        if count == 0 {
            bail!("the agent closed the connection");
        }
        Ok(&self.buffer[..count])
    }
}
