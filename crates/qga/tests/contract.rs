//! The published contract, docs/commands.json and docs/commands.md, is what the types say.
//!
//! `UPDATE_DOCS=1 cargo test -p qga --features schema --test contract` writes both anew; review the diff. Everything in
//! them comes from the list of commands, their types and the documentation on these.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use std::{env, fmt::Write, fs, path::Path};

use qga::{Command, Spec, command::WhileFrozen};
use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

/// One command, as it is published.
struct Entry {
    spec: Spec,
    arguments: Value,
    returns: Value,
}

impl Entry {
    fn of<C: Command<Reply: JsonSchema> + JsonSchema>(generator: &mut SchemaGenerator) -> Self {
        let arguments = without_null(C::json_schema(generator).to_value());
        let returns = without_null(generator.subschema_for::<C::Reply>().to_value());
        Self { spec: C::SPEC, arguments, returns }
    }

    fn to_json(&self) -> Value {
        let spec = &self.spec;
        json!({
            "name": spec.name,
            "class": spec.class.name(),
            "profile": spec.profile.name(),
            "while-frozen": spec.while_frozen != WhileFrozen::Refused,
            "success-response": !spec.silent,
            "deadline-seconds": spec.timeout.as_secs(),
            "arguments": self.arguments,
            "returns": self.returns,
        })
    }
}

/// All commands in the protocol's order, and the types they share.
fn contract() -> (Vec<Entry>, Map<String, Value>) {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    macro_rules! entries {
        ($($command:path),* $(,)?) => { vec![$(Entry::of::<$command>(&mut generator)),*] };
    }
    let entries = qga::for_each_command!(entries);
    let types = generator.take_definitions(true);
    (entries, types.into_iter().map(|(name, schema)| (name, without_null(schema))).collect())
}

/// What is optional may be absent, but is never null, as the types' own descriptions have it.
fn without_null(schema: Value) -> Value {
    match schema {
        Value::Object(mut members) => {
            let choices = members.get_mut("anyOf").and_then(Value::as_array_mut);
            if let Some(choices) = choices {
                choices.retain(|choice| choice["type"] != "null");
            }
            if let Some([only]) = members.get("anyOf").and_then(Value::as_array).map(Vec::as_slice) {
                let only = only.as_object().cloned().unwrap_or_default();
                members.remove("anyOf");
                members.extend(only);
            }
            if let Some([kind, Value::String(null)]) = members.get("type").and_then(Value::as_array).map(Vec::as_slice)
                && null == "null"
            {
                let kind = kind.clone();
                members.insert("type".into(), kind);
            }
            Value::Object(members.into_iter().map(|(name, member)| (name, without_null(member))).collect())
        }
        Value::Array(values) => values.into_iter().map(without_null).collect(),
        other => other,
    }
}

#[test]
fn the_machine_readable_contract_is_current() {
    let (entries, types) = contract();
    let commands: Vec<_> = entries.iter().map(Entry::to_json).collect();
    check("commands.json", &format!("{:#}\n", json!({ "commands": commands, "$defs": types })));
}

#[test]
fn the_readable_contract_is_current() {
    let (entries, types) = contract();
    let mut text = String::from(
        "# Commands\n\nWhat qgad answers. Written from the types in `crates/qga/src/commands`; do not edit.\n\
         A member that need not be there is marked *optional*.\n",
    );
    let first_own = entries.iter().position(|entry| entry.spec.name.starts_with("qgad-"));
    for (index, entry) in entries.iter().enumerate() {
        let spec = &entry.spec;
        if first_own == Some(index) {
            text += "\n# Commands of qgad's own\n\nThe protocol does not have them, and other agents answer that they have \
                     not found them.\n";
        }
        writeln!(text, "\n## {}\n\n{}\n", spec.name, description(&entry.arguments)).unwrap();
        let frozen = if spec.while_frozen != WhileFrozen::Refused { ", served while frozen" } else { "" };
        let silent = if spec.silent { ", answers failures only" } else { "" };
        let audited = if spec.audited { ", audited" } else { "" };
        writeln!(
            text,
            "Class {}, profile {}, at most {} s{frozen}{silent}{audited}.",
            spec.class.name(),
            spec.profile.name(),
            spec.timeout.as_secs()
        )
        .unwrap();
        members(&mut text, "Argument", &entry.arguments);
        writeln!(text, "\nReturns {}.", kind(&entry.returns)).unwrap();
    }
    text += "\n# Types\n";
    for (name, schema) in &types {
        writeln!(text, "\n## {name}\n\n{}", description(schema)).unwrap();
        if let Some(values) = schema["enum"].as_array() {
            let values: Vec<_> = values.iter().map(|value| format!("`{value}`")).collect();
            writeln!(text, "\nOne of {}.", values.join(", ")).unwrap();
        }
        members(&mut text, "Member", schema);
    }
    check("commands.md", &text);
}

#[test]
fn every_command_type_argument_and_member_is_described() {
    let (entries, types) = contract();
    let all = entries.iter().map(|entry| (entry.spec.name, &entry.arguments));
    for (name, schema) in all.chain(types.iter().map(|(name, schema)| (name.as_str(), schema))) {
        let is_described = |schema: &Value| schema["description"].is_string() || schema["contentEncoding"].is_string();
        assert!(is_described(schema), "{name}");
        for (member, schema) in schema["properties"].as_object().into_iter().flatten() {
            assert!(is_described(schema), "{name}: {member}");
        }
    }
}

fn description(schema: &Value) -> &str {
    let encoded = if schema["contentEncoding"] == "base64" { "Bytes as base64: a string." } else { "" };
    schema["description"].as_str().unwrap_or(encoded)
}

/// A table of an object's members, if it has any.
fn members(text: &mut String, title: &str, schema: &Value) {
    let Some(members) = schema["properties"].as_object().filter(|members| !members.is_empty()) else { return };
    writeln!(text, "\n| {title} | Type | |\n|---|---|---|").unwrap();
    for (name, member) in members {
        let is_required = schema["required"].as_array().is_some_and(|required| required.contains(&json!(name)));
        let optional = if is_required { "" } else { ", *optional*" };
        let meaning = description(member).replace('\n', " ").replace('|', "\\|");
        writeln!(text, "| `{name}` | {}{optional} | {meaning} |", kind(member)).unwrap();
    }
}

/// A type in words, with a link to where it is described.
fn kind(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str().and_then(|link| link.strip_prefix("#/$defs/")) {
        return format!("[{name}](#{})", name.to_lowercase());
    }
    match &schema["type"] {
        Value::String(name) if name == "array" => format!("list of {}", kind(&schema["items"])),
        Value::String(name) => name.clone(),
        _ => "any".into(),
    }
}

#[track_caller]
fn check(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name);
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
    }
    let published = fs::read_to_string(&path).unwrap_or_default();
    assert!(published == text, "docs/{name} is out of date: set UPDATE_DOCS=1, run this test again, review the diff");
}
