//! The clients of the simulation: publishers and subscribers that misbehave as people's do.
//!
//! An actor acts on its wire, a little at a time, and tells the model what it sent and heard.
//! It knows nothing of the engine. When the world is `calm` it behaves: it reads at once, cuts
//! nothing and comes back when it was cut off.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::clients::{self, Format, Head, Heard, Message, Offer, Part, Place, Reader, Responses, Result, Transport};
use crate::kernel::{Kernel, Rng, Wire};

use super::model::{After, Chain, Model, Sent};
use super::others::PASSING;

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
}

/// What some worlds have beside the common: each with its own randomness.
#[derive(Debug, Default)]
pub struct Trials {
    /// Only here may a well-formed request be refused, for want of a descriptor or of a channel.
    pub hard: Option<Rng>,
    /// Clients are to show this.
    pub token: Option<String>,
    /// Since this place in the log the token is good for nothing.
    pub revoked: BTreeMap<String, Place>,
    /// A server has left; what it said last may be read much later.
    pub leaving: bool,
}

impl Trials {
    /// True if a request may be refused so, through no fault of the client.
    fn excuses(&self, status: u16, code: &str) -> bool {
        match (status, code) {
            (408, _) => true,
            (503, "draining") => self.leaving,
            (503, "too_many_connections" | "channels_full") => self.hard.is_some(),
            (403, "token_wrong") => !self.revoked.is_empty(),
            _ => false,
        }
    }

    /// The same of a command, whose answer is told by its code.
    fn excuses_command(&self, code: &str) -> bool {
        self.excuses(503, code) || self.excuses(403, code)
    }
}

/// A query that shows this token.
fn shown(query: String, token: Option<&String>) -> String {
    match token {
        None => query,
        Some(token) if query.is_empty() => format!("?token={token}"),
        Some(token) => format!("{query}&token={token}"),
    }
}

/// A wire and the bytes that wait for room on it.
struct Line {
    wire: Wire,
    out: Vec<u8>,
}

impl Line {
    fn send(&mut self, kernel: &mut Kernel, bytes_max: usize) {
        let end = self.out.len().min(bytes_max);
        let taken = kernel.send(self.wire, &self.out[..end]);
        self.out.drain(..taken);
    }
}

// Publishers.

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Publishing {
    /// POST, kept alive and pipelined.
    Post,
    /// `publish` commands of tidings.v1.
    Commands,
    /// Inbound frames of a WebSocket without a subprotocol.
    Frames,
}

pub struct Publisher {
    name: usize,
    how: Publishing,
    line: Option<Line>,
    responses: Responses,
    head: Option<Head>,
    body: Vec<u8>,
    reader: Reader,
    /// Published and not answered, oldest first; with the key, if it may be repeated.
    waiting: VecDeque<(String, Option<String>)>,
    /// To be repeated with its key.
    again: VecDeque<(String, String)>,
    sent: usize,
    /// How it compresses, if it may.
    ways: Option<Rng>,
}

/// What to offer, if anything.
fn offer(ways: &mut Option<Rng>) -> Option<Offer> {
    let rng = ways.as_mut()?;
    let window_bits = rng.pick(&[None, None, Some(9), Some(10), Some(11), Some(12), Some(13), Some(14), Some(15)]);
    (!rng.one_in(4)).then_some(Offer { window_bits })
}

impl Publisher {
    pub fn new(name: usize, ways: Option<Rng>, rng: &mut Rng) -> Publisher {
        Publisher {
            name,
            how: rng.pick(&[Publishing::Post, Publishing::Post, Publishing::Commands, Publishing::Frames]),
            line: None,
            responses: Responses::default(),
            head: None,
            body: Vec::new(),
            reader: Reader::new(Transport::WebSocket, Format::Json),
            waiting: VecDeque::new(),
            again: VecDeque::new(),
            sent: 0,
            ways,
        }
    }

