//! Any arguments are read or refused by every command, with a text. None is read as something else than it says.
//!
//! What a command reads is encoded and read again, and must be the same.

#![no_main]

use qga::{
    for_each_command,
    wire::{args, json, parse::parse, value::Value},
};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Ok(Value::Object(arguments)) = parse(input) else { return };
    macro_rules! check {
        ($($command:path),* $(,)?) => {
            $(match args::read::<$command>(&arguments) {
                Ok(command) => check_round_trip(&json::to_vec(&command), |again| {
                    args::read::<$command>(again).map(|again| json::to_vec(&again)).map_err(|error| error.desc)
                }),
                Err(error) => assert!(!error.desc.is_empty()),
            })*
        };
    }
    for_each_command!(check);
});

fn check_round_trip(text: &[u8], read: impl Fn(&qga::wire::value::Object<'_>) -> Result<Vec<u8>, String>) {
    match parse(text) {
        Ok(Value::Object(arguments)) => assert_eq!(read(&arguments).as_deref(), Ok(text)),
        other => panic!("arguments are encoded as an object: {other:?}"),
    }
}
