//! One request for all figures, and the six requests that it replaces.

use anyhow::Context;
use serde_json::json;

use super::{agent::Server, cases::in_turns, client::request};

/// What monitors ask for where there is no command for all of it. It tells less: neither memory nor pressure.
const REPLACED: [&str; 6] = [
    "guest-get-fsinfo",
    "guest-network-get-interfaces",
    "guest-get-cpustats",
    "guest-get-diskstats",
    "guest-get-users",
    "guest-get-osinfo",
];

/// The seconds of a monitor's poll of this machine: our agent's one request, the six requests to the reference, and the
/// dearest of the six for ours.
pub(crate) fn poll(ours: &Server, theirs: &Server) -> anyhow::Result<[f64; 3]> {
    let requests = REPLACED.map(|command| request(command, &json!({})));
    let mut clients = Vec::new();
    for request in &requests {
        clients.push((ours.connect()?, request));
    }
    let mut clients: [_; 6] = clients.try_into().ok().context("six requests")?;
    let took = in_turns(200, &mut clients, |(client, request)| client.exchange(request).map(|_| ()))?;
    drop(clients);
    let (dearest, _) = requests.iter().zip(took).max_by(|(_, one), (_, other)| one.total_cmp(other)).context("none")?;
    let one = request("qgad-get-metrics", &json!({}));
    let mut polls = [
        (ours.connect()?, vec![one]),
        (theirs.connect()?, requests.to_vec()),
        (ours.connect()?, vec![dearest.clone()]),
    ];
    in_turns(1000, &mut polls, |(client, requests)| {
        requests.iter().try_for_each(|request| client.exchange(request).map(|_| ()))
    })
}
