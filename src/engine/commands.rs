//! Serves what other threads, and the thread that turns the loop, ask for.

use super::{Asker, Engine};
use crate::commands::{Command, Publication, PublishCallback, PublishError, Published};
use crate::error::Refusal;
use crate::hub::{Outcome, Publish, Ticket};
use crate::names;

impl Engine {
    /// Does what a command says. A publish is answered when the log has decided.
    pub fn command(&mut self, command: Command) {
        match command {
            Command::Publish(channel, publication, callback) => self.publish_command(&channel, &publication, callback),
            Command::Stats(callback) => callback(self.stats()),
            Command::SetTokens(tokens) => self.set_tokens(tokens),
            Command::Drain => self.drain(),
            Command::Stop => self.stop(),
        }
    }

    fn publish_command(&mut self, channel: &str, publication: &Publication, callback: Option<PublishCallback>) {
        // As with a request's body: read here, kept by `append`, and both count.
        self.spend(publication.payload.len());
        let ticket = callback.map(|callback| self.askers.insert(Asker::Callback(callback)));
        if let Err(refusal) = self.append_publication(channel, publication, ticket.map(Ticket)) {
            self.count_refusal(refusal.code);
            if let Some(Asker::Callback(callback)) = ticket.and_then(|ticket| self.askers.remove(ticket)) {
                callback(Err(PublishError::Refused(refusal)));
            }
        }
    }

    /// Appends a message of the program itself. Its names were checked where it came from.
    pub(super) fn append_publication(
        &mut self,
        channel: &str,
        publication: &Publication,
        ticket: Option<Ticket>,
    ) -> Result<(), Refusal> {
        let event = match &publication.event {
            Some(event) => names::event_name(event.as_bytes())?,
            None => None,
        };
        let media_type = match &publication.media_type {
            Some(media_type) => names::media_type(media_type.as_bytes())?,
            None => None,
        };
        self.append(Publish { ticket, channel, event, media_type, payload: &publication.payload, ..Publish::default() })
    }

    /// No commit follows, and what the log has not decided it never will.
    pub fn dismiss_callbacks(&mut self) {
        let tickets: Vec<u32> = self.askers.iter().map(|(ticket, _)| ticket).collect();
        for ticket in tickets {
            if let Some(Asker::Callback(callback)) = self.askers.remove(ticket) {
                callback(Err(PublishError::Closed));
            }
        }
    }

    pub(super) fn published(&self, outcome: Outcome) -> Result<Published, PublishError> {
        match outcome {
            Outcome::Accepted { seq, subscribers, .. } | Outcome::Repeated { seq, subscribers } => {
                Ok(Published { id: self.hub.cursor(seq), subscribers })
            }
            other => Err(PublishError::Refused(super::publishing::outcome_refusal(other))),
        }
    }

    /// The log still decides on publishes of a connection that is gone. Nobody is to be told, but
    /// the ticket stays taken until then: whoever got it next would be told instead.
    pub(super) fn orphan_askers(&mut self, index: u32) {
        let is_orphan = |asker: &Asker| matches!(asker, Asker::Request(of, _) | Asker::Command(of, _) if *of == index);
        let orphans: Vec<u32> =
            self.askers.iter().filter(|(_, asker)| is_orphan(asker)).map(|(ticket, _)| ticket).collect();
        for ticket in orphans {
            self.askers[ticket] = Asker::Nobody;
        }
    }
}
