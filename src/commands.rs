//! What other threads ask of the loop: a bounded queue with one wake however many commands.
//!
//! Knows nothing of the engine. Invariant: a command that was taken in is answered exactly once,
//! also when the server goes: what is left in a closed queue, or waits for the log's decision, is answered
//! `Closed`.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::cursor::Cursor;
use crate::error::Refusal;
use crate::rights::Tokens;

/// A message to publish: its bytes, and what `POST` would say in headers and query.
///
/// ```
/// use tidings::Publication;
/// let price = Publication::from(r#"{"eur":3}"#).with_event("price").with_media_type("application/json");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    /// The payload, byte for byte; may be empty.
    pub payload: Vec<u8>,
    /// The SSE event type, as `?event=`.
    pub event: Option<String>,
    /// The media type, as `Content-Type`.
    pub media_type: Option<String>,
}

impl Publication {
    /// The same with this event.
    pub fn with_event(mut self, event: impl Into<String>) -> Publication {
        self.event = Some(event.into());
        self
    }

    /// The same with this media type.
    pub fn with_media_type(mut self, media_type: impl Into<String>) -> Publication {
        self.media_type = Some(media_type.into());
        self
    }
}

impl From<Vec<u8>> for Publication {
    fn from(payload: Vec<u8>) -> Publication {
        Publication { payload, event: None, media_type: None }
    }
}

impl From<&[u8]> for Publication {
    fn from(payload: &[u8]) -> Publication {
        payload.to_vec().into()
    }
}

impl From<String> for Publication {
    fn from(payload: String) -> Publication {
        payload.into_bytes().into()
    }
}

impl From<&str> for Publication {
    fn from(payload: &str) -> Publication {
        payload.as_bytes().into()
    }
}

/// What became of an accepted message.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// Its id: the cursor just after it.
    pub id: Cursor,
    /// Connections attached to its channel just before delivery.
    pub subscribers: u32,
}

/// Why a publish from inside the program failed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PublishError {
    /// The message breaks a rule of the contract, or the server a limit.
    Refused(Refusal),
    /// `commands_max` commands, or `intake_bytes_max` bytes of them, wait for the loop. Nothing
    /// was queued; try again when it has turned.
    Full,
    /// The server has stopped.
    Closed,
    /// `publish_wait` waited long enough. The message may still be published.
    TimedOut,
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PublishError::Refused(refusal) => refusal.fmt(f),
            PublishError::Full => f.write_str("too many commands wait for the server's loop; try again later"),
            PublishError::Closed => f.write_str("the server has stopped"),
            PublishError::TimedOut => f.write_str("the server's loop did not answer in time"),
        }
    }
}

impl std::error::Error for PublishError {}

/// A picture of the server at the end of a turn.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// The number of the newest message.
    pub head: u64,
    /// Open connections of every kind.
    pub connections: usize,
    /// Of these, subscribers over WebSocket.
    pub websockets: usize,
    /// Of these, SSE streams.
    pub event_streams: usize,
    /// Of these, held long polls.
    pub polls: usize,
    /// Channels known.
    pub channels: usize,
    /// Messages kept.
    pub messages: usize,
    /// Bytes kept, bookkeeping included.
    pub history_bytes: usize,
    /// Bytes of unfinished requests and messages.
    pub intake_bytes: usize,
    /// Bytes accepted for writing that no reader has taken.
    pub output_bytes: usize,
    /// WebSocket messages compressed since the start: each once, whoever takes it.
    pub compressed: u64,
    /// Turns of the loop since the start.
    pub turns: u64,
    /// Wakes by other threads since the start.
    pub wakes: u64,
}

/// Hears what became of a publish. Runs on the loop's thread: be quick.
pub type PublishCallback = Box<dyn FnOnce(Result<Published, PublishError>) + Send>;

/// One wish of another thread.
pub enum Command {
    /// Publish a message to a channel.
    Publish(String, Publication, Option<PublishCallback>),
    /// Say how the server stands.
    Stats(Box<dyn FnOnce(Stats) + Send>),
    /// Take these tokens instead of those before.
    SetTokens(Tokens),
    /// Leave in good order.
    Drain,
    /// Leave at once.
    Stop,
}

impl Command {
    fn bytes(&self) -> usize {
        match self {
            Command::Publish(_, publication, _) => publication.payload.len(),
            _ => 0,
        }
    }
}

/// The queue between `Handle`s and the loop.
pub struct Commands {
    queue: Mutex<Queue>,
    /// There is room again.
    room: Condvar,
    /// A wake is under way that the loop has not answered yet.
    woken: AtomicBool,
    /// Publishes that found the queue full, and that the loop has not heard of.
    refused: AtomicU64,
    wake: Box<dyn Fn() + Send + Sync>,
    commands_max: usize,
    bytes_max: usize,
}

#[derive(Default)]
struct Queue {
    commands: VecDeque<Command>,
    bytes: usize,
    closed: bool,
}

impl Commands {
    /// An empty queue; `wake` makes the loop's wait return.
    pub fn new(commands_max: usize, bytes_max: usize, wake: Box<dyn Fn() + Send + Sync>) -> Commands {
        Commands {
            queue: Mutex::default(),
            room: Condvar::new(),
            woken: AtomicBool::new(false),
            refused: AtomicU64::new(0),
            wake,
            commands_max,
            bytes_max,
        }
    }

