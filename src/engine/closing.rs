//! How WebSockets end: the close frame of either side, and the wait for the other's.
//!
//! A peer that closes is answered; a peer that breaks the protocol is told why; and when the server
//! closes, what comes before the peer's close frame is thrown away. RFC 6455 5.5.1, 7.1.

use super::Engine;
use crate::connection::reader::Reader;
use crate::connection::{CloseReason, Deferred, State};
use crate::protocol::websocket::{self, CloseCode, Opcode};

impl Engine {
    /// RFC 6455 5.5.1: "When sending a Close frame in response, the endpoint typically echos the
    /// status code it received."
    pub(super) fn answer_close(&mut self, index: u32, code: Option<CloseCode>) {
        self.connections[index].own(&mut self.spares).append_with(|out| match code {
            Some(code) => websocket::encode_close(out, code, ""),
            None => websocket::encode_frame(out, Opcode::Close, b""),
        });
        self.queue_ready(index);
        self.finish(index, CloseReason::PeerClosed);
    }

    /// Fails the connection. RFC 6455 7.1.7: we "MUST NOT continue to attempt to process data
    /// (including a responding Close frame) from the remote endpoint": our side ends behind the
    /// close frame, at once.
    pub(super) fn fail(&mut self, index: u32, error: websocket::Error) {
        let connection = &mut self.connections[index];
        connection
            .own(&mut self.spares)
            .append_with(|out| websocket::encode_close(out, error.close_code(), &error.to_string()));
        self.queue_ready(index);
        self.finish(index, CloseReason::Protocol);
    }

    /// Ends a WebSocket with a close frame that says why. RFC 6455 7.1.1, 7.1.2: the peer is to
    /// answer it, and then the server is the first to end its side of the connection.
    pub(super) fn close_websocket(&mut self, index: u32, code: CloseCode, why: &str) {
        let connection = &mut self.connections[index];
        if connection.state != State::WebSocket {
            return;
        }
        connection.own(&mut self.spares).append_with(|out| websocket::encode_close(out, code, why));
        let reason = match code {
            CloseCode::RESTART => CloseReason::Leaving,
            _ => CloseReason::Closed,
        };
        let deferred = self.take_deferred(index);
        self.queue_ready(index);
        // The peer's close frame may have come already, or will not be looked at.
        if let Some(Deferred::Close(_) | Deferred::Failure(_)) = deferred {
            return self.finish(index, reason);
        }
        self.unsubscribe(index);
        self.connections[index].state = State::Closing;
        self.connections[index].reason = reason;
        self.set_deadline(index, self.config.close_timeout);
        if self.connections[index].reader.is_some() {
            self.process_held(index);
        } else {
            self.queue_reader(index);
        }
    }

    /// The peer has answered our close frame, or will not. The deadline stays that of our close
    /// frame: from when it was written.
    pub(super) fn end_closing(&mut self, index: u32) {
        self.connections[index].state = State::Finishing;
        self.drop_input(index);
        self.finish_if_written(index);
    }

    /// Looks for the peer's close frame; returns how many bytes were consumed.
    pub(super) fn process_closing(&mut self, index: u32, reader: &mut Reader, bytes: &[u8]) -> usize {
        match reader.frames.skip_to_close(bytes) {
            Ok((false, consumed)) => consumed,
            // RFC 6455 5.5.1: "After both sending and receiving a Close message, an endpoint
            // considers the WebSocket connection closed". Behind what is no frame none will come.
            Ok((true, _)) | Err(_) => {
                self.end_closing(index);
                bytes.len()
            }
        }
    }
}
