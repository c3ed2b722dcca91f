//! The whole engine against a whole world, from one seed: clients, faults, limits, time.
//!
//! `run(seed)` panics when anything that must be true is not. After every turn the engine checks
//! its own invariants and the oracle judges what the clients heard. At the end faults stop, and
//! within two heartbeats every living client must have everything.
//!
//! What must be true is in `oracle`, and what may be refused in `excuses`: read those first. The
//! clients are `publishers` and `subscribers`, who else is there `others`; `operator` restarts,
//! drains, deletes and changes tokens. Three seeds of seven are hard (`Trials`): there system calls
//! fail with every errno of their manuals, and threads, strangers, crowds and tokens come in.

#![allow(dead_code, unreachable_pub, reason = "every test binary uses a part of it")]

pub mod actors;
mod excuses;
mod operator;
pub mod oracle;
mod others;
mod publishers;
mod subscribers;

use std::sync::Arc;
use std::time::Duration;

use tidings::internals::{Config, EventLoop, Parts};

use crate::clients::{self, Format, Heard, Part, Place, Reader, Responses, Result, Transport};
use crate::kernel::{Fault, Faults, Kernel, Rng, Wire};

use actors::{CHANNELS, Coverage, Surroundings, Trials, count};
use excuses::Excuses;
use oracle::{Model, Sent};
use others::{Crowd, KEEPER, Mute, Scraper, Stranger, Thread};
use publishers::Publisher;
use subscribers::Subscriber;

/// What a run did.
#[derive(Debug, Default)]
pub struct Outcome {
    pub trace_hash: u64,
    /// Every system call and what it answered, if that was wished.
    pub trace: String,
    pub coverage: Coverage,
    /// Turns of the loop, each with its checks.
    pub steps: u64,
    /// Virtual time that passed.
    pub ms: u64,
}

/// One run. With `trace`, a failure shows the last system calls.
pub fn run(seed: u64, trace: bool) -> Outcome {
    let mut world = World::new(seed, trace);
    if let Err(why) = world.lives() {
        panic!("seed {seed}, at {} ms: {why}", world.engine.os().now_ms());
    }
    let kernel = world.engine.os();
    Outcome {
        trace_hash: kernel.trace_hash(),
        trace: kernel.trace(),
        ms: kernel.now_ms(),
        coverage: world.coverage,
        steps: world.steps,
    }
}

/// Three seeds of seven meet everything at once.
pub fn is_hard(seed: u64) -> bool {
    matches!(seed % 7, 2 | 3 | 6)
}

/// As `run`, and says at a failure how to see it again.
pub fn run_reporting(seed: u64) -> Outcome {
    std::panic::catch_unwind(|| run(seed, false)).unwrap_or_else(|failure| {
        eprintln!("\nSeed {seed} fails. To see it alone, with its last system calls:");
        eprintln!("    TIDINGS_SEED={seed} cargo test --test simulation seeds\n");
        std::panic::resume_unwind(failure)
    })
}

/// docs/limits.md: "time until a failed accept is tried again".
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

struct World {
    rng: Rng,
    config: Config,
    engine: EventLoop<Kernel>,
    model: Model,
    observer: Observer,
    publishers: Vec<Publisher>,
    subscribers: Vec<Subscriber>,
    threads: Vec<Thread>,
    strangers: Vec<Stranger>,
    scraper: Scraper,
    crowd: Crowd,
    mute: Option<Mute>,
    trials: Trials,
    excuses: Excuses,
    steps: u64,
    coverage: Coverage,
}

/// Hears every message of every channel at once, on a wire without faults; it also deletes.
struct Observer {
    wire: Wire,
    reader: Reader,
    deletes: Wire,
    answers: Reader,
    deleting: Option<&'static str>,
    /// The DELETE is answered; what the observer was still to hear may be gone with it.
    deleted: bool,
    epoch: u32,
}

impl Observer {
    fn connect(kernel: &mut Kernel) -> Observer {
        let wire = kernel.connect_reliably();
        kernel.send(
            wire,
            &clients::upgrade(&CHANNELS.join(","), &format!("?after=earliest&token={KEEPER}"), Some("tidings.v1")),
        );
        Observer {
            wire,
            reader: Reader::new(Transport::WebSocket, Format::Json),
            deletes: kernel.connect_reliably(),
            answers: Reader::new(Transport::Poll, Format::Raw),
            deleting: None,
            deleted: false,
            epoch: 0,
        }
    }
}

