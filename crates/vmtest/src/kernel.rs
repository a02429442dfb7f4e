//! Debian's kernel, unpacked by `tools/fetch-kernel`, and its modules.
//!
//! The package has no list of dependencies: depmod makes one at the installation. Each module names its own.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, anyhow, bail};

/// A kernel that a VM can boot.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// Its release: `6.1.0-56-amd64`.
    pub release: String,
    /// The file that QEMU loads, uncompressed: an emulated processor would take longer to decompress it than to boot.
    pub image: PathBuf,
    /// The same kernel, compressed as it is installed.
    pub compressed: PathBuf,
    /// `lib/modules/RELEASE` of the unpacked package.
    modules: PathBuf,
}

/// A module of the kernel.
#[derive(Clone, Debug)]
pub struct Module {
    /// With underscores only, as the kernel shows it.
    pub name: String,
    /// Where it stands below `/lib/modules/RELEASE`, not compressed.
    pub path: String,
    /// What the kernel loads.
    pub content: Vec<u8>,
}

impl Kernel {
    /// The newest kernel unpacked in a directory.
    ///
    /// # Errors
    /// When there is none.
    pub fn find(cache: &Path) -> Result<Self> {
        let missing = || anyhow!("no kernel in {} (run tools/fetch-kernel)", cache.display());
        let mut packages: Vec<_> =
            fs::read_dir(cache).map_err(|_| missing())?.filter_map(|entry| Some(entry.ok()?.path())).collect();
        packages.sort();
        packages.iter().rev().find_map(|package| Self::in_package(package)).ok_or_else(missing)
    }

    fn in_package(package: &Path) -> Option<Self> {
        let modules = fs::read_dir(package.join("lib/modules")).ok()?.find_map(|entry| Some(entry.ok()?.path()))?;
        let release = modules.file_name()?.to_str()?.to_owned();
        let image = package.join("boot").join(format!("vmlinux-{release}"));
        let compressed = package.join("boot").join(format!("vmlinuz-{release}"));
        image.exists().then_some(Self { release, image, compressed, modules })
    }

    /// The modules of these names and their dependencies, each after its own. Those built into the kernel are left out.
    ///
    /// # Errors
    /// When the kernel lacks one.
    pub fn modules(&self, names: &[&str]) -> Result<Vec<Module>> {
        let list = |file: &str| {
            let path = self.modules.join(file);
            fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))
        };
        let loadable = paths_by_name(&list("modules.order")?);
        let built_in = paths_by_name(&list("modules.builtin")?);
        let mut found: Vec<Module> = Vec::new();
        // A stack: a module stays below its dependencies until they are found.
        let mut wanted: Vec<String> = names.iter().rev().map(|name| (*name).to_owned()).collect();
        while let Some(name) = wanted.last().cloned() {
            let is_known = |name: &str| found.iter().any(|module| module.name == name) || built_in.contains_key(name);
            if is_known(&name) {
                wanted.pop();
                continue;
            }
            let path = loadable.get(&name).with_context(|| format!("the kernel has no module {name}"))?;
            let content = self.read(path)?;
            let needs = needs_of(&content);
            let missing: Vec<_> = needs.iter().filter(|need| !is_known(need)).cloned().collect();
            if missing.is_empty() {
                wanted.pop();
                found.push(Module { name, path: path.clone(), content });
            } else if wanted.len() > loadable.len() {
                bail!("the kernel's modules need each other in a circle: {name}");
            } else {
                wanted.extend(missing);
            }
        }
        Ok(found)
    }

    fn read(&self, path: &str) -> Result<Vec<u8>> {
        let plain = self.modules.join(path);
        if let Ok(content) = fs::read(&plain) {
            return Ok(content);
        }
        let compressed = PathBuf::from(format!("{}.xz", plain.display()));
        let output = Command::new("xz")
            .args(["--decompress", "--stdout"])
            .arg(&compressed)
            .output()
            .with_context(|| format!("failed to run xz for {}", compressed.display()))?;
        if !output.status.success() {
            bail!("failed to read module {} or its .xz", plain.display());
        }
        Ok(output.stdout)
    }
}

fn paths_by_name(list: &str) -> BTreeMap<String, String> {
    list.lines()
        .filter_map(|path| {
            let name = path.rsplit('/').next()?.strip_suffix(".ko")?.replace('-', "_");
            Some((name, path.to_owned()))
        })
        .collect()
}

/// What a module says it depends on, in its own `depends=` text.
fn needs_of(content: &[u8]) -> Vec<String> {
    const MARK: &[u8] = b"\0depends=";
    let Some(start) = content.windows(MARK.len()).position(|window| window == MARK) else { return Vec::new() };
    let text = &content[start + MARK.len()..];
    let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
    let text = String::from_utf8_lossy(&text[..end]);
    text.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(modules: &[(&str, &str)], wanted: &[&str], expected: &[&str]) {
        let cache = tempfile::tempdir().unwrap();
        let package = cache.path().join("linux-image-9");
        let folder = package.join("lib/modules/9");
        fs::create_dir_all(&folder).unwrap();
        fs::create_dir_all(package.join("boot")).unwrap();
        fs::write(package.join("boot/vmlinux-9"), "").unwrap();
        fs::write(folder.join("modules.builtin"), "kernel/inside.ko\n").unwrap();
        let mut order = String::new();
        for (name, needs) in modules {
            order += &format!("kernel-{name}.ko\n");
            fs::write(folder.join(format!("kernel-{name}.ko")), format!("ELF\0depends={needs}\0x")).unwrap();
        }
        fs::write(folder.join("modules.order"), order.replace("kernel-", "kernel/")).unwrap();
        fs::create_dir(folder.join("kernel")).unwrap();
        for (name, _) in modules {
            fs::rename(folder.join(format!("kernel-{name}.ko")), folder.join(format!("kernel/{name}.ko"))).unwrap();
        }
        let found = Kernel::find(cache.path()).unwrap().modules(wanted);
        let names = found.map(|found| found.into_iter().map(|module| module.name).collect::<Vec<_>>());
        assert_eq!(names.unwrap_or_else(|error| vec![error.to_string()]), expected);
    }

    #[test]
    fn a_module_comes_after_all_it_needs_and_once() {
        let modules = [("top", "left,right"), ("left", "bottom"), ("right", "bottom,inside"), ("bottom", "")];
        check(&modules, &["top", "bottom"], &["bottom", "right", "left", "top"]);
    }

    #[test]
    fn dashes_and_underscores_are_the_same() {
        check(&[("one-two", ""), ("top", "one-two")], &["top"], &["one_two", "top"]);
    }

    #[test]
    fn what_is_built_in_needs_no_loading() {
        check(&[], &["inside"], &[]);
    }

    #[test]
    fn a_module_that_is_missing_or_needs_itself_is_named() {
        check(&[("top", "gone")], &["top"], &["the kernel has no module gone"]);
        check(&[("one", "two"), ("two", "one")], &["one"], &["the kernel's modules need each other in a circle: one"]);
    }
}
