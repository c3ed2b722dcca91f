//! Every option, once: the table that drives flags, environment, help, `--print-config` and the
//! page of the docs.
//!
//! Knows nothing of what the values do. Precedence: option, then environment, then default. An
//! option's variable is `TIDINGS_` and its name in capitals, so that it is not written down here;
//! nor are defaults, which are `Config::default()`'s. An empty variable counts as not set.

use std::ffi::OsString;
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use lexopt::Arg;
use log::LevelFilter;
use tidings::Config;

use super::values::{self, Secret};

/// What the program is told.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) listen: Vec<String>,
    pub(crate) stdin: Option<String>,
    pub(crate) log: LevelFilter,
    pub(crate) publish_tokens: Vec<Secret>,
    pub(crate) subscribe_tokens: Vec<Secret>,
    pub(crate) token_files: Vec<String>,
    pub(crate) config: Config,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            listen: vec!["127.0.0.1:8080".into()],
            stdin: None,
            log: LevelFilter::Info,
            publish_tokens: Vec::new(),
            subscribe_tokens: Vec::new(),
            token_files: Vec::new(),
            config: Config::default(),
        }
    }
}

/// Options that belong together, in the order of the help.
pub(crate) struct Group {
    pub(crate) title: &'static str,
    pub(crate) options: &'static [Spec],
}

/// One option.
pub(crate) struct Spec {
    pub(crate) long: &'static str,
    pub(crate) short: Option<char>,
    pub(crate) kind: Kind,
    pub(crate) help: &'static str,
    pub(crate) example: &'static str,
}

impl fmt::Debug for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.long)
    }
}

/// What kind of value an option has, where it goes and what it may be.
pub(crate) enum Kind {
    Flag(Field<bool>),
    Count(Field<usize>, RangeInclusive<usize>),
    Size(Field<usize>, RangeInclusive<usize>),
    /// The range is in milliseconds.
    Time(Field<Duration>, RangeInclusive<u64>),
    Level(Field<LevelFilter>),
    Word(Form, Field<Option<String>>),
    /// May be given several times.
    List(Form, Field<Vec<String>>),
    /// The same, never shown.
    Secrets(Field<Vec<Secret>>),
    /// No setting at all, and no variable.
    Question(Question),
}

type Field<T> = fn(&mut Settings) -> &mut T;

/// A text with a rule.
pub(crate) struct Form {
    name: &'static str,
    holds: fn(&str) -> bool,
    rule: &'static str,
}

#[derive(Copy, Clone)]
pub(crate) enum Question {
    Help,
    Version,
    PrintConfig,
}

