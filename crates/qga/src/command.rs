//! What a command is: its arguments, its reply, and what the agent must know before running it.
//!
//! A command is a plain data type that serialises to its `arguments` object. Everything that decides how it is
//! dispatched stands in its [`Spec`], so that no code anywhere matches on a command's name.
//! Behaviour is missing on purpose: the agent adds it with a trait of its own, a client needs none.

use std::time::Duration;

use serde::{Serialize, de::DeserializeOwned};

/// One command of the protocol. The implementing type holds the command's arguments.
///
/// Only types named in the one list of [`crate::commands`] can implement it.
pub trait Command: Listed + Serialize + DeserializeOwned + Send + 'static {
    /// Name, class and how the agent must treat it.
    const SPEC: Spec;
    /// What a success carries in `return`.
    type Reply: Serialize + DeserializeOwned + Send + 'static;
}

/// Marks the types in the one list of [`crate::commands`], which implements it and nothing else does.
pub trait Listed {}

/// What a command is about. Policy and audit depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Keeps the conversation going: sync, ping, info.
    Session,
    /// Reports a fact about the guest and changes nothing.
    Query,
    /// Changes the state of the machine: power, clock, freeze, hardware.
    Control,
    /// Reads or writes the guest's files.
    File,
    /// Runs programs in the guest.
    Exec,
    /// Changes accounts, passwords or keys.
    Account,
}

/// How much of the protocol an administrator offers a host. Each profile includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Profile {
    /// Facts about the guest.
    ReadOnly,
    /// Also what a backup needs: freeze, thaw and trim.
    Backup,
    /// Also what running the machine needs: power, clock, processors, memory. Nothing that gives a host access.
    Manage,
    /// Everything. Files, programs, passwords and keys are here, because each of them gives access to all the others.
    Full,
}

impl Profile {
    /// All of them, each including those before it.
    pub const ALL: [Self; 4] = [Self::ReadOnly, Self::Backup, Self::Manage, Self::Full];

    /// Its name in a configuration file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ReadOnly => "read-only",
            Self::Backup => "backup",
            Self::Manage => "manage",
            Self::Full => "full",
        }
    }
}

impl Class {
    /// Its name in documentation and in the audit log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Query => "query",
            Self::Control => "control",
            Self::File => "file",
            Self::Exec => "exec",
            Self::Account => "account",
        }
    }

    /// The smallest profile that offers a command of this class, unless its [`Spec`] says otherwise.
    pub const fn profile(self) -> Profile {
        match self {
            Self::Session | Self::Query => Profile::ReadOnly,
            Self::Control => Profile::Manage,
            Self::File | Self::Exec | Self::Account => Profile::Full,
        }
    }
}

/// Longest that a query may take. A host that polls gives up after five seconds, an administrator a little later.
pub const QUERY_TIMEOUT: Duration = Duration::from_secs(15);

/// Longest that a program may take which the agent runs for a command. The agent's `command-timeout` scales timeouts up
/// to this one. Longer ones bound work that depends on disks, and are not scaled.
pub const HELPER_TIMEOUT: Duration = Duration::from_secs(60);

/// How a command is treated while file systems are frozen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhileFrozen {
    /// It is refused: it might write, and block until the thaw.
    Refused,
    /// It is served as usual.
    Served,
    /// It is served even if the administrator blocks it: a freeze that nobody may end would be worse.
    EvenIfBlocked,
}

/// What the dispatcher must know of a command before it runs.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// The name on the wire.
    pub name: &'static str,
    /// What it is about.
    pub class: Class,
    /// The smallest profile that offers it.
    pub profile: Profile,
    /// Whether the agent's audit log records it.
    pub audited: bool,
    /// Whether it is served while file systems are frozen.
    pub while_frozen: WhileFrozen,
    /// Whether a success is silent: no reply at all, not even for a request with an `id`.
    pub silent: bool,
    /// Whether a successful reply is preceded by the byte 0xFF.
    pub delimited: bool,
    /// Whether it can never block, and so runs on the agent's I/O thread.
    pub inline: bool,
    /// How long it may run before the host gets an error instead. The agent's `command-timeout` scales it,
    /// up to [`HELPER_TIMEOUT`].
    pub timeout: Duration,
}

impl Spec {
    /// A command that replies, is refused while frozen, may block, and has the default timeout. It is in its
    /// class's profile, and audited unless the class changes nothing.
    pub const fn new(name: &'static str, class: Class) -> Self {
        Self {
            name,
            class,
            profile: class.profile(),
            audited: !matches!(class, Class::Session | Class::Query),
            while_frozen: WhileFrozen::Refused,
            silent: false,
            delimited: false,
            inline: false,
            timeout: QUERY_TIMEOUT,
        }
    }

    /// This profile offers it, too.
    #[must_use]
    pub const fn profile(self, profile: Profile) -> Self {
        Self { profile, ..self }
    }

    /// Not recorded by the audit log: it changes nothing, or only what an audited command has opened.
    #[must_use]
    pub const fn unaudited(self) -> Self {
        Self { audited: false, ..self }
    }

    /// May run for this long.
    #[must_use]
    pub const fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// How it is treated while file systems are frozen.
    #[must_use]
    pub const fn while_frozen(self, while_frozen: WhileFrozen) -> Self {
        Self { while_frozen, ..self }
    }

    /// Never answers a success.
    #[must_use]
    pub const fn silent(self) -> Self {
        Self { silent: true, ..self }
    }

    /// A successful reply follows a 0xFF.
    #[must_use]
    pub const fn delimited(self) -> Self {
        Self { delimited: true, ..self }
    }

    /// Never blocks: no file, no program, no name service.
    #[must_use]
    pub const fn inline(self) -> Self {
        Self { inline: true, ..self }
    }
}
