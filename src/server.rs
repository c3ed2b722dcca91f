//! The public face: a server to run or to nest, and a handle for other threads.

use std::any::Any;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use crate::app::App;
use crate::commands::{Command, Commands, Publication, PublishCallback, PublishError, Published, Stats};
use crate::config::Config;
use crate::error::{Code, Refusal};
use crate::event_loop::{EventLoop, Parts};
use crate::names;
use crate::os::{self, Mio, Patience};
use crate::rights::{Right, Tokens};
use crate::route::PolicyError;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;
/// Descriptors that are no connection's: the three standard streams, listeners, poll, waker, the few
/// connections over the limit that are still answered, and some for the program around the server.
const DESCRIPTORS_ASIDE: u64 = 64;

/// Why a server cannot start, or had to stop. Its `Debug` is its sentence, for that is what a `main`
/// that returns it prints.
#[non_exhaustive]
pub enum Error {
    /// There is no address to listen on: what was given is none, or its name leads to none.
    Address(io::Error),
    /// No socket could be opened at this address.
    Bind(SocketAddr, io::Error),
    /// Other hosts could publish without a token: see [`Config::tokens`] and
    /// [`Config::allow_anyone_to_publish`].
    Exposed(SocketAddr),
    /// A name in [`Config::hosts`] or [`Config::origins`] is none.
    Name(String),
    /// The system failed in a way that no single connection explains.
    System(io::Error),
    /// The app panicked, with this message. What it left half-done is not trusted. In a program that is
    /// built with `panic = "abort"` nobody hears of it: the program ends.
    Panicked(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Address(error) => {
                write!(f, "no address to listen on: {error}; right is one like 127.0.0.1:8080")
            }
            Error::Bind(address, error) => write!(f, "cannot listen on {address}: {error}"),
            Error::Exposed(address) => write!(
                f,
                "{address} can be reached from other hosts, and anyone there could publish; \
                 set a publish token (Config::tokens, --publish-token), listen on 127.0.0.1, \
                 or allow it (Config::allow_anyone_to_publish, --allow-anyone-to-publish)"
            ),
            Error::Name(message) => f.write_str(message),
            Error::System(error) => write!(f, "the event loop failed: {error}"),
            Error::Panicked(message) => write!(f, "the app panicked: {message}"),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Address(error) | Error::Bind(_, error) | Error::System(error) => Some(error),
            _ => None,
        }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> io::Error {
        let kind = match &error {
            Error::Address(error) | Error::Bind(_, error) | Error::System(error) => error.kind(),
            Error::Exposed(_) | Error::Name(_) => io::ErrorKind::InvalidInput,
            Error::Panicked(_) => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}

impl From<PolicyError> for Error {
    fn from(error: PolicyError) -> Error {
        Error::Name(error.to_string())
    }
}

/// A server: one log, three transports, one thread, which is the one that calls it.
///
/// ```no_run
/// let server = tidings::Server::bind("127.0.0.1:8080", tidings::Config::default())?;
/// server.run()?;
/// # Ok::<(), tidings::Error>(())
/// ```
///
/// `run` turns the loop until the server has left. To nest it in a loop of your own, wait for
/// its descriptor (`AsRawFd`) to be readable, at most `next_timeout`, then call
/// `turn(Some(Duration::ZERO))`. **After every `turn` ask `next_timeout` again; zero means: call
/// `turn` at once**, for what is left over does not make the descriptor readable.
///
/// It leaves when a [`Handle`] says so. To drop it ends it at once.
pub struct Server {
    event_loop: EventLoop<Mio>,
    handle: Handle,
    addresses: Vec<SocketAddr>,
    /// It has left: nothing more is to be done.
    stopped: bool,
    /// The message of the panic that ended it.
    poisoned: Option<String>,
}

/// A server may be made on one thread and run on another.
const _: () = {
    const fn is_send<T: Send>() {}
    const fn is_shared<T: Send + Sync + Clone>() {}
    is_send::<Server>();
    is_shared::<Handle>();
};

impl Server {
    /// Listens on all addresses that this names. Port 0 takes a free one; `local_addrs` tells it.
    ///
    /// # Errors
    /// `Address` if it names none; `Exposed` for an address other hosts can reach, unless publishing
    /// there needs a token or the configuration allows it; `Bind` if the system refuses; `Name` for a
    /// host or origin in the configuration that is none; `System` if the system has no room for a loop.
    pub fn bind(addresses: impl ToSocketAddrs, config: Config) -> Result<Server, Error> {
        Server::with_listeners(listen_on_all(addresses, &config)?, config, |_| None)
    }

    /// The same, with an app that has its say. `app` makes it, of a handle to its own server, for what it
    /// publishes by itself; who needs none writes `|_| Mine`.
    ///
    /// ```no_run
    /// use tidings::{App, Config, Handle, Server, Transport};
    ///
    /// struct Porter {
    ///     handle: Handle,
    /// }
    ///
    /// impl App for Porter {
    ///     fn subscribed(&mut self, user: u64, channels: &[&str], _transport: Transport) {
    ///         let _ = self.handle.publish("door", format!("{user} reads {}", channels.join(",")));
    ///     }
    /// }
    ///
    /// Server::bind_app("127.0.0.1:8080", Config::default(), |handle| Porter { handle })?.run()?;
    /// # Ok::<(), tidings::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Server::bind`].
    pub fn bind_app<A: App + 'static>(
        addresses: impl ToSocketAddrs,
        config: Config,
        app: impl FnOnce(Handle) -> A,
    ) -> Result<Server, Error> {
        Server::with_listeners(listen_on_all(addresses, &config)?, config, |handle| Some(Box::new(app(handle))))
    }

    /// Takes over a listener that is bound and listening, from socket activation for instance.
    ///
    /// # Errors
    /// As [`Server::bind`], but for `Address` and `Bind`.
    pub fn from_listener(listener: TcpListener, config: Config) -> Result<Server, Error> {
        Server::with_listeners(vec![listener], config, |_| None)
    }

    /// The same, with an app that has its say; see [`Server::bind_app`].
    ///
    /// # Errors
    /// As [`Server::from_listener`].
    pub fn from_listener_app<A: App + 'static>(
        listener: TcpListener,
        config: Config,
        app: impl FnOnce(Handle) -> A,
    ) -> Result<Server, Error> {
        Server::with_listeners(vec![listener], config, |handle| Some(Box::new(app(handle))))
    }