pub(crate) static GROUPS: &[Group] = &[
    Group {
        title: "Who may come in",
        options: &[
            option(
                "listen",
                Kind::List(ADDRESS, |s| &mut s.listen),
                "Listen here; port 0 takes a free one. Repeatable.",
                "[::1]:8080",
            )
            .short('l'),
            option(
                "host",
                Kind::List(HOST, |s| &mut s.config.hosts),
                "A name this server is reached by, for Host headers when listening on loopback and for Origins. \
                 Repeatable. Another name is answered 421.",
                "push.example.org",
            ),
            option(
                "origin",
                Kind::List(ORIGIN, |s| &mut s.config.origins),
                "A web origin whose pages may publish, open WebSockets and read across sites. Repeatable. \
                 Another is answered 403.",
                "https://example.org",
            ),
            option(
                "publish-token",
                Kind::Secrets(|s| &mut s.publish_tokens),
                "A token that may publish and read; behind a colon, only in channels whose names begin so. \
                 Repeatable. Others see it in a list of processes: prefer its variable or a file.",
                "change-me:news.",
            ),
            option(
                "subscribe-token",
                Kind::Secrets(|s| &mut s.subscribe_tokens),
                "The same, but it may only read. Without any, reading needs no token.",
                "read-me",
            ),
            option(
                "token-file",
                Kind::List(FILE, |s| &mut s.token_files),
                "A file of lines: publish TOKEN or subscribe TOKEN, and perhaps a prefix; # begins a comment. \
                 Read again at SIGHUP. Repeatable.",
                "/etc/tidings/tokens",
            ),
            option(
                "allow-anyone-to-publish",
                Kind::Flag(|s| &mut s.config.allow_anyone_to_publish),
                "Let other hosts reach the server, by its address or through a proxy, although there is no publish \
                 token.",
                "yes",
            ),
        ],
    },
    Group {
        title: "What is published and kept",
        options: &[
            option(
                "stdin",
                Kind::Word(CHANNEL, |s| &mut s.stdin),
                "Publish each line of standard input to this channel; serve on when it ends.",
                "news",
            ),
            option(
                "history-messages",
                Kind::Count(|s| &mut s.config.history_messages, 0..=COUNT_MAX),
                "Messages kept per channel. Beyond it the channel's oldest go.",
                "100",
            ),
            option(
                "history-bytes",
                Kind::Size(|s| &mut s.config.history_bytes, 0..=SIZE_MAX),
                "Bytes kept by all channels together. Beyond it the oldest of all go.",
                "1GiB",
            ),
            option(
                "history-age",
                Kind::Time(|s| &mut s.config.history_age, 0..=TIME_MAX),
                "How long a message is kept.",
                "15m",
            ),
            option(
                "channels-max",
                Kind::Count(|s| &mut s.config.channels_max, 1..=COUNT_MAX),
                "Channels known at once. Beyond it an idle one is forgotten; without any: 503 channels_full.",
                "1000",
            ),
            option(
                "idempotency-keys-max",
                Kind::Count(|s| &mut s.config.idempotency_keys_max, 0..=COUNT_MAX),
                "Idempotency keys remembered, each for 5 minutes. Beyond it the oldest go.",
                "100000",
            ),
        ],
    },
    Group {
        title: "What one client may send and hold",
        options: &[
            option(
                "message-bytes-max",
                Kind::Size(|s| &mut s.config.message_bytes_max, 1..=MESSAGE_MAX),
                "Bytes of one message. Beyond it: 413 message_too_large, WebSocket close 1009.",
                "64KiB",
            ),
            option(
                "poll-bytes-max",
                Kind::Size(|s| &mut s.config.poll_bytes_max, 1..=MESSAGE_MAX),
                "Bytes of the messages in one long poll's answer, but at least one message. The rest comes with the \
                 next poll.",
                "256KiB",
            ),
            option(
                "head-bytes-max",
                Kind::Size(|s| &mut s.config.head_bytes_max, 1 << 10..=1 << 20),
                "Bytes of a request's head. Beyond it: 431 head_too_large.",
                "32KiB",
            ),
            option(
                "deflate",
                Kind::Flag(|s| &mut s.config.deflate),
                "Compress WebSocket messages for clients that offer permessage-deflate, and inflate theirs. \
                 --deflate=no turns it off.",
                "no",
            ),
            option(
                "deflate-bytes-min",
                Kind::Size(|s| &mut s.config.deflate_bytes_min, 0..=SIZE_MAX),
                "Payloads of fewer bytes are not compressed.",
                "2KiB",
            ),
            option(
                "connections-max",
                Kind::Count(|s| &mut s.config.connections_max, 1..=COUNT_MAX),
                "Connections at once; fewer if the limit of descriptors allows no more. Beyond it: 503 \
                 too_many_connections.",
                "20000",
            ),
            option(
                "connections-per-address-max",
                Kind::Count(|s| &mut s.config.connections_per_address_max, 0..=COUNT_MAX),
                "Connections at once from one address (IPv6: the first 64 bits); 0 is no limit. Leave it 0 behind a \
                 proxy. Beyond it: 503 too_many_connections.",
                "100",
            ),
        ],
    },
    Group {
        title: "Time",
        options: &[
            option(
                "heartbeat",
                Kind::Time(|s| &mut s.config.heartbeat, TICK..=TIME_MAX),
                "An SSE stream with nothing to say says so this often. Keep it below the patience of proxies.",
                "25s",
            ),
            option(
                "ping",
                Kind::Time(|s| &mut s.config.ping, TICK..=TIME_MAX),
                "A WebSocket is pinged this often; silent for two of them, it is closed.",
                "50s",
            ),
            option(
                "head-timeout",
                Kind::Time(|s| &mut s.config.head_timeout, TICK..=TIME_MAX),
                "A request's head must be complete after this. Beyond it: 408 request_timeout.",
                "5s",
            ),
            option(
                "body-timeout",
                Kind::Time(|s| &mut s.config.body_timeout, TICK..=TIME_MAX),
                "A body or WebSocket message must be complete after this and the time its size is given by \
                 --body-bytes-per-second-min. Beyond it: 408 request_timeout, WebSocket close 1008.",
                "1m",
            ),
            option(
                "body-bytes-per-second-min",
                Kind::Size(|s| &mut s.config.body_bytes_per_second_min, 1..=SIZE_MAX),
                "A body that comes more slowly than this is cut off once --body-timeout is over.",
                "64KiB",
            ),
            option(
                "idle-timeout",
                Kind::Time(|s| &mut s.config.idle_timeout, TICK..=TIME_MAX),
                "A kept-alive connection without a request is closed after this. Keep it above the proxy's own.",
                "5m",
            ),
            option(
                "stall-timeout",
                Kind::Time(|s| &mut s.config.stall_timeout, TICK..=TIME_MAX),
                "A reader that takes nothing although something waits is closed after this; it resumes by its cursor.",
                "20s",
            ),
            option(
                "close-timeout",
                Kind::Time(|s| &mut s.config.close_timeout, TICK..=TIME_MAX),
                "How long a closing connection may take, from the last byte written to it: a WebSocket to answer the \
                 close frame, each to read the last bytes and to end its side.",
                "1s",
            ),
            option(
                "retry",
                Kind::Time(|s| &mut s.config.retry, TICK..=TIME_MAX),
                "What SSE clients are told to wait before they come back: each one to three times this.",
                "5s",
            ),
            option(
                "drain",
                Kind::Time(|s| &mut s.config.drain, 0..=TIME_MAX),
                "When told to leave, end the connections spread over this time.",
                "30s",
            ),
            option(
                "drain-grace",
                Kind::Time(|s| &mut s.config.drain_grace, 0..=TIME_MAX),
                "When told to leave, keep listening this long, only to answer 503.",
                "5s",
            ),
        ],
    },
    Group {
        title: "What all clients together may hold",
        options: &[
            option(
                "intake-bytes-max",
                Kind::Size(|s| &mut s.config.intake_bytes_max, 1..=SIZE_MAX),
                "Bytes of unfinished requests and messages. Beyond it: 503 busy, WebSocket close 1013.",
                "256MiB",
            ),
            option(
                "output-bytes-max",
                Kind::Size(|s| &mut s.config.output_bytes_max, 1..=SIZE_MAX),
                "Bytes waiting for slow readers. Beyond it the longest-blocked connection is closed; it resumes by \
                 its cursor.",
                "256MiB",
            ),
            option(
                "commands-max",
                Kind::Count(|s| &mut s.config.commands_max, 1..=COUNT_MAX),
                "Messages of other threads (standard input) that wait for the server's.",
                "64",
            ),
            option(
                "send-buffer-bytes",
                Kind::Size(|s| &mut s.config.send_buffer_bytes, 4 << 10..=MESSAGE_MAX),
                "The kernel's send buffer per connection. More hides slow readers for longer.",
                "256KiB",
            ),
            option(
                "receive-buffer-bytes",
                Kind::Size(|s| &mut s.config.receive_buffer_bytes, 4 << 10..=MESSAGE_MAX),
                "The kernel's receive buffer per connection: what a publisher can send in one round trip.",
                "256KiB",
            ),
        ],
    },
    Group {
        title: "What one turn of the loop may do",
        options: &[
            option(
                "publish-bytes-per-turn-max",
                Kind::Size(|s| &mut s.config.publish_bytes_per_turn_max, 1..=SIZE_MAX),
                "Bytes read, and answered at once. The rest is read in the next turn.",
                "1MiB",
            ),
            option(
                "writes-per-turn-max",
                Kind::Count(|s| &mut s.config.writes_per_turn_max, 1..=COUNT_MAX),
                "Connections written to. The rest is written to in the next turn.",
                "128",
            ),
            option(
                "accepts-per-turn-max",
                Kind::Count(|s| &mut s.config.accepts_per_turn_max, 1..=COUNT_MAX),
                "Connections accepted. The rest is accepted in the next turn.",
                "64",
            ),
        ],
    },
    Group {
        title: "The program itself",
        options: &[
            option(
                "log",
                Kind::Level(|s| &mut s.log),
                "What is said on standard error: off, error, warn, info, debug or trace, behind the first lines, \
                 which are no log. RUST_LOG is not read.",
                "debug",
            ),
            option(
                "log-connections",
                Kind::Flag(|s| &mut s.config.log_connections),
                "One line, at level info, for each connection at its end: transport, time, counts, reason.",
                "yes",
            ),
            option(
                "print-config",
                Kind::Question(Question::PrintConfig),
                "Print each value and where it comes from, and exit.",
                "",
            ),
            option("version", Kind::Question(Question::Version), "Print version and features, and exit.", "")
                .short('V'),
            option("help", Kind::Question(Question::Help), "Print this, and exit.", "").short('h'),
        ],
    },
];

