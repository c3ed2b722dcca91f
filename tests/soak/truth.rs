//! What must be true: the log as an observer hears it, and for each client a chain.
//!
//! The observer reads every channel; its numbers have no holes. A chain is what one client asked
//! and heard, in order. Between two of its places lie exactly the messages of its channels, but
//! those that a gap has named and that history cannot have kept. It is judged as soon as the
//! observer has heard as much. The same as the simulation's `tests/world/oracle.rs`, with an index
//! by channel, for there are thousands of chains.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use crate::clients::{Gap, Heard, Message, Place, Result, lines_normalized};

/// A message as its publisher meant it.
#[derive(Debug)]
pub struct Sent {
    /// The first word of the payload, which no two share.
    pub tag: String,
    pub channel: usize,
    pub event: Option<String>,
    pub media_type: Option<String>,
    pub payload: Vec<u8>,
    /// How many were sent for the first time before it.
    nth: u64,
}

pub fn name(channel: usize) -> String {
    format!("c{channel}")
}

#[derive(Debug)]
pub struct Truth {
    /// `history-messages`; nothing else evicts.
    kept: usize,
    channels: usize,
    sent: BTreeMap<String, Rc<Sent>>,
    pub epoch: u32,
    lives: BTreeMap<u32, Life>,
    /// Whatever was in the log before this many had been sent, the observer has heard.
    observed: u64,
    /// 200 answers not judged yet.
    answers: VecDeque<(Place, String)>,
}

/// One life of the log.
#[derive(Debug)]
struct Life {
    /// Message `seq` is at `seq - 1`. Only of a life that is over some may be unknown.
    messages: Vec<Option<Rc<Sent>>>,
    /// The numbers of each channel's messages.
    numbers: Vec<Vec<u64>>,
    places: BTreeMap<String, u64>,
    is_over: bool,
}

impl Life {
    fn head(&self) -> u64 {
        self.messages.len() as u64
    }

    fn put(&mut self, place: Place, sent: Rc<Sent>) -> Result<()> {
        if let Some(first) = self.places.insert(sent.tag.clone(), place.seq) {
            return Err(format!("{} was accepted twice, as {first} and as {place}", sent.tag));
        }
        self.numbers[sent.channel].push(place.seq);
        self.messages.resize(place.seq as usize, None);
        self.messages[place.seq as usize - 1] = Some(sent);
        Ok(())
    }

    /// Known messages of these channels numbered above `from` and up to `to`, each with how many of
    /// its channel are newer.
    fn between(&self, channels: &[usize], from: u64, to: u64) -> impl Iterator<Item = (u64, usize, usize)> {
        channels.iter().flat_map(move |&channel| {
            let numbers = &self.numbers[channel];
            let first = numbers.partition_point(|&seq| seq <= from);
            let within = numbers[first..].iter().take_while(move |&&seq| seq <= to);
            within.enumerate().map(move |(nth, &seq)| (seq, channel, numbers.len() - first - nth - 1))
        })
    }
}

fn tag(payload: &[u8]) -> String {
    let end = payload.iter().position(|&byte| byte == b' ').unwrap_or(payload.len());
    String::from_utf8_lossy(&payload[..end]).into_owned()
}

impl Truth {
    pub fn new(channels: usize, kept: usize) -> Truth {
        Truth {
            kept,
            channels,
            sent: BTreeMap::new(),
            epoch: 0,
            lives: BTreeMap::new(),
            observed: 0,
            answers: VecDeque::new(),
        }
    }

    /// A message is about to be sent for the first time.
    pub fn sends(
        &mut self,
        tag: String,
        channel: usize,
        event: Option<String>,
        media_type: Option<String>,
        payload: Vec<u8>,
    ) -> Rc<Sent> {
        let nth = self.sent.len() as u64;
        let sent = Rc::new(Sent { tag: tag.clone(), channel, event, media_type, payload, nth });
        self.sent.insert(tag, Rc::clone(&sent));
        sent
    }

    /// The observer stands at the beginning of a life.
    pub fn begins(&mut self, epoch: u32) {
        self.epoch = epoch;
        let numbers = vec![Vec::new(); self.channels];
        self.lives.insert(epoch, Life { messages: Vec::new(), numbers, places: BTreeMap::new(), is_over: false });
    }

    /// The observer heard a message.
    pub fn observed(&mut self, message: &Message) -> Result<()> {
        let id = message.id.ok_or("a message without an id")?;
        let sent = self.sent_as(message)?;
        let life = self.lives.get_mut(&id.epoch).ok_or("a message of a life that never began")?;
        if id.seq != life.head() + 1 {
            return Err(format!("the observer heard {id} after {}", life.head()));
        }
        self.observed = self.observed.max(sent.nth);
        life.put(id, sent)
    }

