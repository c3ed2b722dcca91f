//! Thousands of subscribers that are killed, cut, stalled and switched, eight publishers, a server
//! that dies and starts anew; and an oracle that holds each of them to the log.
//!
//! One thread, which never blocks but for readiness. An actor acts when its line is ready or its
//! alarm rings, and tells the truth what it sent and its chain what it heard.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Registry};

use crate::clients::{self, Format, Head, Heard, Offer, Part, Place, Reader, Responses, Result, Transport};
use crate::common::PATIENCE;
use crate::common::program::Program;
use crate::lines::{Alarms, Line, Received};
use crate::rng::Rng;
use crate::truth::{Chain, Sent, Truth, name};
use crate::{ADDRESSES, metrics, sum};

/// One observer reads them all.
const CHANNELS: usize = 64;
/// Of these, which get half of all messages.
const BUSY: u64 = 8;
const PUBLISHERS: usize = 8;
/// The observer, then the publishers, then the subscribers.
const FIRST_SUBSCRIBER: usize = 1 + PUBLISHERS;

/// How much, and for how long.
pub struct Scale {
    /// Subscribers that begin on each transport.
    pub each: usize,
    pub seconds: u64,
    pub publishes_per_second: u64,
    /// How rare long messages are.
    pub long_one_in: u64,
    pub history_messages: usize,
    /// The mean time between two misfortunes of a subscriber.
    pub calm_ms: u64,
    /// The longest time that one is away, or does not read.
    pub away_ms: u64,
    pub heartbeat_ms: u64,
    /// In the end, everybody has everything within this time.
    pub catch_up: Duration,
}

/// What happened, so that a run that tests nothing is seen.
#[derive(Debug, Default)]
pub struct Counts {
    pub deliveries: u64,
    /// Accepted, over all lives of the log; those that were answered; those by their key.
    pub accepted: u64,
    pub answered: u64,
    pub replayed: u64,
    pub connections: u64,
    pub resumed: u64,
    pub switched: u64,
    pub killed: u64,
    pub killed_at_a_byte: u64,
    pub killed_in_a_request: u64,
    pub stalled: u64,
    pub half_closed: u64,
    pub closed: u64,
    pub away: u64,
    pub ended_by_the_server: u64,
    pub publishers_killed: u64,
    pub gaps_evicted: u64,
    pub gaps_epoch: u64,
    pub heartbeats: u64,
    pub restarts: u64,
}

impl Counts {
    /// What a run must have seen, and this one has not.
    pub fn unseen(&self) -> Vec<&'static str> {
        let kinds = [
            ("deliveries", self.deliveries),
            ("replayed", self.replayed),
            ("resumed", self.resumed),
            ("switched", self.switched),
            ("killed", self.killed),
            ("killed at a byte", self.killed_at_a_byte),
            ("killed in a request", self.killed_in_a_request),
            ("stalled", self.stalled),
            ("half-closed", self.half_closed),
            ("closed", self.closed),
            ("away", self.away),
            ("publishers killed", self.publishers_killed),
            ("gaps: evicted", self.gaps_evicted),
            ("gaps: epoch", self.gaps_epoch),
        ];
        kinds.iter().filter(|(_, count)| *count == 0).map(|(kind, _)| *kind).collect()
    }
}

/// What an actor may touch.
struct Surroundings {
    registry: Registry,
    program: Program,
    addresses: Vec<SocketAddr>,
    /// How many programs there were before.
    restarts: usize,
    began: Instant,
    alarms: Alarms,
    truth: Truth,
    rng: Rng,
    counts: Counts,
    scale: Scale,
    calm: bool,
    buffer: Vec<u8>,
}

impl Surroundings {
    fn now_ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    fn rings_in(&mut self, owner: usize, ms: u64) {
        self.alarms.set(owner, self.now_ms() + ms);
    }

    fn connect(&mut self, owner: usize) -> Result<Line> {
        self.counts.connections += 1;
        let address = self.addresses[owner % self.addresses.len()];
        let receive_buffer = (owner >= FIRST_SUBSCRIBER).then_some(16 * 1024);
        Line::connect(&self.registry, owner, address, receive_buffer)
            .map_err(|error| format!("no connection to {address}: {error}"))
    }
}

struct World {
    poll: Poll,
    events: Events,
    observer: Observer,
    publishers: Vec<Publisher>,
    subscribers: Vec<Subscriber>,
    rest: Surroundings,
}

