//! One line for each connection at its end, if the operator wishes: who it was and what it did.
//!
//! Knows what the engine tells it. Kept beside the connections, by index, and only while it is
//! switched on: off, an idle connection costs no byte for it.
//!
//! Invariant: a line holds numbers and names of this crate, nothing that a peer has sent: no name
//! of a channel, no token.

use std::fmt;

use crate::app::Transport;
use crate::connection::CloseReason;
use crate::metrics;

/// The open connections, by index.
#[derive(Debug, Default)]
pub(super) struct ConnectionLog {
    records: Vec<Record>,
}

/// What one connection did.
#[derive(Clone, Debug, Default)]
pub(super) struct Record {
    accepted_ms: u64,
    /// What it read last, if anything.
    pub transport: Option<Transport>,
    pub requests: u64,
    /// Messages it sent to be published.
    pub publishes: u64,
    pub deliveries: u64,
    pub received_bytes: u64,
    pub sent_bytes: u64,
}

impl ConnectionLog {
    /// A connection begins.
    pub(super) fn begin(&mut self, index: u32, now_ms: u64) {
        let index = index as usize;
        if self.records.len() <= index {
            self.records.resize_with(index + 1, Record::default);
        }
        self.records[index] = Record { accepted_ms: now_ms, ..Record::default() };
    }

    /// The record of an open connection.
    pub(super) fn of(&mut self, index: u32) -> &mut Record {
        &mut self.records[index as usize]
    }

    /// The line of a connection that ends.
    pub(super) fn end(&self, index: u32, now_ms: u64, reason: CloseReason) -> Line<'_> {
        Line { record: &self.records[index as usize], now_ms, reason }
    }
}

/// `key=value` and spaces, as tools for logs read it.
pub(super) struct Line<'a> {
    record: &'a Record,
    now_ms: u64,
    reason: CloseReason,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Record { accepted_ms, transport, requests, publishes, deliveries, received_bytes, sent_bytes } =
            self.record;
        let transport = transport.map_or("none", metrics::transport_name);
        let ms = self.now_ms - accepted_ms;
        write!(
            f,
            "connection ended: transport={transport} seconds={}.{:03} requests={requests} publishes={publishes} \
             deliveries={deliveries} received_bytes={received_bytes} sent_bytes={sent_bytes} reason={}",
            ms / 1000,
            ms % 1000,
            self.reason.name()
        )
    }
}