    /// The life ended with its process. The last that anybody heard of it, the observer did not: what
    /// one client heard there, is true for all.
    pub fn is_over<'a>(&mut self, epoch: u32, chains: impl Iterator<Item = &'a Chain>) -> Result<()> {
        let mut late = BTreeMap::new();
        let head = self.lives[&epoch].head();
        for message in chains.flat_map(Chain::messages) {
            let Some(id) = message.id.filter(|id| id.epoch == epoch && id.seq > head) else { continue };
            let sent = self.sent_as(message)?;
            if late.insert(id, Rc::clone(&sent)).is_some_and(|other| other.tag != sent.tag) {
                return Err(format!("two messages were heard as {id}, {} is one", sent.tag));
            }
        }
        let life = self.lives.get_mut(&epoch).expect("it has begun");
        life.is_over = true;
        late.into_iter().try_for_each(|(id, sent)| life.put(id, sent))
    }

    /// The message of this tag, which must be as it was sent.
    fn sent_as(&self, message: &Message) -> Result<Rc<Sent>> {
        let sent = self.sent.get(&tag(&message.payload)).ok_or_else(|| format!("sent by nobody: {message:?}"))?;
        same(message, sent)?;
        Ok(Rc::clone(sent))
    }

    /// A publisher was told that this message has this id.
    pub fn answered(&mut self, id: Place, tag: String) {
        self.answers.push_back((id, tag));
    }

    /// Judges the answers that can be judged; says how many cannot yet.
    pub fn settle(&mut self) -> Result<usize> {
        let lives = &self.lives;
        let mut wrong = None;
        self.answers.retain(|(id, tag)| {
            let Some(life) = lives.get(&id.epoch) else { return true };
            match life.messages.get(id.seq as usize - 1) {
                // What a log in memory had taken when it ended, nobody is owed.
                None | Some(None) if life.is_over => false,
                Some(Some(sent)) => {
                    if sent.tag != *tag {
                        wrong = Some(format!("{tag} was answered {id}, but that is {}", sent.tag));
                    }
                    false
                }
                _ => true,
            }
        });
        wrong.map_or(Ok(self.answers.len()), Err)
    }

    /// Nobody publishes any more, and the observer has heard all.
    pub fn rests(&mut self) {
        self.observed = self.sent.len() as u64;
    }

    /// Messages accepted, over all lives.
    pub fn accepted(&self) -> u64 {
        self.lives.values().map(Life::head).sum()
    }
}

/// Compares what a form shows with what was sent.
fn same(message: &Message, sent: &Sent) -> Result<()> {
    let is_payload = if message.lines_normalized {
        message.payload == lines_normalized(&sent.payload)
    } else {
        message.payload == sent.payload
    };
    let same = is_payload
        && message.channel.as_ref().is_none_or(|channel| *channel == name(sent.channel))
        && message.event.as_ref().is_none_or(|event| *event == sent.event)
        && message.media_type.as_ref().is_none_or(|media_type| *media_type == sent.media_type);
    if same { Ok(()) } else { Err(format!("heard {message:?}\nof     {sent:?}")) }
}

/// What one client has asked and heard, in order.
#[derive(Debug, Default)]
pub struct Chain {
    /// The set, as of the last thing judged; and the cursor it was asked for with.
    channels: Vec<usize>,
    asked: Option<Place>,
    at: Option<Place>,
    /// A gap of this connection was told through here.
    told: u64,
    /// The last cursor the server gave, as the client resumes with it.
    last: Option<Place>,
    steps: VecDeque<Step>,
}

#[derive(Debug)]
enum Step {
    Asked(Option<Place>, Vec<usize>),
    /// And how many messages had been sent by then.
    Heard(Heard, u64),
}

impl Chain {
    /// The cursor to resume with, if one is known.
    pub fn last(&self) -> Option<Place> {
        self.last
    }

    /// The client subscribes after its last cursor, or from now on.
    pub fn asks(&mut self, channels: &[usize]) {
        self.steps.push_back(Step::Asked(self.last, channels.to_vec()));
    }

    /// The client heard something.
    pub fn hears(&mut self, heard: Heard, truth: &Truth) -> Result<()> {
        match &heard {
            Heard::Cursor(place) => self.last = Some(*place),
            Heard::Message(message) => self.last = message.id,
            Heard::Gap(gap) => self.last = Some(gap.cursor),
            _ => return Ok(()),
        }
        self.steps.push_back(Step::Heard(heard, truth.sent.len() as u64));
        self.settle(truth)
    }

    /// Messages that are not judged yet.
    fn messages(&self) -> impl Iterator<Item = &Message> {
        self.steps.iter().filter_map(|step| match step {
            Step::Heard(Heard::Message(message), _) => Some(message),
            _ => None,
        })
    }

