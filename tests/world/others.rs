//! Who else is in the world: other threads of the process with their handles, and strangers who
//! send what is no request, or half of one.
//!
//! Both draw from randomness of their own, so that a world without them is the run it was.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tidings::internals::{Command, Commands};
use tidings::{Publication, PublishError, Published, Tokens};

use crate::clients::{self, Place, Result};
use crate::kernel::{Kernel, Rng, Wire};

use super::actors::{CHANNELS, Coverage, count};
use super::model::{Model, Sent};

/// Channels that only other threads publish to, and that the observer does not read: so they are
/// forgotten, and born again.
pub const PASSING: [&str; 4] = ["passing.1", "passing.2", "passing.3", "passing.4"];

/// The commands of a process, made anew at each start.
pub fn commands(woken: &Arc<AtomicBool>, commands_max: usize) -> Arc<Commands> {
    let woken = Arc::clone(woken);
    let wake = Box::new(move || woken.store(true, Ordering::Relaxed));
    Arc::new(Commands::new(commands_max, 64 * 1024 * 1024, wake))
}

type Told = Arc<Mutex<Vec<(String, std::result::Result<Published, PublishError>)>>>;

/// Another thread that publishes by a `Handle`, between the turns and in the middle of a wait.
pub struct Thread {
    pub commands: Arc<Commands>,
    told: Told,
    sent: usize,
    waiting: Vec<String>,
}

impl Thread {
    pub fn new(commands: Arc<Commands>) -> Thread {
        Thread { commands, told: Arc::default(), sent: 0, waiting: Vec::new() }
    }

    pub fn act(&mut self, kernel: &mut Kernel, model: &mut Model, rng: &mut Rng) {
        for _ in 0..rng.pick(&[0, 0, 1, 1, 2, 6]) {
            let tag = format!("t.{}", self.sent);
            self.sent += 1;
            let channel = if rng.one_in(2) { rng.pick(&PASSING) } else { rng.pick(&CHANNELS) };
            let payload = format!("{tag} {}", "thread ".repeat(rng.below(20) as usize)).into_bytes();
            let sent = Sent { channel: channel.into(), event: None, media_type: None, payload: payload.clone() };
            model.sent.insert(tag.clone(), sent);
            model.in_flight.insert(tag.clone());
            self.waiting.push(tag.clone());
            let (commands, told) = (Arc::clone(&self.commands), Arc::clone(&self.told));
            let push = move || {
                let (answered, name) = (Arc::clone(&told), tag.clone());
                let callback = Box::new(move |result| {
                    answered.lock().expect("nobody panics in it").push((name, result));
                });
                let publication = Publication::from(payload);
                if let Err(why) = commands.push(Command::Publish(channel.into(), publication, Some(callback))) {
                    told.lock().expect("nobody panics in it").push((tag, Err(why)));
                }
            };
            if rng.one_in(3) {
                kernel.in_wait.push_back(Box::new(push));
            } else {
                push();
            }
        }
    }

    /// What the callbacks have told since. Each publish is told of once.
    pub fn hears(&mut self, model: &mut Model, coverage: &mut Coverage) -> Result<()> {
        let told = std::mem::take(&mut *self.told.lock().map_err(|_| "a callback panicked")?);
        for (tag, result) in told {
            self.takes(&tag)?;
            let what = match result {
                Ok(published) => {
                    let place = Place { epoch: published.id.epoch.number(), seq: published.id.seq };
                    if PASSING.contains(&model.sent[&tag].channel.as_str()) {
                        model.passed(place, tag)?;
                        "published to a passing channel"
                    } else {
                        model.answered(place, tag);
                        "published by a thread"
                    }
                }
                Err(why) => {
                    model.in_flight.remove(&tag);
                    match why {
                        PublishError::Full => "a thread found the queue full",
                        PublishError::Closed => "a thread found the server gone",
                        PublishError::Refused(refusal) if refusal.code.name() == "channels_full" => "channels full",
                        PublishError::Refused(refusal) if refusal.code.name() == "draining" => "draining, to a thread",
                        other => return Err(format!("a thread was told {other} of {tag}")),
                    }
                }
            };
            count(coverage, what);
        }
        Ok(())
    }

    fn takes(&mut self, tag: &str) -> Result<()> {
        let place = self.waiting.iter().position(|waiting| waiting == tag);
        self.waiting.remove(place.ok_or_else(|| format!("{tag} was told of twice"))?);
        Ok(())
    }

    /// At the end: each was told of.
    pub fn is_answered(&self) -> Result<()> {
        if self.waiting.is_empty() { Ok(()) } else { Err(format!("a thread was never told of {:?}", self.waiting)) }
    }
}

/// Sends what it likes and leaves when it likes.
#[derive(Default)]
pub struct Stranger {
    wire: Option<Wire>,
    out: Vec<u8>,
}

impl Stranger {
    pub fn act(&mut self, kernel: &mut Kernel, rng: &mut Rng, coverage: &mut Coverage) {
        let Some(wire) = self.wire else {
            self.wire = Some(kernel.connect());
            self.out = garbage(rng);
            return count(coverage, "a stranger came");
        };
        let end = self.out.len().min(rng.pick(&[1, 30, usize::MAX]));
        let taken = kernel.send(wire, &self.out[..end]);
        self.out.drain(..taken);
        kernel.receive(wire, rng.pick(&[0, 1, usize::MAX]));
        match rng.below(12) {
            0 => kernel.reset(wire),
            1 => kernel.half_close(wire),
            2 => return self.leave(kernel),
            _ => {}
        }
        if kernel.ending(wire).is_some() {
            self.leave(kernel);
        }
    }

    /// It goes for good.
    pub fn leave(&mut self, kernel: &mut Kernel) {
        if let Some(wire) = self.wire.take() {
            kernel.close_client(wire);
        }
    }
}

/// Nothing that publishes: cut anywhere, or with a byte changed, of requests that only read.
fn garbage(rng: &mut Rng) -> Vec<u8> {
    let kind = rng.below(6);
    let mut bytes = match kind {
        0 => (0..rng.below(400)).map(|_| rng.bits() as u8).collect(),
        1 => clients::get("a", "?after=earliest&wait=5", "Accept: text/event-stream\r\n"),
        2 => clients::get("a,b", "?after=now&wait=5", ""),
        3 => clients::upgrade("a", "?after=1-1", Some("tidings.v1")),
        4 => {
            let mut bytes = clients::upgrade("b", "", Some("tidings.v1"));
            bytes.extend(clients::client_frame(rng.below(16) as u8, b"subscribe c"));
            bytes.extend((0..rng.below(50)).map(|_| rng.bits() as u8));
            bytes
        }
        _ => format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(20_000)).into_bytes(),
    };
    // No change makes a POST of it; of a frame's subprotocol one could make a publish.
    if rng.one_in(2) && kind != 4 && !bytes.is_empty() {
        let at = rng.below(bytes.len() as u64) as usize;
        bytes[at] ^= 1 << rng.below(8);
    }
    bytes.truncate(1 + rng.below(bytes.len().max(1) as u64) as usize);
    bytes
}

/// Tokens of which one is always good, for the observer.
pub fn tokens(also: &[&str]) -> Tokens {
    let mut tokens = Tokens::default();
    // One of this kind, and reading needs a token too.
    tokens.allow_subscribe(KEEPER, "").expect("a token of this form is allowed");
    for token in also.iter().chain(&[KEEPER]) {
        tokens.allow_publish(token, "").expect("a token of this form is allowed");
    }
    tokens
}

/// The observer's token.
pub const KEEPER: &str = "keeper";
