//! Jobs. `qemu-ga` has none, so they are compared with what qgad needs for the same work without jobs.

use std::fs;

use anyhow::{Context, ensure};
use qga::wire::base64::Base64;
use serde_json::{Value, json};

use super::{
    agent::Server,
    cases::{in_turns, run_true},
    client::{Client, request},
};

/// Bytes moved by one sample, and by one request of it.
const BYTES: usize = 32 * 1024 * 1024;
const PIECE_BYTES: usize = 2 * 1024 * 1024;
/// Milliseconds that a read or a write waits: longer than any of them takes.
const WAIT: i64 = 10_000;

/// The seconds of a keystroke until its echo is read, and of a ping.
pub(crate) fn type_keys(server: &Server) -> anyhow::Result<[f64; 2]> {
    let mut client = server.connect()?;
    let terminal = json!({ "rows": 24, "columns": 80 });
    let shell = json!({ "path": "/bin/sh", "arg": ["-c", "stty raw -echo; echo; exec cat"], "terminal": terminal });
    let id = client.call("qgad-job-start", &shell)?["id"].clone();
    // The line says that the terminal is as it should be.
    let mut offset = read(&mut client, &id, 0)?["out-offset"].as_i64().context("no offset")?;
    let (key, ping) = (json!({ "id": id, "buf-b64": "YQ==" }), request("guest-ping", &json!({})));
    let mut subjects = [true, false];
    let figures = in_turns(1000, &mut subjects, |is_key| {
        if !*is_key {
            return client.exchange(&ping).map(drop);
        }
        client.call("qgad-job-write", &key)?;
        offset = read(&mut client, &id, offset)?["out-offset"].as_i64().context("no offset")?;
        Ok(())
    })?;
    end(&mut client, &id)?;
    Ok(figures)
}

/// The seconds of a job's output, and of a file with the same bytes.
pub(crate) fn read_output(server: &Server) -> anyhow::Result<[f64; 2]> {
    let content = server.directory.path().join("output");
    fs::write(&content, vec![b'x'; BYTES])?;
    let mut clients = [(true, server.connect()?), (false, server.connect()?)];
    in_turns(5, &mut clients, |(is_job, client)| {
        if *is_job {
            let cat = json!({ "path": "/bin/cat", "arg": [content] });
            let (id, mut offset) = (client.call("qgad-job-start", &cat)?["id"].clone(), 0);
            loop {
                let output = read(client, &id, offset)?;
                offset = output["out-offset"].as_i64().context("no offset")?;
                if output["out-eof"] == true {
                    break;
                }
            }
            ensure!(usize::try_from(offset) == Ok(BYTES), "{offset} bytes came");
            return end(client, &id);
        }
        let handle = client.call("guest-file-open", &json!({ "path": content }))?;
        let read = json!({ "handle": handle, "count": PIECE_BYTES });
        while client.call("guest-file-read", &read)?["eof"] != true {}
        client.call("guest-file-close", &json!({ "handle": handle })).map(drop)
    })
}

/// The seconds of a job's input, and of a file with the same bytes.
pub(crate) fn write_input(server: &Server) -> anyhow::Result<[f64; 2]> {
    let content = server.directory.path().join("input");
    let piece = vec![b'x'; PIECE_BYTES];
    let mut clients = [(true, server.connect()?), (false, server.connect()?)];
    in_turns(5, &mut clients, |(is_job, client)| {
        if *is_job {
            let cat = json!({ "path": "/bin/sh", "arg": ["-c", "cat >/dev/null"], "stdin": true });
            let (id, mut offset) = (client.call("qgad-job-start", &cat)?["id"].clone(), 0);
            while offset < BYTES {
                let text = Base64::from(piece[offset % PIECE_BYTES..].to_vec());
                let write = json!({ "id": id, "buf-b64": text, "offset": offset, "wait": WAIT });
                let accepted = client.call("qgad-job-write", &write)?["offset"].as_u64().context("no offset")?;
                offset = usize::try_from(accepted)?;
            }
            return end(client, &id);
        }
        let handle = client.call("guest-file-open", &json!({ "path": content, "mode": "w" }))?;
        for _ in 0..BYTES / PIECE_BYTES {
            let write = json!({ "handle": handle, "buf-b64": Base64::from(piece.clone()) });
            client.call("guest-file-write", &write)?;
        }
        client.call("guest-file-close", &json!({ "handle": handle })).map(drop)
    })
}

/// The seconds of a job that ends at once, and of guest-exec with the same program.
pub(crate) fn run_short(server: &Server) -> anyhow::Result<[f64; 2]> {
    let mut clients = [(true, server.connect()?), (false, server.connect()?)];
    in_turns(300, &mut clients, |(is_job, client)| {
        if !*is_job {
            return run_true(client);
        }
        let id = client.call("qgad-job-start", &json!({ "path": "/bin/true" }))?["id"].clone();
        while read(client, &id, 0)?["state"] != "exited" {}
        client.call("qgad-job-forget", &json!({ "id": id })).map(drop)
    })
}

fn read(client: &mut Client, id: &Value, offset: i64) -> anyhow::Result<Value> {
    client.call("qgad-job-read", &json!({ "id": id, "out-offset": offset, "wait": WAIT }))
}

/// Kills a job if it still runs, and forgets it.
fn end(client: &mut Client, id: &Value) -> anyhow::Result<()> {
    // It may have ended.
    let _ = client.call("qgad-job-signal", &json!({ "id": id, "signal": "KILL" }));
    let offset = client.call("qgad-job-list", &json!({}))?;
    let jobs = offset.as_array().context("no list")?;
    let mut offset = jobs.iter().find(|job| job["id"] == *id).context("no job")?["out-begin"].as_i64().unwrap_or(0);
    loop {
        let output = read(client, id, offset)?;
        offset = output["out-offset"].as_i64().context("no offset")?;
        if output["state"] == "exited" {
            return client.call("qgad-job-forget", &json!({ "id": id })).map(drop);
        }
    }
}
