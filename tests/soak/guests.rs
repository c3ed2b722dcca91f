//! Guests: each comes five times, each time over a connection of its own, and is never seen again.
//!
//! A guest has two channels that nobody else will ever name. It subscribes and leaves; it publishes
//! in one, then in the other; it comes back with the cursor it had and must hear both; it comes back
//! with the first id and must hear the second. Every second subscription is over another transport,
//! and some visits are killed at a random byte and made again. Meanwhile the server is measured.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Registry};

use crate::clients::{self, Format, Gap, Head, Heard, Message, Part, Place, Reader, Responses, Result, Transport};
use crate::common::PATIENCE;
use crate::common::program::Program;
use crate::lines::{Alarms, Line, Received};
use crate::rng::Rng;
use crate::{ADDRESSES, measure, metrics, sum};

/// More at once would mean that the server has stopped.
const GUESTS_MAX: usize = 3_000;
/// No message of a guest counts more in the history.
const MESSAGE_BYTES_MAX: u64 = 800;

pub struct Scale {
    pub seconds: u64,
    /// Each makes at least five connections.
    pub guests_per_second: u64,
    /// It goes on until there were so many.
    pub connections_min: u64,
    pub channels_max: u64,
    /// The one bound of history that is met; the guests' messages fill it all the time.
    pub history_bytes: u64,
    pub idempotency_keys_max: u64,
    /// The longest time a guest stays when it has heard all.
    pub linger_ms: u64,
    pub sample_ms: u64,
    /// Until everything that has a limit has reached it.
    pub warm_up_ms: u64,
}

/// What happened, so that a run that tests nothing is seen.
#[derive(Debug, Default)]
pub struct Counts {
    pub guests: u64,
    pub connections: u64,
    pub channels: u64,
    pub published: u64,
    pub deliveries: u64,
    pub gaps: u64,
    pub resumed: u64,
    pub switched: u64,
    pub killed: u64,
    pub killed_at_a_byte: u64,
    pub killed_in_a_request: u64,
    pub half_closed: u64,
    pub closed: u64,
    pub at_once_max: usize,
}

impl Counts {
    /// What a run must have seen, and this one has not.
    pub fn unseen(&self) -> Vec<&'static str> {
        let kinds = [
            ("deliveries", self.deliveries),
            ("resumed", self.resumed),
            ("switched", self.switched),
            ("killed", self.killed),
            ("killed at a byte", self.killed_at_a_byte),
            ("killed in a request", self.killed_in_a_request),
            ("half-closed", self.half_closed),
            ("closed", self.closed),
        ];
        kinds.iter().filter(|(_, count)| *count == 0).map(|(kind, _)| *kind).collect()
    }
}

struct Surroundings {
    registry: Registry,
    addresses: Vec<SocketAddr>,
    began: Instant,
    alarms: Alarms,
    rng: Rng,
    counts: Counts,
    linger_ms: u64,
    history_bytes: u64,
    buffer: Vec<u8>,
}

impl Surroundings {
    fn now_ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }
}

/// Runs it all; says what went wrong first.
pub fn run(scale: Scale, seed: u64) -> Result<Counts> {
    let (keys_max, channels_max) = (scale.idempotency_keys_max.to_string(), scale.channels_max.to_string());
    let mut arguments = vec!["--channels-max", &channels_max, "--idempotency-keys-max", &keys_max];
    let history_bytes = scale.history_bytes.to_string();
    arguments.extend(["--history-bytes", &history_bytes, "--close-timeout", "1s"]);
    arguments.extend(ADDRESSES.iter().flat_map(|address| ["--listen", address]));
    let program = Program::start(&arguments);
    let addresses = program.addresses();
    let first = metrics(addresses[0]);

    let mut world = World::new(addresses, &scale, seed)?;
    let mut samples = measure::Samples::default();
    let (mut sampled_ms, mut told_ms) = (0, 0);
    loop {
        let (now_ms, connections) = (world.rest.now_ms(), world.rest.counts.connections);
        if now_ms >= scale.seconds * 1000 && connections >= scale.connections_min {
            break;
        }
        world.invite(now_ms, scale.guests_per_second)?;
        world.turn()?;
        if now_ms - sampled_ms >= scale.sample_ms {
            sampled_ms = now_ms;
            samples.take(now_ms, &metrics(world.rest.addresses[0]), world.here());
        }
        if now_ms - told_ms >= 60_000 {
            told_ms = now_ms;
            println!(
                "{:>4} s: {connections} connections, {} KiB resident",
                now_ms / 1000,
                program.resident_bytes() / 1024
            );
        }
    }
    let deadline = Instant::now() + PATIENCE;
    while let Some(guest) = world.guests.iter().flatten().next() {
        if Instant::now() > deadline {
            return Err(guest.explain("waits in vain".into()));
        }
        world.turn()?;
    }
    println!("{:#?}", world.rest.counts);
    nobody_is_left_over(&first, world.rest.addresses[0])?;
    samples.judge(scale.warm_up_ms)?;
    Ok(world.rest.counts)
}

