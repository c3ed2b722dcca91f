//! A push server in one thread: publish a message once, and every subscriber receives it over
//! whichever connection it could open, long poll, Server-Sent Events or WebSocket, with one
//! cursor, one order, and gapless recovery on all three.
//!
//! ```no_run
//! let server = tidings::Server::bind("127.0.0.1:8080", tidings::Config::default())?;
//! let handle = server.handle(); // Clone + Send + Sync
//! std::thread::spawn(move || {
//!     let _ = handle.publish("clock", "tick");
//! });
//! server.run()?; // or, in a loop of your own: server.turn(timeout)
//! # Ok::<(), tidings::Error>(())
//! ```
//!
//! **Threads.** A [`Server`] belongs to the thread that turns it. [`Handle`]s go anywhere. An
//! [`App`] runs on the server's thread.
//!
//! **Paths.** `/channels` and all below it, `/healthz`, `/readyz`, `/metrics` and `/tidings.js` are
//! the server's. All others are the app's, by [`App::request`] and [`App::upgrade`], or nobody's: 404.
//! GET of `/` is the app's too; if it has nothing there, it is the playground. What a client sees is
//! in `docs/protocol.md`, what happens at each bound of [`Config`] in `docs/limits.md`.
//!
//! **The log.** What an operator has to act on, a limit that is reached for instance, is told to the
//! crate `log`, and counted in `/metrics`. A program without a logger hears nothing of it.
//!
//! **The end.** Signals are the program's own. [`Handle::shutdown`] has the server leave in good order
//! ([`Config::drain`]), [`Handle::stop`] at once; then [`Server::run`] returns and [`Server::turn`] says
//! false.
//!
//! **Features.** `cli` (default): what only the binary needs. `deflate` (default): compressed
//! WebSocket messages, for two crates more. Embedders build with `default-features = false` and
//! get seven small crates.

// By layer, from the bottom of the house to its face. Arrows point down only.
mod rights;

mod config;
mod cursor;
mod error;
mod gap;
mod message;
mod names;
mod text;

mod buffer;
mod deadlines;
mod os;
mod slab;

mod protocol;

mod form;

mod connection;
mod hub;
mod pages;
mod route;

mod commands;

mod app;

mod metrics;

mod engine;

mod event_loop;

mod server;

pub use app::{Access, App, Inbound, NoApp, Operation, Reaction, Request, Response, Transport};
pub use commands::{Publication, PublishError, Published, Stats};
pub use config::Config;
pub use cursor::{Cursor, Epoch};
pub use error::{Code, Refusal};
pub use rights::{TokenError, TokenFileError, Tokens};
pub use server::{Error, Handle, Server};

/// The parts below the public face, for this crate's own tests, benchmarks and fuzz targets.
/// Nothing here is covered by the version number.
#[doc(hidden)]
pub mod internals {
    pub use crate::Config;
    pub use crate::buffer::Spares;
    pub use crate::commands::{Command, Commands};
    pub use crate::connection::reader;
    pub use crate::cursor::After;
    pub use crate::event_loop::{EventLoop, Parts, Turn};
    pub use crate::gap::{Gap, GapReason};
    pub use crate::message::{Message, Payload};
    pub use crate::os::{Event, Now, Os, Process};
    pub use crate::protocol::{command, http, json, sse, websocket};

    pub mod form {
        pub use crate::form::*;
    }
    pub mod names {
        pub use crate::names::*;
    }
    pub mod route {
        pub use crate::route::*;
    }
}

/// The steps of a test that tries everything: by one, and under Miri, which takes a thousand times as
/// long, by so many.
#[cfg(test)]
fn stride(under_miri: usize) -> usize {
    if cfg!(miri) { under_miri } else { 1 }
}

/// The README's example is compiled with the others.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