/// Runs it all; says what went wrong first.
pub fn run(scale: Scale, seed: u64) -> Result<Counts> {
    let mut world = World::new(scale, seed)?;
    world.everybody_subscribes()?;
    let seconds = world.rest.scale.seconds;
    let half = seconds / 2;
    world.trouble(half)?;
    world.restart()?;
    world.trouble(seconds - half)?;
    // On a slow machine that may have been too short.
    world.until("there was every kind of trouble", PATIENCE, |world| world.rest.counts.unseen().is_empty())?;
    world.comes_to_rest()?;
    world.nobody_is_left_over()?;
    world.rest.counts.accepted = world.rest.truth.accepted();
    Ok(world.rest.counts)
}

fn start(scale: &Scale) -> (Program, Vec<SocketAddr>) {
    let history = scale.history_messages.to_string();
    let heartbeat = format!("{}ms", scale.heartbeat_ms);
    let mut arguments = vec!["--history-messages", &history, "--heartbeat", &heartbeat, "--ping", &heartbeat];
    // Little is hidden in the kernel, so that who stalls is seen to; and it is not endured for long.
    arguments.extend(["--send-buffer-bytes", "4KiB", "--stall-timeout", "12s", "--close-timeout", "1s"]);
    arguments.extend(ADDRESSES.iter().flat_map(|address| ["--listen", address]));
    let program = Program::start(&arguments);
    let addresses = program.addresses();
    (program, addresses)
}

impl World {
    fn new(scale: Scale, seed: u64) -> Result<World> {
        let poll = Poll::new().map_err(|error| error.to_string())?;
        let registry = poll.registry().try_clone().map_err(|error| error.to_string())?;
        let (program, addresses) = start(&scale);
        let mut rng = Rng::new(seed);
        let subscribers = 3 * scale.each;
        let subscribers = (0..subscribers).map(|nth| Subscriber::new(FIRST_SUBSCRIBER + nth, &mut rng)).collect();
        let mut rest = Surroundings {
            registry,
            program,
            addresses,
            restarts: 0,
            began: Instant::now(),
            alarms: Alarms::default(),
            truth: Truth::new(CHANNELS, scale.history_messages),
            rng,
            counts: Counts::default(),
            scale,
            calm: false,
            buffer: vec![0; 64 * 1024],
        };
        let observer = Observer::connect(&mut rest)?;
        let publishers = (1..FIRST_SUBSCRIBER).map(Publisher::new).collect();
        Ok(World { poll, events: Events::with_capacity(1024), observer, publishers, subscribers, rest })
    }

    fn turn(&mut self) -> Result<()> {
        let now_ms = self.rest.now_ms();
        let wait_ms = self.rest.alarms.next_ms().map_or(100, |at_ms| at_ms.saturating_sub(now_ms).min(100));
        match self.poll.poll(&mut self.events, Some(Duration::from_millis(wait_ms))) {
            Err(error) if error.kind() != std::io::ErrorKind::Interrupted => return Err(error.to_string()),
            _ => {}
        }
        for event in &self.events {
            match event.token().0 {
                0 => self.observer.ready(&mut self.rest)?,
                owner @ 1..FIRST_SUBSCRIBER => self.publishers[owner - 1].ready(&mut self.rest)?,
                owner => self.subscribers[owner - FIRST_SUBSCRIBER].ready(&mut self.rest)?,
            }
        }
        let now_ms = self.rest.now_ms();
        while let Some(owner) = self.rest.alarms.pop(now_ms) {
            if owner < FIRST_SUBSCRIBER {
                self.publishers[owner - 1].rings(&mut self.rest)?;
            } else {
                self.subscribers[owner - FIRST_SUBSCRIBER].rings(&mut self.rest)?;
            }
        }
        Ok(())
    }

    /// Turns until it is so; not for ever.
    fn until(&mut self, what: &str, patience: Duration, is_so: impl Fn(&World) -> bool) -> Result<()> {
        let deadline = Instant::now() + patience;
        while !is_so(self) {
            if Instant::now() > deadline {
                return Err(format!("waited in vain until {what}"));
            }
            self.turn()?;
        }
        Ok(())
    }

