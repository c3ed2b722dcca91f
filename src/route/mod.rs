//! What a request asks for: from its head and the policy to an action or a refusal.
//!
//! A pure function. It knows the contract's resources, methods, parameters and header fields; it
//! does not know the log, the connection, the clock, or which tokens are good.
//! Invariant: the checks have one order, so a request with several faults always gets the same
//! answer: Host (421), path, method (405), query and transport (400), Origin (403), names, then
//! the other inputs (400). No message shows the value of a parameter: it may be a token.
//! RFC 9110 9.3 (methods), 10.2.1 (Allow), 13.1 (If-Match); the parts have their own.

mod bearer;
mod negotiation;
mod origin;

use std::borrow::Cow;
use std::time::Duration;

use crate::cursor::{After, Cursor};
use crate::error::{Code, Refusal};
use crate::names;
use crate::protocol::http::{self, Method, RequestHead, Version};
use crate::protocol::websocket::{self, Handshake, Subprotocol};
use negotiation::Choice;

pub use bearer::token;
pub use negotiation::{wants_page, wants_sse};
pub use origin::{CORS_ALLOW_HEADERS, CORS_EXPOSE_HEADERS, CORS_MAX_AGE_SECONDS, Policy, PolicyError, cors_origin};

/// What is to be done. Everything in it is owned: the head's bytes may be gone when a body is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// `POST /channels/{name}`: append the body to the log.
    Publish(PublishRequest),
    /// `GET /channels/{set}`: attach, and send what comes after the cursor.
    Subscribe(SubscribeRequest),
    /// `GET /channels/{set}` by a person in a browser: the live viewer page.
    View {
        /// The channels, sorted and distinct.
        channels: Vec<String>,
    },
    /// `HEAD /channels/{set}`: the cursor of now, at once.
    Tip {
        /// The channels, sorted and distinct.
        channels: Vec<String>,
    },
    /// `GET /channels`: the list of channels.
    List {
        /// Only names that begin so; empty for all.
        prefix: String,
        /// Only names that sort after this one; it need not exist.
        after: Option<String>,
    },
    /// `DELETE /channels/{name}`: forget its kept messages.
    Delete {
        /// The channel.
        channel: String,
    },
    /// `OPTIONS`: 204 with `Allow`, and the CORS answer if the origin is listed.
    Preflight {
        /// The methods of the resource, for `Allow` and `Access-Control-Allow-Methods`.
        allow: &'static str,
    },
    /// `GET /healthz`: the loop turns.
    Health,
    /// `GET /readyz`: accepting work.
    Ready,
    /// `GET /metrics`: Prometheus text.
    Metrics,
    /// `GET /`: the playground page.
    Playground,
    /// `GET /tidings.js`: the browser client.
    Client,
    /// A path of nobody here: the embedder may answer it, else it is 404 `not_found`.
    App,
}

/// A message to be, but for its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishRequest {
    /// The channel.
    pub channel: String,
    /// The event name, if one was given.
    pub event: Option<String>,
    /// The media type, if one was given.
    pub media_type: Option<String>,
    /// The `Idempotency-Key`.
    pub key: Option<String>,
    /// The cursor of `If-Match`: publish only if the channel's newest message is not after it.
    pub only_after: Option<Cursor>,
}

/// Which channels, from where, how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscribeRequest {
    /// The channels, sorted and distinct.
    pub channels: Vec<String>,
    /// Where to start.
    pub after: After,
    /// How the messages travel.
    pub transport: Transport,
    /// What of a message travels.
    pub format: Format,
}

/// The framing of a subscription, and when it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A WebSocket, with what its handshake agreed on.
    WebSocket(Handshake),
    /// Server-Sent Events.
    Sse,
    /// One answer, held until there is something to say.
    Poll {
        /// How long it is held at most: 0 to 120 seconds.
        wait: Duration,
    },
}

/// The message object, or the payload alone.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Format {
    /// The message object, in JSON.
    Json,
    /// The payload alone.
    Raw,
}

/// Decides what a request asks for. What it refuses, it refuses in words for the sender.
///
/// Rights are not looked at here: they change, and a head does not.
pub fn route(head: &RequestHead<'_>, policy: &Policy) -> Result<Action, Refusal> {
    origin::check_host(head, policy)?;
    let Some(resource) = Resource::at(head.path) else { return unknown(head, policy) };
    match (head.method, resource) {
        (Method::Options, _) => Ok(Action::Preflight { allow: resource.allow() }),
        (Method::Get, Resource::Channels(set)) => subscribe(head, policy, set),
        (Method::Head, Resource::Channels(set)) => tip(head, policy, set),
        (Method::Post, Resource::Channels(name)) => publish(head, policy, name),
        (Method::Delete, Resource::Channels(name)) => delete(head, policy, name),
        (Method::Get | Method::Head, Resource::List) => list(head, policy),
        (Method::Get | Method::Head, Resource::Metrics) => metrics(head, policy),
        (Method::Get | Method::Head, Resource::Health) => Ok(Action::Health),
        (Method::Get | Method::Head, Resource::Ready) => Ok(Action::Ready),
        (Method::Get | Method::Head, Resource::Playground) => {
            if asks_to_upgrade(head) {
                origin::check_write(head, policy)?;
            }
            Ok(Action::Playground)
        }
        (Method::Get | Method::Head, Resource::Client) => Ok(Action::Client),
        _ => Err(method_not_allowed(resource.allow())),
    }
}

