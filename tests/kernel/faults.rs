//! What may go wrong in the kernel of the tests: each kind, how often, and how often it did.
//!
//! To add a fault: one line in `faults!`, and `if self.strikes(wire, Fault::Name)` in the kernel where it
//! happens. The simulation draws its odds by itself and demands that it was met.

use std::collections::BTreeMap;
use std::io;

use super::Rng;

macro_rules! faults {
    ($($(#[doc = $doc:literal])* $name:ident,)* ; $($(#[doc = $rare:literal])* $hard:ident,)*) => {
        /// What may go wrong.
        #[derive(Copy, Clone, Debug, PartialEq, Eq)]
        pub enum Fault { $($(#[doc = $doc])* $name,)* $($(#[doc = $rare])* $hard,)* }

        impl Fault {
            /// What every kernel does on some day.
            pub const COMMON: &'static [Fault] = &[$(Fault::$name,)*];
            /// What it does on its worst: only some seeds meet it.
            pub const HARD: &'static [Fault] = &[$(Fault::$hard,)*];
            pub const ALL: &'static [Fault] = &[$(Fault::$name,)* $(Fault::$hard,)*];
        }
    };
}

faults! {
    /// A read gives fewer bytes than are there; the rest has "not arrived yet": an edge follows.
    ShortRead,
    /// A write takes fewer bytes than fit; an edge follows.
    ShortWrite,
    /// A read, write would block although it need not; an edge follows.
    ReadWouldBlock,
    WriteWouldBlock,
    /// The edge of an arrival comes some milliseconds late.
    LateEdge,
    /// An event about nothing.
    SpuriousEvent,
    /// An event for an index whose socket is closed.
    StaleEvent,
    /// What is readable and writable at once comes as two events, in either order.
    SplitEvent,
    /// The events of one wait come in any order.
    Reordered,
    /// A wait ends with nothing, at once; never one of no time.
    InterruptedWait,
    /// The connection dies under a read or a write.
    Reset,
    /// ECONNABORTED: the connection was gone before it was accepted.
    AcceptAborted,
    /// EMFILE: it stays in the backlog and no edge will say so.
    AcceptNoDescriptors,
    /// Accept would block although a connection is there; an edge follows.
    AcceptWouldBlock,
    /// The wall clock leaps, either way.
    WallLeap,
    ;
    /// A read fails with an errno of recv(2), and the connection is gone.
    ReadError,
    /// A write fails with one of send(2), and the connection is gone.
    WriteError,
    /// For want of memory a read or a write fails; the connection itself is well, and stays until the
    /// server closes it.
    NoMemory,
    /// EINTR: a read or a write that did nothing, and may be tried again.
    Interrupted,
    /// The same, a dozen times in a row.
    InterruptedOften,
    /// Accept fails with any errno of accept(2), and takes the waiting connection with it.
    AcceptError,
    /// For a while every accept does.
    NetworkDown,
    /// For a while there is no descriptor or no memory: so says each accept, also with nobody waiting.
    DescriptorsGone,
    /// For a while there is no descriptor beyond those in use: when one is closed, one is free.
    DescriptorsSpent,
    /// The one held in reserve cannot be had either.
    RefuseError,
    /// The edge of the listener comes late; or an event of it about nobody.
    ListenerLate,
    ListenerSpurious,
    /// A wake that nobody sent.
    WakeSpurious,
    /// One wait tells only some of what is due, the next the rest.
    FewEvents,
    /// The process stands still, as in a debugger or a machine that is moved: no clock of it does. Its wait
    /// goes on; or it is interrupted, as by Ctrl-Z and `fg`; or it had just told what there was.
    Pause,
    /// Another thread's command comes in the middle of a wait, or of another system call. (The test
    /// puts one into `in_calls`.)
    WokenInWait,
    ThreadInCall,
}

/// Odds and counts of every fault.
#[derive(Clone, Debug)]
pub struct Faults {
    /// Once in this many chances; 0 is never.
    pub odds: [u32; Fault::ALL.len()],
    /// How often it struck.
    pub counts: [u64; Fault::ALL.len()],
    /// How often a call failed with an errno: `accept EPERM`.
    pub errnos: BTreeMap<(&'static str, i32), u64>,
}

impl Faults {
    /// A kernel on a good day.
    pub fn none() -> Faults {
        Faults { odds: [0; Fault::ALL.len()], counts: [0; Fault::ALL.len()], errnos: BTreeMap::new() }
    }

    /// Each kind by itself never, seldom or often: a run in which everything fails at once
    /// meets fewer states than one in which a few things fail a lot.
    pub fn drawn(rng: &mut Rng) -> Faults {
        let mut faults = Faults::none();
        for fault in Fault::COMMON {
            faults.odds[*fault as usize] = rng.pick(&[0, 0, 100, 20, 5]);
        }
        // A kernel that resets often leaves nothing to see.
        let resets = &mut faults.odds[Fault::Reset as usize];
        *resets *= 20;
        faults
    }

    /// The hard ones too.
    pub fn harden(&mut self, rng: &mut Rng) {
        for fault in Fault::HARD {
            self.odds[*fault as usize] = rng.pick(&[0, 300, 100, 30]);
        }
        for ends in [Fault::ReadError, Fault::WriteError, Fault::NoMemory] {
            self.odds[ends as usize] *= 2;
        }
        // Whose turn it is, every few waits.
        for often in [Fault::WokenInWait, Fault::ThreadInCall] {
            self.odds[often as usize] = self.odds[often as usize].div_ceil(20);
        }
    }

    /// From now on nothing fails.
    pub fn stop(&mut self) {
        self.odds = [0; Fault::ALL.len()];
    }
}

/// Every call that fails, with the errnos that its manual lists: recv(2), send(2), accept(2) and the
/// errors of TCP in tcp(7). Left out are those that a mistake of the caller's makes (EBADF, EFAULT, EINVAL,
/// EISCONN, EMSGSIZE, ENOTSOCK, EDESTADDRREQ); EAGAIN and EINTR have faults of their own.
pub const ERRNOS: [(&str, &[i32]); 5] = [
    ("read", &[EIO, ENOTCONN, ECONNREFUSED, ETIMEDOUT, ENETUNREACH, EHOSTUNREACH, ECONNRESET]),
    ("write", &[EACCES, EPIPE, EIO, ECONNRESET, ENOTCONN, EOPNOTSUPP, ETIMEDOUT, ENETDOWN, ENETUNREACH, EHOSTUNREACH]),
    ("memory", &[ENOMEM, ENOBUFS]),
    (
        "accept",
        &[
            EINTR,
            EPERM,
            EPROTO,
            ENETDOWN,
            ENOPROTOOPT,
            EHOSTDOWN,
            ENONET,
            EHOSTUNREACH,
            EOPNOTSUPP,
            ENETUNREACH,
            ECONNABORTED,
            ETIMEDOUT,
        ],
    ),
    // The system has no descriptor or no memory for another connection, which goes on waiting.
    ("exhaustion", &[EMFILE, ENFILE, ENOMEM, ENOBUFS]),
];

impl Faults {
    /// Some errno of this call.
    pub fn errno(&mut self, call: &'static str, rng: &mut Rng) -> io::Error {
        let errnos = ERRNOS.iter().find(|(name, _)| *name == call).map_or(&[EIO][..], |(_, errnos)| *errnos);
        let errno = rng.pick(errnos);
        *self.errnos.entry((call, errno)).or_default() += 1;
        io::Error::from_raw_os_error(errno)
    }
}

const EPERM: i32 = 1;
pub const EINTR: i32 = 4;
const EIO: i32 = 5;
const ENOMEM: i32 = 12;
const EACCES: i32 = 13;
const ENFILE: i32 = 23;
pub const EMFILE: i32 = 24;
const EPIPE: i32 = 32;
const ENONET: i32 = 64;
const EPROTO: i32 = 71;
const ENOPROTOOPT: i32 = 92;
const EOPNOTSUPP: i32 = 95;
const ENETDOWN: i32 = 100;
const ENETUNREACH: i32 = 101;
const ECONNABORTED: i32 = 103;
const ECONNRESET: i32 = 104;
const ENOBUFS: i32 = 105;
const ENOTCONN: i32 = 107;
const ETIMEDOUT: i32 = 110;
const ECONNREFUSED: i32 = 111;
const EHOSTDOWN: i32 = 112;
const EHOSTUNREACH: i32 = 113;