struct World {
    poll: Poll,
    events: Events,
    guests: Vec<Option<Guest>>,
    free: Vec<usize>,
    /// When guests came last, and how many thousandths of one are still to come.
    invited_ms: u64,
    due: u64,
    rest: Surroundings,
}

impl World {
    fn new(addresses: Vec<SocketAddr>, scale: &Scale, seed: u64) -> Result<World> {
        let poll = Poll::new().map_err(|error| error.to_string())?;
        let rest = Surroundings {
            registry: poll.registry().try_clone().map_err(|error| error.to_string())?,
            addresses,
            began: Instant::now(),
            alarms: Alarms::default(),
            rng: Rng::new(seed),
            counts: Counts::default(),
            linger_ms: scale.linger_ms,
            history_bytes: scale.history_bytes,
            buffer: vec![0; 64 * 1024],
        };
        let (events, guests, free) = (Events::with_capacity(1024), Vec::new(), Vec::new());
        Ok(World { poll, events, guests, free, invited_ms: 0, due: 0, rest })
    }

    fn here(&self) -> usize {
        self.guests.len() - self.free.len()
    }

    /// Whoever did not come in time does not come at all: what is measured is a steady stream.
    fn invite(&mut self, now_ms: u64, per_second: u64) -> Result<()> {
        self.due += (now_ms - self.invited_ms).min(500) * per_second;
        self.invited_ms = now_ms;
        while self.due >= 1000 {
            self.due -= 1000;
            let here = self.here();
            if here == GUESTS_MAX {
                break;
            }
            self.rest.counts.at_once_max = self.rest.counts.at_once_max.max(here + 1);
            let owner = self.free.pop().unwrap_or(self.guests.len());
            if owner == self.guests.len() {
                self.guests.push(None);
            }
            let mut guest = Guest::new(owner, &mut self.rest);
            guest.visit(&mut self.rest)?;
            self.guests[owner] = Some(guest);
        }
        Ok(())
    }

    fn turn(&mut self) -> Result<()> {
        let now_ms = self.rest.now_ms();
        let wait_ms = self.rest.alarms.next_ms().map_or(10, |at_ms| at_ms.saturating_sub(now_ms).min(10));
        match self.poll.poll(&mut self.events, Some(Duration::from_millis(wait_ms))) {
            Err(error) if error.kind() != std::io::ErrorKind::Interrupted => return Err(error.to_string()),
            _ => {}
        }
        let ready: Vec<usize> = self.events.iter().map(|event| event.token().0).collect();
        for owner in ready {
            self.act(owner, Guest::ready)?;
        }
        let now_ms = self.rest.now_ms();
        while let Some(owner) = self.rest.alarms.pop(now_ms) {
            self.act(owner, Guest::leave)?;
        }
        Ok(())
    }

    /// An event of a guest who has gone concerns whoever has its place: it finds nothing to read.
    fn act(&mut self, owner: usize, act: fn(&mut Guest, &mut Surroundings) -> Result<()>) -> Result<()> {
        let Some(guest) = &mut self.guests[owner] else { return Ok(()) };
        act(guest, &mut self.rest).map_err(|why| guest.explain(why))?;
        if guest.visits.is_empty() {
            self.guests[owner] = None;
            self.free.push(owner);
        }
        Ok(())
    }
}

