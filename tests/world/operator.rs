//! What the operator does: deletes, changes tokens, lets the server leave, loses it and starts another.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tidings::internals::{Command, EventLoop};

use crate::clients::{Format, Place, Reader, Result, Transport};
use crate::kernel::faults::ERRNOS;
use crate::kernel::{Fault, Faults};

use super::actors::{CHANNELS, count};
use super::others::{self, KEEPER};
use super::{Observer, World, parts};

impl World {
    pub fn delete(&mut self) {
        if self.observer.deleting.is_some() {
            return;
        }
        let channel = self.rng.pick(&CHANNELS);
        self.ask_to_delete(channel);
        // Until the answer any number may be the last one deleted.
        self.model.lives.entry(self.observer.epoch).or_default().deletes(channel);
    }

    pub fn ask_to_delete(&mut self, channel: &'static str) {
        let request = format!("DELETE /channels/{channel}?token={KEEPER} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        // A fresh connection: an idle one may have been ended meanwhile.
        let kernel = self.engine.os();
        kernel.close_client(self.observer.deletes);
        self.observer.deletes = kernel.connect_reliably();
        self.observer.answers = Reader::new(Transport::Poll, Format::Raw);
        kernel.send(self.observer.deletes, request.as_bytes());
        self.observer.deleting = Some(channel);
    }

    /// The tokens change; whose token is gone is ended, at once.
    pub fn reload_tokens(&mut self) -> Result<()> {
        let Some(rng) = &mut self.trials.hard else { return Ok(()) };
        let keeps = rng.one_in(3);
        let new = format!("token.{}", rng.bits());
        let Some(old) = self.trials.token.replace(new.clone()) else { return Ok(()) };
        count(&mut self.coverage, if keeps { "tokens: one added" } else { "tokens: one replaced" });
        self.engine.os().note(|| format!("tokens: {new} instead of {old}, which is kept: {keeps}"));
        let mut good = BTreeSet::from([new]);
        if keeps {
            good.insert(old);
        }
        let also: Vec<&str> = good.iter().map(String::as_str).collect();
        let tokens = others::tokens(&also);
        self.config.tokens = tokens.clone();
        for thread in &self.threads {
            thread.commands.push(Command::SetTokens(tokens.clone())).map_err(|why| why.to_string())?;
        }
        // From now on they may be refused; whose reading ends is known when the command has been taken.
        self.excuses.takes_tokens(good, Place { epoch: self.observer.epoch, seq: u64::MAX });
        // A turn may end before it has taken all commands.
        while self.threads.iter().any(|thread| !thread.commands.is_empty()) {
            self.turn(Duration::ZERO)?;
        }
        let head = self.engine.engine().stats().head;
        self.excuses.has_taken_tokens(head);
        Ok(())
    }

    /// The server is told to leave while everything goes on, and another is started when it has.
    pub fn leaves_halfway(&mut self) -> Result<()> {
        count(&mut self.coverage, "left halfway");
        self.is_to_leave()?;
        let end_ms = self.engine.os().now_ms() + self.config.drain.as_millis() as u64 + 4000;
        while !self.turns_for(20)? {
            // A pause may make any turn late.
            if self.engine.os().now_ms() > end_ms {
                return Err("the server does not leave".into());
            }
            self.act(2, false)?;
        }
        if self.model.settle()? > 0 {
            return Err(format!("left before the observer had what was answered: {:?}", self.model.answers()));
        }
        self.starts_again()
    }

    /// By the thread of the loop, or by another.
    fn is_to_leave(&mut self) -> Result<()> {
        self.excuses.leaves();
        let by_a_thread = self.trials.hard.as_mut().is_some_and(|rng| rng.one_in(2));
        match self.threads.first().filter(|_| by_a_thread) {
            Some(thread) => thread.commands.push(Command::Drain).map_err(|why| why.to_string()),
            None => {
                self.engine.drain();
                Ok(())
            }
        }
    }

    /// At the end it leaves in time, whoever is still connected.
    pub fn leaves(&mut self) -> Result<()> {
        self.is_to_leave()?;
        let end_ms = self.engine.os().now_ms() + self.config.drain.as_millis() as u64 + 1000;
        while !self.turn(Duration::from_millis(20))? {
            if self.engine.os().now_ms() > end_ms {
                return Err("the server does not leave".into());
            }
        }
        Ok(())
    }

    /// The process dies and another starts: a new epoch, every connection cut.
    pub fn restart(&mut self) -> Result<()> {
        count(&mut self.coverage, "restarted");
        // The observer first hears what its neighbours may have heard already.
        let mut quiet_turns = 0;
        while quiet_turns < 5 {
            let heard = self.model.heard();
            self.turn(Duration::ZERO)?;
            let busy = self.engine.next_timeout() == Some(Duration::ZERO) || self.model.heard() != heard;
            quiet_turns = if busy { 0 } else { quiet_turns + 1 };
        }
        self.starts_again()
    }

    /// The process is gone, and with it its connections; another starts.
    fn starts_again(&mut self) -> Result<()> {
        let mut kernel = std::mem::take(self.engine.os());
        kernel.server_dies();
        self.excuses.life += 1;
        self.observer = Observer::connect(&mut kernel);
        let parts = parts(&kernel, &self.config);
        self.threads.iter_mut().for_each(|thread| thread.commands = Arc::clone(&parts.commands));
        self.engine =
            EventLoop::new(kernel, self.config.clone(), parts).expect("the names of the configuration are names");
        // On a hard day there may be no descriptor for a while.
        let patience_ms = if self.trials.hard.is_some() { 10 } else { 0 };
        while self.observer.epoch == 0 {
            self.turn(Duration::from_millis(patience_ms))?;
        }
        Ok(())
    }

    /// Adds up what went wrong.
    pub fn count_faults(&mut self) {
        let Faults { counts, errnos, .. } = self.engine.os().faults.clone();
        for (fault, count) in Fault::ALL.iter().zip(counts) {
            *self.coverage.entry(format!("fault {fault:?}")).or_default() += count;
        }
        for (call, of_call) in ERRNOS {
            for errno in of_call {
                let count = errnos.get(&(call, *errno)).copied().unwrap_or_default();
                *self.coverage.entry(format!("errno {call} {errno}")).or_default() += count;
            }
        }
    }
}