    pub fn act(&mut self, world: &mut Surroundings<'_>) -> Result<()> {
        let Some(line) = &mut self.line else {
            if !world.calm || !self.again.is_empty() {
                self.connect(world);
            }
            return Ok(());
        };
        let bytes_max = if world.calm { usize::MAX } else { world.rng.pick(&[1, 7, 300, usize::MAX, usize::MAX]) };
        line.send(world.kernel, bytes_max);
        let bytes = world.kernel.receive(line.wire, usize::MAX);
        let ended = world.kernel.ending(line.wire).is_some();
        let cut = !world.calm && world.rng.one_in(60);
        if self.how == Publishing::Post {
            self.answers(&bytes, world)?
        } else {
            self.frames(&bytes, world)?
        }
        if ended || cut {
            self.cut(world);
        } else if self.waiting.len() < 40 && (!world.calm || !self.again.is_empty()) {
            for _ in 0..world.rng.pick(&[0, 0, 0, 1, 1, 3, 12]) {
                self.publish(world);
            }
        }
        Ok(())
    }

    /// At the end: nothing is unanswered.
    pub fn is_answered(&self) -> Result<()> {
        let unanswered = self.waiting.len() + self.again.len();
        if unanswered == 0 || self.how == Publishing::Frames {
            return Ok(());
        }
        Err(format!("publisher {} still waits for {unanswered} answers", self.name))
    }

    fn connect(&mut self, world: &mut Surroundings<'_>) {
        let wire = world.kernel.connect();
        let offer = offer(&mut self.ways);
        let token = shown(String::new(), world.trials.token.as_ref());
        let out = match self.how {
            Publishing::Post => Vec::new(),
            Publishing::Commands => clients::upgrade_with("b", &token, Some("tidings.v1"), offer),
            Publishing::Frames => clients::upgrade_with("a", &token, None, offer),
        };
        self.line = Some(Line { wire, out });
        self.responses = Responses::default();
        self.head = None;
        self.body.clear();
        self.reader = Reader::new(Transport::WebSocket, Format::Json).offering(offer);
    }

    fn cut(&mut self, world: &mut Surroundings<'_>) {
        if let Some(line) = self.line.take() {
            world.kernel.close_client(line.wire);
        }
        let repeatable = self.waiting.drain(..).filter_map(|(tag, key)| Some((tag, key?)));
        self.again.extend(repeatable);
    }

    fn publish(&mut self, world: &mut Surroundings<'_>) {
        let (tag, key) = match self.again.pop_front() {
            Some((tag, key)) => (tag, Some(key)),
            None if world.calm => return,
            None => {
                let tag = format!("m{}.{}", self.name, self.sent);
                self.sent += 1;
                let sent = self.message(&tag, world.rng);
                world.model.sent.insert(tag.clone(), sent);
                let keyed = self.how != Publishing::Frames && world.rng.one_in(2);
                (tag.clone(), keyed.then(|| format!("key-{tag}")))
            }
        };
        let sent = &world.model.sent[&tag];
        let bytes = match self.how {
            Publishing::Post => {
                let query = sent.event.as_ref().map_or(String::new(), |event| format!("?event={event}"));
                let query = shown(query, world.trials.token.as_ref());
                let mut lines = String::new();
                if let Some(media_type) = &sent.media_type {
                    lines.push_str(&format!("Content-Type: {media_type}\r\n"));
                }
                if let Some(key) = &key {
                    lines.push_str(&format!("Idempotency-Key: {key}\r\n"));
                }
                clients::post(&sent.channel, &query, &lines, &sent.payload)
            }
            Publishing::Commands => {
                let mut command = format!("publish {}", sent.channel);
                for (name, value) in [("event", &sent.event), ("type", &sent.media_type), ("key", &key)] {
                    if let Some(value) = value {
                        command.push_str(&format!(" {name}={value}"));
                    }
                }
                let mut payload = format!("{command} ref={tag}\n").into_bytes();
                payload.extend_from_slice(&sent.payload);
                let opcode = if sent.is_binary() { clients::BINARY } else { clients::TEXT };
                self.frame(opcode, &payload, world.coverage)
            }
            Publishing::Frames => {
                let opcode = if sent.is_binary() { clients::BINARY } else { clients::TEXT };
                let payload = sent.payload.clone();
                self.frame(opcode, &payload, world.coverage)
            }
        };
        if let Some(line) = &mut self.line {
            line.out.extend_from_slice(&bytes);
            world.model.in_flight.insert(tag.clone());
            self.waiting.push_back((tag, key));
        }
    }

