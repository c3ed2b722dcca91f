//! WebSocket, RFC 6455, the server's side: the handshake, a client's frames in, our frames out.
//!
//! Knows nothing of sockets, time or what a message means. It never answers by itself: pings and
//! closes are handed out, and after an [`Error`] the caller sends its `close_code()` and decodes
//! no more. Not offered: extensions; so all three RSV bits are refused (5.2).
//!
//! ```text
//! bytes --FrameHead--> head --unmask--> payload --Decoder--> Received
//!                                                  |  whole frame: lent from the input
//!                                                  '- otherwise: gathered, lent from the decoder
//! ```
//! Invariant: memory follows the bytes received, never a length announced.

mod close;
mod error;
mod frame;
mod handshake;
mod mask;
mod message;

pub use close::{CloseCode, encode_close};
pub use error::Error;
pub use frame::{Opcode, encode_frame, frame_head};
pub use handshake::{Handshake, Subprotocol, accept_handshake, write_handshake_answer};
pub use message::{Decoder, Limits, Received};
