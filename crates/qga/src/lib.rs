//! The QEMU guest agent protocol, for agents and for anyone's host software.
//!
//! Three layers, each ignorant of the next: [`wire`] is what travels and knows no command; [`commands`] is the
//! contract, one data type a command; [`client`] holds the host's side of a conversation. [`kernel`] reads Linux's own
//! files into the contract's types, for both sides.
//! There are no operating system calls here beyond the standard library's reads and writes, and no unsafe code.

#![forbid(unsafe_code)]

pub mod client;
pub mod command;
pub mod commands;
pub mod kernel;
pub mod wire;

pub use client::Client;
pub use command::{Class, Command, Profile, Spec};
