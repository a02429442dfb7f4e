//! What travels: bytes to messages, messages to arguments, replies to bytes. Knows no command.
//!
//! In: [`frame`] cuts a byte stream into messages, [`parse`] makes a [`value`] of one, [`message`] checks its envelope
//! and [`args`] reads typed arguments out of it. Out: [`json`] encodes replies, [`message`] frames them.
//! Both ways, [`base64`] carries bytes, and [`error`] holds the refusals.
//! The reading side is ours because the protocol's dialect and the texts of its refusals are what hosts depend on.

pub mod args;
pub mod base64;
pub mod error;
pub mod frame;
pub mod json;
pub mod message;
mod number;
pub mod parse;
mod scan;
mod text;
pub mod value;