    /// Judges what can be judged by what the observer has heard so far.
    pub fn settle(&mut self, truth: &Truth) -> Result<()> {
        while let Some(step) = self.steps.pop_front() {
            let judged = match &step {
                Step::Asked(after, channels) => {
                    (self.asked, self.at, self.told) = (*after, *after, 0);
                    self.channels.clone_from(channels);
                    Ok(true)
                }
                Step::Heard(Heard::Cursor(place), _) => self.stands(*place, truth),
                Step::Heard(Heard::Message(message), _) => self.message(message, truth),
                Step::Heard(Heard::Gap(gap), sent) => self.gap(gap, *sent, truth),
                Step::Heard(..) => Ok(true),
            };
            let judged = judged.map_err(|why| {
                let channels: Vec<String> = self.channels.iter().map(|&channel| name(channel)).collect();
                format!("{why}\nheard {step:?}\nat {:?} of {channels:?}, asked {:?}", self.at, self.asked)
            })?;
            if !judged {
                self.steps.push_front(step);
                break;
            }
        }
        Ok(())
    }

    /// True if everything is heard that the observer has heard.
    pub fn is_caught_up(&self, truth: &Truth) -> bool {
        let Some(at) = self.at.filter(|at| at.epoch == truth.epoch) else { return false };
        let life = &truth.lives[&at.epoch];
        self.steps.is_empty() && self.none_missing(truth, life, at.seq, life.head()).is_ok()
    }

    /// A person's answer to: where does it stand?
    pub fn place(&self) -> String {
        format!("at {:?} of {:?}, {} steps not judged, the first {:?}", self.at, self.channels, self.steps.len(), {
            self.steps.front()
        })
    }

    /// False, here and below: the observer has not heard as much yet.
    fn stands(&mut self, place: Place, truth: &Truth) -> Result<bool> {
        if self.at == Some(place) {
            return Ok(true); // nothing new; or the asked cursor, said back before a gap
        }
        let Some(life) = known(truth, place.epoch, place.seq) else { return Ok(false) };
        if let Some(at) = self.at {
            if at.epoch != place.epoch || at.seq > place.seq {
                return Err("a cursor goes back, or to another epoch, without a gap".into());
            }
            self.none_missing(truth, life, at.seq, place.seq)?;
        }
        self.at = Some(place);
        Ok(true)
    }

    fn message(&mut self, message: &Message, truth: &Truth) -> Result<bool> {
        let place = message.id.ok_or("a message without an id")?;
        let Some(life) = known(truth, place.epoch, place.seq) else { return Ok(false) };
        let sent = place.seq.checked_sub(1).and_then(|nth| life.messages.get(nth as usize)?.as_ref());
        let sent = sent.ok_or("a message that is none")?;
        same(message, sent)?;
        if !self.channels.contains(&sent.channel) {
            return Err(format!("a message of {}, which is not in the set", name(sent.channel)));
        }
        if let Some(at) = self.at {
            if at.epoch != place.epoch {
                return Err("a message of another epoch without a gap".into());
            }
            if at.seq >= place.seq {
                return Err("heard before, or out of order".into());
            }
            self.none_missing(truth, life, at.seq, place.seq - 1)?;
        }
        self.at = Some(place);
        Ok(true)
    }

    fn gap(&mut self, gap: &Gap, sent: u64, truth: &Truth) -> Result<bool> {
        let place = gap.cursor;
        if gap.through.epoch != place.epoch {
            return Err("a gap over two epochs".into());
        }
        let Some(life) = known(truth, place.epoch, place.seq.max(gap.through.seq)) else { return Ok(false) };
        // What has evicted the lost was in the log by then: the observer must have heard of it.
        if truth.observed < sent && !life.is_over {
            return Ok(false);
        }
        let at = self.at.ok_or("a gap after `now`")?;
        if gap.after != at.to_string() {
            return Err(format!("the gap is after {}, and the last cursor was {at}", gap.after));
        }
        let from = match gap.reason.as_str() {
            "evicted" if at.epoch == place.epoch && at.seq <= place.seq => {
                let mut lost = life.between(&self.channels, at.seq, gap.through.seq);
                if !lost.any(|(.., newer)| life.is_over || newer >= truth.kept) {
                    return Err("a gap in vain".into());
                }
                at.seq
            }
            "epoch" if at.epoch != place.epoch => 0,
            _ => return Err("a gap with a reason that is not the case".into()),
        };
        self.told = gap.through.seq;
        self.none_missing(truth, life, from, place.seq)?;
        self.at = Some(place);
        Ok(true)
    }

    /// No message of the set numbered above `from` and up to `to`, but what may be missing.
    fn none_missing(&self, truth: &Truth, life: &Life, from: u64, to: u64) -> Result<()> {
        for (seq, channel, newer) in life.between(&self.channels, from, to) {
            let is_excused = seq <= self.told && (life.is_over || newer >= truth.kept);
            if !is_excused {
                return Err(format!("message {seq} of {} is missing", name(channel)));
            }
        }
        Ok(())
    }
}

/// The life, if it is known as far as this number.
fn known(truth: &Truth, epoch: u32, seq: u64) -> Option<&Life> {
    truth.lives.get(&epoch).filter(|life| life.is_over || life.head() >= seq)
}
