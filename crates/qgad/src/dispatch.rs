//! From a command's name to its behaviour.
//!
//! The table is derived from the one list of the contract; a listed command without behaviour does not compile.
//! Preparing a command reads its arguments, running it takes values and returns a value: no command sees JSON.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
};

use qga::{
    Command, Spec, for_each_command,
    wire::{
        args,
        message::{self, Error, Id},
        value::Object,
    },
};

use crate::guest::Guest;

/// A command's behaviour.
pub(crate) trait Run: Command {
    /// Carries the command out.
    fn run(self, guest: &Guest) -> Result<Self::Reply, Error>;

    /// What the audit may say of its arguments: a path, a name, a number; never contents or secrets.
    fn touches(&self) -> Option<String> {
        None
    }

    /// Carries it out on the I/O thread, if it is sure not to wait for anything. Otherwise nothing has happened.
    fn run_at_once(&self, _: &Guest) -> Option<Result<Self::Reply, Error>> {
        None
    }
}

/// A command whose arguments are read, and that is to be run.
pub(crate) type Prepared = Box<dyn FnOnce(&Guest, Option<&Id>) -> Answer + Send>;

/// The end of a command.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The reply line, or nothing for a silent success.
    pub(crate) line: Option<Vec<u8>>,
    /// Whether it succeeded.
    pub(crate) is_success: bool,
}

/// A command whose arguments are read.
pub(crate) struct Ready {
    /// What the audit may say of them.
    pub(crate) touched: Option<String>,
    /// What became of it.
    pub(crate) step: Step,
}

/// What became of a command whose arguments are read.
pub(crate) enum Step {
    /// It was carried out.
    Done(Answer),
    /// It is to be run.
    Remains(Prepared),
}

/// One row of the table.
pub(crate) struct Handler {
    /// What must be known before it runs.
    pub(crate) spec: Spec,
    /// What the audit may say of the arguments of a command that is not carried out.
    pub(crate) touches: fn(&Object<'_>) -> Option<String>,
    /// Reads the arguments, and does at once what can be.
    pub(crate) prepare: fn(&Object<'_>, &Guest, Option<&Id>) -> Result<Ready, Error>,
}

impl Handler {
    /// The row of a command.
    pub(crate) const fn of<C: Run>() -> Self {
        Self { spec: C::SPEC, touches: touches::<C>, prepare: prepare::<C> }
    }
}

impl fmt::Debug for Handler {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.spec.name)
    }
}

fn touches<C: Run>(arguments: &Object<'_>) -> Option<String> {
    args::read::<C>(arguments).ok()?.touches()
}

fn prepare<C: Run>(arguments: &Object<'_>, guest: &Guest, id: Option<&Id>) -> Result<Ready, Error> {
    let command: C = args::read(arguments)?;
    let touched = if C::SPEC.audited { command.touches() } else { None };
    // One that panics is left to its usual way, where that is answered.
    let at_once = catch_unwind(AssertUnwindSafe(|| command.run_at_once(guest)));
    let step = match at_once {
        Ok(Some(result)) => Step::Done(spell::<C>(result, id)),
        Ok(None) | Err(_) => Step::Remains(Box::new(|guest, id| spell::<C>(command.run(guest), id))),
    };
    Ok(Ready { touched, step })
}

fn spell<C: Run>(result: Result<C::Reply, Error>, id: Option<&Id>) -> Answer {
    let is_success = result.is_ok();
    let line = match result {
        Ok(_) if C::SPEC.silent => None,
        Ok(reply) => Some(message::reply(&reply, id, C::SPEC.delimited)),
        Err(error) => Some(message::refusal(&error, id)),
    };
    Answer { line, is_success }
}

macro_rules! table {
    ($($command:path),* $(,)?) => {
        /// Every command, in the protocol's order.
        pub(crate) static HANDLERS: &[Handler] = &[$(Handler::of::<$command>()),*];
    };
}

for_each_command!(table);