    fn everybody_subscribes(&mut self) -> Result<()> {
        self.rest.calm = true;
        self.until("the observer hears", PATIENCE, |world| world.rest.truth.epoch != 0)?;
        // A thousand in 300 ms, so that nobody waits for long to be accepted.
        for nth in 0..self.subscribers.len() {
            self.rest.rings_in(FIRST_SUBSCRIBER + nth, nth as u64 * 300 / 1000);
        }
        let has_begun = |subscriber: &Subscriber| subscriber.chain.last().is_some();
        self.until("everybody has a cursor", 3 * PATIENCE, |world| world.subscribers.iter().all(has_begun))?;
        self.rest.calm = false;
        for nth in 0..self.subscribers.len() {
            let ms = self.rest.rng.below(2 * self.rest.scale.calm_ms);
            self.rest.rings_in(FIRST_SUBSCRIBER + nth, ms);
        }
        (1..FIRST_SUBSCRIBER).for_each(|publisher| self.rest.rings_in(publisher, 0));
        Ok(())
    }

    fn trouble(&mut self, seconds: u64) -> Result<()> {
        let end_ms = self.rest.now_ms() + seconds * 1000;
        let (mut settled_ms, mut told_ms) = (0, self.rest.now_ms());
        while self.rest.now_ms() < end_ms {
            self.turn()?;
            if self.rest.now_ms() - settled_ms > 1000 {
                settled_ms = self.rest.now_ms();
                self.settle()?;
            }
            if self.rest.now_ms() - told_ms > 60_000 {
                told_ms = self.rest.now_ms();
                let (deliveries, resident) = (self.rest.counts.deliveries, self.rest.program.resident_bytes());
                println!("{:>4} s: {deliveries} deliveries, {} KiB resident", told_ms / 1000, resident / 1024);
            }
        }
        Ok(())
    }

    /// Judges what those who hear nothing now have heard before. Says how many answers nobody can
    /// judge yet.
    fn settle(&mut self) -> Result<usize> {
        for subscriber in &mut self.subscribers {
            subscriber.chain.settle(&self.rest.truth).map_err(|why| subscriber.explain(why))?;
        }
        self.rest.truth.settle()
    }

    /// The process is killed, and another has started: a new epoch, every connection cut.
    fn restart(&mut self) -> Result<()> {
        let (program, addresses) = start(&self.rest.scale);
        self.rest.addresses = addresses;
        self.rest.restarts += 1;
        self.rest.counts.restarts += 1;
        // Its end is that of the process.
        drop(std::mem::replace(&mut self.rest.program, program));

        // Whoever is still connected reads to the end of what was said; nobody comes back before.
        self.observer.is_leaving = true;
        let deadline = Instant::now() + 3 * PATIENCE;
        loop {
            let publishers = self.publishers.iter().filter(|publisher| publisher.line.is_some()).count();
            let mut subscribers = self.subscribers.iter().filter(|subscriber| subscriber.line.is_some());
            let first = subscribers.next().map(|one| one.explain(one.chain.place()));
            if self.observer.line.is_none() && publishers == 0 && first.is_none() {
                break;
            }
            if Instant::now() > deadline {
                return Err(format!("a connection outlives its server: {publishers} publishers, {first:?}"));
            }
            self.observer.ready(&mut self.rest)?;
            for publisher in &mut self.publishers {
                publisher.ready(&mut self.rest)?;
            }
            for subscriber in &mut self.subscribers {
                subscriber.is_stalled = false;
                subscriber.ready(&mut self.rest)?;
            }
        }
        let epoch = self.rest.truth.epoch;
        self.rest.truth.is_over(epoch, self.subscribers.iter().map(|subscriber| &subscriber.chain))?;
        self.settle()?;
        self.observer = Observer::connect(&mut self.rest)?;
        self.until("the observer hears", PATIENCE, |world| world.rest.truth.epoch != epoch)
    }