/// The server has as many connections and descriptors as before the first guest.
fn nobody_is_left_over(first: &str, address: SocketAddr) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let mut poll = Poll::new().map_err(|error| error.to_string())?;
    loop {
        let last = metrics(address);
        let held = |metrics: &str| ["tidings_connections", "process_open_fds"].map(|name| sum(metrics, name));
        if held(&last) == held(first) {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(format!("connections and descriptors: {:?} before, {:?} after", held(first), held(&last)));
        }
        // Nothing tells when the server has closed the last; it is asked again.
        poll.poll(&mut Events::with_capacity(1), Some(Duration::from_millis(50))).map_err(|error| error.to_string())?;
    }
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Visit {
    /// From now on.
    Subscribe,
    Publish,
    /// After the cursor of the first visit, or after the first message.
    Resume,
}

const VISITS: [Visit; 5] = [Visit::Subscribe, Visit::Publish, Visit::Publish, Visit::Resume, Visit::Resume];

/// What it has heard of the answer to a POST.
#[derive(Debug, Default)]
struct Answer {
    responses: Responses,
    head: Option<Head>,
    body: Vec<u8>,
}

struct Guest {
    owner: usize,
    /// Its name: no two share it.
    nth: u64,
    visits: VecDeque<Visit>,
    transport: Transport,
    format: Format,
    line: Option<Line>,
    reader: Reader,
    answer: Answer,
    cursor: Option<Place>,
    /// What it has published, with its id, oldest first.
    published: Vec<(Place, String)>,
    /// What it is still to hear in this visit.
    expected: VecDeque<(Place, String)>,
    /// It has heard all and stays for a while, or waits for the end.
    is_done_here: bool,
    /// It has said goodbye.
    is_leaving: bool,
    cut_in: Option<usize>,
    /// It was killed the last time.
    is_again: bool,
}

impl Guest {
    fn new(owner: usize, world: &mut Surroundings) -> Guest {
        world.counts.guests += 1;
        world.counts.channels += 2;
        Guest {
            owner,
            nth: world.counts.guests,
            visits: VISITS.into(),
            transport: world.rng.pick(&TRANSPORTS),
            format: Format::Json,
            line: None,
            reader: Reader::new(Transport::Poll, Format::Json),
            answer: Answer::default(),
            cursor: None,
            published: Vec::new(),
            expected: VecDeque::new(),
            is_done_here: false,
            is_leaving: false,
            cut_in: None,
            is_again: false,
        }
    }

    fn explain(&self, why: String) -> String {
        format!(
            "guest {} ({:?} {:?}) at {:?}, which has published {:?}, with {:?} to come: {why}",
            self.nth, self.transport, self.format, self.cursor, self.published, self.visits
        )
    }

    fn channel(&self, nth: usize) -> String {
        format!("guest.{}.{nth}", self.nth)
    }

    fn payload(&self, nth: usize) -> String {
        // Some of it long enough to be compressed, were that agreed.
        let filler = "so it goes; ".repeat((self.nth % 50) as usize);
        format!("{} of guest {}\nline two \u{2713} {filler}", nth, self.nth)
    }

    /// Comes; anew, if the last time it was killed.
    fn visit(&mut self, world: &mut Surroundings) -> Result<()> {
        let Some(visit) = self.visits.front() else { return Ok(()) };
        world.counts.connections += 1;
        (self.is_done_here, self.is_leaving) = (false, false);
        self.cut_in = world.rng.one_in(20).then(|| 1 + world.rng.below(500) as usize);
        let request = match visit {
            Visit::Publish => {
                self.answer = Answer::default();
                let (nth, mut lines) = (self.published.len(), String::new());
                if self.cut_in.is_some() || self.is_again || world.rng.one_in(10) {
                    // Killed, it cannot know whether it was heard; it asks again with its key.
                    lines = format!("Idempotency-Key: {}.{nth}\r\n", self.nth);
                }
                clients::post(&self.channel(nth), "", &lines, self.payload(nth).as_bytes())
            }
            visit => {
                if *visit == Visit::Resume {
                    world.counts.resumed += 1;
                    let before = self.transport;
                    self.transport = world.rng.pick(&TRANSPORTS);
                    world.counts.switched += u64::from(before != self.transport);
                    let after = self.cursor;
                    self.expected = self.published.iter().filter(|(id, _)| Some(*id) > after).cloned().collect();
                }
                self.request(world)
            }
        };
        let address = world.addresses[self.owner % world.addresses.len()];
        let mut line = Line::connect(&world.registry, self.owner, address, None)
            .map_err(|error| format!("no connection to {address}: {error}"))?;
        if self.cut_in.is_some() && world.rng.one_in(3) {
            world.counts.killed_in_a_request += 1;
            line.send(&request[..world.rng.below(request.len() as u64) as usize]);
            line.reset();
            self.is_again = true;
            return self.visit(world);
        }
        line.send(&request);
        self.line = Some(line);
        Ok(())
    }

