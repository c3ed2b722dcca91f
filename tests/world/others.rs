//! Who else is in the world: other threads of the process with their handles, strangers who send
//! what is no request, or half of one, and somebody who scrapes the metrics.
//!
//! All draw from randomness of their own, so that a world without them is the run it was.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tidings::internals::{Command, Commands};
use tidings::{Publication, PublishError, Published, Tokens};

use crate::clients::{self, Heard, Part, Place, Responses, Result};
use crate::kernel::{Kernel, Rng, Wire};

use super::actors::{CHANNELS, Coverage, count};
use super::excuses::{Asked, Excuses};
use super::oracle::{Model, Sent};

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
    /// Of those at once, and of those in the middle of a call: each kind keeps its order.
    sent: [usize; 2],
    waiting: Vec<String>,
}

impl Thread {
    pub fn new(commands: Arc<Commands>) -> Thread {
        Thread { commands, told: Arc::default(), sent: [0; 2], waiting: Vec::new() }
    }

    pub fn act(&mut self, kernel: &mut Kernel, model: &mut Model, rng: &mut Rng) {
        for _ in 0..rng.pick(&[0, 0, 1, 1, 2, 6]) {
            let in_a_call = rng.one_in(2);
            let sent = &mut self.sent[usize::from(in_a_call)];
            let tag = format!("{}.{sent}", if in_a_call { "thread.in.call" } else { "thread" });
            *sent += 1;
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
            if in_a_call {
                kernel.in_calls.push_back(Box::new(push));
            } else {
                push();
            }
        }
    }

