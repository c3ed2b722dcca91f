//! May this client do this? The tokens are asked first, then the embedder.
//!
//! Asked for each request after the checks of form, names and origin (once more when a body that
//! was to come is whole), for each message or command on an open WebSocket, and of every subscriber
//! when the tokens are replaced: revoked access does not live on.
//! Invariant: what a connection may do is what its token may do now, never what it once did. RFC 6750.

use super::Engine;
use crate::app::{self, Operation, Request};
use crate::connection::{CloseReason, State};
use crate::error::{Code, Refusal};
use crate::form;
use crate::protocol::http::RequestHead;
use crate::protocol::websocket::CloseCode;
use crate::rights::{Denied, Right, TokenKey, Tokens};
use crate::route::{self, Action, SubscribeRequest, Transport};

/// By what a request may do what it asks for.
#[derive(Copy, Clone)]
pub(super) struct Admission {
    /// The token that it showed, if it needed one.
    pub token: Option<TokenKey>,
    /// Who it is by the embedder's word; 0 if that was no more than yes.
    pub user: u64,
}

/// The tokens, and who came in by which.
#[derive(Default)]
pub(super) struct Access {
    tokens: Tokens,
    /// By connection: the key of the token it subscribed with. No longer than the last that has
    /// one, so that it costs nothing without tokens.
    holders: Vec<Option<TokenKey>>,
    /// By connection: who subscribed, by the embedder's word. No longer than the last that is not 0,
    /// so that it costs nothing without such words.
    users: Vec<u64>,
}

impl Access {
    pub(super) fn new(tokens: Tokens) -> Access {
        Access { tokens, holders: Vec::new(), users: Vec::new() }
    }

    fn holder(&self, index: u32) -> Option<TokenKey> {
        self.holders.get(index as usize).copied().flatten()
    }

    /// Who this connection is by the embedder's word.
    pub(super) fn user(&self, index: u32) -> u64 {
        self.users.get(index as usize).copied().unwrap_or(0)
    }

    /// From now on this connection is held so.
    pub(super) fn hold(&mut self, index: u32, admission: Admission) {
        self.hold_by(index, admission.token);
        if admission.user != 0 && self.users.len() <= index as usize {
            self.users.resize(index as usize + 1, 0);
        }
        if let Some(user) = self.users.get_mut(index as usize) {
            *user = admission.user;
        }
    }

    /// From now on this connection is held by this token, or by none.
    fn hold_by(&mut self, index: u32, token: Option<TokenKey>) {
        if token.is_some() && self.holders.len() <= index as usize {
            self.holders.resize(index as usize + 1, None);
        }
        if let Some(holder) = self.holders.get_mut(index as usize) {
            *holder = token;
        }
    }

    /// The token by which the request may do what it asks for, if it needs one.
    fn check(&self, head: &RequestHead<'_>, action: &Action) -> Result<Option<TokenKey>, Refusal> {
        let tokens = &self.tokens;
        let (is_guarded, right, channels) = match action {
            Action::Publish(publish) => (tokens.guards(Right::Publish), Right::Publish, one(&publish.channel)),
            Action::Delete { channel } => (tokens.guards(Right::Publish), Right::Publish, one(channel)),
            Action::Subscribe(SubscribeRequest { channels, .. })
            | Action::Tip { channels }
            | Action::View { channels } => (tokens.guards(Right::Subscribe), Right::Subscribe, &channels[..]),
            // Who may read only some names may list them, and must ask for no others.
            Action::List { prefix, .. } => (tokens.guards_anything(), Right::Subscribe, one(prefix)),
            Action::Metrics => (tokens.guards_anything(), Right::Subscribe, &[][..]),
            _ => return Ok(None),
        };
        let offered = match action {
            Action::Subscribe(SubscribeRequest { transport: Transport::WebSocket(handshake), .. }) => {
                Some(handshake.bearer.as_deref())
            }
            _ => None,
        };
        // A WebSocket may publish later, so its token is looked at also where reading needs none.
        let is_looked_at = is_guarded || (offered.is_some() && tokens.guards_anything());
        if !is_looked_at {
            return Ok(None);
        }
        let shown = route::token(head, offered.flatten())?;
        let token = match &shown {
            Some(shown) => Some(tokens.find(shown).ok_or_else(|| refusal(&Denied::Unknown))?),
            None => None,
        };
        if is_guarded {
            let held = token.ok_or_else(|| refusal(&Denied::Required(right)))?;
            tokens.check_held(held, right, channels.iter().map(String::as_str)).map_err(|denied| refusal(&denied))?;
        }
        Ok(token)
    }
}

fn one(name: &String) -> &[String] {
    std::slice::from_ref(name)
}

fn refusal(denied: &Denied) -> Refusal {
    let code = match denied {
        Denied::Required(_) => Code::TokenRequired,
        Denied::Unknown | Denied::ReadOnly | Denied::Prefix(_) => Code::TokenWrong,
    };
    Refusal::new(code, denied.to_string())
}

/// What the embedder's word comes to: who it is, or why not.
pub(super) fn granted(access: app::Access) -> Result<u64, Refusal> {
    match access {
        app::Access::Allow => Ok(0),
        app::Access::AllowAs(user) => Ok(user),
        app::Access::Deny(reason) => Err(Refusal::new(Code::NotAllowed, reason)),
    }
}

