//! The contract: what every command takes and gives, one file a topic, data and documentation only.
//!
//! [`for_each_command!`](crate::for_each_command) is the one list. The agent's dispatch table, `guest-info`, the
//! printed list of commands, docs/commands.* and the tests that loop over all commands are derived from it.
//! A command that is not listed does not compile, because [`Command`] asks for [`Listed`].

pub mod clock;
pub mod cpu;
pub mod exec;
pub mod file;
pub mod freeze;
pub mod memory;
pub mod network;
pub mod power;
pub mod session;
pub mod ssh;
pub mod storage;
pub mod system;
pub mod users;

use crate::command::{Command, Listed, Spec};

/// Applies a macro to the types of all commands, in the protocol's order: `apply! { A, B, C }`.
///
/// `guest-info` and the printed list of commands show this order, or its reverse.
#[macro_export]
macro_rules! for_each_command {
    ($apply:ident) => {
        $apply! {
            $crate::commands::session::SyncDelimited,
            $crate::commands::session::Sync,
            $crate::commands::session::Ping,
            $crate::commands::clock::GetTime,
            $crate::commands::clock::SetTime,
            $crate::commands::session::Info,
            $crate::commands::power::Shutdown,
            $crate::commands::file::FileOpen,
            $crate::commands::file::FileClose,
            $crate::commands::file::FileRead,
            $crate::commands::file::FileWrite,
            $crate::commands::file::FileSeek,
            $crate::commands::file::FileFlush,
            $crate::commands::freeze::FreezeStatus,
            $crate::commands::freeze::Freeze,
            $crate::commands::freeze::FreezeList,
            $crate::commands::freeze::Thaw,
            $crate::commands::storage::Fstrim,
            $crate::commands::power::SuspendDisk,
            $crate::commands::power::SuspendRam,
            $crate::commands::power::SuspendHybrid,
            $crate::commands::network::GetInterfaces,
            $crate::commands::cpu::GetVcpus,
            $crate::commands::cpu::SetVcpus,
            $crate::commands::storage::GetDisks,
            $crate::commands::storage::GetFsinfo,
            $crate::commands::users::SetUserPassword,
            $crate::commands::memory::GetMemoryBlocks,
            $crate::commands::memory::SetMemoryBlocks,
            $crate::commands::memory::GetMemoryBlockInfo,
            $crate::commands::exec::ExecStatus,
            $crate::commands::exec::Exec,
            $crate::commands::system::GetHostName,
            $crate::commands::users::GetUsers,
            $crate::commands::clock::GetTimezone,
            $crate::commands::system::GetOsinfo,
            $crate::commands::ssh::GetAuthorizedKeys,
            $crate::commands::ssh::AddAuthorizedKeys,
            $crate::commands::ssh::RemoveAuthorizedKeys,
            $crate::commands::storage::GetDiskstats,
            $crate::commands::cpu::GetCpustats,
            $crate::commands::network::GetRoute,
            $crate::commands::cpu::GetLoad,
        }
    };
}

macro_rules! list {
    ($($command:path),* $(,)?) => {
        $(impl Listed for $command {})*

        /// What the dispatcher knows of every command, in the protocol's order.
        pub const SPECS: &[Spec] = &[$(<$command as Command>::SPEC),*];
    };
}

for_each_command!(list);

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::SPECS;
    use crate::command::{Class, Profile, WhileFrozen};

    #[test]
    fn every_name_is_used_once() {
        let names: HashSet<_> = SPECS.iter().map(|spec| spec.name).collect();
        assert_eq!(names.len(), SPECS.len());
    }

    #[test]
    fn names_are_lower_case_words_with_hyphens() {
        let is_word = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase());
        for spec in SPECS {
            assert!(spec.name.starts_with("guest-") && spec.name.split('-').all(is_word), "{}", spec.name);
        }
    }

    #[test]
    fn every_command_ends_at_some_time() {
        for spec in SPECS {
            assert!(!spec.timeout.is_zero(), "{}", spec.name);
        }
    }

    #[test]
    fn only_what_hosts_count_on_is_served_while_frozen() {
        let expected = [
            "guest-sync-delimited",
            "guest-sync",
            "guest-ping",
            "guest-info",
            "guest-fsfreeze-status",
            "guest-fsfreeze-thaw",
        ];
        for spec in SPECS {
            let is_served = spec.while_frozen != WhileFrozen::Refused;
            assert_eq!(is_served, expected.contains(&spec.name), "{}", spec.name);
        }
    }

    #[test]
    fn only_what_ends_or_suspends_the_guest_is_silent() {
        let expected = ["guest-shutdown", "guest-suspend-disk", "guest-suspend-ram", "guest-suspend-hybrid"];
        for spec in SPECS {
            assert_eq!(spec.silent, expected.contains(&spec.name), "{}", spec.name);
        }
    }

    #[test]
    fn a_backup_profile_can_freeze_thaw_and_trim_and_changes_nothing_else() {
        let expected = ["guest-fsfreeze-freeze", "guest-fsfreeze-freeze-list", "guest-fsfreeze-thaw", "guest-fstrim"];
        for spec in SPECS {
            let is_added = spec.profile == Profile::Backup;
            assert_eq!(is_added, expected.contains(&spec.name), "{}", spec.name);
        }
    }

    #[test]
    fn no_profile_but_the_full_one_lets_a_host_in() {
        for spec in SPECS {
            let lets_in = matches!(spec.class, Class::File | Class::Exec | Class::Account);
            assert_eq!(lets_in, spec.profile == Profile::Full, "{}", spec.name);
        }
    }

    #[test]
    fn what_changes_the_guest_is_audited_and_what_is_polled_or_comes_in_pieces_is_not() {
        for spec in SPECS {
            let is_quiet = matches!(spec.class, Class::Session | Class::Query)
                || (matches!(spec.class, Class::File | Class::Exec)
                    && !["guest-exec", "guest-file-open"].contains(&spec.name))
                || spec.name == "guest-ssh-get-authorized-keys";
            assert_eq!(spec.audited, !is_quiet, "{}", spec.name);
        }
    }

    #[test]
    fn only_one_reply_is_delimited() {
        for spec in SPECS {
            assert_eq!(spec.delimited, spec.name == "guest-sync-delimited", "{}", spec.name);
        }
    }

    #[test]
    fn a_command_that_never_blocks_is_served_while_frozen_or_is_a_mere_fact() {
        for spec in SPECS.iter().filter(|spec| spec.inline) {
            assert!(!spec.silent, "{} changes the machine and cannot be inline", spec.name);
        }
    }
}