    /// Everybody behaves, and soon everybody has everything.
    fn comes_to_rest(&mut self) -> Result<()> {
        self.rest.calm = true;
        self.publishers.iter_mut().for_each(|publisher| publisher.cut_in = None);
        let is_idle = |publisher: &Publisher| publisher.waiting.is_empty() && publisher.again.is_empty();
        self.until("publishers are answered", PATIENCE, |world| world.publishers.iter().all(is_idle))?;
        let began = Instant::now();
        self.publishers[0].last_words(&mut self.rest);
        for nth in 0..self.subscribers.len() {
            self.subscribers[nth].cut_in = None;
            self.rest.rings_in(FIRST_SUBSCRIBER + nth, 0);
        }
        let end = began + self.rest.scale.catch_up;
        let mut settled = Instant::now();
        loop {
            self.turn()?;
            if settled.elapsed() < Duration::from_millis(50) {
                continue;
            }
            settled = Instant::now();
            let unjudged = self.settle()?;
            let is_late = settled > end;
            if unjudged > 0 || !self.publishers.iter().all(is_idle) {
                if is_late {
                    return Err(format!("{unjudged} answered messages have not reached the observer"));
                }
                continue;
            }
            self.rest.truth.rests();
            let mut late = self.subscribers.iter().filter(|one| !one.chain.is_caught_up(&self.rest.truth));
            match late.next() {
                None => break,
                Some(one) if is_late => {
                    let place = one.explain(one.chain.place());
                    return Err(format!("{} have not caught up in {:?}: {place}", late.count() + 1, began.elapsed()));
                }
                Some(_) => {}
            }
        }
        println!("all have caught up after {:?}", began.elapsed());
        Ok(())
    }

    /// The server holds the connections of those who are there, and no other.
    fn nobody_is_left_over(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.turn()?;
            let subscribers = self.subscribers.iter().filter(|subscriber| subscriber.line.is_some()).count();
            let publishers = self.publishers.iter().filter(|publisher| publisher.line.is_some()).count();
            let metrics = metrics(self.rest.addresses[0]);
            // The observer is one more, and the scrape.
            let (held, here) = (sum(&metrics, "tidings_connections"), subscribers + publishers + 2);
            if held == here as f64 {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(format!("the server holds {held} connections, the clients {here}"));
            }
        }
    }
}

/// Reads everything at once, and so knows the log.
struct Observer {
    line: Option<Line>,
    reader: Reader,
    is_leaving: bool,
}

impl Observer {
    fn connect(world: &mut Surroundings) -> Result<Observer> {
        let mut line = world.connect(0)?;
        let names: Vec<String> = (0..CHANNELS).map(name).collect();
        line.send(&clients::upgrade(&names.join(","), "?after=earliest", None));
        let reader = Reader::new(Transport::WebSocket, Format::Json);
        Ok(Observer { line: Some(line), reader, is_leaving: false })
    }

    fn ready(&mut self, world: &mut Surroundings) -> Result<()> {
        let Some(line) = &mut self.line else { return Ok(()) };
        line.flush();
        loop {
            match line.read(&mut world.buffer) {
                Received::Nothing => return Ok(()),
                Received::Bytes(read) => {
                    for heard in self.reader.receive(&world.buffer[..read])? {
                        match heard {
                            Heard::Cursor(place) if place.epoch == world.truth.epoch => {}
                            Heard::Cursor(place) if place.seq == 0 => world.truth.begins(place.epoch),
                            Heard::Message(message) => world.truth.observed(&message)?,
                            Heard::Ping(payload) => line.send(&clients::client_frame(clients::PONG, &payload)),
                            other => return Err(format!("the observer, who reads at once, heard {other:?}")),
                        }
                    }
                }
                Received::End if self.is_leaving => {
                    self.line = None;
                    return Ok(());
                }
                Received::End => return Err("the observer was cut off".into()),
            }
        }
    }
}

/// Publishes by POST, or by commands of tidings.v1: half of them each.
struct Publisher {
    owner: usize,
    line: Option<Line>,
    responses: Responses,
    head: Option<Head>,
    body: Vec<u8>,
    reader: Reader,
    /// Sent and not answered, oldest first.
    waiting: VecDeque<Draft>,
    /// To be sent, or to be sent again with its key.
    again: VecDeque<Draft>,
    sent: usize,
    /// The last that was answered.
    last: Option<Place>,
    /// After so many bytes more of answers it is killed.
    cut_in: Option<usize>,
}

/// A message to be sent.
struct Draft {
    sent: Rc<Sent>,
    /// Whether it bears a key, so that it may be repeated.
    keyed: bool,
}

impl Publisher {
    fn new(owner: usize) -> Publisher {
        Publisher {
            owner,
            line: None,
            responses: Responses::default(),
            head: None,
            body: Vec::new(),
            reader: Reader::new(Transport::WebSocket, Format::Json),
            waiting: VecDeque::new(),
            again: VecDeque::new(),
            sent: 0,
            last: None,
            cut_in: None,
        }
    }

    fn by_commands(&self) -> bool {
        self.owner.is_multiple_of(2)
    }

