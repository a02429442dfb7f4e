//! The guest's kernel, operating system and host name.
//!
//! The operating system comes from os-release(5): from the file that `QGA_OS_RELEASE` names, or else from the first of
//! the two usual files that exists. A line that is not an assignment is skipped. The kernel's values are always
//! reported.

use std::{io, path::PathBuf};

use nix::sys::utsname::uname;
use qga::{
    commands::system::{GetHostName, GetOsinfo, HostName, OsInfo},
    wire::message::Error,
};

use super::{Result, Run};
use crate::{guest::Guest, util::errno};

/// The files of os-release(5); the first that exists counts.
const OS_RELEASE: [&str; 2] = ["/etc/os-release", "/usr/lib/os-release"];

impl Run for GetHostName {
    fn run(self, _: &Guest) -> Result<HostName> {
        let name = nix::unistd::gethostname()
            .map_err(|error| Error::generic(format!("cannot get hostname: {}", errno::describe(error))))?;
        Ok(HostName { host_name: name.to_string_lossy().into_owned() })
    }
}

impl Run for GetOsinfo {
    fn run(self, guest: &Guest) -> Result<OsInfo> {
        let mut info = os_release(guest).map_or_else(OsInfo::default, |contents| parse_os_release(&contents));
        if let Ok(kernel) = uname() {
            let text = |value: &std::ffi::OsStr| Some(value.to_string_lossy().into_owned());
            info.kernel_release = text(kernel.release());
            info.kernel_version = text(kernel.version());
            info.machine = text(kernel.machine());
        }
        Ok(info)
    }
}

fn os_release(guest: &Guest) -> Option<Vec<u8>> {
    let chosen = guest.environment.variable("QGA_OS_RELEASE");
    let candidates = chosen.map_or_else(|| OS_RELEASE.map(PathBuf::from).to_vec(), |path| vec![path.into()]);
    for path in candidates {
        match guest.root.read(&path) {
            Ok(contents) => return Some(contents),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                log::warn!("failed to read {}: {error}", path.display());
                return None;
            }
        }
    }
    None
}

/// Parses an os-release file. The last value of a repeated field counts.
fn parse_os_release(contents: &[u8]) -> OsInfo {
    let mut info = OsInfo::default();
    for line in String::from_utf8_lossy(contents).lines() {
        let Some((name, value)) = line.split_once('=') else { continue };
        let field = match name.trim() {
            "ID" => &mut info.id,
            "NAME" => &mut info.name,
            "PRETTY_NAME" => &mut info.pretty_name,
            "VERSION" => &mut info.version,
            "VERSION_ID" => &mut info.version_id,
            "VARIANT" => &mut info.variant,
            "VARIANT_ID" => &mut info.variant_id,
            _ => continue,
        };
        *field = Some(unquote(value.trim()));
    }
    info
}

/// A value as a shell would read it: without quotes, and without backslashes that escape something.
fn unquote(value: &str) -> String {
    match value.chars().next() {
        Some('\'') => value[1..].split('\'').next().unwrap_or_default().into(),
        Some('"') => unquote_double(&value[1..]),
        _ => value.split([' ', ';']).next().unwrap_or_default().into(),
    }
}

fn unquote_double(value: &str) -> String {
    let mut text = String::new();
    let mut characters = value.chars().peekable();
    while let Some(character) = characters.next() {
        match (character, characters.peek()) {
            ('"', _) => break,
            ('\\', Some(&quoted @ ('$' | '\'' | '"' | '\\' | '`'))) => {
                text.push(quoted);
                characters.next();
            }
            _ => text.push(character),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(contents: &str, expected: &OsInfo) {
        assert_eq!(&parse_os_release(contents.as_bytes()), expected);
    }

    fn named(name: &str) -> OsInfo {
        OsInfo { name: Some(name.into()), ..OsInfo::default() }
    }

    #[test]
    fn every_field_is_read_from_its_line() {
        check(
            "NAME=n\nID=i\nPRETTY_NAME=p\nVERSION=v\nVERSION_ID=vi\nVARIANT=va\nVARIANT_ID=vai\nHOME_URL=x\n",
            &OsInfo {
                id: Some("i".into()),
                name: Some("n".into()),
                pretty_name: Some("p".into()),
                version: Some("v".into()),
                version_id: Some("vi".into()),
                variant: Some("va".into()),
                variant_id: Some("vai".into()),
                ..OsInfo::default()
            },
        );
    }

    #[test]
    fn a_line_that_is_not_an_assignment_is_skipped() {
        check("# comment\ngarbage line\nNAME=Debian\n", &named("Debian"));
    }

    #[test]
    fn quotes_of_both_kinds_are_removed() {
        check("NAME=\"a b\"\n", &named("a b"));
        check("NAME='a b'\n", &named("a b"));
        check("NAME=\"unterminated\n", &named("unterminated"));
        check("NAME=''\n", &named(""));
    }

    #[test]
    fn a_backslash_in_double_quotes_escapes_what_a_shell_would_expand() {
        check(r#"NAME="\$\"\\\`\' \n""#, &named(r#"$"\`' \n"#));
    }

    #[test]
    fn an_unquoted_value_ends_at_a_blank_or_semicolon() {
        check("NAME=a b\n", &named("a"));
        check("NAME=a;b\n", &named("a"));
        check("NAME = spaced\n", &named("spaced"));
    }

    #[test]
    fn the_last_value_of_a_repeated_field_counts() {
        check("NAME=a\nNAME=b\n", &named("b"));
    }
}
