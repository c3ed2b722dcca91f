//! Publishers: by POST, by commands, by frames of a WebSocket. They repeat what has a key until it is
//! answered, and hear what they themselves subscribe to, which is more or less as they go on.

use std::collections::{BTreeSet, VecDeque};

use crate::clients::{self, Format, Head, Heard, Part, Place, Reader, Responses, Result, Transport};
use crate::kernel::{Ending, Rng};

use super::actors::{CHANNELS, Changes, Coverage, Line, Surroundings, count, offer, shown};
use super::oracle::{self, After, Chain, Model, Sent};

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
    /// What it hears as a subscriber, over a WebSocket.
    chain: Chain,
    changes: Changes,
    /// Published and not answered, oldest first.
    waiting: VecDeque<Waiting>,
    /// To be repeated with its key.
    again: VecDeque<(String, String)>,
    lines: usize,
    sent: usize,
    /// Nothing was heard on this line: its first request has the time since it was opened.
    is_first: bool,
    /// It has ended its side, and waits for the answers to all it has asked.
    half_closed: bool,
    /// How it compresses, if it may.
    ways: Option<Rng>,
}

/// A publish without an answer.
struct Waiting {
    tag: String,
    key: Option<String>,
    token: Option<String>,
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
            chain: Chain::new(),
            changes: Changes::default(),
            waiting: VecDeque::new(),
            again: VecDeque::new(),
            lines: 0,
            sent: 0,
            is_first: true,
            half_closed: false,
            ways,
        }
    }

    pub fn act(&mut self, world: &mut Surroundings<'_>) -> Result<()> {
        self.acts(world).map_err(|why| self.explain(why))
    }

    fn explain(&self, why: String) -> String {
        format!("publisher {} ({:?}): {why}", self.name, self.how)
    }

    fn acts(&mut self, world: &mut Surroundings<'_>) -> Result<()> {
        let Some(line) = &mut self.line else {
            if !world.calm || !self.again.is_empty() {
                self.connect(world);
            }
            return Ok(());
        };
        let bytes_max = if world.calm { usize::MAX } else { world.rng.pick(&[1, 7, 300, usize::MAX, usize::MAX]) };
        line.send(world, bytes_max);
        let bytes = line.receive(world, usize::MAX);
        self.is_first &= bytes.is_empty();
        let has_ended = world.kernel.ending(line.asked.wire).is_some();
        let cut = !world.calm && world.rng.one_in(60);
        if self.how == Publishing::Post {
            self.answers(&bytes, world)?
        } else {
            self.frames(&bytes, world)?
        }
        let Some(line) = &mut self.line else { return Ok(()) };
        if has_ended {
            let is_idle = self.waiting.is_empty() || line.is_unread(world);
            let ending = line.ending(world, is_idle)?;
            // "A client that half-closes after a complete request still gets a short answer."
            let is_owed = self.half_closed && ending == Some(Ending::Closed) && !line.asked.told;
            if is_owed
                && !world.kernel.was_struck(line.asked.wire)
                && !world.excuses.is_leaving()
                && !world.excuses.was_away(world.kernel, &line.asked)
                && !self.waiting.is_empty()
            {
                return Err(format!("half-closed, and {} publishes are not answered", self.waiting.len()));
            }
        }
        if has_ended || cut {
            self.cut(world);
        } else if line.asked.told || self.half_closed {
            // The end follows.
        } else if self.waiting.len() < 40 && (!world.calm || !self.again.is_empty()) {
            for _ in 0..world.rng.pick(&[0, 0, 0, 1, 1, 3, 12]) {
                self.publish(world);
            }
            self.may_change_set(world);
            self.may_half_close(world);
        }
        Ok(())
    }

    /// Like `curl` at the end of a script: it says that it has nothing more to ask, and reads on.
    fn may_half_close(&mut self, world: &mut Surroundings<'_>) {
        let Some(line) = self.line.as_mut().filter(|_| self.how == Publishing::Post && !world.calm) else { return };
        let has_asked = line.out.is_empty() && !self.waiting.is_empty();
        if has_asked && world.one_in(10) {
            count(world.coverage, "publisher half-closed behind its requests");
            world.kernel.half_close(line.asked.wire);
            line.asked.own_doing = true;
            self.half_closed = true;
        }
    }

    /// Right behind what it publishes, or before: both are then acted on in one turn.
    fn may_change_set(&mut self, world: &mut Surroundings<'_>) {
        let Some(line) = self.line.as_mut().filter(|_| self.how == Publishing::Commands && !world.calm) else { return };
        if world.rng.one_in(6) {
            let (word, channel) = (world.rng.pick(&["subscribe", "unsubscribe"]), world.rng.pick(&CHANNELS));
            line.out.extend(self.changes.ask(word, channel));
        }
    }

    pub fn settle(&mut self, model: &Model) -> Result<()> {
        self.chain.settle(model).map_err(|why| self.explain(why))
    }

    /// As a subscriber, if it is one still.
    pub fn is_caught_up(&mut self, model: &Model) -> Result<()> {
        if self.line.is_none() || self.how == Publishing::Post {
            return Ok(());
        }
        self.chain.is_caught_up(model).map_err(|why| self.explain(why))
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
        let offer = offer(&mut self.ways);
        let token = shown(String::new(), world.trials.token.as_ref());
        let (channel, out) = match self.how {
            Publishing::Post => ("", Vec::new()),
            Publishing::Commands => ("b", clients::upgrade_with("b", &token, Some("tidings.v1"), offer)),
            Publishing::Frames => ("a", clients::upgrade_with("a", &token, None, offer)),
        };
        self.line = Some(Line::open(world, out));
        self.lines += 1;
        self.is_first = true;
        self.half_closed = false;
        self.responses = Responses::default();
        self.head = None;
        self.body.clear();
        self.changes.clear();
        self.reader = Reader::new(Transport::WebSocket, Format::Json).offering(offer);
        self.chain.ask(After::Now, BTreeSet::from([channel.to_string()]), world.model.epoch);
    }

    fn cut(&mut self, world: &mut Surroundings<'_>) {
        if let Some(line) = self.line.take() {
            world.kernel.close_client(line.asked.wire);
        }
        let repeatable = self.waiting.drain(..).filter_map(|waiting| Some((waiting.tag, waiting.key?)));
        self.again.extend(repeatable);
    }

    fn publish(&mut self, world: &mut Surroundings<'_>) {
        let (tag, key) = match self.again.pop_front() {
            Some((tag, key)) => {
                world.model.repeated.insert(tag.clone());
                (tag, Some(key))
            }
            None if world.calm => return,
            None => {
                let tag = format!("m{}.{}.{}", self.name, self.lines, self.sent);
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
            if line.out.is_empty() && self.waiting.is_empty() && !self.is_first {
                line.asked.began_ms = world.kernel.now_ms();
            }
            line.out.extend_from_slice(&bytes);
            world.model.in_flight.insert(tag.clone());
            // Each POST shows the token of now; a WebSocket has that of its handshake.
            let token = if self.how == Publishing::Post { &world.trials.token } else { &line.asked.token };
            self.waiting.push_back(Waiting { tag, key, token: token.clone() });
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
                    if let Some(line) = self.line.as_mut().filter(|_| head.header("Connection") == Some("close")) {
                        line.asked.told = true;
                    }
                    let body = std::mem::take(&mut self.body);
                    if head.status != 200 {
                        let Heard::Refused(_, code) = clients::refusal(head.status, &body)? else { continue };
                        self.refused(&code, world)?;
                        continue;
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
            if let Heard::Subscribed { channels, .. } = &heard {
                count(world.coverage, "publisher changed its set");
                self.changes.made(self.chain.wanted().clone(), channels)?;
            }
            self.chain.hear(&heard);
            match heard {
                Heard::Published { id, channel, reference } => self.answered(id, &channel, reference, world)?,
                Heard::CommandFailed { code, reference: Some(_) } => self.refused(&code, world)?,
                // Only what it publishes has a reference.
                Heard::CommandFailed { code, reference: None } => {
                    self.changes.refused()?;
                    if let Some(line) = &self.line {
                        world.excuse(&line.asked, &code)?;
                    }
                }
                Heard::Refused(_, code) => {
                    let Some(line) = &self.line else { return Ok(()) };
                    world.excuse(&line.asked, &code)?;
                    // What it had sent behind its handshake is taken for a request.
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
                    let tag = oracle::tag(&message.payload);
                    self.waiting.retain(|waiting| waiting.tag != tag);
                }
                Heard::Done(code) => {
                    let Some(line) = &mut self.line else { return Ok(()) };
                    let why = world.excuses.of_close(world.kernel, &line.asked, code);
                    world.excused(why, || format!("closed {}", code.unwrap_or(1005)), &line.asked)?;
                    line.asked.told = true;
                    line.out.extend(clients::close_frame(code.unwrap_or(1000)));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The oldest publish without an answer was refused: it is nowhere, and may be repeated. With
    /// nothing asked, the connection as a whole was.
    fn refused(&mut self, code: &str, world: &mut Surroundings<'_>) -> Result<()> {
        let Some(line) = &mut self.line else { return Err(format!("{code}, and it has no connection")) };
        let waiting = self.waiting.pop_front();
        // The connection's own excuses are known better than when the publish was sent.
        let mut asked = line.asked.clone();
        if let Some(waiting) = &waiting {
            asked.token.clone_from(&waiting.token);
        }
        line.asked.told |= matches!(code, "request_timeout" | "too_many_connections" | "draining");
        world.excuse(&asked, code)?;
        count(world.coverage, format!("publish refused: {code}"));
        if let Some(Waiting { tag, key: Some(key), .. }) = waiting {
            self.again.push_back((tag, key));
        }
        Ok(())
    }

    fn answered(
        &mut self,
        id: Place,
        channel: &str,
        reference: Option<String>,
        world: &mut Surroundings<'_>,
    ) -> Result<()> {
        let Waiting { tag, token, .. } = self.waiting.pop_front().ok_or("an answer to nothing")?;
        if reference.is_some_and(|reference| reference != tag) {
            return Err(format!("an answer out of order, {tag} was next"));
        }
        if channel != world.model.sent[&tag].channel {
            return Err(format!("{tag} was answered with the channel {channel}"));
        }
        let life = self.line.as_ref().map_or(0, |line| line.asked.life);
        world.excuses.may_have(token.as_ref(), life, id)?;
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
