//! The turn: fixed phases, each with a budget. Names no system call's implementation (`Os` does)
//! and no protocol: it asks the engine what to do and tells it what happened.
//!
//! Idle connections cost a turn nothing. A fault of one socket ends that socket; only a failing
//! `wait` leaves the loop.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::app::App;
use crate::commands::Commands;
use crate::config::{Config, READ_BYTES};
use crate::engine::Engine;
use crate::metrics::Limit;
use crate::os::{self, Event, Now, Os};
use crate::route::{Policy, PolicyError};

/// How long until a failed accept is tried again. Edge-triggered readiness will not say it again.
const ACCEPT_RETRY_MS: u64 = 100;
/// Accepts that may fail in a row, each by the fault of its connection, before the listener is
/// taken to fail.
const ACCEPT_FAILURES_MAX: u32 = 16;
/// Waits of no time before deadlines: with the events of each enough for a hundred thousand connections.
const WAITS_MAX: usize = 100;
/// Commands per turn.
const COMMANDS_PER_TURN_MAX: usize = 4096;

/// What a loop is made with, besides the system and the configuration.
pub struct Parts {
    /// For each listener of the system: it is on loopback, where `Host` must be a local name.
    pub loopback: Vec<bool>,
    /// The embedder's hooks.
    pub app: Option<Box<dyn App>>,
    /// What other threads ask for.
    pub commands: Arc<Commands>,
}

impl Default for Parts {
    fn default() -> Parts {
        let commands = Commands::new(1024, 64 * 1024 * 1024, Box::new(|| {}));
        Parts { loopback: vec![true], app: None, commands: Arc::new(commands) }
    }
}

/// What a turn left behind.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Something is left over: the next turn must not wait.
    pub more: bool,
    /// The server has left; no turn follows.
    pub stopped: bool,
}

/// The whole server over some system.
pub struct EventLoop<O: Os> {
    os: O,
    engine: Engine,
    commands: Arc<Commands>,
    events: Vec<Event>,
    buffer: Box<[u8]>,
    listeners: Vec<Listener>,
    loopback: Vec<bool>,
    first_listener: usize,
    now: Now,
}

/// Readiness of a listener: a state, like that of every socket.
#[derive(Copy, Clone, Default)]
struct Listener {
    pending: bool,
    retry_at_ms: Option<u64>,
    /// How often in a row nothing came of it.
    failures: u32,
}

impl<O: Os> EventLoop<O> {
    /// A loop over this system, with an empty log in a new epoch.
    pub fn new(mut os: O, config: Config, parts: Parts) -> Result<EventLoop<O>, PolicyError> {
        let policies = [Policy::new(&config, false)?, Policy::new(&config, true)?];
        let now = os.now();
        let seed = [os.random(), os.random()];
        Ok(EventLoop {
            os,
            engine: Engine::new(config, policies, parts.app, seed, now),
            commands: parts.commands,
            events: Vec::new(),
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
            // Connections may have come before we looked.
            listeners: vec![Listener { pending: true, ..Listener::default() }; parts.loopback.len()],
            loopback: parts.loopback,
            first_listener: 0,
            now,
        })
    }

    /// One turn, waiting at most this long for something to do (`None`: for ever).
    pub fn turn(&mut self, timeout: Option<Duration>) -> io::Result<Turn> {
        self.wait(timeout)?;
        self.accept();
        self.read();
        self.answer_scrapes();
        self.take_commands();
        self.engine.expire();
        self.engine.commit();
        self.flush();
        // After the flush, never before: a subscriber that keeps up gets no gap from one burst.
        self.engine.trim();
        self.reap();
        let stopped = self.engine.has_left();
        if self.engine.is_deaf() && !self.listeners.is_empty() {
            self.listeners.clear();
            self.os.close_listeners();
        }
        self.engine.end_turn(self.os.elapsed_us());
        Ok(Turn { more: self.has_more(), stopped })
    }

    /// Something is left over that can be done now. What is due is no such thing: a turn does it.
    fn has_more(&self) -> bool {
        let accepts = self.listeners.iter().any(|listener| listener.pending && listener.retry_at_ms.is_none());
        accepts || self.engine.has_work() || !self.commands.is_empty()
    }

    /// How long the next turn may wait. Zero: something is left over, call `turn` again.
    pub fn next_timeout(&self) -> Option<Duration> {
        if self.has_more() {
            return Some(Duration::ZERO);
        }
        let retry = self.listeners.iter().filter_map(|listener| listener.retry_at_ms).min();
        let retry = retry.map(|at| Duration::from_millis(at.saturating_sub(self.now.monotonic_ms)));
        retry.into_iter().chain(self.engine.next_timeout()).min()
    }

    /// The system it runs over.
    pub fn os(&mut self) -> &mut O {
        &mut self.os
    }

    /// The same, to look at.
    pub fn os_ref(&self) -> &O {
        &self.os
    }

    /// The engine, for the thread that turns the loop.
    pub fn engine(&mut self) -> &mut Engine {
        &mut self.engine
    }

    /// Begins to leave in good order.
    pub fn drain(&mut self) {
        self.engine.drain();
    }

    /// No turn follows: other threads that wait for an answer get it.
    pub fn close(&mut self) {
        self.commands.close();
        self.engine.dismiss_callbacks();
    }

    /// Proves what must hold after every turn.
    pub fn check_invariants(&self) {
        self.engine.check_invariants();
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let timeout = self.next_timeout().into_iter().chain(timeout).min();
        self.events.clear();
        self.os.wait(timeout, &mut self.events)?;
        self.now = self.os.now();
        if self.engine.is_due(self.now) {
            self.hear_the_rest()?;
        }
        self.engine.begin_turn(self.now);
        for &event in &self.events {
            match event {
                Event::Listener(number) => {
                    if let Some(listener) = self.listeners.get_mut(number) {
                        *listener = Listener { pending: true, retry_at_ms: None, ..*listener };
                    }
                }
                other => self.engine.notice(other),
            }
        }
        Ok(())
    }

