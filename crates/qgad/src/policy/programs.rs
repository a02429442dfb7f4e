//! Which programs may be started.
//!
//! A pattern is an absolute path in which `*` matches any bytes, slashes included, and `?` one byte. It is compared
//! with the program's path after all links are resolved, and the resolved file is the one that runs. A link that
//! matches and leads elsewhere does not count; a program with several names by links is allowed by its own name only.
//! The directory that a pattern begins with may be a link, as `/bin` is.
//! With such a list, the host cannot set a program's environment, because many programs run what it names. Arguments
//! are not judged: allowing a program that runs others is like allowing a shell.

use std::{
    ffi::OsString,
    io,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};

use super::{NotAllowed, Policy, Rule, rule_with_members};
use crate::{root::Root, util::glob::Globs};

impl Policy {
    /// Whether all programs may be started, in any environment.
    pub(crate) fn allows_all_programs(&self) -> bool {
        self.programs.is_none()
    }

    /// The file to run for a program that was found at this path.
    ///
    /// # Errors
    /// When the program is not allowed.
    pub(crate) fn program(&self, root: &Root, path: &Path) -> io::Result<PathBuf> {
        let Some((rule, patterns)) = rule_with_members("exec-allow", self.programs.as_ref()) else {
            return Ok(path.into());
        };
        let file = root.resolve(path)?;
        let patterns = patterns.iter().map(|pattern| with_real_directory(root, pattern)).collect();
        if Globs::new(patterns).matches(file.as_os_str().as_bytes()) { Ok(file) } else { Err(not_allowed(&rule)) }
    }

    /// The error for a request that sets an environment; `None` if that is allowed.
    pub(crate) fn environment_refusal(&self) -> Option<io::Error> {
        let (rule, _) = rule_with_members("exec-allow", self.programs.as_ref())?;
        let reason = "an environment is not allowed";
        Some(NotAllowed::by(&rule, reason, format!("{reason} ({rule})")))
    }
}

/// The pattern, with links resolved in the directories before its first wildcard or its last name.
fn with_real_directory(root: &Root, pattern: &str) -> String {
    let literal = &pattern[..pattern.find(['*', '?']).unwrap_or(pattern.len())];
    let (directory, rest) = pattern.split_at(literal.rfind('/').unwrap_or(0));
    match root.resolve(if directory.is_empty() { "/" } else { directory }).map(PathBuf::into_os_string) {
        Ok(real) => match OsString::from_vec(real.into_vec()).to_str() {
            Some("/") => rest.into(),
            Some(real) => format!("{real}{rest}"),
            None => pattern.into(),
        },
        Err(_) => pattern.into(),
    }
}

fn not_allowed(rule: &Rule<'_>) -> io::Error {
    NotAllowed::by(rule, "the program is not allowed", format!("it is not allowed, {rule}"))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;
    use crate::config::{
        settings::Settings,
        values::{Origin, WithOrigin},
    };

    fn check(patterns: &[&str], path: &str, expected: Option<&str>) {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::create_dir_all(at("usr/bin")).unwrap();
        fs::create_dir_all(at("plugins/more")).unwrap();
        for name in ["usr/bin/date", "usr/bin/box", "plugins/check", "plugins/more/check", "usr/bin/sh"] {
            fs::write(at(name), "").unwrap();
        }
        symlink("usr/bin", at("bin")).unwrap();
        symlink("box", at("usr/bin/ls")).unwrap();
        symlink("/usr/bin/sh", at("plugins/shell")).unwrap();
        let value = patterns.iter().map(ToString::to_string).collect();
        let policy = Policy::new(&Settings {
            exec_allow: Some(WithOrigin { value, origin: Origin::File("/conf".into()) }),
            ..Settings::default()
        });
        let found = policy.program(&Root::at(directory.path()), Path::new(path));
        match expected {
            Some(file) => assert_eq!(found.unwrap(), Path::new(file), "{patterns:?}"),
            None => assert_eq!(found.unwrap_err().to_string(), "it is not allowed, exec-allow in /conf", "{path}"),
        }
    }

    #[test]
    fn a_program_is_allowed_by_its_resolved_path() {
        check(&["/usr/bin/date"], "/bin/date", Some("/usr/bin/date"));
        check(&["/bin/date"], "/usr/bin/date", Some("/usr/bin/date"));
        check(&["/never", "/plugins/*"], "/plugins/more/check", Some("/plugins/more/check"));
        check(&["/bin/dat?"], "/usr/bin/../bin/date", Some("/usr/bin/date"));
    }

    #[test]
    fn a_link_that_matches_allows_nothing() {
        check(&["/plugins/*"], "/plugins/shell", None);
        check(&["/plugins/*"], "/plugins/../usr/bin/sh", None);
        check(&["/usr/bin/ls"], "/usr/bin/ls", None);
        check(&["/usr/bin/ls"], "/usr/bin/box", None);
        check(&["/usr/bin/box"], "/usr/bin/ls", Some("/usr/bin/box"));
    }

    #[test]
    fn a_program_that_no_pattern_matches_is_refused() {
        check(&["/usr/bin/dat"], "/usr/bin/date", None);
        check(&[], "/usr/bin/date", None);
    }
}
