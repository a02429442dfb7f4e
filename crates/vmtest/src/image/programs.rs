//! Programs for a guest, with the shared libraries they need.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::{output_of, read};
use crate::cpio::Archive;

/// Puts programs into an archive, and each library they need once.
pub(super) struct Programs<'a> {
    archive: &'a mut Archive,
    libraries: BTreeSet<PathBuf>,
    /// A directory for temporary files.
    scratch: &'a Path,
}

impl<'a> Programs<'a> {
    pub(super) fn new(archive: &'a mut Archive, scratch: &'a Path) -> Self {
        Self { archive, libraries: BTreeSet::new(), scratch }
    }

    /// Puts an agent where packages install it, and returns its path in the guest.
    pub(super) fn add_agent(&mut self, program: &Path) -> Result<String> {
        let name =
            program.file_name().and_then(|name| name.to_str()).context("the path of an agent has no file name")?;
        let path = format!("/usr/sbin/{name}");
        self.add(program, &path)?;
        Ok(path)
    }

    /// Puts a program at a path of the guest.
    pub(super) fn add(&mut self, program: &Path, guest_path: &str) -> Result<()> {
        self.archive.file(Path::new(guest_path), 0o755, &self.stripped(program)?)?;
        for library in libraries_of(program)? {
            if self.libraries.insert(library.clone()) {
                self.archive.file(&library, 0o755, &read(&library)?)?;
            }
        }
        Ok(())
    }

    /// The program without its debug information, which is most of it and takes the guest a while to unpack.
    pub(super) fn stripped(&self, program: &Path) -> Result<Vec<u8>> {
        let stripped = self.scratch.join("stripped");
        let is_stripped = Command::new("strip").arg("-o").arg(&stripped).arg(program).status();
        read(if is_stripped.is_ok_and(|status| status.success()) { &stripped } else { program })
    }
}

/// The shared libraries of a program, its loader included, where the loader finds them.
fn libraries_of(program: &Path) -> Result<Vec<PathBuf>> {
    let listing = output_of(Command::new("ldd").arg(program))?;
    parse_libraries(&listing).with_context(|| format!("failed to find the libraries of {}", program.display()))
}

fn parse_libraries(listing: &str) -> Result<Vec<PathBuf>> {
    let mut libraries = Vec::new();
    for line in listing.lines().map(str::trim) {
        let (name, found) = line.split_once(" => ").unwrap_or((line, line));
        if found.starts_with("not found") {
            bail!("{name} is missing");
        }
        // The kernel's own library has no path, and a static program has none at all.
        if let Some(path) = found.split(' ').next().filter(|path| path.starts_with('/')) {
            libraries.push(path.into());
        }
    }
    Ok(libraries)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(listing: &str, expected: &[&str]) {
        let found = parse_libraries(listing).unwrap();
        assert_eq!(found, expected.iter().map(PathBuf::from).collect::<Vec<_>>());
    }

    #[test]
    fn libraries_and_the_loader_are_found_by_path() {
        check(
            "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f00)\n\
             \t/lib64/ld-linux-x86-64.so.2 (0x00007f01)\n",
            &["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"],
        );
        check("\tstatically linked\n", &[]);
        check("\tnot a dynamic executable\n", &[]);
    }

    #[test]
    fn a_missing_library_is_named() {
        let error = parse_libraries("\tlibudev.so.1 => not found\n").unwrap_err();
        assert_eq!(error.to_string(), "libudev.so.1 is missing");
    }
}
