//! What the clients of the simulation share: a connection, what they may touch, what is counted.
//!
//! A client acts a little at a time, tells the oracle what it sent and heard, and knows nothing of
//! the engine. When the world is `calm` it behaves: it reads at once, cuts nothing, and comes back
//! when it was cut off.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::clients::{self, Offer, Result};
use crate::kernel::{Ending, Kernel, Rng};

use super::excuses::{Asked, Excuses};
use super::oracle::Model;

/// The channels of the simulation; the observer hears them all.
pub const CHANNELS: [&str; 5] = ["a", "b", "c", "news.eu", "x:y~z@1-2_3"];

/// What happened, so that a run that tests nothing is seen.
pub type Coverage = BTreeMap<String, u64>;

pub fn count(coverage: &mut Coverage, what: impl Into<String>) {
    *coverage.entry(what.into()).or_default() += 1;
}

/// What an actor may touch.
pub struct Surroundings<'a> {
    pub kernel: &'a mut Kernel,
    pub model: &'a mut Model,
    pub rng: &'a mut Rng,
    pub coverage: &'a mut Coverage,
    pub calm: bool,
    pub trials: &'a mut Trials,
    pub excuses: &'a Excuses,
}

/// What only hard worlds have, with randomness of its own.
#[derive(Debug, Default)]
pub struct Trials {
    pub hard: Option<Rng>,
    /// Clients are to show this.
    pub token: Option<String>,
}

impl Surroundings<'_> {
    /// A refusal must have its excuse, which is counted.
    pub fn excuse(&mut self, asked: &Asked, code: &str) -> Result<()> {
        let why = self.excuses.of(self.kernel, asked, code);
        self.excused(why, || code.to_string(), asked)
    }

    /// The same of a close, an end of a stream, an end without a word.
    pub fn excused(&mut self, why: Option<&str>, what: impl Fn() -> String, asked: &Asked) -> Result<()> {
        let why = why.ok_or_else(|| format!("{} without an excuse: {asked:?}", what()))?;
        count(self.coverage, format!("excused: {}, {why}", what()));
        Ok(())
    }

    pub fn one_in(&mut self, odds: u64) -> bool {
        self.trials.hard.as_mut().is_some_and(|hard| hard.one_in(odds))
    }
}

/// A query that shows this token.
pub fn shown(query: String, token: Option<&String>) -> String {
    match token {
        None => query,
        Some(token) if query.is_empty() => format!("?token={token}"),
        Some(token) => format!("{query}&token={token}"),
    }
}

/// What to offer of permessage-deflate, if anything.
pub fn offer(ways: &mut Option<Rng>) -> Option<Offer> {
    let rng = ways.as_mut()?;
    let window_bits = rng.pick(&[None, None, Some(9), Some(10), Some(11), Some(12), Some(13), Some(14), Some(15)]);
    (!rng.one_in(4)).then_some(Offer { window_bits })
}

/// Commands of tidings.v1 that change a set and are not answered, oldest first.
#[derive(Default)]
pub struct Changes(VecDeque<(&'static str, &'static str)>);

impl Changes {
    /// The frame of one more: the channel comes in, or leaves.
    pub fn ask(&mut self, word: &'static str, channel: &'static str) -> Vec<u8> {
        self.0.push_back((word, channel));
        clients::client_frame(clients::TEXT, format!("{word} {channel}").as_bytes())
    }

    /// The set is now what the oldest command has made of it.
    pub fn made(&mut self, mut set: BTreeSet<String>, channels: &[String]) -> Result<()> {
        let (word, channel) = self.0.pop_front().ok_or("an answer to nothing")?;
        match word {
            "subscribe" => set.insert(channel.to_string()),
            _ => set.remove(channel),
        };
        if set.iter().eq(channels) { Ok(()) } else { Err(format!("{word} {channel} made {channels:?} of the set")) }
    }

    /// The oldest was refused.
    pub fn refused(&mut self) -> Result<()> {
        self.0.pop_front().map(drop).ok_or_else(|| "an answer to nothing".to_string())
    }

    /// The connection is gone, and who asked with it.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

/// A connection, and the bytes that wait for room on it.
pub struct Line {
    pub asked: Asked,
    pub out: Vec<u8>,
}

impl Line {
    pub fn open(world: &mut Surroundings<'_>, out: Vec<u8>) -> Line {
        let wire = world.kernel.connect();
        let token = world.trials.token.clone();
        Line { asked: Asked::new(wire, world.kernel.now_ms(), token, world.excuses), out }
    }

    /// Sends at most so many bytes.
    pub fn send(&mut self, world: &mut Surroundings<'_>, bytes_max: usize) {
        let end = self.out.len().min(bytes_max);
        let taken = world.kernel.send(self.asked.wire, &self.out[..end]);
        self.out.drain(..taken);
        self.asked.acts(world.kernel, taken > 0, !self.out.is_empty());
    }

    /// Receives at most so many bytes.
    pub fn receive(&mut self, world: &mut Surroundings<'_>, bytes_max: usize) -> Vec<u8> {
        let bytes = world.kernel.receive(self.asked.wire, bytes_max);
        self.asked.reads(world.kernel, !bytes.is_empty());
        bytes
    }

    /// The server need not have read what was asked for last.
    pub fn is_unread(&self, world: &Surroundings<'_>) -> bool {
        !self.out.is_empty() || self.asked.was_just_sent(world.kernel)
    }

    /// How it has ended, if it has: not without an excuse.
    pub fn ending(&self, world: &mut Surroundings<'_>, is_idle: bool) -> Result<Option<Ending>> {
        let Some(ending) = world.kernel.ending(self.asked.wire) else { return Ok(None) };
        let why = world.excuses.of_ending(world.kernel, &self.asked, is_idle);
        world.excused(why, || "ended".into(), &self.asked)?;
        Ok(Some(ending))
    }
}
