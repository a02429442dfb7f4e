//! From a request to its reply, or to a task that makes the reply.
//!
//! The order of checks is the protocol's: the envelope, the command's name, the policy, the arguments. All that applies
//! to every command happens here and nowhere else: policy, audit, timeouts, panics, the form of the reply. The table of
//! commands is derived from the one list of the contract. A listed command without behaviour does not compile.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use qga::{
    Class, Spec, for_each_command,
    wire::{
        args,
        message::{self, Envelope, Error, Id},
        value::Object,
    },
};

use crate::{
    commands::{Begun, Run, Wait},
    guest::Guest,
    logging::audit::{Entry, Outcome},
    util::in_use::Resource,
};

/// Finds commands, and prepares them to run on one guest.
#[derive(Clone, Debug)]
pub(crate) struct Dispatcher {
    handlers: &'static [Handler],
    guest: Arc<Guest>,
}

/// The outcome of a request.
#[derive(Debug)]
pub(crate) enum Dispatched {
    /// It was carried out or refused. The reply line, or nothing for a silent success.
    Done(Option<Vec<u8>>),
    /// It may block, or waits: its task is the executor's.
    Blocking(Task),
}

/// A command whose arguments are read, and what its reply needs.
pub(crate) struct Task {
    /// The command's name, for errors and the log.
    pub(crate) name: &'static str,
    /// What the command is about.
    pub(crate) class: Class,
    /// The request's id.
    pub(crate) id: Option<Id>,
    /// The size of the request in bytes. What is read from it takes memory until the command ends.
    pub(crate) request_bytes: usize,
    /// How long it may run.
    pub(crate) timeout: Duration,
    /// What the audit is to tell of it.
    pub(crate) audit: Option<Entry>,
    /// What it waits for. It cannot block after that.
    pub(crate) wait: Option<Arc<dyn Wait>>,
    /// Its behaviour, arguments included.
    pub(crate) command: PreparedCommand,
}

/// A command's behaviour with its arguments.
pub(crate) type PreparedCommand = Box<dyn FnOnce(&Guest, Option<&Id>) -> Answer + Send>;

/// The end of a command.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The reply line, or nothing for a silent success.
    pub(crate) line: Option<Vec<u8>>,
    /// What the audit is to tell of it.
    pub(crate) outcome: Outcome,
}

/// One row of the table.
pub(crate) struct Handler {
    /// What must be known before it runs.
    pub(crate) spec: Spec,
    /// What the audit may say of the arguments of a command that is refused.
    pub(crate) audit_subject: fn(&Object<'_>) -> Option<String>,
    /// Reads the arguments, and runs the command if that cannot block.
    pub(crate) prepare: fn(&Object<'_>, &Guest, Option<&Id>) -> Result<Prepared, Error>,
}

/// A command whose arguments are read.
pub(crate) struct Prepared {
    /// What the audit may say of them.
    pub(crate) audit_subject: Option<String>,
    /// What is left to do.
    pub(crate) step: Step,
}

/// What is left to do of a command whose arguments are read.
pub(crate) enum Step {
    /// Nothing: it was carried out.
    Done(Answer),
    /// Its end: it has begun, and waits.
    Wait(Arc<dyn Wait>, PreparedCommand),
    /// All: it is to be run.
    Run(PreparedCommand),
}

impl Dispatcher {
    /// A dispatcher of all commands.
    pub(crate) fn new(guest: Arc<Guest>) -> Self {
        Self { handlers: HANDLERS, guest }
    }

    /// A dispatcher of these commands.
    #[cfg(test)]
    pub(crate) fn with_handlers(handlers: &'static [Handler], guest: Arc<Guest>) -> Self {
        Self { handlers, guest }
    }

    /// The guest that commands run on.
    pub(crate) fn guest(&self) -> &Arc<Guest> {
        &self.guest
    }

    /// Carries out a request that cannot block, and returns one that can as a task.
    pub(crate) fn dispatch(&self, text: &[u8]) -> Dispatched {
        self.guest.activity.has_read_request();
        let Envelope { request, id } = Envelope::open(text);
        let task = request.and_then(|request| {
            log::debug!("read data, count: {}, data: {}", text.len(), request.execute);
            let handler = self.find(&request.execute)?;
            self.check_policy(handler, &request.arguments)?;
            self.prepare(handler, &request.arguments, id.as_ref())
        });
        let (spec, audit, wait, command) = match task {
            Ok((_, audit, Step::Done(answer))) => return Dispatched::Done(finish(answer, audit.as_ref())),
            Ok((spec, audit, Step::Wait(wait, command))) => (spec, audit, Some(wait), command),
            Ok((spec, audit, Step::Run(command))) => (spec, audit, None, command),
            Err(error) => return Dispatched::Done(Some(message::refusal(&error, id.as_ref()))),
        };
        let (name, class, timeout, request_bytes) = (spec.name, spec.class, self.guest.timeout(spec), text.len());
        let task = Task { name, class, id, request_bytes, timeout, audit, wait, command };
        if spec.inline { Dispatched::Done(task.run(&self.guest)) } else { Dispatched::Blocking(task) }
    }

    fn find(&self, name: &str) -> Result<&Handler, Error> {
        let unknown = || Error::command_not_found(format!("The command {name} has not been found"));
        self.handlers.iter().find(|handler| handler.spec.name == name).ok_or_else(unknown)
    }

    fn check_policy(&self, handler: &Handler, arguments: &Object<'_>) -> Result<(), Error> {
        let spec = &handler.spec;
        let decision = self.guest.policy.decide(spec, self.guest.freezer.frozen_for());
        let decision = decision.map_err(|refusal| refusal.explain(spec.name));
        if decision.is_err() {
            self.guest.activity.has_refused();
            record(spec, || (handler.audit_subject)(arguments), &Outcome::of(&decision));
        }
        decision
    }

    /// Reads the arguments. From here on the audit tells how the command ended.
    fn prepare<'a>(
        &self,
        handler: &'a Handler,
        arguments: &Object<'_>,
        id: Option<&Id>,
    ) -> Result<(&'a Spec, Option<Entry>, Step), Error> {
        let spec = &handler.spec;
        let prepared =
            (handler.prepare)(arguments, &self.guest, id).inspect_err(|_| record(spec, || None, &Outcome::Error))?;
        log::debug!("{} called", spec.name);
        Ok((spec, Entry::begin(spec, || prepared.audit_subject), prepared.step))
    }
}

impl Task {
    /// Runs to the end and returns the reply, if there is one.
    pub(crate) fn run(self, guest: &Guest) -> Option<Vec<u8>> {
        let Self { name, class, command, id, audit, timeout, .. } = self;
        let one_of_its_name = guest.in_use.begin(timeout);
        if !names_what_it_uses(class)
            && let Err(reason) = one_of_its_name.turn_to(Resource::Command(name))
        {
            let error = Error::generic(format!("{name} cannot run: {reason}"));
            return finish(
                Answer { line: Some(message::refusal(&error, id.as_ref())), outcome: Outcome::Error },
                audit.as_ref(),
            );
        }
        let answer = catch_unwind(AssertUnwindSafe(|| command(guest, id.as_ref()))).unwrap_or_else(|_| {
            let error = Error::generic(format!("{name} failed because of a bug in the agent, which its log describes"));
            Answer { line: Some(message::refusal(&error, id.as_ref())), outcome: Outcome::Error }
        });
        finish(answer, audit.as_ref())
    }
}

impl fmt::Debug for Task {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Task").field(&self.name).finish()
    }
}