/// What a path names. All that follows `/channels/` is a name or a set, a further `/` included:
/// it is told as a bad name, which helps more than "not found".
#[derive(Copy, Clone)]
enum Resource<'a> {
    Channels(&'a str),
    List,
    Metrics,
    Health,
    Ready,
    Playground,
    Client,
    /// `OPTIONS *` (RFC 9110 9.3.7): the server as a whole.
    Server,
}

impl<'a> Resource<'a> {
    fn at(path: &'a str) -> Option<Resource<'a>> {
        match path {
            "/channels" => Some(Resource::List),
            "/metrics" => Some(Resource::Metrics),
            "/healthz" => Some(Resource::Health),
            "/readyz" => Some(Resource::Ready),
            "/" => Some(Resource::Playground),
            "/tidings.js" => Some(Resource::Client),
            "*" => Some(Resource::Server),
            _ => path.strip_prefix("/channels/").map(Resource::Channels),
        }
    }

    fn allow(self) -> &'static str {
        match self {
            Resource::Channels(_) | Resource::Server => "GET, HEAD, POST, DELETE, OPTIONS",
            _ => "GET, HEAD, OPTIONS",
        }
    }
}

/// `GET /channels/{set}`.
fn subscribe(head: &RequestHead<'_>, policy: &Policy, set: &str) -> Result<Action, Refusal> {
    let query = Query::read(head, SUBSCRIBE_PARAMETERS)?;
    let choice = negotiation::choose(head, query.value("transport"))?;
    match choice {
        Choice::WebSocket => origin::check_write(head, policy)?,
        Choice::Sse | Choice::View | Choice::Poll => origin::check_read(head, policy)?,
    }
    let channels = channel_set(set)?;
    let after = after(head, &query)?;
    let asked = format(&query)?;
    let (transport, format) = match choice {
        Choice::View => return Ok(Action::View { channels }),
        Choice::WebSocket => {
            let handshake = handshake(head, &query)?;
            // The subprotocol alone decides; asking for raw otherwise would be silently ignored.
            if asked == Some(Format::Raw) {
                let what = "format=raw is not for WebSocket; offer the subprotocol tidings.raw instead";
                return Err(Refusal::new(Code::BadFormat, what));
            }
            let format = match handshake.protocol {
                Subprotocol::None | Subprotocol::V1 => Format::Json,
                Subprotocol::Raw => Format::Raw,
            };
            (Transport::WebSocket(handshake), format)
        }
        Choice::Sse => (Transport::Sse, asked.unwrap_or(Format::Raw)),
        Choice::Poll => (Transport::Poll { wait: wait(&query)? }, asked.unwrap_or(Format::Json)),
    };
    Ok(Action::Subscribe(SubscribeRequest { channels, after, transport, format }))
}

/// Every parameter of `GET /channels/{set}`, also those that only one transport looks at.
const SUBSCRIBE_PARAMETERS: &[&str] = &["after", "format", "token", "transport", "wait"];

/// Where to start. A reconnecting EventSource keeps its old URL and sends its place as
/// `Last-Event-ID`, so the header wins and `after` is then not looked at.
fn after(head: &RequestHead<'_>, query: &Query<'_>) -> Result<After, Refusal> {
    if let Some(id) = head.headers("last-event-id").find(|id| !id.is_empty()) {
        return Ok(After::from_last_event_id(id));
    }
    let Some(text) = query.value("after") else { return Ok(After::Now) };
    After::parse(text).ok_or_else(|| {
        Refusal::new(Code::BadCursor, "after is no cursor; it must be like 1766-42, or now, or earliest")
    })
}

fn format(query: &Query<'_>) -> Result<Option<Format>, Refusal> {
    match query.value("format") {
        None => Ok(None),
        Some(b"json") => Ok(Some(Format::Json)),
        Some(b"raw") => Ok(Some(Format::Raw)),
        Some(_) => Err(Refusal::new(Code::BadFormat, "format must be json or raw")),
    }
}