    /// A channel, a few of which are busy.
    fn channel(rng: &mut Rng) -> usize {
        let among = rng.pick(&[BUSY, CHANNELS as u64]);
        rng.below(among) as usize
    }

    fn draft(&mut self, channel: usize, keyed: bool, world: &mut Surroundings) -> Draft {
        let tag = format!("m{}.{}", self.owner, self.sent);
        self.sent += 1;
        let rng = &mut world.rng;
        let mut payload = format!("{tag} ").into_bytes();
        let filler: &[&str] = &["", "x", "zwei\nZeilen", "\r", "\r\n", "\u{1F600}", "\"quoted\\\"", "\u{2028}", "\t"];
        // Some are longer than what the kernel hides, so that who stalls has half of one.
        let length = if rng.one_in(world.scale.long_one_in) { 6000 } else { rng.pick(&[0, 1, 5, 20, 100]) };
        (0..length).for_each(|_| payload.extend_from_slice(rng.pick(filler).as_bytes()));
        let mut media_type = rng.pick(&[None, None, Some("text/plain"), Some("application/json")]);
        if rng.one_in(8) {
            payload.extend_from_slice(&[0xff, 0, b'\n', 0xfe]);
            media_type = Some("application/octet-stream");
        }
        let event = rng.one_in(3).then(|| "price".to_string());
        Draft { sent: world.truth.sends(tag, channel, event, media_type.map(str::to_string), payload), keyed }
    }

    fn last_words(&mut self, world: &mut Surroundings) {
        for channel in 0..CHANNELS {
            let draft = self.draft(channel, true, world);
            self.again.push_back(draft);
        }
        world.rings_in(self.owner, 0);
    }

