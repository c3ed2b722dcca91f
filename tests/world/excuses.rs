//! What a client may be refused through no fault of its own, and when its connection may end.
//!
//! Each excuse names the precise case and is counted; whatever is not here fails the run.

use std::collections::{BTreeMap, BTreeSet};

use tidings::internals::Config;

use crate::clients::{Place, Result};
use crate::kernel::{Kernel, LATE_MS_MAX, Wire};

use super::actors::CHANNELS;
use super::others::PASSING;

/// Deadlines are kept in steps of this.
const TICK_MS: u64 = 50;

/// What has happened that excuses something.
#[derive(Debug, Default)]
pub struct Excuses {
    /// Lives of the process, this one included; the first is 0.
    pub life: u32,
    /// Lives in which the server was told to leave.
    left: BTreeSet<u32>,
    /// The tokens that are good now.
    good: BTreeSet<String>,
    /// Tokens that are not any more: since which life, and which place in its log.
    revoked: BTreeMap<String, (u32, Place)>,
    request_ms: u64,
    /// Without a request, or a whole head of the first.
    idle_ms: u64,
    close_ms: u64,
    stall_ms: u64,
    ping_ms: u64,
    connections_max: usize,
    lacks_channels: bool,
}

/// A connection as its client knows it.
#[derive(Clone, Debug)]
pub struct Asked {
    pub wire: Wire,
    /// In which life of the process it began.
    pub life: u32,
    /// The token of the request.
    pub token: Option<String>,
    /// A channel was asked for that there may be no room for.
    pub passing: bool,
    /// When the request began, if not earlier.
    pub began_ms: u64,
    /// When the server may have said the last that was heard, if not later.
    quiet_ms: u64,
    /// The client has ended it, or half of it.
    pub own_doing: bool,
    /// The client answers no pings.
    pub mute: bool,
    /// Its form cannot tell of a loss.
    pub raw: bool,
    /// The server has said that the end follows.
    pub told: bool,
    /// When the client looked last, and the time before.
    acted_ms: u64,
    pub looked_ms: u64,
    /// When something was last sent, in time that the server was awake; `None`: some of it waits still.
    sent_ms: Option<u64>,
    /// When it had last read everything that was there.
    drained_ms: u64,
    /// The last such moment of which everything is answered.
    answered_ms: u64,
}

impl Asked {
    pub fn new(wire: Wire, now_ms: u64, token: Option<String>, excuses: &Excuses) -> Asked {
        Asked {
            wire,
            life: excuses.life,
            token,
            passing: false,
            began_ms: now_ms,
            quiet_ms: now_ms,
            own_doing: false,
            mute: false,
            raw: false,
            told: false,
            acted_ms: now_ms,
            looked_ms: now_ms,
            sent_ms: None,
            drained_ms: now_ms,
            answered_ms: now_ms,
        }
    }

    /// The client looks at its connection, and has sent what it could.
    pub fn acts(&mut self, kernel: &Kernel, has_sent: bool, has_more: bool) {
        if has_more {
            self.sent_ms = None;
        } else if has_sent || self.sent_ms.is_none() {
            self.sent_ms = Some(kernel.awake_ms());
        }
        if !has_more && !self.mute {
            self.answered_ms = self.drained_ms;
        }
        self.looked_ms = self.acted_ms;
        self.acted_ms = kernel.now_ms();
    }

    /// The client has read what it wanted of what was there.
    pub fn reads(&mut self, kernel: &Kernel, has_read: bool) {
        if has_read {
            self.quiet_ms = self.drained_ms;
        }
        if kernel.is_drained(self.wire) {
            self.drained_ms = kernel.now_ms();
        }
    }

    /// For how long the client had left something unread or unanswered when the server let go.
    fn neglected_ms(&self, kernel: &Kernel) -> u64 {
        kernel.let_go_ms(self.wire).map_or(0, |end_ms| end_ms.saturating_sub(self.answered_ms))
    }

    /// So lately sent, or accepted, that the server need not have read it.
    pub fn was_just_sent(&self, kernel: &Kernel) -> bool {
        let accepted_ms = kernel.accepted_ms(self.wire);
        self.sent_ms.is_none_or(|sent_ms| kernel.awake_ms() - sent_ms.max(accepted_ms) <= LATE_MS_MAX)
    }
}

impl Excuses {
    pub fn new(config: &Config) -> Excuses {
        let ms = |time: std::time::Duration| time.as_millis() as u64;
        Excuses {
            request_ms: ms(config.head_timeout.min(config.body_timeout)) - TICK_MS,
            idle_ms: ms(config.idle_timeout.min(config.head_timeout)) - TICK_MS,
            close_ms: ms(config.close_timeout) - TICK_MS - LATE_MS_MAX,
            stall_ms: ms(config.stall_timeout) - TICK_MS,
            ping_ms: ms(config.ping) - TICK_MS - LATE_MS_MAX,
            connections_max: config.connections_max,
            lacks_channels: config.channels_max < CHANNELS.len() + PASSING.len(),
            ..Excuses::default()
        }
    }

    /// The server of this life is told to leave.
    pub fn leaves(&mut self) {
        self.left.insert(self.life);
    }