    fn with_listeners(
        listeners: Vec<TcpListener>,
        config: Config,
        app: impl FnOnce(Handle) -> Option<Box<dyn App>>,
    ) -> Result<Server, Error> {
        let mut config = config.bounded();
        config.connections_max = within_descriptors(config.connections_max);
        let addresses: Vec<SocketAddr> =
            listeners.iter().map(TcpListener::local_addr).collect::<io::Result<_>>().map_err(Error::System)?;
        for &address in &addresses {
            refuse_exposure(address, &config)?;
        }
        let os = Mio::new(listeners, config.send_buffer_bytes, config.receive_buffer_bytes, config.stall_timeout)
            .map_err(Error::System)?;
        let waker = os.waker();
        let commands = Commands::new(config.commands_max, config.intake_bytes_max, Box::new(move || waker.wake()));
        let commands = Arc::new(commands);
        let handle = Handle { commands: Arc::clone(&commands), message_bytes_max: config.message_bytes_max };
        let loopback = addresses.iter().map(|address| address.ip().to_canonical().is_loopback()).collect();
        let parts = Parts { loopback, app: app(handle.clone()), commands };
        let event_loop = EventLoop::new(os, config, parts)?;
        Ok(Server { event_loop, handle, addresses, stopped: false, poisoned: None })
    }

    /// The addresses it listens on, with the real ports.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// A handle for other threads, and for this one.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Turns the loop until the server has left: by [`Handle::shutdown`] or [`Handle::stop`].
    ///
    /// # Errors
    /// `System` if waiting for events fails; `Panicked` if the app panics, where panics unwind.
    pub fn run(mut self) -> Result<(), Error> {
        while self.turn(None)? {}
        Ok(())
    }

