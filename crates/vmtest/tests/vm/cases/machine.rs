//! A machine that the hypervisor pauses.

use anyhow::Result;
use qga::commands::session::Sync;
use serde_json::json;
use vmtest::vm::Builder;

use super::{answered, soon};

pub(crate) fn is_paused(builder: Builder<'_>) -> Result<()> {
    let mut vm = builder.boot()?;
    let mut agent = answered(&vm)?;
    vm.qmp.execute("stop", &json!({}))?;
    vm.qmp.wait_event("STOP", soon())?;
    // Asked while it is paused, answered when it goes on.
    let asking = std::thread::spawn(move || agent.call(&Sync { id: 5 }, soon()).map(|id| (id, agent)));
    assert_eq!(vm.qmp.execute("query-status", &json!({}))?["status"], "paused");
    vm.qmp.execute("cont", &json!({}))?;
    vm.qmp.wait_event("RESUME", soon())?;
    let (id, agent) = asking.join().expect("asking does not panic")?;
    assert_eq!(id, 5);
    drop(agent);
    answered(&vm)?;
    Ok(())
}