    /// A message in one frame or in two, compressed in some way if that was agreed.
    fn frame(&mut self, opcode: u8, payload: &[u8], coverage: &mut Coverage) -> Vec<u8> {
        let Some(rng) = self.ways.as_mut().filter(|_| self.reader.may_compress()) else {
            return clients::client_frame(opcode, payload);
        };
        if rng.one_in(3) {
            return clients::client_frame(opcode, payload);
        }
        count(coverage, format!("published compressed by {:?}", self.how));
        let compressed = clients::deflate::deflate(payload, rng.below(clients::deflate::WAYS as u64) as usize);
        if rng.one_in(2) {
            return clients::client_frame(opcode | clients::COMPRESSED, &compressed);
        }
        let (front, back) = compressed.split_at(rng.below(compressed.len() as u64) as usize);
        let mut first = clients::client_frame(opcode | clients::COMPRESSED, front);
        // Not the last frame of its message.
        first[0] &= 0x7f;
        first.extend(clients::client_frame(0, back));
        first
    }

    fn message(&self, tag: &str, rng: &mut Rng) -> Sent {
        let frames = self.how == Publishing::Frames;
        let mut payload = format!("{tag} ").into_bytes();
        let filler: &[&str] = &["", "x", "zwei\nZeilen", "\r", "\r\n", "\u{1F600}", "\"quoted\\\"", "\u{2028}", "\t"];
        let length = rng.pick(&[0, 1, 1, 5, 40, 700]);
        for _ in 0..length {
            payload.extend_from_slice(rng.pick(filler).as_bytes());
        }
        let mut media_type = rng.pick(&[None, None, Some("text/plain"), Some("application/json")]);
        if rng.one_in(4) {
            payload.extend_from_slice(&[0xff, 0, b'\n', 0xfe]);
            media_type = Some("application/octet-stream");
        } else if frames {
            media_type = None;
        }
        Sent {
            channel: if frames { "a".into() } else { rng.pick(&CHANNELS).to_string() },
            event: (!frames && rng.one_in(3)).then(|| "price".to_string()),
            media_type: media_type.map(str::to_string),
            payload,
        }
    }

    fn answers(&mut self, bytes: &[u8], world: &mut Surroundings<'_>) -> Result<()> {
        self.responses.receive(bytes);
        while let Some(part) = self.responses.next_part()? {
            match part {
                Part::Head(head) => self.head = Some(head),
                Part::Body(bytes) => self.body.extend_from_slice(&bytes),
                Part::End => {
                    let head = self.head.take().ok_or("an end without a head")?;
                    let body = std::mem::take(&mut self.body);
                    match head.status {
                        200 => {}
                        408 => continue, // too slow; the end follows
                        status => {
                            let refusal = clients::refusal(status, &body)?;
                            let Heard::Refused(_, code) = &refusal else { continue };
                            if !world.trials.excuses(status, code) {
                                return Err(format!("a publish was refused: {refusal:?}"));
                            }
                            // The connection as a whole was, if nothing had been asked.
                            self.refused(code.clone(), world);
                            continue;
                        }
                    }
                    if head.header("Idempotent-Replayed").is_some() {
                        count(world.coverage, "replayed");
                    }
                    let text = String::from_utf8(body).map_err(|_| "an answer that is no UTF-8")?;
                    let json = clients::json::Json::parse(&text)?;
                    json.number("subscribers")?;
                    self.answered(Place::parse(json.text("id")?)?, json.text("channel")?, None, world)?;
                }
            }
        }
        Ok(())
    }

