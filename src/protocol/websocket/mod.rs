//! WebSocket, RFC 6455, the server's side: the handshake, a client's frames in, our frames out.
//!
//! Knows nothing of sockets, time or what a message means. It never answers by itself: pings and
//! closes are handed out, and after an [`Error`] the caller sends its `close_code()` and decodes
//! no more. One extension is agreed: permessage-deflate (RFC 7692), without any state of its own
//! between messages; without it all three RSV bits are refused (5.2).
//!
//! ```text
//! bytes --FrameHead--> head --unmask--> payload --Decoder--> Received
//!                                                  |  whole frame: lent from the input
//!                                                  '- otherwise: gathered, and handed over
//! ```
//! Invariant: memory follows the bytes received, never a length announced.

mod close;
mod deflate;
mod error;
mod extensions;
mod frame;
mod gathered;
mod handshake;
mod mask;
mod message;

pub use close::{CloseCode, encode_close};
pub use deflate::{Deflater, Inflater};
pub use error::Error;
pub use extensions::Window;
pub use frame::{Opcode, encode_compressed_frame, encode_frame, frame_head};
pub use gathered::Gathered;
pub use handshake::{Handshake, Subprotocol, accept_handshake, write_handshake_answer};
pub use message::{Decoder, Limits, Received};
