//! Says in the log that a limit was reached: at once, then at most once a minute how often since.
//!
//! Pure: times come in, lines come out. A flood that meets a limit a thousand times a second costs
//! a line a minute, and the line says so.
//!
//! Invariant: whatever was noted is told in exactly one line, if the server lives so long.

use crate::metrics::Limit;

/// How long there is no further line about a limit after one.
const SILENCE_MS: u64 = 60_000;

/// What is noted and not told, by limit.
#[derive(Debug, Default)]
pub(super) struct LimitsLog {
    notes: [Note; Limit::ALL.len()],
}

#[derive(Copy, Clone, Debug, Default)]
struct Note {
    /// The end of the silence, on the clock that never goes back; 0 if there is none.
    silent_until_ms: u64,
    /// How often the limit was reached in it.
    count: u64,
}

impl LimitsLog {
    /// A limit was reached this often just now. The line to write, unless it is too early for one.
    pub(super) fn note(&mut self, limit: Limit, count: u64, now_ms: u64) -> Option<String> {
        let note = &mut self.notes[limit as usize];
        if now_ms < note.silent_until_ms || note.count > 0 {
            note.count += count;
            return None;
        }
        note.silent_until_ms = now_ms + SILENCE_MS;
        Some(format!("{} reached: {}", limit.name(), outcome(limit, count)))
    }

    /// The next line that is due, if any: of a limit that was reached in its silence.
    pub(super) fn next_line(&mut self, now_ms: u64) -> Option<String> {
        let is_due = |note: &Note| note.count > 0 && note.silent_until_ms <= now_ms;
        let (limit, note) = Limit::ALL.into_iter().zip(&mut self.notes).find(|(_, note)| is_due(note))?;
        let outcome = outcome(limit, std::mem::take(&mut note.count));
        note.silent_until_ms = now_ms + SILENCE_MS;
        Some(format!("{} reached: {outcome} in the last {} s", limit.name(), SILENCE_MS / 1000))
    }

    /// When a line is due.
    pub(super) fn next_ms(&self) -> Option<u64> {
        self.notes.iter().filter(|note| note.count > 0).map(|note| note.silent_until_ms).min()
    }
}

/// What became of whom.
fn outcome(limit: Limit, count: u64) -> String {
    let (one, many, became) = match limit {
        Limit::ConnectionsMax | Limit::ConnectionsPerAddressMax => ("connection", "connections", "refused"),
        Limit::Descriptors => ("accept", "accepts", "failed"),
        Limit::ChannelsMax | Limit::IntakeBytesMax => ("request", "requests", "refused"),
        Limit::OutputBytesMax => ("slow reader", "slow readers", "closed"),
        Limit::BurstBytesMax => ("message", "messages", "evicted before everybody was offered it"),
        Limit::CommandsMax => ("publish of another thread", "publishes of other threads", "refused"),
    };
    format!("{count} {} {became}", if count == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_at_once_and_then_one_a_minute() {
        let mut log = LimitsLog::default();
        let first = log.note(Limit::ConnectionsMax, 1, 5);
        assert_eq!(first.as_deref(), Some("connections-max reached: 1 connection refused"));
        assert_eq!(log.next_ms(), None, "nothing is left to tell");
        for now_ms in 6..129 {
            assert_eq!(log.note(Limit::ConnectionsMax, 1, now_ms), None);
        }
        assert_eq!((log.next_ms(), log.next_line(60_004)), (Some(60_005), None));
        let second = log.next_line(60_005);
        assert_eq!(second.as_deref(), Some("connections-max reached: 123 connections refused in the last 60 s"));
        assert_eq!((log.next_ms(), log.next_line(60_005)), (None, None), "told once");
        // It goes on in the next minute: again one line, at its end.
        assert_eq!(log.note(Limit::ConnectionsMax, 2, 60_006), None);
        let third = log.next_line(200_000);
        assert_eq!(third.as_deref(), Some("connections-max reached: 2 connections refused in the last 60 s"));
        // And after a minute of peace it begins anew.
        assert!(log.note(Limit::ConnectionsMax, 1, 260_000).is_some());
    }

    #[test]
    fn each_limit_has_a_silence_of_its_own() {
        let mut log = LimitsLog::default();
        for limit in Limit::ALL {
            let line = log.note(limit, 7, 0).unwrap();
            assert!(line.starts_with(&format!("{} reached: 7 ", limit.name())), "{line}");
            assert_eq!(log.note(limit, 1, 1), None);
        }
        let lines = std::iter::from_fn(|| log.next_line(60_000));
        assert_eq!(lines.count(), Limit::ALL.len());
    }
}