const ADDRESS: Form = Form {
    name: "ADDRESS:PORT",
    holds: values::is_listen_address,
    rule: "an address or name and a port, an IPv6 address in brackets",
};
const HOST: Form = Form {
    name: "NAME",
    holds: values::is_host,
    rule: "a host name without scheme, port or path, an IPv6 address in brackets",
};
const FILE: Form = Form { name: "FILE", holds: |text| !text.is_empty(), rule: "the path of a file" };
/// What a token of an option is.
const TOKEN_RULE: &str = "1 to 128 bytes of A-Z a-z 0-9 - . _ ~, and perhaps a colon and how channel names begin";
const ORIGIN: Form = Form {
    name: "ORIGIN",
    holds: values::is_origin,
    rule: "a scheme, a host and perhaps a port, with no slash behind",
};
const CHANNEL: Form =
    Form { name: "CHANNEL", holds: values::is_channel_name, rule: "1 to 128 bytes of A-Z a-z 0-9 . _ : ~ @ -" };

/// Beyond any host, and far from where sums of counts overflow.
const COUNT_MAX: usize = 1_000_000_000;
/// What an allocation can be at most.
const SIZE_MAX: usize = isize::MAX as usize;
/// One message is held in one piece, and more than once.
const MESSAGE_MAX: usize = Config::LARGEST_MESSAGE;
/// One year; far from where sums of milliseconds overflow.
const TIME_MAX: u64 = 8760 * 3_600_000;
/// The clock of the connections ticks every 50 ms: what is due again and again needs one at least.
const TICK: u64 = 50;

const fn option(long: &'static str, kind: Kind, help: &'static str, example: &'static str) -> Spec {
    Spec { long, short: None, kind, help, example }
}

