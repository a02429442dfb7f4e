//! From a command's name to its behaviour.
//!
//! The table is derived from the one list of the contract; a listed command without behaviour does not compile.
//! Preparing a command reads its arguments, running it takes values and returns a value: no command sees JSON.

use std::fmt;

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
}

/// A command whose arguments are read; running it gives the reply line, or nothing for a silent success.
pub(crate) type Prepared = Box<dyn FnOnce(&Guest, Option<&Id>) -> Option<Vec<u8>> + Send>;

/// One row of the table.
pub(crate) struct Handler {
    /// What must be known before it runs.
    pub(crate) spec: Spec,
    /// Reads the arguments.
    pub(crate) prepare: fn(&Object<'_>) -> Result<Prepared, Error>,
}

impl Handler {
    /// The row of a command.
    pub(crate) const fn of<C: Run>() -> Self {
        Self { spec: C::SPEC, prepare: prepare::<C> }
    }
}

impl fmt::Debug for Handler {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.spec.name)
    }
}

fn prepare<C: Run>(arguments: &Object<'_>) -> Result<Prepared, Error> {
    let command: C = args::read(arguments)?;
    Ok(Box::new(|guest, id| match command.run(guest) {
        Ok(_) if C::SPEC.silent => None,
        Ok(reply) => Some(message::reply(&reply, id, C::SPEC.delimited)),
        Err(error) => Some(message::refusal(&error, id)),
    }))
}

macro_rules! table {
    ($($command:path),* $(,)?) => {
        /// Every command, in the protocol's order.
        pub(crate) static HANDLERS: &[Handler] = &[$(Handler::of::<$command>()),*];
    };
}

for_each_command!(table);
