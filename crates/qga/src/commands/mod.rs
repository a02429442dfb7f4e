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
pub mod job;
pub mod memory;
pub mod metrics;
pub mod network;
pub mod power;
pub mod session;
pub mod ssh;
pub mod storage;
pub mod system;
pub mod users;

use crate::command::{Command, Listed, Spec};

/// Applies a macro to the types of all commands, in the protocol's order, then qgad's own: `apply! { A, B, C }`.
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
            $crate::commands::job::JobStart,
            $crate::commands::job::JobRead,
            $crate::commands::job::JobWrite,
            $crate::commands::job::JobSignal,
            $crate::commands::job::JobResize,
            $crate::commands::job::JobList,
            $crate::commands::job::JobForget,
            $crate::commands::metrics::GetMetrics,
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
            assert!(spec.name.split('-').all(is_word), "{}", spec.name);
        }
    }

    #[test]
    fn the_commands_of_the_protocol_come_first_and_a_prefix_marks_our_own() {
        let is_own: Vec<_> = SPECS.iter().map(|spec| spec.name.starts_with("qgad-")).collect();
        assert!(is_own.is_sorted());
        for spec in SPECS {
            assert!(spec.name.starts_with("guest-") || spec.name.starts_with("qgad-"), "{}", spec.name);
        }
    }

    #[test]
    fn every_timeout_is_a_number_of_whole_seconds_as_it_is_published() {
        for spec in SPECS {
            assert!(spec.timeout.as_secs() > 0 && spec.timeout.subsec_nanos() == 0, "{}", spec.name);
        }
    }

    #[test]
    fn a_frozen_guest_serves_the_conversation_jobs_figures_and_what_ends_the_freeze() {
        // A job's supervisor has all that these commands ask for in its memory. A start opens the program's file.
        let is_of_a_job = |name: &str| name.starts_with("qgad-job-") && name != "qgad-job-start";
        for spec in SPECS {
            match spec.while_frozen {
                WhileFrozen::Served if is_of_a_job(spec.name) => {}
                // They come from the kernel's memory. File systems are left out.
                WhileFrozen::Served if spec.name == "qgad-get-metrics" => {}
                WhileFrozen::Served => assert!(spec.class == Class::Session && spec.inline, "{}", spec.name),
                WhileFrozen::EvenIfBlocked => assert!(spec.name.starts_with("guest-fsfreeze-"), "{}", spec.name),
                WhileFrozen::Refused => assert!(spec.class != Class::Session, "{}", spec.name),
            }
        }
    }

    #[test]
    fn a_silent_command_changes_the_state_of_the_machine() {
        for spec in SPECS.iter().filter(|spec| spec.silent) {
            assert!(spec.class == Class::Control && !spec.delimited, "{}", spec.name);
        }
    }

    #[test]
    fn a_profile_offers_more_than_a_class_asks_for_only_for_backups() {
        for spec in SPECS.iter().filter(|spec| spec.profile != spec.class.profile()) {
            assert_eq!((spec.class, spec.profile), (Class::Control, Profile::Backup), "{}", spec.name);
            assert!(spec.name.starts_with("guest-fs"), "{} is not about file systems", spec.name);
        }
    }

    #[test]
    fn only_the_full_profile_gives_a_host_access_to_files_programs_and_accounts() {
        for spec in SPECS {
            let gives_access = matches!(spec.class, Class::File | Class::Exec | Class::Account);
            assert_eq!(gives_access, spec.profile == Profile::Full, "{}", spec.name);
        }
    }

    #[test]
    fn a_change_of_the_machine_is_audited_and_a_query_is_not() {
        for spec in SPECS {
            match spec.class {
                Class::Session | Class::Query => assert!(!spec.audited, "{}", spec.name),
                Class::Control => assert!(spec.audited, "{}", spec.name),
                // What opens access is audited, what uses it is not: docs/commands.md says which.
                Class::File | Class::Exec | Class::Account => {}
            }
        }
    }

    #[test]
    fn one_reply_is_delimited_and_belongs_to_the_conversation() {
        let delimited: Vec<_> = SPECS.iter().filter(|spec| spec.delimited).map(|spec| spec.class).collect();
        assert_eq!(delimited, [Class::Session]);
    }

    #[test]
    fn a_command_that_runs_on_the_io_thread_answers_and_changes_nothing_that_is_audited() {
        for spec in SPECS.iter().filter(|spec| spec.inline) {
            assert!(!spec.silent && !spec.audited, "{}", spec.name);
        }
    }
}
