//! What must be true, in the plainest words: a list of messages, and for each client a chain.
//!
//! The list is what an observer hears who reads everything at once; its numbers have no holes.
//! The chain is what one client heard. Between two of its places lie exactly the messages of its
//! channels, each once and in order, except those a gap has covered or a DELETE has taken.
//! A chain is judged as soon as the observer has heard as much.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::clients::{Gap, Heard, Message, Place, Result, lines_normalized};

/// A message as its publisher meant it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    pub channel: String,
    pub event: Option<String>,
    pub media_type: Option<String>,
    pub payload: Vec<u8>,
}

/// Everything that was sent, and every life of the log.
#[derive(Debug, Default)]
pub struct Model {
    /// By the first word of the payload, which no two share.
    pub sent: BTreeMap<String, Sent>,
    /// Tags sent, again perhaps, that the observer has not heard since.
    pub in_flight: BTreeSet<String>,
    /// Those of them that were sent again, by their key: no order is promised for them.
    pub repeated: BTreeSet<String>,
    /// The life of now.
    pub epoch: u32,
    pub lives: BTreeMap<u32, Life>,
    /// `history-messages`, if nothing else evicts.
    pub kept_per_channel: Option<usize>,
    /// Accepted in channels that the observer does not read, and not yet in their life.
    passed: BTreeMap<Place, String>,
    /// 200 answers not judged yet.
    answers: Vec<(Place, String)>,
}

/// One life of the log, as the observer heard it.
#[derive(Debug, Default)]
pub struct Life {
    /// Message `seq` is at `seq - 1`. A DELETE may take one before the observer hears it.
    pub messages: Vec<Option<(String, Sent)>>,
    /// Messages of this channel up to this number may have been deleted.
    deleted: BTreeMap<String, u64>,
    /// The number of each tag.
    numbers: BTreeMap<String, u64>,
    /// A DELETE may have taken the next numbers before the observer heard them.
    may_skip: bool,
}

impl Life {
    pub fn head(&self) -> u64 {
        self.messages.len() as u64
    }

    /// From now on, until `deleted`, any message of this channel may be taken.
    pub fn deletes(&mut self, channel: &str) {
        self.deleted.insert(channel.to_string(), u64::MAX);
        self.may_skip = true;
    }

    /// The DELETE is done: what is published from now on stays.
    pub fn has_deleted(&mut self, channel: &str) {
        let head = self.head();
        self.deleted.insert(channel.to_string(), head);
    }

    fn is_deleting(&self) -> bool {
        self.deleted.values().any(|&through| through == u64::MAX)
    }

    fn after(&self, from: u64, to: u64) -> impl Iterator<Item = (u64, &Sent)> {
        let end = to.min(self.head()) as usize;
        let start = (from as usize).min(end);
        let messages = (from + 1..).zip(&self.messages[start..end]);
        messages.filter_map(|(seq, message)| Some((seq, &message.as_ref()?.1)))
    }
}

/// The first word of a payload.
pub fn tag(payload: &[u8]) -> String {
    let end = payload.iter().position(|&byte| byte == b' ').unwrap_or(payload.len());
    String::from_utf8_lossy(&payload[..end]).into_owned()
}

impl Model {
    /// The observer heard a message.
    pub fn observed(&mut self, message: Message) -> Result<()> {
        let id = message.id.ok_or("a message without an id")?;
        let tag = tag(&message.payload);
        let sent = self.sent.get(&tag).ok_or_else(|| format!("{id} was sent by nobody: {tag}"))?.clone();
        self.pass(id.epoch);
        let life = self.lives.entry(id.epoch).or_default();
        while life.may_skip && id.seq > life.head() + 1 {
            let known = self.passed.remove(&Place { epoch: id.epoch, seq: life.head() + 1 });
            if let Some(tag) = &known {
                self.in_flight.remove(tag);
            }
            life.messages.push(known.map(|tag| (tag.clone(), self.sent[&tag].clone())));
        }
        if id.seq != life.head() + 1 {
            return Err(format!("the observer heard {id} after {}", life.head()));
        }
        life.may_skip = life.is_deleting();
        if life.numbers.insert(tag.clone(), id.seq).is_some() {
            return Err(format!("{tag} was accepted twice, again as {id}"));
        }
        same(&message, &sent)?;
        self.in_flight.remove(&tag);
        life.messages.push(Some((tag, sent)));
        self.pass(id.epoch);
        Ok(())
    }

