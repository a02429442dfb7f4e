//! The crate's modules and the wire's files are layers: each imports from those below it only.
//!
//! So [`qga::wire`] knows no command, and the contract knows no client.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use std::{fs, path::Path};

/// The crate's modules, from the top to the bottom.
const CRATE: [&str; 5] = ["client", "kernel", "commands", "command", "wire"];

/// The files of `wire`, from the top to the bottom.
const WIRE: [&str; 11] =
    ["message", "args", "frame", "parse", "base64", "json", "value", "number", "error", "text", "scan"];

/// The text of each module in a folder, with the module's name. Files of a nested folder count as one module.
fn modules(folder: &Path) -> Vec<(String, String)> {
    let mut modules = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let text = if path.is_dir() {
            self::modules(&path).into_iter().map(|(_, text)| text).collect()
        } else {
            fs::read_to_string(&path).unwrap()
        };
        modules.push((name, text));
    }
    modules
}

/// The names that code imports behind `prefix`: `a` of `a::b`, `a` and `d` of `{a::{b, c}, d}`.
fn imports(text: &str, prefix: &str) -> Vec<String> {
    let code: String = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    code.split(prefix).skip(1).flat_map(first_names).collect()
}

fn first_names(path: &str) -> Vec<String> {
    let word = |text: &str| text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    let Some(group) = path.strip_prefix('{') else { return vec![word(path)] };
    let mut names = vec![word(group)];
    let mut depth = 0;
    for (index, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.push(word(&group[index + 1..])),
            _ => {}
        }
    }
    names
}

/// Every module of the folder is in the order, and imports by `prefix` only what stands behind it there.
fn check(folder: &str, prefix: &str, order: &[&str]) {
    let rank = |name: &str| order.iter().position(|layer| *layer == name);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(folder);
    for (module, text) in modules(&folder).iter().filter(|(module, _)| !["lib", "mod"].contains(&module.as_str())) {
        let own = rank(module).unwrap_or_else(|| panic!("{module} is in no layer"));
        for import in imports(text, prefix) {
            assert!(rank(&import).is_none_or(|rank| rank >= own), "{module} imports {import}, which is above it");
        }
    }
}

#[test]
fn a_module_of_the_crate_imports_only_from_those_below_it() {
    check("", "crate::", &CRATE);
}

#[test]
fn a_file_of_the_wire_imports_only_from_those_below_it() {
    check("wire", "super::", &WIRE);
    check("wire", "crate::wire::", &WIRE);
}

#[test]
fn the_client_works_with_any_agent_and_never_mentions_ours() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/client");
    for (module, text) in modules(&folder) {
        assert!(!text.contains("qgad"), "{module}");
    }
}

#[test]
fn imports_are_found_in_groups_and_in_paths() {
    let text = "use super::{\n    a::{b, c},\n    d,\n};\n// super::no\nlet x = super::super::e::f(); use super::*;";
    assert_eq!(imports(text, "super::"), ["a", "d", "", "", "e", ""]);
}