/// Whether commands of this class name the resource that they use ([`Guest::in_use`]): a file, a program, a user. Any
/// other command uses [`Resource::Command`], which commands of the same name share.
fn names_what_it_uses(class: Class) -> bool {
    match class {
        Class::File | Class::Exec | Class::Account => true,
        Class::Session | Class::Query | Class::Control => false,
    }
}

/// Tells the audit of the end of a command, and returns its reply line.
fn finish(answer: Answer, audit: Option<&Entry>) -> Option<Vec<u8>> {
    if let Some(entry) = audit {
        entry.ended(&answer.outcome);
    }
    answer.line
}

/// Tells the audit of a command that did not start.
fn record(spec: &Spec, subject: impl FnOnce() -> Option<String>, outcome: &Outcome) {
    if let Some(entry) = Entry::begin(spec, subject) {
        entry.ended(outcome);
    }
}

impl Handler {
    /// The row of a command.
    pub(crate) const fn of<C: Run>() -> Self {
        Self { spec: C::SPEC, audit_subject: audit_subject::<C>, prepare: prepare::<C> }
    }
}

impl fmt::Debug for Handler {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.spec.name)
    }
}

fn audit_subject<C: Run>(arguments: &Object<'_>) -> Option<String> {
    args::read::<C>(arguments).ok()?.audit_subject()
}

fn prepare<C: Run>(arguments: &Object<'_>, guest: &Guest, id: Option<&Id>) -> Result<Prepared, Error> {
    let command: C = args::read(arguments)?;
    let audit_subject = if C::SPEC.audited { command.audit_subject() } else { None };
    // One that panics is left to its usual way, where that is answered.
    let inline = catch_unwind(AssertUnwindSafe(|| command.run_inline(guest))).ok().flatten();
    let begun =
        if inline.is_none() { catch_unwind(AssertUnwindSafe(|| command.begin(guest))).ok().flatten() } else { None };
    let step = match (inline, begun) {
        (Some(result), _) => Step::Done(encode::<C>(result, id)),
        (None, Some(Err(error))) => Step::Done(encode::<C>(Err(error), id)),
        (None, Some(Ok(Begun { wait, finish }))) => Step::Wait(wait, Box::new(|_, id| encode::<C>(finish(), id))),
        (None, None) => Step::Run(Box::new(|guest, id| encode::<C>(command.run(guest), id))),
    };
    Ok(Prepared { audit_subject, step })
}

fn encode<C: Run>(result: Result<C::Reply, Error>, id: Option<&Id>) -> Answer {
    let outcome = Outcome::of(&result);
    let line = match result {
        Ok(_) if C::SPEC.silent => None,
        Ok(reply) => Some(message::reply(&reply, id, C::SPEC.delimited)),
        Err(error) => Some(message::refusal(&error, id)),
    };
    Answer { line, outcome }
}

macro_rules! table {
    ($($command:path),* $(,)?) => {
        /// Every command, in the protocol's order.
        pub(crate) static HANDLERS: &[Handler] = &[$(Handler::of::<$command>()),*];
    };
}

for_each_command!(table);

#[cfg(test)]
mod tests;
