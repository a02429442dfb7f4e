//! Links the unwinder of the C compiler into the agent, which then needs no shared library but the C library.
//!
//! Where the compiler has no such archive the agent needs `libgcc_s.so.1`, as Rust programs usually do.

use std::{env, path::Path, process::Command};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let is_native = env::var("HOST").ok() == env::var("TARGET").ok();
    if !is_native || env::var("CARGO_CFG_TARGET_ENV").as_deref() != Ok("gnu") {
        return;
    }
    let Ok(output) = Command::new("cc").arg("-print-file-name=libgcc_eh.a").output() else { return };
    let archive = String::from_utf8_lossy(&output.stdout);
    // The bare name means that it was not found.
    if let Some(directory) = Path::new(archive.trim()).parent().filter(|directory| directory.is_absolute()) {
        println!("cargo:rustc-link-search=native={}", directory.display());
        println!("cargo:rustc-link-lib=static:+whole-archive=gcc_eh");
    }
}