impl World {
    fn new(seed: u64, trace: bool) -> World {
        let mut rng = Rng::new(seed);
        let mut kernel = Kernel::new(rng.bits());
        if trace {
            kernel.keep_trace();
        }
        kernel.faults = Faults::drawn(&mut rng);
        // One seed of fourteen, none of them hard: there a deadline would be over in one such moment.
        kernel.working = (seed % 14 == 5).then(|| Rng::new(seed ^ 0x776f_726b_2166_6f72));
        if kernel.working.is_some() {
            // Its turns take seconds: a peer would be silent by the time it is looked at once more.
            kernel.faults.odds[Fault::ReadWouldBlock as usize] = 0;
        }
        kernel.send_buffer = rng.pick(&[64, 300, 2000, 64 * 1024]);
        kernel.receive_buffer = rng.pick(&[50, 2000, 64 * 1024]);
        let mut config = config(&mut rng);
        // Two seeds of five. The others are the runs that they were: some have their stories.
        let mut ways = matches!(seed % 5, 0 | 4).then(|| Rng::new(seed ^ 0x6465_666c_6174_6521));
        if let Some(ways) = &mut ways {
            config.deflate_bytes_min = ways.pick(&[0, 1, 100, 512]);
        }
        let mut each_way = || ways.as_mut().map(|ways| Rng::new(ways.bits()));
        let mut model = Model::default();
        let only_the_count_evicts =
            config.history_bytes == Config::default().history_bytes && config.history_age >= Duration::from_secs(3600);
        model.kept_per_channel = only_the_count_evicts.then_some(config.history_messages);
        let observer = Observer::connect(&mut kernel);
        // Three seeds of seven; again the others are the runs that they were.
        let mut trials =
            Trials { hard: is_hard(seed).then(|| Rng::new(seed ^ 0x6861_7264_2164_6179)), ..Trials::default() };
        if let Some(hard) = &mut trials.hard {
            kernel.faults.harden(hard);
            kernel.has_reserve = hard.one_in(2);
            config.channels_max = hard.pick(&[6, 7, 100]);
            // More than all who are to be served in the end, fewer than a crowd.
            config.connections_max = hard.pick(&[config.connections_max, 90]);
            config.commands_max = hard.pick(&[1, 4, 1024]);
            config.ping = hard.pick(&[config.ping, Duration::from_millis(1500)]);
            config.head_timeout = hard.pick(&[config.head_timeout, Duration::from_millis(700)]);
            config.body_timeout = hard.pick(&[config.body_timeout, Duration::from_millis(900)]);
            config.idle_timeout = hard.pick(&[config.idle_timeout, Duration::from_millis(600)]);
            config.stall_timeout = hard.pick(&[config.stall_timeout, Duration::from_millis(800)]);
            config.close_timeout = hard.pick(&[config.close_timeout, Duration::from_millis(150)]);
            config.drain_grace = hard.pick(&[config.drain_grace, Duration::from_millis(500)]);
            trials.token = hard.one_in(2).then(|| "token.0".to_string());
        }
        let parts = parts(&kernel, &config);
        let mut excuses = Excuses::new(&config);
        if let Some(token) = &trials.token {
            config.tokens = others::tokens(&[token.as_str()]);
            excuses.takes_tokens([token.clone()].into(), Place { epoch: 0, seq: 0 });
        }
        let is_hard = trials.hard.is_some();
        World {
            threads: (0..usize::from(is_hard)).map(|_| Thread::new(Arc::clone(&parts.commands))).collect(),
            strangers: (0..if is_hard { 2 } else { 0 }).map(|_| Stranger::default()).collect(),
            scraper: Scraper::default(),
            crowd: Crowd::default(),
            // One seed of thirteen; the others are the runs that they were.
            mute: (seed % 13 == 5).then(Mute::default),
            trials,
            excuses,
            steps: 0,
            engine: EventLoop::new(kernel, config.clone(), parts).expect("the names of the configuration are names"),
            model,
            observer,
            publishers: (0..1 + rng.below(4) as usize).map(|name| Publisher::new(name, each_way(), &mut rng)).collect(),
            subscribers: (0..2 + rng.below(10) as usize)
                .map(|name| Subscriber::new(name, each_way(), &mut rng))
                .collect(),
            coverage: Coverage::new(),
            config,
            rng,
        }
    }