    pub fn is_leaving(&self) -> bool {
        self.left.contains(&self.life)
    }

    /// The observer, who reads them, may have been asked to go: then even these channels may be
    /// forgotten, and others be in their place.
    pub fn may_lack_channels(&self) -> bool {
        self.lacks_channels && self.is_leaving()
    }

    /// From now on these tokens are good, and no others. Until the server has taken them, `since`
    /// is not known: `u64::MAX`.
    pub fn takes_tokens(&mut self, good: BTreeSet<String>, since: Place) {
        let life = self.life;
        self.revoked.extend(self.good.difference(&good).map(|token| (token.clone(), (life, since))));
        self.good = good;
    }

    /// The server has taken them at this place of its log.
    pub fn has_taken_tokens(&mut self, head: u64) {
        self.revoked.values_mut().filter(|(_, since)| since.seq == u64::MAX).for_each(|(_, since)| since.seq = head);
    }

    fn is_revoked(&self, asked: &Asked) -> bool {
        asked.token.as_ref().is_some_and(|token| self.revoked.contains_key(token))
    }

    /// Why a request may be refused so; `None`: it may not.
    pub fn of(&self, kernel: &Kernel, asked: &Asked, code: &str) -> Option<&'static str> {
        match code {
            "request_timeout" if kernel.now_ms() - asked.began_ms >= self.request_ms => Some("sent too slowly"),
            "draining" if self.left.contains(&asked.life) => Some("the server was leaving"),
            "too_many_connections" if kernel.was_refused(asked.wire) => Some("no descriptor was left"),
            "too_many_connections" if kernel.crowd(asked.wire) > self.connections_max => Some("beyond connections-max"),
            "channels_full" if asked.passing && self.lacks_channels => Some("no room for its channel"),
            "channels_full" if self.lacks_channels && self.left.contains(&asked.life) => {
                Some("nobody holds its channel")
            }
            "token_wrong" if self.is_revoked(asked) => Some("its token was revoked"),
            _ => None,
        }
    }

    /// Why a WebSocket may be closed with this code. (Of 4008 the oracle judges.)
    pub fn of_close(&self, kernel: &Kernel, asked: &Asked, code: Option<u16>) -> Option<&'static str> {
        match code {
            Some(1000) if asked.own_doing => Some("it closed"),
            Some(1008) if self.is_revoked(asked) => Some("its token was revoked"),
            Some(1008) => self.of(kernel, asked, "request_timeout"),
            Some(1012) => self.of(kernel, asked, "draining"),
            _ => None,
        }
    }

    /// Why an event stream may end. To it, what will pass is no error: the stream ends, to be asked for again.
    pub fn of_end(&self, kernel: &Kernel, asked: &Asked) -> Option<&'static str> {
        let codes = ["draining", "too_many_connections", "channels_full", "token_wrong"];
        codes.iter().find_map(|code| self.of(kernel, asked, code))
    }

    /// True if there was a reason to close this connection that the client may not have read.
    fn was_closed(&self, kernel: &Kernel, asked: &Asked) -> bool {
        asked.raw || self.of_end(kernel, asked).is_some() || self.of(kernel, asked, "request_timeout").is_some()
    }

    /// True if so much time has passed since the client last looked that a last answer may be cut off.
    pub fn was_away(&self, kernel: &Kernel, asked: &Asked) -> bool {
        kernel.now_ms() - asked.looked_ms >= self.close_ms
    }

    /// Why a connection may end without a word. `is_idle`: nothing is asked for on it that the server
    /// must have read.
    pub fn of_ending(&self, kernel: &Kernel, asked: &Asked, is_idle: bool) -> Option<&'static str> {
        match asked {
            _ if asked.told => Some("it was told"),
            _ if asked.own_doing => Some("its client ended it"),
            _ if kernel.was_struck(asked.wire) => Some("a fault"),
            _ if asked.life != self.life => Some("the process had ended"),
            _ if self.left.contains(&asked.life) => Some("the server was leaving"),
            _ if kernel.crowd(asked.wire) > self.connections_max => Some("beyond connections-max"),
            _ if kernel.starved_ms(asked.wire) >= self.stall_ms => Some("it took nothing for stall-timeout"),
            // A ping that it had not read, or not answered, for a whole interval.
            _ if asked.neglected_ms(kernel) >= self.ping_ms => Some("it was silent for two pings"),
            _ if asked.neglected_ms(kernel) >= self.close_ms && self.was_closed(kernel, asked) => {
                Some("it did not read why in close-timeout")
            }
            _ if kernel.left_unread(asked.wire) => None,
            _ if is_idle && kernel.now_ms() - asked.quiet_ms >= self.idle_ms => Some("it was idle"),
            _ => None,
        }
    }

    /// Nothing that was accepted or heard by a revoked token is newer than its revocation.
    pub fn may_have(&self, token: Option<&String>, of_life: u32, id: Place) -> Result<()> {
        match token.and_then(|token| self.revoked.get(token)) {
            Some(&(life, since)) if of_life > life || id.epoch == since.epoch && id.seq > since.seq => {
                Err(format!("{id}, by a token that is good for nothing since {since}"))
            }
            _ => Ok(()),
        }
    }
}