impl Spec {
    const fn short(self, letter: char) -> Spec {
        // Field by field: a constant cannot be dropped, so `..self` is not for it.
        Spec { long: self.long, short: Some(letter), kind: self.kind, help: self.help, example: self.example }
    }

    /// The name of its environment variable; a question has none.
    pub(crate) fn variable(&self) -> Option<String> {
        let has_one = !matches!(self.kind, Kind::Question(_));
        has_one.then(|| format!("TIDINGS_{}", self.long.replace('-', "_").to_ascii_uppercase()))
    }

    /// What stands for its value in the help; a flag needs none.
    pub(crate) fn value_name(&self) -> Option<&'static str> {
        match &self.kind {
            Kind::Flag(_) | Kind::Question(_) => None,
            Kind::Count(..) => Some("N"),
            Kind::Size(..) => Some("SIZE"),
            Kind::Time(..) => Some("TIME"),
            Kind::Level(_) => Some("LEVEL"),
            Kind::Word(form, _) | Kind::List(form, _) => Some(form.name),
            Kind::Secrets(_) => Some("TOKEN[:PREFIX]"),
        }
    }

    /// The value it has in these settings, in the words of the options; `None` if it has none.
    pub(crate) fn show(&self, settings: &mut Settings) -> Option<String> {
        match &self.kind {
            Kind::Flag(field) => Some(if *field(settings) { "yes" } else { "no" }.into()),
            Kind::Count(field, _) => Some(field(settings).to_string()),
            Kind::Size(field, _) => Some(values::show_size(*field(settings))),
            Kind::Time(field, _) => Some(values::show_time(*field(settings))),
            Kind::Level(field) => Some(field(settings).as_str().to_ascii_lowercase()),
            Kind::Word(_, field) => field(settings).clone(),
            Kind::List(_, field) => Some(field(settings).join(",")).filter(|list| !list.is_empty()),
            Kind::Secrets(field) => {
                let shown: Vec<String> = field(settings).iter().map(Secret::to_string).collect();
                Some(shown.join(",")).filter(|list| !list.is_empty())
            }
            Kind::Question(_) => None,
        }
    }

    fn is_flag(&self) -> bool {
        matches!(self.kind, Kind::Flag(_))
    }

    fn is_secret(&self) -> bool {
        matches!(self.kind, Kind::Secrets(_))
    }

    /// Sets it to these texts, each of which must be right; only a list keeps more than the last.
    fn set(&self, settings: &mut Settings, texts: &[String]) -> Result<(), Wrong> {
        match &self.kind {
            Kind::List(_, field) => field(settings).clear(),
            Kind::Secrets(field) => field(settings).clear(),
            _ => {}
        }
        let shown = |text: &str| if self.is_secret() { "***" } else { text }.to_owned();
        texts.iter().try_for_each(|text| {
            self.set_one(settings, text).ok_or_else(|| Wrong { value: shown(text), right: self.right() })
        })
    }

    fn set_one(&self, settings: &mut Settings, text: &str) -> Option<()> {
        match &self.kind {
            Kind::Flag(field) => *field(settings) = values::parse_flag(text)?,
            Kind::Count(field, range) => {
                *field(settings) = values::parse_count(text).filter(|count| range.contains(count))?;
            }
            Kind::Size(field, range) => {
                *field(settings) = values::parse_size(text).filter(|size| range.contains(size))?;
            }
            Kind::Time(field, range) => {
                let in_range = |time: &Duration| (range_of_times(range)).contains(time);
                *field(settings) = values::parse_time(text).filter(in_range)?;
            }
            Kind::Level(field) => *field(settings) = text.parse().ok()?,
            Kind::Word(form, field) => *field(settings) = Some(form.checked(text)?),
            Kind::List(form, field) => field(settings).push(form.checked(text)?),
            Kind::Secrets(field) => field(settings).push(Secret::parse(text)?),
            Kind::Question(_) => {}
        }
        Some(())
    }

    /// What a right value is, for who gave a wrong one.
    fn right(&self) -> String {
        let rule = match &self.kind {
            Kind::Flag(_) => "yes or no".into(),
            Kind::Count(_, range) => format!("a whole number from {} to {}", range.start(), range.end()),
            Kind::Size(_, range) => format!(
                "a number of bytes, or one with a unit (64KiB, 16MiB, 1GiB), {}",
                from_to(values::show_size(*range.start()), values::show_size(*range.end()), *range.end() == SIZE_MAX)
            ),
            Kind::Time(_, range) => {
                let range = range_of_times(range);
                let (start, end) = (values::show_time(*range.start()), values::show_time(*range.end()));
                format!(
                    "a whole number of seconds, or one with a unit (250ms, 15s, 5m, 1h), {}",
                    from_to(start, end, false)
                )
            }
            Kind::Level(_) => "off, error, warn, info, debug or trace".into(),
            Kind::Word(form, _) | Kind::List(form, _) => form.rule.into(),
            Kind::Secrets(_) => TOKEN_RULE.into(),
            Kind::Question(_) => "nothing".into(),
        };
        format!("{rule}, for example {}", self.example)
    }
}

