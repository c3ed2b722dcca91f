//! Subscribers: by long poll, SSE and WebSocket. They read at their own pace, leave as people's clients do,
//! come back with their last cursor over another transport, and widen their set.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::clients::{self, Format, Heard, Message, Place, Reader, Result, Transport};
use crate::kernel::{Kernel, Rng};

use super::actors::{CHANNELS, Changes, Line, Surroundings, count, offer, shown};
use super::oracle::{After, Chain, Model};
use super::others::PASSING;

/// As long as polls ask the server to wait, at most.
pub const WAIT_MAX: Duration = Duration::from_secs(3);

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
    /// It answers no ping, as behind a network that drops what it sends.
    mute: bool,
    /// Of its last request nothing was heard.
    is_unanswered: bool,
    /// The server has read all of its last request.
    is_attached: bool,
    changes: Changes,
    /// Its last request was refused.
    refused: bool,
    /// tidings.raw cannot say what was lost, so it was closed.
    closed_for_a_loss: bool,
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
            mute: false,
            is_unanswered: true,
            is_attached: false,
            changes: Changes::default(),
            refused: false,
            closed_for_a_loss: false,
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
        let bytes_max = if world.calm { usize::MAX } else { world.rng.pick(&[1, 20, usize::MAX, usize::MAX]) };
        line.send(world, bytes_max);
        let bytes_max = match self.pace {
            Pace::Eager => usize::MAX,
            Pace::Slow => 1 + world.rng.below(100) as usize,
            Pace::ByteByByte => 1,
            Pace::Stalled => 0,
        };
        let bytes = line.receive(world, bytes_max);
        self.is_unanswered &= bytes.is_empty();
        self.bytes_in_calm += if world.calm { bytes.len() } else { 0 };
        let ended = world.kernel.ending(line.asked.wire).is_some();
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
        if let Some(line) = self.line.as_ref().filter(|_| ended) {
            let is_idle = self.is_unanswered && line.is_unread(world);
            line.ending(world, is_idle).map_err(|why| self.explain(why))?;
            let (name, wire) = (self.name, line.asked.wire);
            world.kernel.note(|| format!("subscriber {name} finds {wire:?} ended"));
            // Who cannot be told of a gap was told so, and why is judged.
            self.ended_in_calm += u64::from(world.calm && !self.closed_for_a_loss);
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
            Heard::Subscribed { channels, .. } => {
                self.changes.made(self.chain.wanted().clone(), channels).map_err(|why| self.explain(why))?;
                count(world.coverage, "set changed");
            }
            Heard::Ping(payload) => {
                if let Some(line) = self.line.as_mut().filter(|_| !self.mute || world.calm) {
                    line.out.extend(clients::client_frame(clients::PONG, payload));
                }
            }
            Heard::CommandFailed { code, .. } => {
                self.changes.refused()?;
                self.is_excused(code, world)?;
            }
            Heard::Refused(_, code) => self.is_excused(code, world)?,
            Heard::Done(code) => self.may_end(*code, world).map_err(|why| self.explain(why))?,
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

    /// After a turn that left nothing over: whose request is read stands at the head, or before it.
    pub fn is_read(&mut self, kernel: &Kernel, head: u64) {
        let Some(line) = self.line.as_ref().filter(|line| line.out.is_empty()) else { return };
        if !self.is_attached && self.is_unanswered && kernel.is_read(line.asked.wire) {
            self.is_attached = true;
            self.chain.stands_by(head);
        }
    }

    fn is_excused(&mut self, code: &str, world: &mut Surroundings<'_>) -> Result<()> {
        let Some(line) = &mut self.line else { return Ok(()) };
        line.asked.told |= matches!(code, "request_timeout" | "too_many_connections" | "draining");
        let asked = line.asked.clone();
        self.refused = true;
        count(world.coverage, format!("refused: {code}"));
        world.excuse(&asked, code).map_err(|why| self.explain(why))
    }

    /// A poll is answered; a stream or a WebSocket ends for a reason.
    fn may_end(&mut self, code: Option<u16>, world: &mut Surroundings<'_>) -> Result<()> {
        let Some(line) = &mut self.line else { return Ok(()) };
        let asked = line.asked.clone();
        let (why, what) = match (self.transport, code) {
            (Transport::Poll, _) => return Ok(()),
            // The oracle judges whether there is a loss that could not be told.
            (_, Some(4008)) if self.format == Format::Raw => {
                self.closed_for_a_loss = true;
                (Some("a loss, which raw cannot tell"), "closed 4008".to_string())
            }
            (_, Some(code)) => (world.excuses.of_close(world.kernel, &asked, Some(code)), format!("closed {code}")),
            // The answer that refused it ends; its excuse was found.
            (_, None) if self.refused => return Ok(()),
            (_, None) => (world.excuses.of_end(world.kernel, &asked), "stream ended".to_string()),
        };
        line.asked.told = true;
        world.excused(why, || what.clone(), &asked)
    }

    /// Whoever reads by a token that is no longer good hears nothing of what comes after.
    fn may_hear(&self, message: &Message, world: &Surroundings<'_>) -> Result<()> {
        match (&self.line, message.id) {
            (Some(Line { asked, .. }), Some(id)) => {
                world.excuses.may_have(asked.token.as_ref(), asked.life, id).map_err(|why| self.explain(why))
            }
            _ => Ok(()),
        }
    }

    fn misbehave(&mut self, world: &mut Surroundings<'_>) {
        let Some(line) = &mut self.line else { return };
        if world.rng.one_in(50) {
            line.asked.own_doing = true;
            let is_halfway = if line.out.is_empty() { "" } else { " in the middle of a request" };
            match world.rng.below(3) {
                0 => {
                    count(world.coverage, format!("client reset{is_halfway}"));
                    world.kernel.reset(line.asked.wire);
                }
                1 => {
                    count(world.coverage, format!("client half-closed{is_halfway}"));
                    world.kernel.half_close(line.asked.wire);
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
                line.asked.passing = true;
            }
            line.out.extend(self.changes.ask(word, channel));
        }
    }

    fn leave(&mut self, world: &mut Surroundings<'_>) {
        if let Some(line) = self.line.take() {
            world.kernel.close_client(line.asked.wire);
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
        self.line = Some(Line::open(world, Vec::new()));
        self.closed_for_a_loss = false;
        self.mute = !world.calm && world.one_in(8);
        self.reader = Reader::new(self.transport, self.format);
        self.changes.clear();
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
        let query = shown(query, world.trials.token.as_ref());
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
        self.refused = false;
        self.is_unanswered = true;
        self.is_attached = false;
        let passing = channels.iter().any(|channel| PASSING.contains(&channel.as_str()));
        self.chain.ask(after, channels, world.model.epoch);
        if let Some(line) = &mut self.line {
            line.asked.token.clone_from(&world.trials.token);
            line.asked.passing = passing;
            line.asked.raw = self.format == Format::Raw;
            line.asked.mute = self.mute;
            line.asked.began_ms = world.kernel.now_ms();
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
            query.push_str(&format!("&wait={}", rng.pick(&[0, 1, WAIT_MAX.as_secs()])));
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