fn wait(query: &Query<'_>) -> Result<Duration, Refusal> {
    let Some(text) = query.value("wait") else { return Ok(WAIT_DEFAULT) };
    whole_number(text)
        .map(Duration::from_secs)
        .filter(|&wait| wait <= WAIT_MAX)
        .ok_or_else(|| Refusal::new(Code::BadWait, "wait must be a whole number of seconds from 0 to 120"))
}

/// Below the 30 s after which the most impatient proxies give up.
const WAIT_DEFAULT: Duration = Duration::from_secs(25);
const WAIT_MAX: Duration = Duration::from_secs(120);

/// Digits alone; `str::parse` would take a sign too.
fn whole_number(text: &[u8]) -> Option<u64> {
    let digits = str::from_utf8(text).ok()?;
    if digits.bytes().all(|byte| byte.is_ascii_digit()) { digits.parse().ok() } else { None }
}

fn handshake(head: &RequestHead<'_>, query: &Query<'_>) -> Result<Handshake, Refusal> {
    websocket::accept_handshake(head).map_err(|error| {
        // Who writes `transport=websocket` asks for it in words; all that is missing is the upgrade.
        let code = if query.value("transport").is_some() { Code::UpgradeRequired } else { error.code() };
        Refusal::new(code, error.to_string())
    })
}

/// `HEAD /channels/{set}`: it asks for nothing but the cursor, so no parameter but `token` and no
/// `Accept` can spoil it.
fn tip(head: &RequestHead<'_>, policy: &Policy, set: &str) -> Result<Action, Refusal> {
    Query::read_only(head, &["token"])?;
    origin::check_read(head, policy)?;
    Ok(Action::Tip { channels: channel_set(set)? })
}

/// `POST /channels/{name}`.
fn publish(head: &RequestHead<'_>, policy: &Policy, name: &str) -> Result<Action, Refusal> {
    let query = Query::read(head, &["event", "token"])?;
    origin::check_write(head, policy)?;
    let channel = one_channel(name)?;
    let event = query.value("event").map(names::event_name).transpose()?.flatten();
    let media_type = at_most_once(head, "content-type", Code::BadType)?.map(names::media_type).transpose()?.flatten();
    Ok(Action::Publish(PublishRequest {
        channel,
        event: event.map(str::to_owned),
        media_type: media_type.filter(|given| !names::counts_as_none(given)).map(str::to_owned),
        key: idempotency_key(head)?,
        only_after: only_after(head)?,
    }))
}

fn idempotency_key(head: &RequestHead<'_>) -> Result<Option<String>, Refusal> {
    let Some(key) = at_most_once(head, "idempotency-key", Code::BadKey)? else { return Ok(None) };
    names::idempotency_key(key).map(|key| Some(key.to_owned()))
}

/// The condition of a publish: one strong entity tag that is a cursor. RFC 9110 13.1.1 also has
/// `*`, weak tags and lists; here they would say nothing true.
fn only_after(head: &RequestHead<'_>) -> Result<Option<Cursor>, Refusal> {
    if head.header("if-none-match").is_some() {
        let what = "If-None-Match says nothing here; the condition of a publish is If-Match: \"1766-42\"";
        return Err(Refusal::new(Code::BadCondition, what));
    }
    let Some(condition) = at_most_once(head, "if-match", Code::BadCondition)? else { return Ok(None) };
    let quoted = condition.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
    quoted.and_then(Cursor::parse).map(Some).ok_or_else(|| {
        Refusal::new(Code::BadCondition, "If-Match must be one cursor in quotes, like If-Match: \"1766-42\"")
    })
}

/// `DELETE /channels/{name}`.
fn delete(head: &RequestHead<'_>, policy: &Policy, name: &str) -> Result<Action, Refusal> {
    Query::read(head, &["token"])?;
    origin::check_write(head, policy)?;
    Ok(Action::Delete { channel: one_channel(name)? })
}

/// `GET /channels`. `prefix` and `after` are places in the order of names and need not be names
/// themselves. Names are ASCII, so what is no UTF-8 sorts after them all, before and after its
/// replacement by U+FFFD.
fn list(head: &RequestHead<'_>, policy: &Policy) -> Result<Action, Refusal> {
    let query = Query::read(head, &["after", "prefix", "token"])?;
    origin::check_read(head, policy)?;
    let text = |name| query.value(name).map(|value| String::from_utf8_lossy(value).into_owned());
    Ok(Action::List { prefix: text("prefix").unwrap_or_default(), after: text("after") })
}

/// `GET /metrics`: a token may be asked for.
fn metrics(head: &RequestHead<'_>, policy: &Policy) -> Result<Action, Refusal> {
    Query::read(head, &["token"])?;
    origin::check_read(head, policy)?;
    Ok(Action::Metrics)
}