    /// One turn, waiting at most this long for something to do (`None`: for ever). False once the
    /// server has left; then no further turn does anything.
    ///
    /// # Errors
    /// As [`Server::run`]. A server that has failed stays failed.
    pub fn turn(&mut self, timeout: Option<Duration>) -> Result<bool, Error> {
        if let Some(message) = &self.poisoned {
            return Err(Error::Panicked(message.clone()));
        }
        if self.stopped {
            return Ok(false);
        }
        // Only the embedder's code may panic, in its app or a callback. What it left half-done is never looked at again.
        match catch_unwind(AssertUnwindSafe(|| self.event_loop.turn(timeout))) {
            Ok(result) => {
                let turn = result.map_err(Error::System)?;
                if turn.stopped {
                    self.stopped = true;
                    self.handle.commands.close();
                }
                Ok(!turn.stopped)
            }
            Err(panic) => {
                let message = panic_message(panic.as_ref());
                self.poisoned = Some(message.clone());
                self.event_loop.close();
                Err(Error::Panicked(message))
            }
        }
    }

    /// How long the next `turn` may wait; `None`: until its descriptor is readable; zero: not at
    /// all, something is left over.
    pub fn next_timeout(&self) -> Option<Duration> {
        self.event_loop.next_timeout()
    }

    /// Publishes on the loop's own thread. It is delivered with the next turn.
    ///
    /// # Errors
    /// As [`Handle::publish`].
    pub fn publish(&mut self, channel: &str, message: impl Into<Publication>) -> Result<(), PublishError> {
        self.handle.publish(channel, message)
    }
}

#[cfg(unix)]
impl std::os::fd::AsRawFd for Server {
    /// The descriptor to wait for in a loop of your own: readable when `turn` has something to do.
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.event_loop.os_ref().as_raw_fd()
    }
}

#[cfg(unix)]
impl std::os::fd::AsFd for Server {
    /// The same, borrowed, as safe wrappers of `poll` and its kin take it.
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.event_loop.os_ref().as_fd()
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

/// Asks a server for things from any thread. Cheap to clone; outlives the server harmlessly.
#[derive(Clone)]
pub struct Handle {
    commands: Arc<Commands>,
    message_bytes_max: usize,
}

impl Handle {
    /// Queues a message. `Ok` means queued: it is published by the server's next turn.
    ///
    /// # Errors
    /// `Refused` for a bad channel, event or type, or a message that is too large; `Full` if too
    /// much waits already; `Closed` if the server has stopped.
    pub fn publish(&self, channel: &str, message: impl Into<Publication>) -> Result<(), PublishError> {
        self.push(channel, message.into(), None)
    }

    /// The same, and calls back, on the server's thread, when the log has decided.
    ///
    /// # Errors
    /// As [`Handle::publish`]; then the callback is dropped without being called.
    pub fn publish_then(
        &self,
        channel: &str,
        message: impl Into<Publication>,
        callback: impl FnOnce(Result<Published, PublishError>) + Send + 'static,
    ) -> Result<(), PublishError> {
        self.push(channel, message.into(), Some(Box::new(callback)))
    }

    /// The same, but waits for room and for the log's decision, so that whoever feeds the server
    /// feels how fast it is. Never call it on the server's own thread, which
    /// would wait for itself until the timeout.
    ///
    /// # Errors
    /// As [`Handle::publish`], but for `Full`; and `TimedOut`, after which the message may still be published.
    pub fn publish_wait(
        &self,
        channel: &str,
        message: impl Into<Publication>,
        timeout: Duration,
    ) -> Result<Published, PublishError> {
        let message = message.into();
        check(channel, &message, self.message_bytes_max).map_err(PublishError::Refused)?;
        let patience = Patience::start(timeout);
        let (sender, receiver) = mpsc::sync_channel(1);
        let callback: PublishCallback = Box::new(move |result| {
            // Whoever stopped waiting has its answer: `TimedOut`.
            let _ = sender.send(result);
        });
        self.commands.push_when_room(Command::Publish(channel.to_owned(), message, Some(callback)), patience.left())?;
        receiver.recv_timeout(patience.left()).map_err(|error| match error {
            mpsc::RecvTimeoutError::Timeout => PublishError::TimedOut,
            mpsc::RecvTimeoutError::Disconnected => PublishError::Closed,
        })?
    }