    /// By this clock somebody's time is over. But the process may have stood still since the wait was told
    /// what there was (Ctrl-Z and `fg`), or the wait told only some of it. Nobody is late whose bytes are here.
    fn hear_the_rest(&mut self) -> io::Result<()> {
        for _ in 0..WAITS_MAX {
            let told = self.events.len();
            self.os.wait(Some(Duration::ZERO), &mut self.events)?;
            if self.events.len() == told {
                break;
            }
        }
        Ok(())
    }

    fn accept(&mut self) {
        let mut budget = self.engine.config().accepts_per_turn_max;
        // Each turn another listener is first, or a flood at one would starve the others.
        self.first_listener = (self.first_listener + 1) % self.listeners.len().max(1);
        for nth in 0..self.listeners.len() {
            let number = (self.first_listener + nth) % self.listeners.len();
            if self.listeners[number].retry_at_ms.is_some_and(|at| at > self.now.monotonic_ms) {
                continue;
            }
            self.listeners[number].retry_at_ms = None;
            while self.listeners[number].pending && self.listeners[number].retry_at_ms.is_none() && budget > 0 {
                budget -= 1;
                self.accept_one(number);
            }
        }
    }

    /// Accepts one connection, if one waits.
    fn accept_one(&mut self, number: usize) {
        let opened = self.engine.open();
        // Over the reserve: accepted, so that the peer learns of it, and closed at once.
        let index = opened.unwrap_or_else(|| self.engine.beyond());
        match self.os.accept(number, index) {
            Ok(peer) => {
                self.listeners[number].failures = 0;
                match opened {
                    Some(index) => self.engine.accepted(index, self.loopback[number], peer),
                    None => {
                        self.os.close(index);
                        self.engine.turned_away();
                    }
                }
            }
            Err(error) => {
                if let Some(index) = opened {
                    self.engine.abandon(index);
                }
                self.accept_failed(number, &error);
            }
        }
    }

    /// Never exits, never spins: whatever it is, the rest is served, and the listener is asked again.
    fn accept_failed(&mut self, number: usize, error: &io::Error) {
        if error.kind() == io::ErrorKind::WouldBlock {
            self.listeners[number] = Listener::default();
            return;
        }
        if os::is_exhaustion(error) {
            match self.os.refuse(number, self.engine.exhausted_answer()) {
                Ok(()) => return self.engine.note_accept_failure(error),
                // Linux looks for a descriptor first, also when nobody waits.
                Err(nobody) if nobody.kind() == io::ErrorKind::WouldBlock => {
                    self.listeners[number] = Listener::default();
                    return;
                }
                Err(_) => {}
            }
        }
        self.engine.note_accept_failure(error);
        // accept(2): a connection that died in the queue, and errors of the network "already
        // pending on the new socket", are that connection's; the next may be well.
        let listener = &mut self.listeners[number];
        listener.failures += 1;
        if os::is_exhaustion(error) || listener.failures >= ACCEPT_FAILURES_MAX {
            listener.retry_at_ms = Some(self.now.monotonic_ms + ACCEPT_RETRY_MS);
        }
    }

    fn read(&mut self) {
        while let Some((index, wants_bytes)) = self.engine.next_reader() {
            if wants_bytes {
                match self.os.read(index, &mut self.buffer) {
                    Ok(0) => self.engine.ended(index),
                    Ok(n) => {
                        let full = n == self.buffer.len();
                        self.engine.received(index, &mut self.buffer[..n], full);
                    }
                    Err(error) => self.engine.read_failed(index, &error),
                }
            } else {
                self.engine.process_held(index);
            }
            // Everything that one read asked for is answered by one write.
            self.engine.begin_answers();
            self.write(index);
        }
    }

    /// Asks the system about the process only if somebody asks us.
    fn answer_scrapes(&mut self) {
        if self.engine.is_scraped() {
            let process = self.os.process();
            self.engine.answer_scrapes(process);
        }
    }

    fn take_commands(&mut self) {
        let refused = self.commands.take_refused();
        self.engine.note_limit_times(Limit::CommandsMax, refused);
        self.commands.awake();
        self.engine.begin_commands();
        for _ in 0..COMMANDS_PER_TURN_MAX {
            if !self.engine.may_take_commands() {
                break;
            }
            match self.commands.pop() {
                Some(command) => self.engine.command(command),
                None => break,
            }
        }
    }

    fn flush(&mut self) {
        for _ in 0..self.engine.config().writes_per_turn_max {
            let Some(index) = self.engine.next_ready() else { break };
            self.write(index);
        }
    }

    /// Not inlined into its two callers: so `output` and `sent` have one caller each, and are inlined here.
    #[inline(never)]
    fn write(&mut self, index: u32) {
        while let Some(bytes) = self.engine.output(index) {
            let result = self.os.write(index, bytes);
            if !self.engine.sent(index, result) {
                break;
            }
        }
        self.engine.end_visit(index);
    }

    fn reap(&mut self) {
        while let Some(index) = self.engine.next_finished() {
            self.os.shutdown_write(index);
        }
        let mut freed = false;
        while let Some(index) = self.engine.next_dead() {
            self.os.close(index);
            freed = true;
        }
        if freed {
            // A descriptor is free again: who waits for one need not wait for the timer.
            self.listeners.iter_mut().for_each(|listener| listener.retry_at_ms = None);
        }
    }
}

impl<O: Os> Drop for EventLoop<O> {
    fn drop(&mut self) {
        self.close();
    }
}