    fn rings(&mut self, world: &mut Surroundings) -> Result<()> {
        let mean_ms = 1000 * PUBLISHERS as u64 / world.scale.publishes_per_second;
        let next_ms = if world.calm { 20 } else { 1 + world.rng.below(2 * mean_ms) };
        world.rings_in(self.owner, next_ms);
        // The answers to what the last server has taken never come.
        if self.line.is_none() {
            self.connect(world)?;
        }
        let is_cut = !world.calm && world.rng.one_in(60);
        if !world.calm && world.rng.one_in(60) {
            self.cut_in = Some(1 + world.rng.below(300) as usize);
        }
        // A few at a time: no turn of the server may publish more than history keeps, or the observer
        // is rightly told of a gap.
        let fresh = !world.calm && self.waiting.len() < 4;
        // Mostly one, sometimes many in a row: the mean is one.
        let burst = if world.rng.one_in(2) { 1 } else { world.rng.pick(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 10]) };
        let mut bytes = Vec::new();
        while let Some(draft) = self.again.pop_front() {
            bytes.extend(self.request(&draft));
            self.waiting.push_back(draft);
        }
        for _ in 0..if fresh { burst } else { 0 } {
            let (channel, keyed) = (Publisher::channel(&mut world.rng), world.rng.one_in(2));
            let draft = self.draft(channel, keyed, world);
            bytes.extend(self.request(&draft));
            self.waiting.push_back(draft);
        }
        if is_cut {
            bytes.truncate(world.rng.below(bytes.len() as u64 + 1) as usize);
        }
        if let Some(line) = &mut self.line {
            line.send(&bytes);
        }
        if is_cut {
            self.is_killed(world);
        }
        Ok(())
    }

    fn is_killed(&mut self, world: &mut Surroundings) {
        world.counts.publishers_killed += 1;
        if let Some(line) = self.line.take() {
            line.reset();
        }
        self.is_cut();
    }

    fn connect(&mut self, world: &mut Surroundings) -> Result<()> {
        let mut line = world.connect(self.owner)?;
        if self.by_commands() {
            line.send(&clients::upgrade(&name(CHANNELS), "", Some("tidings.v1")));
        }
        self.line = Some(line);
        self.responses = Responses::default();
        self.head = None;
        self.body.clear();
        self.reader = Reader::new(Transport::WebSocket, Format::Json);
        Ok(())
    }

    /// What bears a key is repeated, in its order. Of the rest nobody knows.
    fn is_cut(&mut self) {
        (self.line, self.cut_in) = (None, None);
        let repeated = self.waiting.drain(..).filter(|draft| draft.keyed);
        self.again = repeated.chain(self.again.drain(..)).collect();
    }

    fn request(&self, draft: &Draft) -> Vec<u8> {
        let sent = &draft.sent;
        let channel = name(sent.channel);
        if !self.by_commands() {
            let query = sent.event.as_ref().map_or(String::new(), |event| format!("?event={event}"));
            let line = |name: &str, value: &str| format!("{name}: {value}\r\n");
            let mut lines = sent.media_type.as_ref().map_or(String::new(), |value| line("Content-Type", value));
            if draft.keyed {
                lines.push_str(&line("Idempotency-Key", &sent.tag));
            }
            return clients::post(&channel, &query, &lines, &sent.payload);
        }
        let word = |name: &str, value: &Option<String>| {
            value.as_ref().map_or(String::new(), |value| format!(" {name}={value}"))
        };
        let key = draft.keyed.then(|| sent.tag.clone());
        let words = [word("event", &sent.event), word("type", &sent.media_type), word("key", &key)].concat();
        let mut payload = format!("publish {channel}{words} ref={}\n", sent.tag).into_bytes();
        payload.extend_from_slice(&sent.payload);
        let is_text = std::str::from_utf8(&payload).is_ok();
        clients::client_frame(if is_text { clients::TEXT } else { clients::BINARY }, &payload)
    }

    fn ready(&mut self, world: &mut Surroundings) -> Result<()> {
        while let Some(line) = &mut self.line {
            line.flush();
            let most = self.cut_in.unwrap_or(usize::MAX).min(world.buffer.len());
            match line.read(&mut world.buffer[..most]) {
                Received::Nothing => break,
                Received::End => {
                    world.counts.ended_by_the_server += 1;
                    self.is_cut();
                }
                Received::Bytes(read) => {
                    let bytes = world.buffer[..read].to_vec();
                    let heard =
                        if self.by_commands() { self.frames(&bytes, world) } else { self.answers(&bytes, world) };
                    heard.map_err(|why| format!("publisher {}: {why}", self.owner))?;
                    if let Some(left) = &mut self.cut_in {
                        *left -= read;
                        if *left == 0 {
                            self.is_killed(world);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn answers(&mut self, bytes: &[u8], world: &mut Surroundings) -> Result<()> {
        self.responses.receive(bytes);
        while let Some(part) = self.responses.next_part()? {
            match part {
                Part::Head(head) => self.head = Some(head),
                Part::Body(bytes) => self.body.extend_from_slice(&bytes),
                Part::End => {
                    let head = self.head.take().ok_or("an end without a head")?;
                    let body = String::from_utf8(std::mem::take(&mut self.body)).map_err(|error| error.to_string())?;
                    if head.status != 200 {
                        return Err(format!("a publish was answered {}: {body}", head.status));
                    }
                    let json = clients::json::Json::parse(&body)?;
                    let is_replay = head.header("Idempotent-Replayed").is_some();
                    let (id, channel) = (Place::parse(json.text("id")?)?, json.text("channel")?);
                    self.answered(id, channel, is_replay, world)?;
                }
            }
        }
        Ok(())
    }

    fn frames(&mut self, bytes: &[u8], world: &mut Surroundings) -> Result<()> {
        for heard in self.reader.receive(bytes)? {
            match heard {
                Heard::Published { id, channel, reference } => {
                    let is_next = self.waiting.front().is_some_and(|draft| reference.as_ref() == Some(&draft.sent.tag));
                    if !is_next {
                        return Err(format!("{id} was answered out of order, for {reference:?}"));
                    }
                    // A command's answer does not say whether it is a replay: it may be an old one.
                    let is_replay = self.last.is_some_and(|last| last.epoch == id.epoch && last >= id);
                    let is_replay = is_replay && self.waiting.front().is_some_and(|draft| draft.keyed);
                    self.answered(id, &channel, is_replay, world)?;
                }
                Heard::Ping(payload) => {
                    if let Some(line) = &mut self.line {
                        line.send(&clients::client_frame(clients::PONG, &payload));
                    }
                }
                Heard::Cursor(_) | Heard::Alive => {}
                other => return Err(format!("heard {other:?}")),
            }
        }
        Ok(())
    }

    /// Answers come in the order of sending, and so grow the ids.
    fn answered(&mut self, id: Place, channel: &str, is_replay: bool, world: &mut Surroundings) -> Result<()> {
        let draft = self.waiting.pop_front().ok_or("an answer to nothing")?;
        let tag = &draft.sent.tag;
        if channel != name(draft.sent.channel) {
            return Err(format!("{tag} was answered with the channel {channel}"));
        }
        if is_replay {
            world.counts.replayed += 1;
        } else {
            if self.last.is_some_and(|last| last.epoch == id.epoch && last.seq >= id.seq) {
                return Err(format!("{tag} was answered {id} after {:?}", self.last));
            }
            self.last = Some(id);
        }
        world.counts.answered += 1;
        world.truth.answered(id, tag.clone());
        Ok(())
    }
}

struct Subscriber {
    owner: usize,
    transport: Transport,
    format: Format,
    channels: Vec<usize>,
    chain: Chain,
    line: Option<Line>,
    reader: Reader,
    /// It does not read.
    is_stalled: bool,
    /// It has said goodbye: half-closed, or by a close frame.
    is_leaving: bool,
    /// After so many bytes more it is killed.
    cut_in: Option<usize>,
}

impl Subscriber {
    fn new(owner: usize, rng: &mut Rng) -> Subscriber {
        let transport = [Transport::Poll, Transport::Sse, Transport::WebSocket][owner % 3];
        let mut channels: Vec<usize> = (0..rng.pick(&[1, 1, 2, 3])).map(|_| Publisher::channel(rng)).collect();
        channels.sort_unstable();
        channels.dedup();
        Subscriber {
            owner,
            transport,
            format: Format::Json,
            channels,
            chain: Chain::default(),
            line: None,
            reader: Reader::new(transport, Format::Json),
            is_stalled: false,
            is_leaving: false,
            cut_in: None,
        }
    }

    fn explain(&self, why: String) -> String {
        format!("subscriber {} ({:?} {:?}): {why}", self.owner, self.transport, self.format)
    }

    /// A misfortune, or the end of one.
    fn rings(&mut self, world: &mut Surroundings) -> Result<()> {
        let next_ms = 1 + world.rng.below(2 * world.scale.calm_ms);
        world.rings_in(self.owner, next_ms);
        let Some(line) = &mut self.line else { return self.connect(world) };
        if self.is_stalled {
            self.is_stalled = false;
            return self.ready(world);
        }
        if world.calm || self.is_leaving {
            return Ok(());
        }
        match world.rng.below(6) {
            0 => {
                world.counts.killed += 1;
                self.leave(world);
            }
            1 => self.cut_in = Some(1 + world.rng.below(3000) as usize),
            2 => {
                // Closed, by FIN or by a reset if there is something unread.
                world.counts.closed += 1;
                self.line = None;
                self.connect(world)?;
            }
            3 => {
                world.counts.stalled += 1;
                self.is_stalled = true;
                let ms = world.rng.below(world.scale.away_ms);
                world.rings_in(self.owner, ms);
            }
            4 => {
                world.counts.half_closed += 1;
                self.is_leaving = true;
                line.half_close();
            }
            _ if self.transport == Transport::WebSocket => {
                world.counts.closed += 1;
                self.is_leaving = true;
                line.send(&clients::close_frame(1000));
            }
            _ => {
                world.counts.away += 1;
                self.line = None;
                let ms = world.rng.below(world.scale.away_ms);
                world.rings_in(self.owner, ms);
            }
        }
        Ok(())
    }

    /// Killed: it comes back at once or later.
    fn leave(&mut self, world: &mut Surroundings) {
        if let Some(line) = self.line.take() {
            line.reset();
        }
        self.comes_back(world);
    }

    fn comes_back(&mut self, world: &mut Surroundings) {
        let ms_max = if world.calm { 50 } else { world.rng.pick(&[50, 50, 50, world.scale.away_ms]) };
        let ms = world.rng.below(ms_max);
        world.rings_in(self.owner, ms);
    }

    fn connect(&mut self, world: &mut Surroundings) -> Result<()> {
        let before = self.transport;
        if self.chain.last().is_some() {
            world.counts.resumed += 1;
            if world.rng.one_in(2) {
                self.transport = world.rng.pick(&[Transport::Poll, Transport::Sse, Transport::WebSocket]);
                world.counts.switched += u64::from(self.transport != before);
            }
            // The new channel starts after the cursor.
            if !world.calm && world.rng.one_in(20) && !self.channels.contains(&0) {
                self.channels.insert(0, 0);
            }
        }
        self.format = match self.transport {
            Transport::WebSocket => Format::Json,
            _ => world.rng.pick(&[Format::Json, Format::Raw]),
        };
        (self.is_leaving, self.is_stalled) = (false, false);
        let line = world.connect(self.owner)?;
        self.line = Some(line);
        let offer = Offer { window_bits: world.rng.pick(&[None, Some(11)]) };
        let offer = (self.transport == Transport::WebSocket && world.rng.one_in(3)).then_some(offer);
        self.reader = Reader::new(self.transport, self.format).offering(offer);
        self.cut_in = (!world.calm && world.rng.one_in(8)).then(|| 1 + world.rng.below(1000) as usize);
        let request = self.request(offer, world);
        if !world.calm && world.rng.one_in(30) {
            world.counts.killed_in_a_request += 1;
            let cut = world.rng.below(request.len() as u64) as usize;
            if let Some(line) = &mut self.line {
                line.send(&request[..cut]);
            }
            self.leave(world);
            return Ok(());
        }
        self.ask(&request);
        Ok(())
    }

    fn ask(&mut self, request: &[u8]) {
        self.chain.asks(&self.channels);
        if let Some(line) = &mut self.line {
            line.send(request);
        }
    }

    fn request(&self, offer: Option<Offer>, world: &mut Surroundings) -> Vec<u8> {
        let names: Vec<String> = self.channels.iter().map(|&channel| name(channel)).collect();
        let set = names.join(",");
        let last = self.chain.last().map(|place| place.to_string());
        let after = last.as_deref().unwrap_or("now");
        let format = if self.format == Format::Raw { "raw" } else { "json" };
        // Who has no cursor yet wants one at once.
        let wait = if last.is_none() { 0 } else { world.rng.pick(&[0, 3, 10]) };
        let in_header = world.rng.one_in(2) && last.is_some();
        match self.transport {
            Transport::WebSocket => clients::upgrade_with(&set, &format!("?after={after}"), None, offer),
            Transport::Poll => clients::get(&set, &format!("?after={after}&format={format}&wait={wait}"), ""),
            Transport::Sse if in_header => {
                let lines = format!("Accept: text/event-stream\r\nLast-Event-ID: {after}\r\n");
                clients::get(&set, &format!("?after=7-7&format={format}"), &lines)
            }
            Transport::Sse => {
                let query = format!("?after={after}&format={format}");
                clients::get(&set, &query, "Accept: text/event-stream\r\n")
            }
        }
    }

    fn ready(&mut self, world: &mut Surroundings) -> Result<()> {
        while let Some(line) = &mut self.line {
            line.flush();
            if self.is_stalled {
                break;
            }
            let most = self.cut_in.unwrap_or(usize::MAX).min(world.buffer.len());
            match line.read(&mut world.buffer[..most]) {
                Received::Nothing => break,
                Received::End => {
                    world.counts.ended_by_the_server += u64::from(!self.is_leaving);
                    self.line = None;
                    self.comes_back(world);
                }
                Received::Bytes(read) => {
                    self.receive(read, world).map_err(|why| self.explain(why))?;
                    if let Some(left) = &mut self.cut_in {
                        *left -= read;
                        if *left == 0 {
                            world.counts.killed_at_a_byte += 1;
                            self.cut_in = None;
                            self.leave(world);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn receive(&mut self, read: usize, world: &mut Surroundings) -> Result<()> {
        for heard in self.reader.receive(&world.buffer[..read])? {
            match &heard {
                Heard::Message(_) => world.counts.deliveries += 1,
                Heard::Gap(gap) if gap.reason == "epoch" => world.counts.gaps_epoch += 1,
                Heard::Gap(_) => world.counts.gaps_evicted += 1,
                Heard::Cursor(_) => world.counts.heartbeats += 1,
                Heard::Ping(payload) => {
                    if let Some(line) = &mut self.line {
                        line.send(&clients::client_frame(clients::PONG, payload));
                    }
                }
                Heard::Alive | Heard::Done(None) => {}
                Heard::Done(Some(1000)) if self.is_leaving => {}
                other => return Err(format!("heard {other:?}")),
            }
            let is_done = heard == Heard::Done(None);
            self.chain.hears(heard, &world.truth)?;
            if is_done && self.transport == Transport::Poll && !self.is_leaving {
                let request = self.request(None, world);
                self.ask(&request);
            }
        }
        Ok(())
    }
}