    fn frames(&mut self, bytes: &[u8], world: &mut Surroundings<'_>) -> Result<()> {
        for heard in self.reader.receive(bytes)? {
            match heard {
                Heard::Published { id, channel, reference } => self.answered(id, &channel, reference, world)?,
                Heard::CommandFailed { code, .. } if world.trials.excuses_command(&code) => {
                    self.refused(code, world);
                }
                Heard::CommandFailed { code, .. } => return Err(format!("a publish failed: {code}")),
                Heard::Refused(status, code) if !world.trials.excuses(status, &code) => {
                    return Err(format!("refused: {status} {code}"));
                }
                // What it had sent behind its handshake is taken for a request.
                Heard::Refused(403 | 503, _) => {
                    self.cut(world);
                    return Ok(());
                }
                Heard::Ping(payload) => {
                    if let Some(line) = &mut self.line {
                        line.out.extend(clients::client_frame(clients::PONG, &payload));
                    }
                }
                // Its own message, come back.
                Heard::Message(message) if self.how == Publishing::Frames => {
                    let tag = super::model::tag(&message.payload);
                    self.waiting.retain(|(waiting, _)| *waiting != tag);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The oldest publish without an answer was refused: it is nowhere, and may be repeated.
    fn refused(&mut self, code: String, world: &mut Surroundings<'_>) {
        count(world.coverage, format!("publish refused: {code}"));
        let Some((tag, key)) = self.waiting.pop_front() else { return };
        if let Some(key) = key {
            self.again.push_back((tag, key));
        }
    }

    fn answered(
        &mut self,
        id: Place,
        channel: &str,
        reference: Option<String>,
        world: &mut Surroundings<'_>,
    ) -> Result<()> {
        let (tag, _) = self.waiting.pop_front().ok_or("an answer to nothing")?;
        if reference.is_some_and(|reference| reference != tag) {
            return Err(format!("an answer out of order, {tag} was next"));
        }
        if channel != world.model.sent[&tag].channel {
            return Err(format!("{tag} was answered with the channel {channel}"));
        }
        world.model.answered(id, tag);
        count(world.coverage, format!("published by {:?}", self.how));
        Ok(())
    }
}

impl Sent {
    fn is_binary(&self) -> bool {
        std::str::from_utf8(&self.payload).is_err()
    }
}

// Subscribers.

/// How a subscriber reads.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Pace {
    Eager,
    Slow,
    ByteByByte,
    Stalled,
}

pub struct Subscriber {
    name: usize,
    chain: Chain,
    transport: Transport,
    format: Format,
    /// tidings.v1: the set may be changed.
    commands: bool,
    pace: Pace,
    line: Option<Line>,
    reader: Reader,
    /// What it offers, if anything.
    ways: Option<Rng>,
    /// The token of its last request.
    token: Option<String>,
    /// Times the server ended a connection of this client while all was calm.
    pub ended_in_calm: u64,
    /// Bytes it got while all was calm.
    pub bytes_in_calm: usize,
}

impl Subscriber {
    pub fn new(name: usize, ways: Option<Rng>, rng: &mut Rng) -> Subscriber {
        let (transport, format) = form(rng);
        Subscriber {
            name,
            chain: Chain::new(),
            transport,
            format,
            commands: false,
            pace: Pace::Eager,
            line: None,
            reader: Reader::new(transport, format),
            ways,
            token: None,
            ended_in_calm: 0,
            bytes_in_calm: 0,
        }
    }

    pub fn act(&mut self, world: &mut Surroundings<'_>) -> Result<()> {
        let Some(line) = &mut self.line else {
            if world.calm || world.rng.one_in(3) {
                self.connect(world);
            }
            return Ok(());
        };
        if world.calm {
            self.pace = Pace::Eager;
        } else if world.rng.one_in(25) {
            self.pace = world.rng.pick(&[Pace::Eager, Pace::Eager, Pace::Slow, Pace::ByteByByte, Pace::Stalled]);
        }
        line.send(world.kernel, if world.calm { usize::MAX } else { world.rng.pick(&[1, 20, usize::MAX, usize::MAX]) });
        let bytes = world.kernel.receive(
            line.wire,
            match self.pace {
                Pace::Eager => usize::MAX,
                Pace::Slow => 1 + world.rng.below(100) as usize,
                Pace::ByteByByte => 1,
                Pace::Stalled => 0,
            },
        );
        self.bytes_in_calm += if world.calm { bytes.len() } else { 0 };
        let ended = world.kernel.ending(line.wire).is_some();
        let inflated = self.reader.inflated();
        for heard in self.reader.receive(&bytes)? {
            self.hears(heard, world)?;
            // What it had sent behind a handshake that is refused is taken for a request.
            if self.line.is_none() {
                break;
            }
        }
        if self.reader.inflated() > inflated {
            count(world.coverage, format!("heard compressed by {:?} {:?}", self.pace, self.format));
        }
        if ended && self.line.is_some() {
            self.ended_in_calm += u64::from(world.calm);
            self.leave(world);
        } else if !world.calm {
            self.misbehave(world);
        }
        Ok(())
    }

    pub fn settle(&mut self, model: &Model) -> Result<()> {
        self.chain.settle(model).map_err(|why| self.explain(why))
    }

    pub fn is_caught_up(&mut self, model: &Model) -> Result<()> {
        self.chain.is_caught_up(model).map_err(|why| self.explain(why))
    }

    fn explain(&self, why: String) -> String {
        format!("subscriber {} ({:?} {:?}): {why}", self.name, self.transport, self.format)
    }

    fn hears(&mut self, heard: Heard, world: &mut Surroundings<'_>) -> Result<()> {
        let name = self.name;
        world.kernel.note(|| format!("subscriber {name} hears {heard:?}"));
        match &heard {
            Heard::Message(message) => {
                self.may_hear(message, world)?;
                count(world.coverage, format!("heard by {:?} {:?}", self.transport, self.format));
            }
            Heard::Gap(gap) => count(world.coverage, format!("gap {} by {:?}", gap.reason, self.transport)),
            Heard::Subscribed { .. } => count(world.coverage, "set changed"),
            Heard::Ping(payload) => {
                if let Some(line) = &mut self.line {
                    line.out.extend(clients::client_frame(clients::PONG, payload));
                }
            }
            Heard::CommandFailed { code, .. } if world.trials.excuses_command(code) => {
                count(world.coverage, format!("command refused: {code}"));
            }
            Heard::CommandFailed { code, .. } => return Err(self.explain(format!("a command failed: {code}"))),
            // 408: it sent its request too slowly.
            Heard::Refused(status, code) if world.trials.excuses(*status, code) => {
                count(world.coverage, format!("refused: {code}"));
            }
            Heard::Refused(status, code) => return Err(self.explain(format!("refused: {status} {code}"))),
            Heard::Done(Some(1008)) if !world.trials.revoked.is_empty() => count(world.coverage, "closed 1008"),
            Heard::Done(Some(4008)) if self.format == Format::Raw => count(world.coverage, "closed 4008"),
            Heard::Done(Some(1000)) => count(world.coverage, "closed by the client"),
            _ => {}
        }
        self.chain.hear(&heard);
        if let (Heard::Done(Some(code @ 1001..)), Some(line)) = (&heard, &mut self.line) {
            // It answers, behind what it had to say anyway, and waits for the end of the connection.
            line.out.extend(clients::close_frame(*code));
        } else if let Heard::Done(_) = heard {
            if self.transport == Transport::Poll && !world.rng.one_in(8) {
                self.ask(world);
            } else {
                self.leave(world);
            }
        }
        Ok(())
    }

    /// Whoever reads by a token that is no longer good hears nothing of what comes after.
    fn may_hear(&self, message: &Message, world: &Surroundings<'_>) -> Result<()> {
        let since = self.token.as_ref().and_then(|token| world.trials.revoked.get(token));
        match (since, message.id) {
            (Some(since), Some(id)) if id.epoch == since.epoch && id.seq > since.seq => {
                Err(self.explain(format!("heard {id}, and its token is good for nothing since {since}")))
            }
            _ => Ok(()),
        }
    }

    fn misbehave(&mut self, world: &mut Surroundings<'_>) {
        let Some(line) = &mut self.line else { return };
        if world.rng.one_in(50) {
            let is_halfway = if line.out.is_empty() { "" } else { " in the middle of a request" };
            match world.rng.below(3) {
                0 => {
                    count(world.coverage, format!("client reset{is_halfway}"));
                    world.kernel.reset(line.wire);
                }
                1 => {
                    count(world.coverage, format!("client half-closed{is_halfway}"));
                    world.kernel.half_close(line.wire);
                }
                // Behind its close frame it goes on as before; nobody is to listen.
                _ if self.transport == Transport::WebSocket => line.out.extend(clients::close_frame(1000)),
                _ => {}
            }
            if world.rng.one_in(2) {
                self.leave(world);
            }
        } else if self.commands && world.rng.one_in(10) {
            let word = world.rng.pick(&["subscribe", "unsubscribe"]);
            let mut channel = world.rng.pick(&CHANNELS);
            if let Some(rng) = world.trials.hard.as_mut().filter(|_| !world.calm)
                && rng.one_in(4)
            {
                channel = rng.pick(&PASSING);
            }
            line.out.extend(clients::client_frame(clients::TEXT, format!("{word} {channel}").as_bytes()));
        }
    }

    fn leave(&mut self, world: &mut Surroundings<'_>) {
        if let Some(line) = self.line.take() {
            world.kernel.close_client(line.wire);
        }
    }

    pub fn connect(&mut self, world: &mut Surroundings<'_>) {
        if world.rng.one_in(3) {
            let before = (self.transport, self.format);
            (self.transport, self.format) = form(world.rng);
            if before != (self.transport, self.format) && self.chain.last().is_some() {
                count(world.coverage, "transport switched with its cursor");
            }
        }
        self.line = Some(Line { wire: world.kernel.connect(), out: Vec::new() });
        self.reader = Reader::new(self.transport, self.format);
        self.ask(world);
    }

    /// Subscribes on the line: with the last cursor, or anew.
    fn ask(&mut self, world: &mut Surroundings<'_>) {
        let rng = &mut *world.rng;
        let mut channels = self.chain.wanted().clone();
        if let Some(hard) = &mut world.trials.hard {
            // There may be no room for them for ever.
            channels.retain(|channel| CHANNELS.contains(&channel.as_str()) || !world.calm && hard.one_in(2));
            if !world.calm && !channels.is_empty() && hard.one_in(8) {
                channels.insert(hard.pick(&PASSING).to_string());
            }
        }
        if channels.is_empty() {
            let wanted = rng.pick(&[1, 1, 2, 5]);
            while channels.len() < wanted {
                channels.insert(rng.pick(&CHANNELS).to_string());
            }
        } else if rng.one_in(10) {
            channels.insert(rng.pick(&CHANNELS).to_string());
            count(world.coverage, "set widened");
        }
        let after = match self.chain.last() {
            Some(last) if world.calm || !rng.one_in(20) => {
                count(world.coverage, "resumed");
                After::Place(last)
            }
            Some(last) if rng.one_in(2) => After::Place(Place { seq: last.seq + 1_000_000, ..last }),
            _ if rng.one_in(4) && self.transport != Transport::WebSocket => After::Text("not-a-cursor \"1\"".into()),
            _ => rng.pick(&[After::Now, After::Now, After::Earliest]),
        };
        let (query, lines) = self.start(&after, rng);
        self.token = world.trials.token.clone();
        let query = shown(query, self.token.as_ref());
        let set = in_any_order(&channels, rng);
        self.commands = false;
        let offer = if self.transport == Transport::WebSocket { offer(&mut self.ways) } else { None };
        let request = match (self.transport, self.format) {
            (Transport::WebSocket, Format::Json) => {
                self.commands = rng.one_in(2);
                clients::upgrade_with(&set, &query, self.commands.then_some("tidings.v1"), offer)
            }
            (Transport::WebSocket, Format::Raw) => clients::upgrade_with(&set, &query, Some("tidings.raw"), offer),
            (Transport::Sse, _) => clients::get(&set, &query, &format!("Accept: text/event-stream\r\n{lines}")),
            (Transport::Poll, _) => clients::get(&set, &query, &lines),
        };
        if offer.is_some() {
            self.reader = Reader::new(self.transport, self.format).offering(offer);
        }
        self.chain.ask(after, channels);
        if let Some(line) = &mut self.line {
            line.out.extend_from_slice(&request);
        }
    }

    /// The query and the header lines that say where to start and in which format.
    fn start(&self, after: &After, rng: &mut Rng) -> (String, String) {
        let by_header = matches!(after, After::Text(_))
            || (matches!(after, After::Place(_)) && self.transport != Transport::WebSocket && rng.one_in(2));
        let mut query = if by_header { "?after=7-7".to_string() } else { format!("?after={}", after.text()) };
        let lines = if by_header { format!("Last-Event-ID: {}\r\n", after.text()) } else { String::new() };
        match (self.transport, self.format) {
            (Transport::WebSocket, _) => {}
            (_, Format::Json) => query.push_str("&format=json"),
            (_, Format::Raw) => query.push_str("&format=raw"),
        }
        if self.transport == Transport::Poll {
            query.push_str(&format!("&wait={}", rng.pick(&[0, 1, 3])));
        }
        (query, lines)
    }
}

fn form(rng: &mut Rng) -> (Transport, Format) {
    let transport = rng.pick(&[Transport::Poll, Transport::Sse, Transport::WebSocket]);
    (transport, rng.pick(&[Format::Json, Format::Json, Format::Raw]))
}

fn in_any_order(channels: &BTreeSet<String>, rng: &mut Rng) -> String {
    let mut names: Vec<&str> = channels.iter().map(String::as_str).collect();
    rng.shuffle(&mut names);
    names.join(",")
}
