//! Real sockets that never block, and when to act next.
//!
//! A `Line` is a connection and the bytes that wait for room on it. Every end of a connection, in
//! good order or not, is `Received::End`: what a client makes of it does not depend on that.
//! Readiness is told once, so whoever is told reads until nothing is left.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use mio::{Interest, Registry, Token, net::TcpStream};
use rustix::io::Errno;
use socket2::{Domain, SockRef, Socket, Type};

#[derive(Debug)]
pub struct Line {
    stream: TcpStream,
    out: Vec<u8>,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Received {
    Bytes(usize),
    Nothing,
    End,
}

impl Line {
    /// Events of this line bear its owner's number. If the kernel is to hide little of a client that
    /// does not read, it must know before it promises the peer a window.
    pub fn connect(
        registry: &Registry,
        owner: usize,
        address: SocketAddr,
        receive_buffer: Option<usize>,
    ) -> io::Result<Line> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        if let Some(bytes) = receive_buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        match socket.connect(&address.into()) {
            Err(error) if error.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => return Err(error),
            _ => {}
        }
        let mut stream = TcpStream::from_std(socket.into());
        registry.register(&mut stream, Token(owner), Interest::READABLE | Interest::WRITABLE)?;
        Ok(Line { stream, out: Vec::new() })
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
        self.flush();
    }

    /// Writes what there is room for. That a line is broken, its reader learns.
    pub fn flush(&mut self) {
        while !self.out.is_empty() {
            match self.stream.write(&self.out) {
                Ok(taken) => drop(self.out.drain(..taken)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
    }

    pub fn read(&mut self, buffer: &mut [u8]) -> Received {
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return Received::End,
                Ok(read) => return Received::Bytes(read),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Received::Nothing,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Received::End,
            }
        }
    }

    /// Nothing more will be said.
    pub fn half_close(&mut self) {
        // It fails if the peer was faster; then the end is read.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// As a client that is killed: the peer gets a reset, wherever it was.
    pub fn reset(self) {
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).expect("any socket takes the option");
    }
}

/// When each owner is to act next; setting it anew forgets what was set.
#[derive(Debug, Default)]
pub struct Alarms {
    heap: BinaryHeap<Reverse<(u64, usize)>>,
    /// The one that counts, by owner.
    set: Vec<Option<u64>>,
}

impl Alarms {
    pub fn set(&mut self, owner: usize, at_ms: u64) {
        if self.set.len() <= owner {
            self.set.resize(owner + 1, None);
        }
        self.set[owner] = Some(at_ms);
        self.heap.push(Reverse((at_ms, owner)));
    }

    pub fn forget(&mut self, owner: usize) {
        if let Some(at_ms) = self.set.get_mut(owner) {
            *at_ms = None;
        }
    }

    pub fn next_ms(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse((at_ms, _))| *at_ms)
    }

    /// Whose time has come.
    pub fn pop(&mut self, now_ms: u64) -> Option<usize> {
        while self.next_ms()? <= now_ms {
            let Reverse((at_ms, owner)) = self.heap.pop()?;
            if self.set[owner] == Some(at_ms) {
                self.set[owner] = None;
                return Some(owner);
            }
        }
        None
    }
}