    /// A message of a channel that the observer does not read was accepted with this number.
    pub fn passed(&mut self, id: Place, tag: String) -> Result<()> {
        let life = self.lives.entry(id.epoch).or_default();
        if life.numbers.insert(tag.clone(), id.seq).is_some() || id.seq <= life.head() {
            return Err(format!("{tag} was accepted as {id}, and that is taken"));
        }
        self.passed.insert(id, tag);
        self.pass(id.epoch);
        Ok(())
    }

    /// What passed stands in its place as soon as the observer has heard what is before it.
    fn pass(&mut self, epoch: u32) {
        let life = self.lives.entry(epoch).or_default();
        while let Some(tag) = self.passed.remove(&Place { epoch, seq: life.head() + 1 }) {
            let sent = self.sent[&tag].clone();
            self.in_flight.remove(&tag);
            life.messages.push(Some((tag, sent)));
        }
    }

    /// A publisher was told that this message has this id.
    pub fn answered(&mut self, id: Place, tag: String) {
        self.answers.push((id, tag));
    }

    /// Judges the answers that can be judged; says how many cannot yet.
    pub fn settle(&mut self) -> Result<usize> {
        let lives = &self.lives;
        let mut wrong = None;
        self.answers.retain(|(id, tag)| {
            let Some(life) = lives.get(&id.epoch) else { return true };
            let Some(message) = life.messages.get(id.seq as usize - 1) else { return true };
            if let Some((accepted, _)) = message
                && accepted != tag
            {
                wrong = Some(format!("{tag} was answered {id}, but that is {accepted}"));
            }
            false
        });
        // What a log in memory had taken when it ended, nobody is owed.
        let owed = self.answers.iter().filter(|(id, _)| id.epoch == self.epoch).count();
        wrong.map_or(Ok(owed), Err)
    }

    /// "One order": what was sent over one connection, or by one thread, stands in the order of sending.
    /// The tags of one sender differ in the number behind the last point.
    pub fn keeps_order(&self) -> Result<()> {
        for (epoch, life) in &self.lives {
            let mut newest: BTreeMap<&str, (u64, &str)> = BTreeMap::new();
            for (tag, _) in life.messages.iter().flatten().filter(|(tag, _)| !self.repeated.contains(tag)) {
                let Some((sender, nth)) = tag.rsplit_once('.') else { continue };
                let Ok(nth) = nth.parse() else { continue };
                if let Some((before, after)) = newest.insert(sender, (nth, tag)).filter(|&(before, _)| before >= nth) {
                    return Err(format!("{tag} stands behind {after} ({before}) in {epoch}, and was sent before it"));
                }
            }
        }
        Ok(())
    }

    /// True if a DELETE may have taken the newest message before the observer heard it.
    pub fn may_skip(&self) -> bool {
        self.lives.get(&self.epoch).is_some_and(|life| life.may_skip)
    }

    /// How many messages the observer has heard in this life.
    pub fn heard(&self) -> u64 {
        self.lives.get(&self.epoch).map_or(0, Life::head)
    }

    fn life(&self, epoch: u32) -> Option<&Life> {
        self.lives.get(&epoch)
    }

    /// 200 answers not judged yet.
    pub fn answers(&self) -> &[(Place, String)] {
        &self.answers
    }

    /// True if a limit may have evicted this message by now.
    fn is_evictable(&self, life: &Life, seq: u64, channel: &str) -> bool {
        let Some(kept) = self.kept_per_channel else { return true };
        let newer = life.after(seq, life.head()).filter(|(_, sent)| sent.channel == channel).count();
        // What the observer is still to hear may be in the log already, and counts there.
        let unheard = || self.in_flight.iter().filter(|&tag| self.sent[tag].channel == channel).count();
        newer >= kept || newer + unheard() >= kept
    }
}