    /// Takes a command in, if there is room.
    pub fn push(&self, command: Command) -> Result<(), PublishError> {
        let queue = self.lock();
        if self.is_full(&queue, &command) {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Err(PublishError::Full);
        }
        self.take_in(queue, command)
    }

    /// Takes a command in as soon as there is room for it, but waits no longer than this.
    pub fn push_when_room(&self, command: Command, timeout: Duration) -> Result<(), PublishError> {
        let queue = self.lock();
        let (queue, waited) = self
            .room
            .wait_timeout_while(queue, timeout, |queue| self.is_full(queue, &command))
            .unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() {
            return Err(PublishError::TimedOut);
        }
        self.take_in(queue, command)
    }

    /// Leaving and asking must work also when publishers have filled the queue.
    fn is_full(&self, queue: &Queue, command: &Command) -> bool {
        let over = queue.commands.len() >= self.commands_max || queue.bytes + command.bytes() > self.bytes_max;
        matches!(command, Command::Publish(..)) && over && !queue.commands.is_empty() && !queue.closed
    }

    fn take_in(&self, mut queue: MutexGuard<'_, Queue>, command: Command) -> Result<(), PublishError> {
        if queue.closed {
            return Err(PublishError::Closed);
        }
        queue.bytes += command.bytes();
        queue.commands.push_back(command);
        drop(queue);
        if !self.woken.swap(true, Ordering::AcqRel) {
            (self.wake)();
        }
        Ok(())
    }

    /// The loop is awake. It must say so before it takes commands: a command queued after the
    /// last `pop` then wakes it again.
    pub fn awake(&self) {
        self.woken.store(false, Ordering::Release);
    }

    /// How many publishes found the queue full since it was last asked.
    pub fn take_refused(&self) -> u64 {
        self.refused.swap(0, Ordering::Relaxed)
    }

    /// The oldest command.
    pub fn pop(&self) -> Option<Command> {
        let mut queue = self.lock();
        let command = queue.commands.pop_front()?;
        queue.bytes -= command.bytes();
        self.room.notify_one();
        Some(command)
    }

    /// True if nothing waits.
    pub fn is_empty(&self) -> bool {
        self.lock().commands.is_empty()
    }

    /// The loop is gone: what waits is answered `Closed`, and nothing more is taken in.
    pub fn close(&self) {
        let left = {
            let mut queue = self.lock();
            queue.closed = true;
            queue.bytes = 0;
            std::mem::take(&mut queue.commands)
        };
        self.room.notify_all();
        for command in left {
            if let Command::Publish(_, _, Some(callback)) = command {
                callback(Err(PublishError::Closed));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // No code that can panic runs under the lock, so a poisoned queue is still whole.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    fn counted() -> (Arc<AtomicUsize>, Commands) {
        let wakes = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&wakes);
        let wake = Box::new(move || {
            counter.fetch_add(1, Ordering::SeqCst);
        });
        (wakes, Commands::new(3, 10, wake))
    }

    fn publish(payload: &str) -> Command {
        Command::Publish("c".into(), payload.into(), None)
    }

    #[test]
    fn one_wake_until_the_loop_is_awake() {
        let (wakes, commands) = counted();
        assert!(commands.push(publish("1")).is_ok());
        assert!(commands.push(publish("2")).is_ok());
        assert_eq!(wakes.load(Ordering::SeqCst), 1);
        commands.awake();
        while commands.pop().is_some() {}
        assert!(commands.push(publish("3")).is_ok());
        assert_eq!(wakes.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn bounded_in_number_and_bytes_but_never_mute() {
        let (_, commands) = counted();
        assert!(commands.push(publish("a message above the bound alone is taken")).is_ok());
        assert!(matches!(commands.push(publish("1")), Err(PublishError::Full)));
        assert!(commands.push(Command::Drain).is_ok(), "leaving is always heard");
        assert!(commands.pop().is_some());
        assert!(commands.push(publish("1")).is_ok());
        assert!(commands.push(publish("2")).is_ok());
        assert!(matches!(commands.push(publish("3")), Err(PublishError::Full)));
        assert_eq!(commands.take_refused(), 2);
        let error = PublishError::Full.to_string();
        assert_eq!(error, "too many commands wait for the server's loop; try again later");
    }

    #[test]
    fn who_waits_for_room_waits_no_longer_than_it_said() {
        let (_, commands) = counted();
        for _ in 0..3 {
            assert_eq!(commands.push_when_room(publish("1"), Duration::ZERO), Ok(()));
        }
        assert_eq!(commands.push_when_room(publish("2"), Duration::ZERO), Err(PublishError::TimedOut));
        assert_eq!(commands.take_refused(), 0, "who may wait was not refused");
        assert!(commands.pop().is_some());
        assert_eq!(commands.push_when_room(publish("2"), Duration::ZERO), Ok(()));
        commands.close();
        assert_eq!(commands.push_when_room(publish("3"), Duration::ZERO), Err(PublishError::Closed));
    }

    #[test]
    fn a_closed_queue_answers_what_it_holds() {
        let (_, commands) = counted();
        let (sender, receiver) = std::sync::mpsc::channel();
        let callback: PublishCallback = Box::new(move |result| sender.send(result).expect("the test listens"));
        assert!(commands.push(Command::Publish("c".into(), "1".into(), Some(callback))).is_ok());
        commands.close();
        assert_eq!(receiver.try_recv(), Ok(Err(PublishError::Closed)));
        assert!(matches!(commands.push(publish("1")), Err(PublishError::Closed)));
    }
}
