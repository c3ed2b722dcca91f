//! Wire formats: bytes to values and back. No I/O, no clock, no state of the server.

pub mod command;
pub mod http;
pub mod json;
pub mod sse;
pub mod websocket;