    /// What the callbacks have told since. Each publish is told of once.
    pub fn hears(&mut self, model: &mut Model, excuses: &Excuses, coverage: &mut Coverage) -> Result<()> {
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
                        PublishError::Refused(refusal)
                            if refusal.code.name() == "channels_full"
                                && (excuses.may_lack_channels()
                                    || PASSING.contains(&model.sent[&tag].channel.as_str())) =>
                        {
                            "channels full, to a thread"
                        }
                        PublishError::Refused(refusal) if refusal.code.name() == "draining" && excuses.is_leaving() => {
                            "draining, to a thread"
                        }
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

/// A WebSocket that reads everything and never says a word, as behind a network that drops what it
/// sends: it is ended by the server alone, and comes again. Two pings take longer than most runs, so it
/// stays also when all is calm.
#[derive(Default)]
pub struct Mute {
    wire: Option<Wire>,
}

impl Mute {
    pub fn act(&mut self, kernel: &mut Kernel) {
        match self.wire {
            Some(wire) => drop(kernel.receive(wire, usize::MAX)),
            None => {
                let wire = kernel.connect_reliably();
                kernel.send(wire, &clients::upgrade("a", &format!("?token={KEEPER}"), None));
                self.wire = Some(wire);
            }
        }
        if let Some(wire) = self.wire.take_if(|wire| kernel.ending(*wire).is_some()) {
            kernel.close_client(wire);
        }
    }
}

/// Many at once who connect and ask nothing.
#[derive(Default)]
pub struct Crowd {
    wires: Vec<Wire>,
}

impl Crowd {
    pub fn act(&mut self, kernel: &mut Kernel, rng: &mut Rng, coverage: &mut Coverage) {
        if !self.is_here() && rng.one_in(100) {
            count(coverage, "a crowd came");
            self.wires = (0..rng.pick(&[10, 70, 80, 100])).map(|_| kernel.connect()).collect();
        } else if rng.one_in(25) {
            self.leave(kernel);
        }
    }

    pub fn is_here(&self) -> bool {
        !self.wires.is_empty()
    }

    pub fn leave(&mut self, kernel: &mut Kernel) {
        self.wires.drain(..).for_each(|wire| kernel.close_client(wire));
    }
}

/// Reads `/metrics` again and again, and adds up what it says.
#[derive(Default)]
pub struct Scraper {
    asked: Option<Asked>,
    out: Vec<u8>,
    responses: Responses,
    body: Vec<u8>,
    status: u16,
    /// What counted upwards, when it was last read, and in which life of the log.
    before: (u64, BTreeMap<String, f64>),
}

impl Scraper {
    pub fn act(
        &mut self,
        kernel: &mut Kernel,
        excuses: &Excuses,
        rng: &mut Rng,
        coverage: &mut Coverage,
    ) -> Result<()> {
        let Some(asked) = &self.asked else {
            if rng.one_in(10) {
                self.asked = Some(Asked::new(kernel.connect(), kernel.now_ms(), None, excuses));
                self.out = format!("GET /metrics?token={KEEPER} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes();
                self.responses = Responses::default();
                self.body.clear();
            }
            return Ok(());
        };
        let wire = asked.wire;
        let taken = kernel.send(wire, &self.out);
        self.out.drain(..taken);
        self.responses.receive(&kernel.receive(wire, rng.pick(&[100, usize::MAX])));
        let is_over = kernel.ending(wire).is_some();
        while let Some(part) = self.responses.next_part()? {
            match part {
                Part::Head(head) => self.status = head.status,
                Part::Body(bytes) => self.body.extend(bytes),
                Part::End => {
                    let asked = self.asked.take().ok_or("two answers to one scrape")?;
                    kernel.close_client(wire);
                    if self.status == 200 {
                        return self.reads(coverage);
                    }
                    let Heard::Refused(_, code) = clients::refusal(self.status, &self.body)? else { return Ok(()) };
                    let why = excuses.of(kernel, &asked, &code).ok_or(format!("a scrape was refused: {code}"))?;
                    count(coverage, format!("scrape refused: {why}"));
                    return Ok(());
                }
            }
        }
        if is_over {
            self.leave(kernel);
        }
        Ok(())
    }

    pub fn leave(&mut self, kernel: &mut Kernel) {
        if let Some(asked) = self.asked.take() {
            kernel.close_client(asked.wire);
        }
    }

    /// The numbers agree with each other, and what counts upwards never falls.
    pub fn reads(&mut self, coverage: &mut Coverage) -> Result<()> {
        let text = String::from_utf8(std::mem::take(&mut self.body)).map_err(|_| "metrics that are no UTF-8")?;
        let numbers = numbers(&text)?;
        let sum = |name: &str| -> f64 {
            let of_name =
                |series: &str| series.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('{'));
            numbers.iter().filter(|(series, _)| of_name(series)).map(|(_, value)| value).sum()
        };
        for (one, other) in [
            (sum("tidings_head"), sum("tidings_messages_published_total")),
            (
                sum("tidings_connections_accepted_total") - sum("tidings_connections_closed_total"),
                sum("tidings_connections"),
            ),
        ] {
            if one != other {
                return Err(format!("two numbers of one scrape should be the same, {one} and {other}:\n{text}"));
            }
        }
        if sum("tidings_messages_kept") > sum("tidings_head") {
            return Err(format!("more is kept than there is:\n{text}"));
        }
        let epoch = sum("tidings_epoch") as u64;
        let counters: BTreeMap<String, f64> = numbers
            .into_iter()
            .filter(|(series, _)| series.split('{').next().is_some_and(|name| name.ends_with("_total")))
            .collect();
        if epoch == self.before.0
            && let Some((series, before)) = self.before.1.iter().find(|(series, before)| counters[*series] < **before)
        {
            return Err(format!("{series} was {before}, and is {}", counters[series]));
        }
        self.before = (epoch, counters);
        count(coverage, "scraped");
        Ok(())
    }

    /// What it last read of this counter.
    pub fn counted(&self, counter: &str) -> u64 {
        self.before.1.get(counter).map_or(0, |&value| value as u64)
    }

    /// By reason, the connections that had ended when it last read.
    pub fn closes(&self) -> impl Iterator<Item = (&str, u64)> {
        self.before.1.iter().filter_map(|(series, &value)| {
            let reason = series.strip_prefix("tidings_connections_closed_total{reason=\"")?.strip_suffix("\"}")?;
            Some((reason, value as u64))
        })
    }

    /// The answer to a scrape, read by somebody else.
    pub fn takes(&mut self, body: Vec<u8>) {
        self.body = body;
    }
}

/// Each series with its value.
fn numbers(text: &str) -> Result<BTreeMap<String, f64>> {
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let number = |line: &str| {
        let (series, value) = line.rsplit_once(' ')?;
        Some((series.to_string(), value.parse().ok()?))
    };
    samples.map(|line| number(line).ok_or_else(|| format!("{line:?} is no sample"))).collect()
}

/// Nothing that publishes: cut anywhere, or with a byte changed, of requests that only read.
fn garbage(rng: &mut Rng) -> Vec<u8> {
    let kind = rng.below(6);
    let token = rng.pick(&["", "&token=keeper"]);
    let mut bytes = match kind {
        0 => (0..rng.below(400)).map(|_| rng.bits() as u8).collect(),
        1 => clients::get("a", &format!("?after=earliest&wait=5{token}"), "Accept: text/event-stream\r\n"),
        2 => clients::get("a,b", &format!("?after=now&wait=5{token}"), ""),
        3 => clients::upgrade("a", &format!("?after=1-1{token}"), Some("tidings.v1")),
        4 => {
            let mut bytes = clients::upgrade("b", &format!("?after=now{token}"), Some("tidings.v1"));
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