    fn lives(&mut self) -> Result<()> {
        // On a hard day there may be no descriptor for a while.
        let patience_ms = if self.trials.hard.is_some() { 10 } else { 0 };
        while self.observer.epoch == 0 {
            self.turn(Duration::from_millis(patience_ms))?;
        }
        for _ in 0..150 + self.rng.below(300) {
            let acting = self.rng.pick(&[1, 2, 2, 8]);
            self.act(acting, false)?;
            let timeout_ms = self.rng.pick(&[0, 0, 0, 0, 1, 1, 10, 10, 100, 1000]);
            self.turn(Duration::from_millis(timeout_ms))?;
            if self.rng.one_in(100) && !self.crowd.is_here() {
                self.delete();
            }
            if self.rng.one_in(400) && !self.model.may_skip() {
                self.restart()?;
            }
            self.tries()?;
        }
        self.comes_to_rest()?;
        self.is_scraped()?;
        self.leaves()
    }

    /// What only hard seeds meet, now and then.
    fn tries(&mut self) -> Result<()> {
        let Some(mut rng) = self.trials.hard.clone() else { return Ok(()) };
        let kernel = self.engine.os();
        if rng.one_in(3) {
            self.threads.iter_mut().for_each(|thread| thread.act(kernel, &mut self.model, &mut rng));
        }
        self.strangers.iter_mut().for_each(|stranger| stranger.act(kernel, &mut rng, &mut self.coverage));
        self.crowd.act(kernel, &mut rng, &mut self.coverage);
        self.scraper.act(kernel, &self.excuses, &mut rng, &mut self.coverage)?;
        if rng.one_in(150) && self.subscribers.len() < 50 {
            count(&mut self.coverage, "herd");
            let first = self.subscribers.len();
            for name in first..first + 5 + rng.below(20) as usize {
                let mut newcomer = Subscriber::new(name, None, &mut rng);
                let mut surroundings = self.surroundings(false);
                newcomer.connect(&mut surroundings);
                self.subscribers.push(newcomer);
            }
        }
        let reloads = self.trials.token.is_some() && rng.one_in(100);
        let leaves = rng.one_in(400) && !self.model.may_skip();
        self.trials.hard = Some(rng);
        if reloads {
            self.reload_tokens()?;
        }
        if leaves { self.leaves_halfway() } else { Ok(()) }
    }