/// Compares what a form shows with what was sent.
fn same(message: &Message, sent: &Sent) -> Result<()> {
    let payload = if message.lines_normalized { lines_normalized(&sent.payload) } else { sent.payload.clone() };
    let same = message.payload == payload
        && message.channel.as_ref().is_none_or(|channel| *channel == sent.channel)
        && message.event.as_ref().is_none_or(|event| *event == sent.event)
        && message.media_type.as_ref().is_none_or(|media_type| *media_type == sent.media_type);
    if same { Ok(()) } else { Err(format!("heard {message:?}\nof     {sent:?}")) }
}

/// Where a client asks to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum After {
    Now,
    Earliest,
    Place(Place),
    /// A `Last-Event-ID` that is no cursor.
    Text(String),
}

impl After {
    pub fn text(&self) -> String {
        match self {
            After::Now => "now".into(),
            After::Earliest => "earliest".into(),
            After::Place(place) => place.to_string(),
            After::Text(text) => text.clone(),
        }
    }
}

/// What one client has asked and heard, in order.
#[derive(Debug)]
pub struct Chain {
    /// The set, as of the last thing judged.
    channels: BTreeSet<String>,
    asked: After,
    /// The life of the server that was asked.
    life: u32,
    at: Option<Place>,
    /// After `now`: it was attached when the log stood here, at the latest.
    by: Option<u64>,
    /// A gap of this connection was told through here.
    told: u64,
    /// After `earliest`: channels of which nothing was heard yet. Nobody said where they begin.
    unheard: BTreeSet<String>,
    /// The last cursor the server gave, as the client resumes with it.
    last: Option<Place>,
    /// The set, as of the last thing heard.
    wanted: BTreeSet<String>,
    steps: VecDeque<Step>,
}

#[derive(Debug)]
enum Step {
    Asked(After, BTreeSet<String>, u32),
    /// The server has read what was asked.
    StandsBy(u64),
    Heard(Heard),
}

impl Chain {
    pub fn new() -> Chain {
        Chain {
            channels: BTreeSet::new(),
            asked: After::Now,
            life: 0,
            at: None,
            by: None,
            told: 0,
            unheard: BTreeSet::new(),
            last: None,
            wanted: BTreeSet::new(),
            steps: VecDeque::new(),
        }
    }

    /// The cursor to resume with, if one is known.
    pub fn last(&self) -> Option<Place> {
        self.last
    }

    /// The set as the server knows it.
    pub fn wanted(&self) -> &BTreeSet<String> {
        &self.wanted
    }

    /// The client subscribes.
    pub fn ask(&mut self, after: After, channels: BTreeSet<String>, life: u32) {
        self.last = if let After::Place(place) = after { Some(place) } else { None };
        self.wanted = channels.clone();
        self.steps.push_back(Step::Asked(after, channels, life));
    }

    /// The server has read all of the request; it stands at this number of the log, or before it.
    pub fn stands_by(&mut self, head: u64) {
        self.steps.push_back(Step::StandsBy(head));
    }

    /// The client heard something.
    pub fn hear(&mut self, heard: &Heard) {
        match heard {
            Heard::Cursor(place) => self.last = Some(*place),
            Heard::Message(message) => self.last = message.id,
            Heard::Gap(gap) => self.last = Some(gap.cursor),
            Heard::Subscribed { channels, cursor } => {
                self.last = Some(*cursor);
                self.wanted = channels.iter().cloned().collect();
            }
            Heard::Done(Some(4008)) | Heard::Refused(..) => {}
            _ => return,
        }
        self.steps.push_back(Step::Heard(heard.clone()));
    }