    fn request(&mut self, world: &mut Surroundings) -> Vec<u8> {
        self.format = match self.transport {
            Transport::WebSocket => Format::Json,
            _ => world.rng.pick(&[Format::Json, Format::Json, Format::Raw]),
        };
        self.reader = Reader::new(self.transport, self.format);
        let set = format!("{},{}", self.channel(0), self.channel(1));
        let after = self.cursor.map_or("now".to_string(), |place| place.to_string());
        let format = if self.format == Format::Raw { "raw" } else { "json" };
        match self.transport {
            Transport::WebSocket => clients::upgrade(&set, &format!("?after={after}"), None),
            Transport::Sse => {
                clients::get(&set, &format!("?after={after}&format={format}"), "Accept: text/event-stream\r\n")
            }
            Transport::Poll => {
                let wait = if self.expected.is_empty() { 0 } else { 20 };
                clients::get(&set, &format!("?after={after}&format={format}&wait={wait}"), "")
            }
        }
    }

    fn ready(&mut self, world: &mut Surroundings) -> Result<()> {
        while let Some(line) = &mut self.line {
            line.flush();
            let most = self.cut_in.unwrap_or(usize::MAX).min(world.buffer.len());
            match line.read(&mut world.buffer[..most]) {
                Received::Nothing => break,
                Received::End if self.is_leaving => {
                    self.line = None;
                    return self.next(world);
                }
                Received::End => return Err("cut off".into()),
                Received::Bytes(read) => {
                    self.receive(read, world)?;
                    if let Some(left) = &mut self.cut_in {
                        *left -= read;
                        if *left == 0 && self.line.is_some() {
                            self.is_killed(world)?;
                            break;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn is_killed(&mut self, world: &mut Surroundings) -> Result<()> {
        world.counts.killed_at_a_byte += 1;
        if let Some(line) = self.line.take() {
            line.reset();
        }
        world.alarms.forget(self.owner);
        self.is_again = !self.is_done_here;
        if self.is_done_here { self.next(world) } else { self.visit(world) }
    }

    fn receive(&mut self, read: usize, world: &mut Surroundings) -> Result<()> {
        if self.visits.front() == Some(&Visit::Publish) {
            return self.answered(read, world);
        }
        for heard in self.reader.receive(&world.buffer[..read])? {
            let is_poll = self.transport == Transport::Poll;
            let is_whole = match heard {
                Heard::Cursor(place) => {
                    self.stands(place)?;
                    !is_poll
                }
                Heard::Message(message) => {
                    world.counts.deliveries += 1;
                    self.message(message)?;
                    !is_poll
                }
                Heard::Gap(gap) => {
                    world.counts.gaps += 1;
                    self.gap(&gap, world)?;
                    !is_poll
                }
                Heard::Done(None) if is_poll && !self.is_done_here => {
                    if !self.expected.is_empty() {
                        let request = self.request(world);
                        self.line.iter_mut().for_each(|line| line.send(&request));
                    }
                    true
                }
                Heard::Done(None | Some(1000)) if self.is_leaving => false,
                Heard::Alive => false,
                other => return Err(format!("heard {other:?}")),
            };
            if is_whole && !self.is_done_here && self.expected.is_empty() {
                self.is_done_here = true;
                let at_ms = world.now_ms() + world.rng.below(world.linger_ms);
                world.alarms.set(self.owner, at_ms);
            }
        }
        Ok(())
    }

    /// A cursor promises that everything up to it was heard.
    fn stands(&mut self, place: Place) -> Result<()> {
        if self.cursor.is_some_and(|cursor| cursor > place) || self.expected.front().is_some_and(|(id, _)| *id <= place)
        {
            return Err(format!("stands at {place}"));
        }
        self.cursor = Some(place);
        Ok(())
    }

    /// Only newer messages evict, as many as fill the history; what they have evicted is named. A gap
    /// may be in vain, if a channel of the guest was forgotten since; but what is said of the
    /// forgotten is as old.
    fn gap(&mut self, gap: &Gap, world: &Surroundings) -> Result<()> {
        let after = self.cursor.ok_or("a gap after `now`")?;
        let lost = self.expected.iter().take_while(|(id, _)| *id <= gap.cursor).count();
        // Each guest has at most one message that is accepted and not answered.
        let head_max = world.counts.published + world.counts.at_once_max as u64;
        let is_evictable = head_max.saturating_sub(gap.through.seq) * MESSAGE_BYTES_MAX >= world.history_bytes;
        if gap.after != after.to_string()
            || gap.reason != "evicted"
            || gap.through < after
            || !is_evictable
            || self.expected.iter().take(lost).any(|(id, _)| *id > gap.through)
        {
            return Err(format!("heard {gap:?}"));
        }
        self.expected.drain(..lost);
        self.cursor = Some(gap.cursor);
        Ok(())
    }

    fn message(&mut self, message: Message) -> Result<()> {
        let Some((id, payload)) = self.expected.pop_front() else { return Err(format!("heard {message:?} again")) };
        let nth = self.published.iter().position(|(this, _)| *this == id).ok_or("an id of its own")?;
        let channel = self.channel(nth);
        if message.id != Some(id)
            || message.payload != payload.as_bytes()
            || message.channel.as_ref().is_some_and(|this| *this != channel)
        {
            return Err(format!("heard {message:?}, and {id} was next: {payload:?}"));
        }
        self.cursor = Some(id);
        Ok(())
    }

    fn answered(&mut self, read: usize, world: &mut Surroundings) -> Result<()> {
        self.answer.responses.receive(&world.buffer[..read]);
        while let Some(part) = self.answer.responses.next_part()? {
            match part {
                Part::Head(head) => self.answer.head = Some(head),
                Part::Body(bytes) => self.answer.body.extend_from_slice(&bytes),
                Part::End => {
                    let answer = std::mem::take(&mut self.answer);
                    let status = answer.head.ok_or("an end without a head")?.status;
                    let body = String::from_utf8(answer.body).map_err(|error| error.to_string())?;
                    if status != 200 {
                        return Err(format!("a publish was answered {status}: {body}"));
                    }
                    let json = clients::json::Json::parse(&body)?;
                    let (id, nth) = (Place::parse(json.text("id")?)?, self.published.len());
                    if json.text("channel")? != self.channel(nth) || self.cursor.is_none_or(|cursor| cursor >= id) {
                        return Err(format!("a publish was answered {body}"));
                    }
                    world.counts.published += 1;
                    let payload = self.payload(nth);
                    self.published.push((id, payload));
                    self.is_done_here = true;
                    world.alarms.set(self.owner, world.now_ms());
                }
            }
        }
        Ok(())
    }

    /// It has heard all. It goes in one of the ways there are.
    fn leave(&mut self, world: &mut Surroundings) -> Result<()> {
        let Some(mut line) = self.line.take() else { return Ok(()) };
        match world.rng.below(4) {
            0 => {
                world.counts.killed += 1;
                line.reset();
            }
            1 => {
                world.counts.closed += 1;
                drop(line);
            }
            way => {
                self.is_leaving = true;
                if way == 2 && self.transport == Transport::WebSocket && self.visits.front() != Some(&Visit::Publish) {
                    world.counts.closed += 1;
                    line.send(&clients::close_frame(1000));
                } else {
                    world.counts.half_closed += 1;
                    line.half_close();
                }
                self.line = Some(line);
                // The end may be there already, and was told before.
                return self.ready(world);
            }
        }
        self.next(world)
    }

    fn next(&mut self, world: &mut Surroundings) -> Result<()> {
        self.is_again = false;
        if self.visits.pop_front() == Some(Visit::Resume) {
            // The next time it hears only what came after its first message.
            self.cursor = self.published.first().map(|(id, _)| *id);
        }
        self.visit(world)
    }
}

const TRANSPORTS: [Transport; 3] = [Transport::Poll, Transport::Sse, Transport::WebSocket];
