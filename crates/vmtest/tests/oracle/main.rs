//! Plays the same inputs to Debian's `qemu-ga` and to `qgad`, and compares what they answer.
//!
//! This is what drop-in means. Inputs are text in `oracle/*.txt`; every difference is in `oracle/differences.txt` with
//! both answers and the reason for it. A difference that is not listed fails its input's test, and so does a listed one
//! that no longer occurs or has changed. `UPDATE_ORACLE=1` writes the list anew and keeps its reasons; a new difference
//! fails until its reason is written. Every command of the contract has an input. Without `qemu-ga` the comparisons are
//! skipped; with `VMTEST_REQUIRE=all` they fail. `QGAD` names the agent to test; the default is the workspace's own.

mod agent;
mod answer;
mod differences;
mod input;

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Context, Result, ensure};
use libtest_mimic::{Arguments, Failed, Trial};
use qga::commands::SPECS;

use crate::{
    agent::Agents,
    differences::{Difference, Differences},
    input::Input,
};

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    match trials() {
        Ok(trials) => libtest_mimic::run(&arguments, trials).exit_code(),
        Err(error) => {
            eprintln!("the inputs cannot be played: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn trials() -> Result<Vec<Trial>> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("oracle");
    let list = data.join("differences.txt");
    let inputs = read_inputs(&data)?;
    let differences = Arc::new(Differences::read(&list)?);
    let mut trials = vec![coverage_trial(&inputs)];
    let agents = match Agents::find() {
        Ok(agents) => Arc::new(agents),
        Err(need) if std::env::var_os("VMTEST_REQUIRE").is_some_and(|require| require == "all") => {
            trials.push(Trial::test("needs", move || Err(Failed::from(need))));
            return Ok(trials);
        }
        Err(need) => {
            eprintln!("skipped: {need}");
            let skipped = |input: &Input| Trial::test(&input.name, || Ok(())).with_ignored_flag(true);
            trials.extend(inputs.iter().map(skipped));
            return Ok(trials);
        }
    };
    let differences = match std::env::var_os("UPDATE_ORACLE") {
        Some(_) => {
            update(&list, &inputs, &differences, &agents)?;
            Arc::new(Differences::read(&list)?)
        }
        None => differences,
    };
    trials.extend(trials_of(inputs, &differences, &agents)?);
    Ok(trials)
}

/// Compares the inputs with the contract, without any agent. A command that must not be carried out on the machine that
/// the tests run on has inputs that are refused, so every command has one.
fn coverage_trial(inputs: &[Input]) -> Trial {
    let requested: HashSet<String> = inputs.iter().flat_map(Input::requested).collect();
    let missing: Vec<_> = SPECS.iter().map(|spec| spec.name).filter(|name| !requested.contains(*name)).collect();
    Trial::test("every_command_of_the_contract_has_an_input", move || match missing.is_empty() {
        true => Ok(()),
        false => Err(format!("no input in oracle/*.txt requests {}", missing.join(", ")).into()),
    })
}

fn trials_of(inputs: Vec<Input>, differences: &Arc<Differences>, agents: &Arc<Agents>) -> Result<Vec<Trial>> {
    for listed in differences.iter() {
        let is_known = inputs.iter().any(|input| input.name == listed.input);
        ensure!(is_known, "{} is listed as a difference and is no input", listed.input);
    }
    let trial = |input: Input| {
        let (differences, agents) = (Arc::clone(differences), Arc::clone(agents));
        Trial::test(input.name.clone(), move || Ok(check(&input, &differences, &agents)?))
    };
    Ok(inputs.into_iter().map(trial).collect())
}

/// The inputs of all files, in the order of the files' names.
fn read_inputs(directory: &Path) -> Result<Vec<Input>> {
    let entries = directory.read_dir().with_context(|| format!("failed to read {}", directory.display()))?;
    let mut paths: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    paths.retain(|path| path.extension().is_some_and(|end| end == "txt") && !path.ends_with("differences.txt"));
    paths.sort();
    let mut inputs: Vec<Input> = Vec::new();
    for path in paths {
        for input in input::read(&path)? {
            ensure!(inputs.iter().all(|other| other.name != input.name), "two inputs are named {}", input.name);
            inputs.push(input);
        }
    }
    Ok(inputs)
}

fn check(input: &Input, differences: &Differences, agents: &Agents) -> Result<()> {
    let (theirs, ours) = agents.play(input)?;
    match (differences.of(&input.name), theirs == ours) {
        (None, true) => Ok(()),
        (None, false) => {
            let found = Difference { input: input.name.clone(), reason: String::new(), theirs, ours };
            anyhow::bail!("the agents differ, and it is not listed:\n{found}")
        }
        (Some(listed), true) => anyhow::bail!("the agents agree, but a difference is listed:\n{listed}"),
        (Some(listed), false) => {
            let found = Difference { input: input.name.clone(), reason: listed.reason.clone(), theirs, ours };
            ensure!(&found == listed, "the difference is not the listed one:\n{found}\nwas listed as:\n{listed}");
            ensure!(!listed.reason.is_empty(), "the difference has no reason:\n{listed}");
            Ok(())
        }
    }
}

fn update(list: &Path, inputs: &[Input], old: &Differences, agents: &Agents) -> Result<()> {
    let mut found = Vec::new();
    for input in inputs {
        let (theirs, ours) = agents.play(input).with_context(|| input.name.clone())?;
        if theirs != ours {
            let reason = old.of(&input.name).map(|listed| listed.reason.clone()).unwrap_or_default();
            found.push(Difference { input: input.name.clone(), reason, theirs, ours });
        }
    }
    Differences::new(found).write(list)
}