    /// Judges what can be judged by what the observer has heard so far.
    pub fn settle(&mut self, model: &Model) -> Result<()> {
        while let Some(step) = self.steps.front() {
            let judged = match step {
                Step::Asked(after, channels, life) => {
                    self.asked = after.clone();
                    self.life = *life;
                    self.channels = channels.clone();
                    self.at = if let After::Place(place) = after { Some(*place) } else { None };
                    self.by = None;
                    self.told = 0;
                    let is_earliest = *after == After::Earliest;
                    self.unheard = if is_earliest { channels.clone() } else { BTreeSet::new() };
                    true
                }
                Step::StandsBy(head) => {
                    self.by = Some(*head).filter(|_| self.asked == After::Now);
                    true
                }
                Step::Heard(heard) => {
                    let heard = heard.clone();
                    self.judge(&heard, model).map_err(|why| {
                        format!(
                            "{why}\nheard {heard:?}\nat {:?} of {:?}, asked {:?}",
                            self.at, self.channels, self.asked
                        )
                    })?
                }
            };
            if !judged {
                break;
            }
            self.steps.pop_front();
        }
        Ok(())
    }

    /// At the end: everything asked for is heard.
    pub fn is_caught_up(&mut self, model: &Model) -> Result<()> {
        // A payload without an id may be of a message that was deleted before the observer heard it.
        let has_holes = model.lives.values().any(|life| life.may_skip || life.messages.contains(&None));
        while let Some(Step::Heard(Heard::Message(message))) = self.steps.front() {
            if message.id.is_some() || !has_holes {
                break;
            }
            self.steps.pop_front();
            self.settle(model)?;
        }
        if let Some(step) = self.steps.front() {
            return Err(format!("heard of something that never was: {step:?}"));
        }
        let Some(at) = self.at.or(self.by.map(|seq| Place { epoch: self.life, seq })) else { return Ok(()) };
        let life = model.life(at.epoch).ok_or("stands in a life that never was")?;
        self.none_missing(model, life, at.seq, life.head()).map_err(|why| format!("{why}, and stays at {at}"))
    }

    /// False: the observer has not heard as much yet.
    fn judge(&mut self, heard: &Heard, model: &Model) -> Result<bool> {
        match heard {
            Heard::Cursor(place) => self.stands(*place, model),
            Heard::Subscribed { channels, cursor } => {
                let judged = self.stands(*cursor, model)?;
                if judged {
                    self.channels = channels.iter().cloned().collect();
                }
                Ok(judged)
            }
            Heard::Message(message) => self.message(message, model),
            Heard::Gap(gap) => self.gap(gap, model),
            Heard::Done(Some(4008)) => Ok(self.has_lost(model)),
            Heard::Refused(..) => {
                self.by = None;
                Ok(true)
            }
            _ => Ok(true),
        }
    }

    fn stands(&mut self, place: Place, model: &Model) -> Result<bool> {
        let Some(life) = model.life(place.epoch).filter(|life| life.head() >= place.seq) else {
            return Ok(self.at == Some(place)); // the asked cursor, said back before a gap
        };
        if let After::Text(text) = &self.asked
            && self.at.is_none()
        {
            return Err(format!("{text:?} is no cursor, and no gap was told"));
        }
        if let Some(at) = self.at {
            if at.epoch != place.epoch || at.seq > place.seq {
                return Err("a cursor goes back, or to another epoch, without a gap".into());
            }
            self.none_missing(model, life, at.seq, place.seq)?;
        } else if let Some(by) = self.by {
            self.none_missing(model, life, by, place.seq)?;
        }
        self.at = Some(place);
        Ok(true)
    }

