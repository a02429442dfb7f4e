//! The folders of `src` are layers: a folder imports from those below it, so that no two of them need each other.

use std::{fs, io, path::Path};

/// From the top to the bottom. `main.rs` stands above them all.
const LAYERS: [&str; 21] = [
    "published",
    "startup",
    "serve",
    "commands",
    "guest",
    "policy",
    "config",
    "channel",
    "service",
    "freeze",
    "machine",
    "accounts",
    "storage",
    "process",
    "open_files",
    "activity",
    "logging",
    "environment",
    "root",
    "util",
    "sys",
];

fn layer_of(name: &str) -> usize {
    LAYERS.iter().position(|layer| *layer == name).unwrap_or_else(|| panic!("{name} is in no layer"))
}

/// The layers that a file names behind `crate::`, one by one or in a group.
fn imports(text: &str) -> Vec<String> {
    let code: String = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    code.split("crate::").skip(1).flat_map(first_names).collect()
}

/// `a::b` names `a`, and `{a::{b, c}, d}` names `a` and `d`.
fn first_names(path: &str) -> Vec<String> {
    let Some(group) = path.strip_prefix('{') else { return vec![first_word(path)] };
    let mut depth = 0;
    let mut count = move |c| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        depth
    };
    let depths: Vec<_> = group.char_indices().map(|(index, c)| (index, c, count(c))).collect();
    let commas = depths.iter().take_while(|(.., depth)| *depth >= 0).filter(|(_, c, depth)| *c == ',' && *depth == 0);
    let starts = [0].into_iter().chain(commas.map(|(index, ..)| index + 1));
    starts.map(|start| first_word(&group[start..])).filter(|name| !name.is_empty()).collect()
}

fn first_word(text: &str) -> String {
    text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// What a file, or one in this directory, imports from above its layer.
fn upward_imports(path: &Path, layer: &str) -> io::Result<Vec<String>> {
    let mut upward = Vec::new();
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            upward.extend(upward_imports(&entry?.path(), layer)?);
        }
        return Ok(upward);
    }
    let imports = imports(&fs::read_to_string(path)?).into_iter();
    let above = imports.filter(|import| layer_of(import) < layer_of(layer));
    Ok(above.map(|import| format!("{} imports {import}, which lies above it", path.display())).collect())
}

#[test]
fn a_layer_imports_from_those_below_it_only() {
    let mut upward = Vec::new();
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap() {
        let path = entry.unwrap().path();
        let layer = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if layer != "main" {
            upward.extend(upward_imports(&path, &layer).unwrap());
        }
    }
    assert!(upward.is_empty(), "{}", upward.join("\n"));
}

#[test]
fn imports_are_found_in_groups_and_in_paths() {
    let text = "use crate::{\n    a::{b, c},\n    d,\n};\n// crate::no\nlet x = crate::e::f();";
    assert_eq!(imports(text), ["a", "d", "e"]);
}
