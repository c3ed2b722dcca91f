//! A reader of event streams (WHATWG HTML 9.2.6, "Interpreting an event stream").

use std::collections::VecDeque;

use super::http::{Client, Request, Response};
use super::json;

/// What an EventSource would fire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// `message` if the block named none.
    pub name: String,
    pub data: String,
    /// The last event id when it was fired.
    pub id: String,
}

/// What stands between two blank lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Its lines as sent, comments too.
    pub lines: Vec<String>,
    /// What it fires: nothing without `data`.
    pub event: Option<Event>,
}

/// An open stream.
pub struct EventStream {
    /// The head of the answer.
    pub head: Response,
    /// What a reconnecting EventSource would send.
    pub last_event_id: String,
    /// The last `retry:` in milliseconds.
    pub retry: Option<u64>,
    client: Client,
    chunked: bool,
    ended: bool,
    /// Bytes after the last whole line.
    rest: Vec<u8>,
    lines: Vec<String>,
    blocks: VecDeque<Block>,
}

impl EventStream {
    /// Sends the request; the answer must be an event stream.
    pub fn open(request: Request) -> EventStream {
        let mut client = request.start();
        let head = client.response_head();
        assert_eq!(head.status, 200, "{head:?}");
        let media_type = head.header("Content-Type").unwrap_or_default();
        assert_eq!(media_type.split(';').next(), Some("text/event-stream"), "{head:?}");
        EventStream {
            chunked: head.header("Transfer-Encoding") == Some("chunked"),
            head,
            last_event_id: String::new(),
            retry: None,
            client,
            ended: false,
            rest: Vec::new(),
            lines: Vec::new(),
            blocks: VecDeque::new(),
        }
    }

    /// The next block; `None` at the end of the body. A block cut short by the end is no block.
    pub fn next_block(&mut self) -> Option<Block> {
        while self.blocks.is_empty() && !self.ended {
            let bytes = if self.chunked {
                self.client.chunk()
            } else {
                Some(self.client.some()).filter(|some| !some.is_empty())
            };
            match bytes {
                Some(bytes) => self.take(&bytes),
                None => self.ended = true,
            }
        }
        self.blocks.pop_front()
    }

    /// The next event; `None` at the end of the body.
    pub fn next_event(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.next_block()?.event {
                return Some(event);
            }
        }
    }

    /// The next event's data as JSON.
    pub fn next_json(&mut self) -> json::Value {
        json::parse(&self.next_event().expect("an event").data)
    }

    /// The connection below, for what no EventSource would do.
    pub fn into_client(self) -> Client {
        self.client
    }

    fn take(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
        // A CR at the end may be half of a CRLF, so it waits for what follows.
        while let Some(end) = self.rest.iter().position(|&byte| byte == b'\n' || byte == b'\r') {
            let width = match &self.rest[end..] {
                [b'\r'] => break,
                [b'\r', b'\n', ..] => 2,
                _ => 1,
            };
            let line = String::from_utf8(self.rest[..end].to_vec()).expect("an event stream is UTF-8");
            self.rest.drain(..end + width);
            if line.is_empty() { self.end_block() } else { self.lines.push(line) }
        }
    }

    fn end_block(&mut self) {
        let lines = std::mem::take(&mut self.lines);
        let (mut name, mut data) = (String::new(), String::new());
        for line in &lines {
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => name = value.to_owned(),
                "data" => {
                    data.push_str(value);
                    data.push('\n');
                }
                "id" if !value.contains('\0') => self.last_event_id = value.to_owned(),
                "retry" if value.bytes().all(|byte| byte.is_ascii_digit()) => self.retry = value.parse().ok(),
                _ => {}
            }
        }
        let event = data.pop().map(|_| Event {
            name: if name.is_empty() { "message".to_owned() } else { name },
            data,
            id: self.last_event_id.clone(),
        });
        self.blocks.push_back(Block { lines, event });
    }
}