    /// How the server stands; `None` if it has stopped or does not turn within this time.
    pub fn stats(&self, timeout: Duration) -> Option<Stats> {
        let (sender, receiver) = mpsc::sync_channel(1);
        let callback = Box::new(move |stats| {
            let _ = sender.send(stats);
        });
        self.commands.push(Command::Stats(callback)).ok()?;
        receiver.recv_timeout(timeout).ok()
    }

    /// Has the server take these tokens instead of those it knows. Whoever holds a connection by a
    /// token that is no longer good for it is ended: WebSocket 1008, SSE by the end of the body, a
    /// poll by 403, or 401 if reading needed none before. What needed a token before needs one still,
    /// also if there is none left.
    pub fn set_tokens(&self, tokens: Tokens) {
        // A server that has stopped lets nobody in.
        let _ = self.commands.push(Command::SetTokens(tokens));
    }

    /// Asks the server to leave in good order, within [`Config::drain`] and [`Config::drain_grace`].
    pub fn shutdown(&self) {
        // A server that has stopped has left.
        let _ = self.commands.push(Command::Drain);
    }

    /// Asks the server to leave at once.
    pub fn stop(&self) {
        let _ = self.commands.push(Command::Stop);
    }

    fn push(&self, channel: &str, message: Publication, callback: Option<PublishCallback>) -> Result<(), PublishError> {
        check(channel, &message, self.message_bytes_max).map_err(PublishError::Refused)?;
        self.commands.push(Command::Publish(channel.to_owned(), message, callback))
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}

fn check(channel: &str, message: &Publication, message_bytes_max: usize) -> Result<(), Refusal> {
    names::channel_name(channel.as_bytes())?;
    if let Some(event) = &message.event {
        names::event_name(event.as_bytes())?;
    }
    if let Some(media_type) = &message.media_type {
        names::media_type(media_type.as_bytes())?;
    }
    if message.payload.len() > message_bytes_max {
        let bytes = message.payload.len();
        let text = format!("the message has {bytes} bytes, the limit is {message_bytes_max}");
        return Err(Refusal::new(Code::MessageTooLarge, text));
    }
    Ok(())
}

/// As many connections as are wished, or as there are descriptors for.
fn within_descriptors(wished: usize) -> usize {
    let Some(descriptors) = os::descriptors_max() else { return wished };
    let room = usize::try_from(descriptors.saturating_sub(DESCRIPTORS_ASIDE).max(1)).unwrap_or(usize::MAX);
    if room < wished {
        log::warn!(
            "connections-max is {room} and not {wished}: only {descriptors} descriptors may be open (ulimit -n)"
        );
    }
    room.min(wished)
}

fn listen_on_all(addresses: impl ToSocketAddrs, config: &Config) -> Result<Vec<TcpListener>, Error> {
    let mut listeners = Vec::new();
    for address in addresses.to_socket_addrs().map_err(Error::Address)? {
        // Before the first socket is open: an exposed server must not listen for a moment.
        refuse_exposure(address, config)?;
        listeners.push(listen(address).map_err(|error| Error::Bind(address, error))?);
    }
    if listeners.is_empty() {
        return Err(Error::Address(io::Error::new(io::ErrorKind::InvalidInput, "the list of them is empty")));
    }
    Ok(listeners)
}

fn refuse_exposure(address: SocketAddr, config: &Config) -> Result<(), Error> {
    // ::ffff:127.0.0.1 is loopback too.
    if address.ip().to_canonical().is_loopback()
        || config.allow_anyone_to_publish
        || config.tokens.guards(Right::Publish)
    {
        return Ok(());
    }
    Err(Error::Exposed(address))
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(address),
        socket2::Type::STREAM,
        Some(socket2::Protocol::TCP),
    )?;
    // A restarted server must not wait for the connections of the last one to be forgotten.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // Each listener is what it says: 0.0.0.0 and [::] may stand side by side.
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}