impl Engine {
    /// Asks whether a request may do this; gives back by what.
    pub(super) fn judge(&mut self, head: &RequestHead<'_>, action: &Action) -> Result<Admission, Refusal> {
        let admission = Admission { token: self.access.check(head, action)?, user: 0 };
        let Some(app) = &mut self.app else { return Ok(admission) };
        let (operation, channels): (Operation, &[String]) = match action {
            Action::Publish(publish) => (Operation::Publish, one(&publish.channel)),
            Action::Delete { channel } => (Operation::Delete, one(channel)),
            Action::Subscribe(subscribe) => (Operation::Subscribe, &subscribe.channels),
            Action::Tip { channels } | Action::View { channels } => (Operation::Subscribe, channels),
            Action::List { .. } => (Operation::Subscribe, &[]),
            _ => return Ok(admission),
        };
        let channels: Vec<&str> = channels.iter().map(String::as_str).collect();
        let user = granted(app.authorize(&Request::new(head, &[]), operation, &channels))?;
        Ok(Admission { user, ..admission })
    }

    /// A WebSocket may publish where a POST could; if the embedder says no, it says why.
    pub(super) fn denial_of_inbound(&mut self, head: &RequestHead<'_>, request: &SubscribeRequest) -> Option<Box<str>> {
        let app = self.app.as_mut().filter(|_| matches!(request.transport, Transport::WebSocket(_)))?;
        let channels: Vec<&str> = request.channels.iter().map(String::as_str).collect();
        let denied = granted(app.authorize(&Request::new(head, &[]), Operation::Publish, &channels)).err()?;
        Some(denied.message.into())
    }

    /// Asks whether a message that came in on this WebSocket may be published.
    pub(super) fn judge_inbound(&self, index: u32) -> Result<(), Refusal> {
        let channels = self.channel_names(index);
        // A WebSocket of the embedder's own reads no channel, and its messages are the embedder's.
        if !channels.is_empty() {
            let held = self.access.holder(index);
            self.access.tokens.check(held, Right::Publish, channels).map_err(|denied| refusal(&denied))?;
        }
        match self.connections[index].cold.as_ref().and_then(|cold| cold.denial.as_deref()) {
            Some(denial) => Err(Refusal::new(Code::NotAllowed, denial.to_owned())),
            None => Ok(()),
        }
    }

    /// Asks whether a command on this connection may be done.
    pub(super) fn judge_command(
        &mut self,
        index: u32,
        operation: Operation,
        channels: &[String],
    ) -> Result<(), Refusal> {
        let channels: Vec<&str> = channels.iter().map(String::as_str).collect();
        let right = if operation == Operation::Subscribe { Right::Subscribe } else { Right::Publish };
        let held = self.access.holder(index);
        self.access.tokens.check(held, right, channels.iter().copied()).map_err(|denied| refusal(&denied))?;
        let Some(app) = &mut self.app else { return Ok(()) };
        granted(app.authorize_command(self.access.user(index), operation, &channels)).map(|_| ())
    }

    /// Takes other tokens, and ends every subscriber that may no longer read what it reads.
    pub(super) fn set_tokens(&mut self, mut tokens: Tokens) {
        tokens.keep_guarded(&self.access.tokens);
        let before = std::mem::replace(&mut self.access.tokens, tokens);
        let subscribed = self.connections.iter().filter(|(_, connection)| connection.state.is_subscribed());
        let indexes: Vec<u32> = subscribed.map(|(index, _)| index).collect();
        let mut ended = 0;
        for index in indexes {
            if let Err(denied) = self.hold_again(index, &before) {
                self.revoke(index, &refusal(&denied));
                ended += 1;
            }
        }
        let tokens = &self.access.tokens;
        for (right, count, what) in [
            (Right::Publish, tokens.publish_count(), "publish"),
            (Right::Subscribe, tokens.publish_count() + tokens.subscribe_count(), "subscribe"),
        ] {
            if tokens.guards(right) && count == 0 {
                log::warn!("tokens: none to {what} is left, so nobody may until there is one");
            }
        }
        log::info!(
            "tokens: {} to publish, {} to subscribe; connections that have lost their right and end: {ended}",
            tokens.publish_count(),
            tokens.subscribe_count()
        );
    }

    /// Finds a subscriber's token among the new ones, and asks whether it may still read.
    fn hold_again(&mut self, index: u32, before: &Tokens) -> Result<(), Denied> {
        let held = self.access.holder(index);
        let again = held.and_then(|key| self.access.tokens.find_again(before, key));
        if held.is_some() && again.is_none() {
            return Err(Denied::Unknown);
        }
        self.access.hold_by(index, again);
        let channels = self.channel_names(index);
        if channels.is_empty() {
            return Ok(());
        }
        self.access.tokens.check(again, Right::Subscribe, channels)
    }

    /// Ends a subscriber now, whatever still waits for it: it may not have it any more.
    fn revoke(&mut self, index: u32, refusal: &Refusal) {
        match self.connections[index].state {
            State::WebSocket => self.close_websocket(index, CloseCode::POLICY, &refusal.message),
            State::Stream => {
                let form = self.connections[index].form;
                let retry = self.retry_ms();
                self.connections[index].own(&mut self.spares).append_with(|out| form::sse_last(form, retry, out));
                self.finish(index, CloseReason::Revoked);
            }
            // It was not answered yet: it can be told why.
            State::Held => {
                let reply = self.held_reply(index);
                self.refuse(index, &reply, refusal);
                self.set_deadline_between_requests(index);
                self.queue_reader(index);
            }
            State::Request | State::Closing | State::Finishing | State::Lingering | State::Dead => {}
        }
        if self.connections[index].state != State::Request {
            self.connections[index].reason = CloseReason::Revoked;
        }
        self.queue_ready(index);
    }
}
