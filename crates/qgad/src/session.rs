//! One peer's conversation: bytes in, bytes out, no transport of its own.
//!
//! Requests are carried out one at a time and in order, so that replies leave in the order of the requests. A session
//! stops taking input while a job of its own runs elsewhere, and while its peer does not read what is owed to it:
//! [`MAX_UNSENT_BYTES`] and one reply are all it ever holds. A new peer gets a new session, so nothing of an earlier
//! one's half message can be completed by it.

use qga::wire::{
    frame::{Frame, Framer},
    message::{self, Envelope, Error},
};

use crate::{
    audit::Entry,
    dispatch::{Ready, Step},
    executor::Job,
    guest::Guest,
    output::Output,
};

/// Unsent bytes beyond which no further request is taken; enough to answer a batch of small ones in one write.
pub(crate) const MAX_UNSENT_BYTES: usize = 64 * 1024;

/// A conversation.
#[derive(Debug, Default)]
pub(crate) struct Session {
    framer: Framer,
    output: Output,
}

impl Session {
    /// Takes input until it is used up, a job must run elsewhere, or the peer must read first.
    ///
    /// The caller runs the job, hands its reply to [`Self::answer`], and calls again with the rest of the input.
    pub(crate) fn receive(&mut self, input: &mut &[u8], guest: &Guest) -> Option<Job> {
        while self.output.len() < MAX_UNSENT_BYTES {
            match self.framer.next(input)? {
                Frame::Invalid(error) => self.output.push(message::refusal(&error, None)),
                Frame::Message(text) => {
                    if let Some(job) = self.obey(&text, guest) {
                        return Some(job);
                    }
                }
            }
        }
        None
    }

    /// Whether input is taken now.
    pub(crate) fn is_ready(&self) -> bool {
        self.output.len() < MAX_UNSENT_BYTES
    }

    /// Queues a reply line; a silent success has none.
    pub(crate) fn answer(&mut self, reply: Option<Vec<u8>>) {
        if let Some(line) = reply {
            self.output.push(line);
        }
    }

    /// What is owed to the peer.
    pub(crate) fn output(&mut self) -> &mut Output {
        &mut self.output
    }

    /// Carries out a request that cannot block, and returns one that can as a job.
    fn obey(&mut self, text: &[u8], guest: &Guest) -> Option<Job> {
        let envelope = Envelope::open(text);
        let request = envelope.request.and_then(|request| {
            log::debug!("read data, count: {}, data: {}", text.len(), request.execute);
            let handler = guest
                .handlers
                .iter()
                .find(|handler| handler.spec.name == request.execute)
                .ok_or_else(|| unknown_command(&request.execute))?;
            let spec = &handler.spec;
            guest.policy.decide(spec, guest.freezer.frozen_for()).map_err(|refusal| {
                if let Some(entry) = Entry::begin(spec, || (handler.touches)(&request.arguments)) {
                    entry.refused(&refusal);
                }
                refusal.explain(spec.name)
            })?;
            let ready = (handler.prepare)(&request.arguments, guest, envelope.id.as_ref()).inspect_err(|_| {
                if let Some(entry) = Entry::begin(spec, || None) {
                    entry.ended(false);
                }
            })?;
            Ok((spec, ready))
        });
        match request {
            Ok((spec, Ready { touched, step })) => {
                log::debug!("{} called", spec.name);
                let audit = Entry::begin(spec, || touched);
                let prepared = match step {
                    Step::Remains(prepared) => prepared,
                    Step::Done(answer) => {
                        if let Some(entry) = audit {
                            entry.ended(answer.is_success);
                        }
                        self.answer(answer.line);
                        return None;
                    }
                };
                let deadline = guest.deadline(spec);
                let job = Job { name: spec.name, prepared, id: envelope.id, deadline, audit };
                if !spec.inline {
                    return Some(job);
                }
                self.answer(job.run(guest));
            }
            Err(error) => self.output.push(message::refusal(&error, envelope.id.as_ref())),
        }
        None
    }
}

fn unknown_command(name: &str) -> Error {
    Error::command_not_found(format!("The command {name} has not been found"))
}