/// A path of the embedder, perhaps. What may change something there has the protection of our own.
fn unknown(head: &RequestHead<'_>, policy: &Policy) -> Result<Action, Refusal> {
    if !matches!(head.method, Method::Get | Method::Head | Method::Options) || asks_to_upgrade(head) {
        origin::check_write(head, policy)?;
    }
    Ok(Action::App)
}

/// True if the client would open a WebSocket here. RFC 9110 7.8: "A server MUST ignore an Upgrade
/// header field that is received in an HTTP/1.0 request."
pub fn asks_to_upgrade(head: &RequestHead<'_>) -> bool {
    head.method == Method::Get && head.version == Version::Http11 && head.has_token("upgrade", "websocket")
}

/// RFC 9110 15.5.6: "The origin server MUST generate an Allow header field in a 405 response".
fn method_not_allowed(allow: &'static str) -> Refusal {
    let what = format!("this resource does not have that method; it has {allow}");
    Refusal { allow: Some(allow), ..Refusal::new(Code::MethodNotAllowed, what) }
}

fn channel_set(path: &str) -> Result<Vec<String>, Refusal> {
    names::channel_set(&decoded(path)?)
}

fn one_channel(path: &str) -> Result<String, Refusal> {
    let name = decoded(path)?;
    if name.contains(&b',') {
        return Err(Refusal::new(Code::BadChannel, "a set of channels can only be read; name one channel"));
    }
    names::channel_name(&name).map(str::to_owned)
}

/// Names are decoded first and judged then: `%2F` is as wrong in them as `/`.
fn decoded(path: &str) -> Result<Cow<'_, [u8]>, Refusal> {
    http::percent_decode(path.as_bytes(), false).ok_or_else(|| {
        Refusal::new(
            Code::BadChannel,
            "the channel name has a % without two hex digits; a % itself is not allowed in it",
        )
    })
}

/// A header field that means nothing when it is there several times.
fn at_most_once<'h>(head: &'h RequestHead<'_>, name: &str, code: Code) -> Result<Option<&'h [u8]>, Refusal> {
    let mut values = head.headers(name);
    let first = values.next();
    match values.count() {
        0 => Ok(first),
        more => Err(Refusal::new(code, format!("the header {name} is there {} times; give it once", more + 1))),
    }
}

/// The parameters that a resource knows, decoded; each at most once.
struct Query<'a> {
    known: &'static [&'static str],
    /// In the order of `known`.
    values: [Option<Cow<'a, [u8]>>; SUBSCRIBE_PARAMETERS.len()],
}

impl<'a> Query<'a> {
    /// Reads the known parameters. The others mean nothing, but a broken `%` is told wherever it
    /// is: it is a client's mistake in quoting, and perhaps in the name.
    fn read(head: &RequestHead<'a>, known: &'static [&'static str]) -> Result<Query<'a>, Refusal> {
        match head.query {
            Some(text) if http::percent_decode(text.as_bytes(), true).is_none() => Err(bad_percent()),
            _ => Query::read_only(head, known),
        }
    }

    /// Reads the known parameters and does not look at the others at all.
    fn read_only(head: &RequestHead<'a>, known: &'static [&'static str]) -> Result<Query<'a>, Refusal> {
        debug_assert!(known.len() <= SUBSCRIBE_PARAMETERS.len(), "there is a place for each");
        let mut query = Query { known, values: Default::default() };
        let Some(text) = head.query else { return Ok(query) };
        for pair in text.as_bytes().split(|&byte| byte == b'&') {
            let name_end = pair.iter().position(|&byte| byte == b'=').unwrap_or(pair.len());
            let (name, value) = (&pair[..name_end], pair.get(name_end + 1..).unwrap_or_default());
            let Some(name) = http::percent_decode(name, true) else { continue };
            let places = known.iter().zip(&mut query.values);
            let Some((name, place)) = places.into_iter().find(|(known, _)| known.as_bytes() == &*name) else {
                continue;
            };
            if place.is_some() {
                return Err(Refusal::new(Code::BadQuery, format!("the parameter {name} is given twice; give it once")));
            }
            *place = Some(http::percent_decode(value, true).ok_or_else(bad_percent)?);
        }
        Ok(query)
    }

    fn into_value(self, name: &str) -> Option<Cow<'a, [u8]>> {
        self.known.iter().zip(self.values).find(|(known, _)| **known == name)?.1
    }

    fn value(&self, name: &str) -> Option<&[u8]> {
        self.known.iter().zip(&self.values).find(|(known, _)| **known == name)?.1.as_deref()
    }
}

fn bad_percent() -> Refusal {
    Refusal::new(Code::BadQuery, "the query has a % without two hex digits; write %25 for a % itself")
}

#[cfg(test)]
mod tests;