    fn message(&mut self, message: &Message, model: &Model) -> Result<bool> {
        let place = match message.id {
            Some(place) => place,
            None => {
                // It may stand in several lives, published again; this client is in one, and may have
                // heard of it before the observer did.
                let numbers = model.life(self.life).map(|life| &life.numbers);
                let Some(&seq) = numbers.and_then(|numbers| numbers.get(&tag(&message.payload))) else {
                    return Ok(false);
                };
                Place { epoch: self.life, seq }
            }
        };
        let Some(life) = model.life(place.epoch).filter(|life| life.head() >= place.seq) else { return Ok(false) };
        let Some((_, sent)) = &life.messages[place.seq as usize - 1] else {
            self.at = Some(place);
            return Ok(true); // deleted, but this client still got it
        };
        same(message, sent)?;
        if !self.channels.contains(&sent.channel) {
            return Err(format!("a message of {}, which is not in the set", sent.channel));
        }
        let Some(before) = place.seq.checked_sub(1) else { return Err("message 0".into()) };
        if let Some(at) = self.at {
            if at.epoch != place.epoch {
                return Err("a message of another epoch without a gap".into());
            }
            if at.seq >= place.seq {
                return Err("heard before, or out of order".into());
            }
            self.none_missing(model, life, at.seq, before)?;
        } else if let Some(by) = self.by {
            self.none_missing(model, life, by, before)?;
        } else if let After::Text(text) = &self.asked {
            return Err(format!("{text:?} is no cursor, and no gap was told"));
        } else if self.asked == After::Earliest {
            self.none_missing(model, life, 0, before)?;
        }
        self.unheard.remove(&sent.channel);
        self.at = Some(place);
        Ok(true)
    }

    fn gap(&mut self, gap: &Gap, model: &Model) -> Result<bool> {
        let place = gap.cursor;
        if gap.through.epoch != place.epoch {
            return Err("a gap over two epochs".into());
        }
        let Some(life) = model.life(place.epoch).filter(|life| life.head() >= place.seq.max(gap.through.seq)) else {
            return Ok(false);
        };
        let said = self.at.map_or_else(|| self.asked.text(), |at| at.to_string());
        if gap.after != said {
            return Err(format!("the gap is after {}, and the last cursor was {said}", gap.after));
        }
        let from = match (gap.reason.as_str(), self.at) {
            ("evicted", Some(at)) if at.epoch == place.epoch && at.seq <= place.seq => {
                let lost = |(_, sent): (u64, &Sent)| self.channels.contains(&sent.channel);
                // "It may be said in vain only for a channel that has nothing kept and nobody listening".
                let may_be_forgotten = self.channels.iter().any(|channel| channel.starts_with("passing."));
                if !life.after(at.seq, gap.through.seq).any(lost) && !may_be_forgotten {
                    return Err("a gap in vain".into());
                }
                at.seq
            }
            ("epoch", Some(at)) if at.epoch != place.epoch => 0,
            ("future", Some(at)) if at.epoch == place.epoch && at.seq > life.head() => 0,
            ("unknown", None) if matches!(self.asked, After::Text(_)) => 0,
            _ => return Err("a gap with a reason that is not the case".into()),
        };
        self.told = gap.through.seq;
        self.none_missing(model, life, from, place.seq)?;
        self.at = Some(place);
        Ok(true)
    }

    /// "`tidings.raw` cannot resume: close 4008": only after a loss, or with a cursor that is none of this life's.
    fn has_lost(&self, model: &Model) -> bool {
        let from = match self.at {
            Some(at) if at.epoch != model.epoch => return true,
            Some(at) => at.seq,
            None => 0,
        };
        let Some(life) = model.life(model.epoch) else { return false };
        let may_be_forgotten = self.channels.iter().any(|channel| channel.starts_with("passing."));
        let mut lost = life.after(from, life.head()).filter(|(_, sent)| self.channels.contains(&sent.channel));
        from > life.head() || may_be_forgotten || lost.any(|(seq, sent)| model.is_evictable(life, seq, &sent.channel))
    }

    /// No message of the set numbered above `from` and up to `to`, but what may be missing.
    fn none_missing(&self, model: &Model, life: &Life, from: u64, to: u64) -> Result<()> {
        for (seq, sent) in life.after(from, to) {
            let channel = &sent.channel;
            let is_deleted = life.deleted.get(channel).is_some_and(|&deleted| seq <= deleted);
            let is_told = seq <= self.told || self.unheard.contains(channel);
            let is_excused = is_told && model.is_evictable(life, seq, channel);
            if self.channels.contains(channel) && !is_deleted && !is_excused {
                return Err(format!("message {seq} of {channel} is missing"));
            }
        }
        Ok(())
    }
}
