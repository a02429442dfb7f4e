//! The host's tool finds a VM by its name, tells what its agent says, and who holds its socket.

use std::process::{Command, Output};

use anyhow::{Context, Result};
use serde_json::Value;
use vmtest::{needs, vm::Builder};

use super::answered;

const UUID: &str = "5e1f0c5e-5f5b-4b5c-9d5c-1d1d5c5e5f5b";

pub(crate) fn are_found(builder: Builder<'_>) -> Result<()> {
    // No other VM of this host has the name.
    let name = format!("vmtest,{}", std::process::id());
    let vm = builder.qemu_arguments(&["-name", &name.replace(',', ",,"), "-uuid", UUID]).boot()?;
    for known in [name.as_str(), UUID] {
        let output = run(&["-M", known, "ping"])?;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let entry = entry(&name)?;
    assert_eq!((&entry["frozen"], &entry["uuid"]), (&false.into(), &UUID.into()), "{entry}");
    assert_eq!(entry["address"], format!("unix:{}", vm.socket().display()));
    let client = answered(&vm)?;
    let held = self::entry(&name)?;
    assert_eq!(held["held-by"]["pid"], std::process::id(), "{held}");
    drop(client);
    Ok(())
}

/// What the tool lists of this VM.
fn entry(name: &str) -> Result<Value> {
    let output = run(&["list", "--json"])?;
    let entries: Vec<Value> = serde_json::from_slice(&output.stdout)?;
    entries.into_iter().find(|entry| entry["name"] == name).with_context(|| format!("{name} is not listed"))
}

fn run(arguments: &[&str]) -> Result<Output> {
    Ok(Command::new(needs::tool()?).args(arguments).env_remove("QGACTL_MACHINE").output()?)
}