fn range_of_times(ms: &RangeInclusive<u64>) -> RangeInclusive<Duration> {
    Duration::from_millis(*ms.start())..=Duration::from_millis(*ms.end())
}

fn from_to(start: String, end: String, endless: bool) -> String {
    if endless { format!("at least {start}") } else { format!("from {start} to {end}") }
}

impl Form {
    fn checked(&self, text: &str) -> Option<String> {
        (self.holds)(text).then(|| text.into())
    }
}

struct Wrong {
    value: String,
    right: String,
}

/// All options, in the order of the help.
pub(crate) fn specs() -> impl Iterator<Item = &'static Spec> {
    GROUPS.iter().flat_map(|group| group.options)
}

/// What the program is asked for.
#[derive(Debug)]
pub(crate) enum Request {
    Serve(Settings),
    PrintConfig(Chosen),
    Version,
    Help,
}

/// The settings, and where each came from.
#[derive(Debug)]
pub(crate) struct Chosen {
    pub(crate) settings: Settings,
    /// In the order of the help; of questions there is none.
    pub(crate) sources: Vec<(&'static Spec, Source)>,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Default,
    Environment,
    Option,
}

/// What was wrong with an option or a variable, and what would be right.
#[derive(Debug)]
pub(crate) struct UsageError(String);

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Reads the arguments (without the program's name) and the environment.
pub(crate) fn read(
    arguments: impl IntoIterator<Item = OsString>,
    environment: impl Fn(&str) -> Option<OsString>,
) -> Result<Request, UsageError> {
    let mut given: Vec<(&'static str, String)> = Vec::new();
    let mut print_config = false;
    let mut parser = lexopt::Parser::from_args(arguments.into_iter().collect::<Vec<OsString>>());
    let mut before: Option<&Spec> = None;
    while let Some(argument) = parser.next().map_err(told_too_much)? {
        let spec = match argument {
            // Two tokens where one may be, as a shell splits what is not quoted.
            Arg::Value(_) if before.is_some_and(Spec::is_secret) => {
                return Err(UsageError("unexpected argument behind a token; give the option again for each".into()));
            }
            argument => find(argument, before)?,
        };
        before = Some(spec);
        let value = match spec.kind {
            // Before anything else is looked at: who asks for help may have everything wrong.
            Kind::Question(Question::Help) => return Ok(Request::Help),
            Kind::Question(Question::Version) => return Ok(Request::Version),
            Kind::Question(Question::PrintConfig) => {
                print_config = true;
                continue;
            }
            Kind::Flag(_) => parser.optional_value().unwrap_or_else(|| "yes".into()),
            _ => parser.value().map_err(|_| UsageError(format!("--{} needs a value: {}", spec.long, spec.right())))?,
        };
        given.push((spec.long, utf8(spec, &format!("--{}", spec.long), value)?));
    }

    let mut settings = Settings::default();
    let mut sources = Vec::new();
    for spec in specs() {
        let Some(variable) = spec.variable() else { continue };
        let texts: Vec<String> =
            given.iter().filter(|(long, _)| *long == spec.long).map(|(_, text)| text.clone()).collect();
        let source = if !texts.is_empty() {
            spec.set(&mut settings, &texts).map_err(|wrong| wrong.at(&format!("--{} ", spec.long)))?;
            Source::Option
        } else if let Some(value) = environment(&variable).filter(|value| !value.is_empty()) {
            let texts = split_list(spec, utf8(spec, &variable, value)?);
            spec.set(&mut settings, &texts).map_err(|wrong| wrong.at(&format!("{variable}=")))?;
            Source::Environment
        } else {
            Source::Default
        };
        sources.push((spec, source));
    }
    check_together(&settings)?;
    Ok(if print_config { Request::PrintConfig(Chosen { settings, sources }) } else { Request::Serve(settings) })
}

impl Wrong {
    fn at(self, place: &str) -> UsageError {
        UsageError(match self.value.is_empty() {
            true => format!("{} needs a value: {}", place.trim_end_matches([' ', '=']), self.right),
            false => format!("{place}{}: this is not right; right is {}", self.value, self.right),
        })
    }
}

/// What each value alone cannot show.
fn check_together(settings: &Settings) -> Result<(), UsageError> {
    let (message, intake) = (settings.config.message_bytes_max, settings.config.intake_bytes_max);
    if message > intake {
        return Err(UsageError(format!(
            "--message-bytes-max is {} and --intake-bytes-max {}: no message of that size could come in; \
             make the second at least as large",
            values::show_size(message),
            values::show_size(intake)
        )));
    }
    Ok(())
}

/// A variable cannot be repeated: a list's entries are joined by commas. A path alone may have one in it;
/// such a file is given by its option.
fn split_list(spec: &Spec, text: String) -> Vec<String> {
    match spec.kind {
        Kind::List(..) | Kind::Secrets(_) => text.split(',').map(|entry| entry.trim().to_owned()).collect(),
        _ => vec![text],
    }
}

fn utf8(spec: &Spec, place: &str, value: OsString) -> Result<String, UsageError> {
    value.into_string().map_err(|value| {
        let shown = if spec.is_secret() { "***".into() } else { format!("{value:?}") };
        UsageError(format!("{place}: the value {shown} is not UTF-8"))
    })
}

/// The option that is named; `before` is the one that was named before it.
fn find(argument: Arg<'_>, before: Option<&Spec>) -> Result<&'static Spec, UsageError> {
    let (found, text) = match argument {
        Arg::Long(name) => (specs().find(|spec| spec.long == name), format!("--{name}")),
        Arg::Short(letter) => (specs().find(|spec| spec.short == Some(letter)), format!("-{letter}")),
        Arg::Value(value) => {
            let value = value.to_string_lossy().into_owned();
            let hint = match before.filter(|spec| spec.is_flag() && values::parse_flag(&value).is_some()) {
                Some(flag) => format!("; did you mean --{}={value}?", flag.long),
                None if specs().any(|spec| spec.long == value) => format!("; did you mean --{value}?"),
                None => "; every argument is an option or the value of one".into(),
            };
            return Err(UsageError(format!("unexpected argument {value}{hint}")));
        }
    };
    found.ok_or_else(|| {
        let name = text.strip_prefix("--").unwrap_or_default();
        let flag = specs().find(|spec| spec.is_flag() && name.strip_prefix("no-") == Some(spec.long));
        let no = if flag.is_some() { "=no" } else { "" };
        let hint = match flag.or_else(|| nearest(name)) {
            Some(spec) => format!("; did you mean --{}{no}?", spec.long),
            None => String::new(),
        };
        UsageError(format!("there is no option {text}{hint}"))
    })
}

/// `--help=x`: of all the errors of lexopt only this one can come from reading on.
fn told_too_much(error: lexopt::Error) -> UsageError {
    UsageError(match error {
        lexopt::Error::UnexpectedValue { option, value } => {
            format!("{option} takes no value, but was given {}", value.to_string_lossy())
        }
        other => other.to_string(),
    })
}

/// The option whose name is most like this one, if any is like it: at most a third of the letters
/// differ, or it begins with it.
fn nearest(name: &str) -> Option<&'static Spec> {
    // Longer than any name and its typos; the comparison costs the product of the lengths.
    if name.len() > 64 {
        return None;
    }
    let begun = specs().find(|spec| name.len() >= 3 && spec.long.starts_with(name));
    begun.or_else(|| {
        let (distance, spec) =
            specs().map(|spec| (distance(name, spec.long), spec)).min_by_key(|(distance, _)| *distance)?;
        (distance <= (name.len() / 3).max(1)).then_some(spec)
    })
}

/// How many letters must be put in, left out or changed (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, a) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &b) in b.iter().enumerate() {
            let changed = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// A variable of ours that no option has is a typo: worth a line, not worth an end.
pub(crate) fn warn_of_unknown_variables(names: impl Iterator<Item = OsString>) {
    for name in names.filter_map(|name| name.into_string().ok()) {
        if let Some(hint) = unknown_variable(&name) {
            log::warn!("the variable {name} is not an option's, it has no effect{hint}");
        }
    }
}

/// What may have been meant by a variable of ours that no option has.
fn unknown_variable(name: &str) -> Option<String> {
    let rest = name.strip_prefix("TIDINGS_")?;
    // Kubernetes sets `TIDINGS_PORT_8080_TCP` and the like in every container beside a service of our name.
    let is_platforms = rest.starts_with("PORT") || rest.starts_with("SERVICE_");
    if is_platforms || specs().any(|spec| spec.variable().as_deref() == Some(name)) {
        return None;
    }
    let meant = nearest(&rest.to_ascii_lowercase().replace('_', "-")).and_then(Spec::variable);
    Some(meant.map_or(" (see tidings --help)".into(), |meant| format!("; did you mean {meant}?")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Request, String> {
        let lookup = |name: &str| environment.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into());
        read(arguments.iter().map(|&argument| argument.into()), lookup).map_err(|error| error.to_string())
    }

    fn settings(arguments: &[&str], environment: &[(&str, &str)]) -> Settings {
        match request(arguments, environment) {
            Ok(Request::Serve(settings)) => settings,
            other => panic!("{arguments:?} {environment:?}: {other:?}"),
        }
    }

    fn error(arguments: &[&str], environment: &[(&str, &str)]) -> String {
        request(arguments, environment).expect_err("it is wrong")
    }

    #[test]
    fn an_option_wins_over_the_environment_and_that_over_the_default() {
        const VARIABLE: (&str, &str) = ("TIDINGS_HISTORY_MESSAGES", "7");
        let count =
            |arguments: &[&str], environment: &[(&str, &str)]| settings(arguments, environment).config.history_messages;
        assert_eq!(count(&[], &[]), Config::default().history_messages);
        assert_eq!(count(&[], &[VARIABLE]), 7);
        assert_eq!(count(&["--history-messages", "8"], &[VARIABLE]), 8);
        assert_eq!(count(&["--history-messages=8", "--history-messages=9"], &[VARIABLE]), 9);
        assert_eq!(count(&[], &[("TIDINGS_HISTORY_MESSAGES", "")]), Config::default().history_messages);
    }

    #[test]
    fn where_each_value_comes_from_is_known() {
        let chosen = match request(&["--print-config", "--ping=9s"], &[("TIDINGS_DRAIN", "1"), ("TIDINGS_PING", "x")]) {
            Ok(Request::PrintConfig(chosen)) => chosen,
            other => panic!("{other:?}"),
        };
        let source = |long| chosen.sources.iter().find(|(spec, _)| spec.long == long).map(|(_, source)| *source);
        assert_eq!(source("ping"), Some(Source::Option));
        assert_eq!(source("drain"), Some(Source::Environment));
        assert_eq!(source("drain-grace"), Some(Source::Default));
        assert_eq!(chosen.settings.config.drain, Duration::from_secs(1));
    }

    #[test]
    fn lists_are_given_again_and_again_or_joined_by_commas() {
        let listen = |arguments: &[&str], environment: &[(&str, &str)]| settings(arguments, environment).listen;
        assert_eq!(listen(&[], &[]), ["127.0.0.1:8080"]);
        assert_eq!(listen(&["-l", "[::1]:0", "--listen=localhost:1"], &[]), ["[::1]:0", "localhost:1"]);
        assert_eq!(listen(&[], &[("TIDINGS_LISTEN", "a:1, b:2")]), ["a:1", "b:2"]);
        assert_eq!(listen(&["-lc:3"], &[("TIDINGS_LISTEN", "a:1,b:2")]), ["c:3"]);
    }

    #[test]
    fn a_flag_can_be_taken_back() {
        let allowed = |arguments: &[&str], environment: &[(&str, &str)]| {
            settings(arguments, environment).config.allow_anyone_to_publish
        };
        const YES: &[(&str, &str)] = &[("TIDINGS_ALLOW_ANYONE_TO_PUBLISH", "1")];
        assert!(!allowed(&[], &[]));
        assert!(allowed(&["--allow-anyone-to-publish"], &[]));
        assert!(allowed(&[], YES));
        assert!(!allowed(&["--allow-anyone-to-publish=no"], YES));
    }

    #[test]
    fn every_option_takes_its_example_and_its_default_and_shows_them() {
        for spec in specs().filter(|spec| spec.variable().is_some()) {
            let want =
                if spec.is_secret() { Secret::parse(spec.example).unwrap().to_string() } else { spec.example.into() };
            let shown = settings(&[&format!("--{}={}", spec.long, spec.example)], &[]);
            assert_eq!(spec.show(&mut shown.clone()), Some(want.clone()), "{}", spec.long);
            let variable = spec.variable().unwrap();
            let from_variable = spec.show(&mut settings(&[], &[(&variable, spec.example)]));
            assert_eq!(from_variable, Some(want), "{variable}");

            let default = spec.show(&mut Settings::default());
            assert_ne!(default.as_deref(), Some(spec.example), "{}: an example shows what differs", spec.long);
            if let Some(default) = default {
                let again = settings(&[&format!("--{}={default}", spec.long)], &[]);
                assert_eq!(spec.show(&mut again.clone()), Some(default), "{}", spec.long);
            }
        }
    }

    #[test]
    fn every_option_goes_to_a_field_of_its_own() {
        let default = format!("{:?}", Settings::default());
        let mut seen = vec![default];
        for spec in specs().filter(|spec| spec.variable().is_some()) {
            let changed = format!("{:?}", settings(&[&format!("--{}={}", spec.long, spec.example)], &[]));
            assert!(!seen.contains(&changed), "{}", spec.long);
            seen.push(changed);
        }
    }

    #[test]
    fn names_are_distinct_and_every_field_of_the_config_has_one() {
        let names: Vec<&str> = specs().map(|spec| spec.long).collect();
        for (nth, name) in names.iter().enumerate() {
            assert!(!names[..nth].contains(name), "{name}");
        }
        let letters: Vec<char> = specs().filter_map(|spec| spec.short).collect();
        assert_eq!(letters, ['l', 'V', 'h']);

        let shown = format!("{:#?}", Config::default());
        for line in shown.lines().filter(|line| line.starts_with("    ") && !line.starts_with("     ")) {
            let Some((field, _)) = line.trim().split_once(':') else { continue };
            let name = match field {
                "hosts" => "host".into(),
                "origins" => "origin".into(),
                "tokens" => "token-file".into(),
                field => field.replace('_', "-"),
            };
            assert!(names.contains(&name.as_str()), "no option sets {field}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_what_is_right() {
        for (arguments, want) in [
            (&["--histroy-age", "1"][..], "there is no option --histroy-age; did you mean --history-age?"),
            (&["--history"], "there is no option --history; did you mean --history-messages?"),
            (&["--Listen", "a:1"], "there is no option --Listen; did you mean --listen?"),
            (&["--completely-else"], "there is no option --completely-else"),
            (&["-x"], "there is no option -x"),
            (&["help"], "unexpected argument help; did you mean --help?"),
            (&["--deflate", "no"], "unexpected argument no; did you mean --deflate=no?"),
            (
                &["--log-connections", "8080"],
                "unexpected argument 8080; every argument is an option or the value of one",
            ),
            (&["--no-deflate"], "there is no option --no-deflate; did you mean --deflate=no?"),
            (&["--no-listen"], "there is no option --no-listen; did you mean --listen?"),
            (&["8080"], "unexpected argument 8080; every argument is an option or the value of one"),
            (&["--print-config=x"], "--print-config takes no value, but was given x"),
            (
                &["--listen"],
                "--listen needs a value: an address or name and a port, an IPv6 address in brackets, \
                 for example [::1]:8080",
            ),
            (
                &["--listen=8080"],
                "--listen 8080: this is not right; right is an address or name and a port, an IPv6 address in \
                 brackets, for example [::1]:8080",
            ),
            (
                &["--history-messages="],
                "--history-messages needs a value: a whole number from 0 to 1000000000, for example 100",
            ),
            (
                &["--ping", "0"],
                "--ping 0: this is not right; right is a whole number of seconds, or one with a unit (250ms, 15s, 5m, \
                 1h), from 50ms to 8760h, for example 50s",
            ),
            (
                &["--history-bytes", "64MB"],
                "--history-bytes 64MB: this is not right; right is a number of bytes, or one with a unit (64KiB, \
                 16MiB, 1GiB), at least 0, for example 1GiB",
            ),
            (
                &["--allow-anyone-to-publish=maybe"],
                "--allow-anyone-to-publish maybe: this is not right; right is yes or no, for example yes",
            ),
            (
                &["--channels-max", "0", "--channels-max", "1"],
                "--channels-max 0: this is not right; right is a whole number from 1 to 1000000000, for example 1000",
            ),
            (
                &["--intake-bytes-max=1KiB"],
                "--message-bytes-max is 256KiB and --intake-bytes-max 1KiB: no message of that size could come in; \
                 make the second at least as large",
            ),
        ] {
            assert_eq!(error(arguments, &[]), want, "{arguments:?}");
        }
        assert_eq!(
            error(&[], &[("TIDINGS_LOG", "loud")]),
            "TIDINGS_LOG=loud: this is not right; right is off, error, warn, info, debug or trace, for example debug"
        );
        assert_eq!(
            error(&[], &[("TIDINGS_HOST", "a,,b")]),
            "TIDINGS_HOST needs a value: a host name without scheme, port or path, an IPv6 address in brackets, \
             for example push.example.org"
        );
    }

    #[test]
    fn help_comes_before_every_error() {
        assert!(matches!(request(&["-h", "--nonsense"], &[("TIDINGS_PING", "x")]), Ok(Request::Help)));
        assert!(matches!(request(&["--ping=x", "--help"], &[]), Ok(Request::Help)));
        assert!(matches!(request(&["-V"], &[("TIDINGS_PING", "x")]), Ok(Request::Version)));
    }

    #[cfg(unix)]
    #[test]
    fn bytes_that_are_no_utf8_are_no_value() {
        use std::os::unix::ffi::OsStringExt;
        let bytes = || OsString::from_vec(b"a\xff".to_vec());
        let in_an_option = read(["--stdin".into(), bytes()], |_| None).expect_err("no UTF-8").to_string();
        assert_eq!(in_an_option, r#"--stdin: the value "a\xFF" is not UTF-8"#);
        let in_a_variable = read([], |name| (name == "TIDINGS_STDIN").then(bytes)).expect_err("no UTF-8").to_string();
        assert_eq!(in_a_variable, r#"TIDINGS_STDIN: the value "a\xFF" is not UTF-8"#);
    }

    #[test]
    fn distances() {
        for (a, b, want) in [("", "", 0), ("", "abc", 3), ("abc", "abc", 0), ("kitten", "sitting", 3), ("ab", "ba", 2)]
        {
            assert_eq!(distance(a, b), want, "{a} {b}");
            assert_eq!(distance(b, a), want, "{b} {a}");
        }
        assert!(nearest(&"x".repeat(1000)).is_none());
    }

    #[test]
    fn only_variables_of_ours_without_an_option_are_unknown() {
        for (name, hint) in [
            ("TIDINGS_HISTROY_MESSAGES", Some("; did you mean TIDINGS_HISTORY_MESSAGES?")),
            ("TIDINGS_HISTORY_MESSAGE", Some("; did you mean TIDINGS_HISTORY_MESSAGES?")),
            ("TIDINGS_COMPLETELY_ELSE", Some(" (see tidings --help)")),
            // An option that has no variable.
            ("TIDINGS_HELP", Some(" (see tidings --help)")),
            ("TIDINGS_", Some(" (see tidings --help)")),
            ("TIDINGS_HISTORY_MESSAGES", None),
            ("TIDINGS_PORT", None),
            ("TIDINGS_PORT_8080_TCP_ADDR", None),
            ("TIDINGS_SERVICE_HOST", None),
            ("PATH", None),
        ] {
            assert_eq!(unknown_variable(name).as_deref(), hint, "{name}");
        }
    }
}