    /// Turns until so much time has passed; true if the server has left meanwhile.
    fn turns_for(&mut self, ms: u64) -> Result<bool> {
        let end_ms = self.engine.os().now_ms() + ms;
        while self.engine.os().now_ms() < end_ms {
            if self.turn(Duration::from_millis(ms))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn surroundings(&mut self, calm: bool) -> Surroundings<'_> {
        Surroundings {
            kernel: self.engine.os(),
            model: &mut self.model,
            rng: &mut self.rng,
            coverage: &mut self.coverage,
            calm,
            trials: &mut self.trials,
            excuses: &self.excuses,
        }
    }

    /// Each actor acts once in `odds` times.
    fn act(&mut self, odds: u64, calm: bool) -> Result<()> {
        let mut surroundings = Surroundings {
            kernel: self.engine.os(),
            model: &mut self.model,
            rng: &mut self.rng,
            coverage: &mut self.coverage,
            calm,
            trials: &mut self.trials,
            excuses: &self.excuses,
        };
        for publisher in &mut self.publishers {
            if surroundings.rng.one_in(odds) {
                publisher.act(&mut surroundings)?;
            }
        }
        for subscriber in &mut self.subscribers {
            if surroundings.rng.one_in(odds) {
                subscriber.act(&mut surroundings)?;
            }
        }
        if let Some(mute) = &mut self.mute {
            mute.act(surroundings.kernel);
        }
        Ok(())
    }

    fn turn(&mut self, timeout: Duration) -> Result<bool> {
        let turn = self.engine.turn(Some(timeout)).map_err(|error| format!("the turn failed: {error}"))?;
        self.steps += 1;
        self.engine.check_invariants();
        if self.engine.os_ref().has_unseen_arrival()
            && self.engine.next_timeout().is_none_or(|wait| wait > ACCEPT_RETRY)
        {
            return Err("the server sleeps, and somebody waits to be accepted".into());
        }
        for thread in &mut self.threads {
            thread.hears(&mut self.model, &self.excuses, &mut self.coverage)?;
        }
        if !turn.more {
            let head = self.engine.engine().stats().head;
            let kernel = self.engine.os_ref();
            self.subscribers.iter_mut().for_each(|subscriber| subscriber.is_read(kernel, head));
        }
        self.observe(turn.more)?;
        self.model.settle()?;
        for publisher in &mut self.publishers {
            publisher.settle(&self.model)?;
        }
        for subscriber in &mut self.subscribers {
            subscriber.settle(&self.model)?;
        }
        Ok(turn.stopped)
    }

    fn observe(&mut self, more: bool) -> Result<()> {
        let observer = &mut self.observer;
        let kernel = self.engine.os();
        let bytes = kernel.receive(observer.wire, usize::MAX);
        for heard in observer.reader.receive(&bytes)? {
            match heard {
                Heard::Cursor(place) => {
                    observer.epoch = place.epoch;
                    self.model.epoch = place.epoch;
                    self.model.lives.entry(place.epoch).or_default();
                }
                Heard::Message(message) => self.model.observed(message)?,
                Heard::Ping(payload) => {
                    kernel.send(observer.wire, &clients::client_frame(clients::PONG, &payload));
                }
                Heard::Done(Some(1012)) => {
                    kernel.send(observer.wire, &clients::close_frame(1012));
                }
                other => return Err(format!("the observer, who reads everything at once, heard {other:?}")),
            }
        }
        if let Some(ending) = kernel.ending(observer.wire)
            && !self.excuses.is_leaving()
        {
            return Err(format!("the observer, who answers each ping at once, was ended: {ending:?}"));
        }
        let bytes = kernel.receive(observer.deletes, usize::MAX);
        if let Some(channel) = observer.deleting
            && kernel.crowd(observer.deletes) > self.config.connections_max
            && (bytes.starts_with(b"HTTP/1.1 503 ") || kernel.ending(observer.deletes).is_some())
        {
            // A crowd was here first.
            self.ask_to_delete(channel);
            return Ok(());
        }
        if !bytes.is_empty() {
            observer.answers.receive(&bytes).ok(); // a bare 204: no cursor to be found in it
            if !bytes.starts_with(b"HTTP/1.1 204 ") {
                return Err(format!("a DELETE was answered {}", String::from_utf8_lossy(&bytes)));
            }
            observer.deleted = true;
        }
        if observer.deleted && !more {
            observer.deleted = false;
            if let Some(channel) = observer.deleting.take() {
                self.model.lives.entry(observer.epoch).or_default().has_deleted(channel);
                count(&mut self.coverage, "deleted");
            }
        }
        Ok(())
    }

    /// Faults stop, and everybody behaves: within two heartbeats all is told.
    fn comes_to_rest(&mut self) -> Result<()> {
        self.count_faults();
        self.engine.os().is_well_again();
        self.strangers.iter_mut().for_each(|stranger| stranger.leave(self.engine.os()));
        self.scraper.leave(self.engine.os());
        // A crowd is seen to be gone before anybody else comes.
        self.crowd.leave(self.engine.os());
        self.turns_for(100)?;
        self.last_words()?;
        let heartbeat_ms = self.config.heartbeat.max(self.config.ping).max(subscribers::WAIT_MAX).as_millis() as u64;
        for nth in 0..2 {
            // The last one with the raster of heartbeats, and the time of a poll's request.
            let end_ms = self.engine.os().now_ms() + heartbeat_ms + nth * 1000;
            let endings: u64 = self.subscribers.iter().map(|subscriber| subscriber.ended_in_calm).sum();
            self.subscribers.iter_mut().for_each(|subscriber| subscriber.bytes_in_calm = 0);
            while self.engine.os().now_ms() < end_ms {
                self.act(1, true)?;
                self.turn(Duration::from_millis(20))?;
            }
            let ended = self.subscribers.iter().map(|subscriber| subscriber.ended_in_calm).sum::<u64>() - endings;
            if nth > 0 && ended > 0 {
                return Err(format!("{ended} connections of well-behaved clients were ended"));
            }
        }
        if let Some(silent) = self.subscribers.iter().position(|subscriber| subscriber.bytes_in_calm == 0) {
            return Err(format!("subscriber {silent} heard nothing for a whole heartbeat"));
        }
        self.threads.iter().try_for_each(Thread::is_answered)?;
        if self.model.settle()? > 0 {
            return Err(format!("an accepted message was never delivered to the observer: {:?}", self.model.answers()));
        }
        self.publishers.iter().try_for_each(Publisher::is_answered)?;
        self.subscribers.iter_mut().try_for_each(|subscriber| subscriber.is_caught_up(&self.model))?;
        self.publishers.iter_mut().try_for_each(|publisher| publisher.is_caught_up(&self.model))?;
        self.model.keeps_order()?;
        if let Some(wire) = self.engine.os().leaked() {
            return Err(format!("{wire:?} was left by its client, and the server still holds it"));
        }
        Ok(())
    }
}

impl World {
    /// The metrics at the end: the head is what the observer has heard.
    fn is_scraped(&mut self) -> Result<()> {
        let kernel = self.engine.os();
        let wire = kernel.connect_reliably();
        kernel.send(wire, format!("GET /metrics?token={KEEPER} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes());
        let mut responses = Responses::default();
        let mut body = Vec::new();
        // By the clock: where a turn writes to one, those that beat just now come first.
        let end_ms = self.engine.os().now_ms() + 200;
        while self.engine.os().now_ms() < end_ms {
            self.turn(Duration::from_millis(20))?;
            responses.receive(&self.engine.os().receive(wire, usize::MAX));
            while let Some(part) = responses.next_part()? {
                match part {
                    Part::Head(_) => {}
                    Part::Body(bytes) => body.extend(bytes),
                    Part::End => {
                        self.scraper.takes(std::mem::take(&mut body));
                        self.scraper.reads(&mut self.coverage)?;
                        let forgotten = self.scraper.counted("tidings_channels_forgotten_total");
                        *self.coverage.entry("channel forgotten".into()).or_default() += forgotten;
                        for (reason, times) in self.scraper.closes() {
                            *self.coverage.entry(format!("server closed: {reason}")).or_default() += times;
                        }
                        return Ok(());
                    }
                }
            }
        }
        Err("a scrape is not answered".into())
    }

    /// One more message in every channel, so that whoever is silent now has missed something.
    fn last_words(&mut self) -> Result<()> {
        let end_ms = self.engine.os().now_ms() + 1000;
        while self.observer.deleting.is_some() {
            self.turn(Duration::from_millis(20))?;
            if self.engine.os().now_ms() > end_ms {
                return Err("a DELETE was never answered".into());
            }
        }
        let kernel = self.engine.os();
        let wire = kernel.connect_reliably();
        for channel in CHANNELS {
            let payload = format!("end.{channel} ").into_bytes();
            kernel.send(wire, &clients::post(channel, &format!("?token={KEEPER}"), "", &payload));
            let sent = Sent { channel: channel.into(), event: None, media_type: None, payload };
            self.model.in_flight.insert(format!("end.{channel}"));
            self.model.sent.insert(format!("end.{channel}"), sent);
        }
        Ok(())
    }
}

fn parts(kernel: &Kernel, config: &Config) -> Parts {
    Parts { commands: others::commands(&kernel.woken, config.commands_max), ..Parts::default() }
}

/// Small limits, so that every one of them is met.
fn config(rng: &mut Rng) -> Config {
    let mut config = Config::default();
    config.history_messages = rng.pick(&[0, 1, 2, 5, 20, 1000]);
    config.history_bytes = rng.pick(&[config.history_bytes, config.history_bytes, 20_000]);
    config.history_age = rng.pick(&[config.history_age, config.history_age, Duration::from_secs(2)]);
    config.poll_bytes_max = rng.pick(&[1, 500, 1024 * 1024]);
    config.heartbeat = Duration::from_secs(2);
    config.ping = Duration::from_secs(3);
    config.drain = Duration::from_secs(2);
    config.writes_per_turn_max = rng.pick(&[1, 3, 512]);
    config.accepts_per_turn_max = rng.pick(&[1, 256]);
    config.publish_bytes_per_turn_max = rng.pick(&[1000, 4 * 1024 * 1024]);
    config
}
