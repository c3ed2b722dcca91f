//! Room for connections: the limit of open descriptors, raised as far as the system lets us.
//!
//! A soft limit of 1024 is what a shell gives; it is meant for programs that use `select`.

use rlimit::Resource;

/// How many connections there is room for, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Connections at once: what was wished, or what the descriptors allow.
    pub(crate) connections: usize,
    /// What was wished.
    pub(crate) wished: usize,
    /// The soft limit of descriptors before and after, if the system tells.
    pub(crate) descriptors: Option<(u64, u64)>,
}

/// Raises the soft limit to the hard one.
pub(crate) fn raise(wished: usize) -> Limits {
    let descriptors = Resource::NOFILE.get_soft().map(|before| {
        let now = rlimit::increase_nofile_limit(u64::MAX).unwrap_or_else(|error| {
            log::warn!("cannot raise the limit of descriptors: {error}");
            before
        });
        (before, now)
    });
    match descriptors {
        Ok((before, now)) => Limits { connections: fitting(wished, now), wished, descriptors: Some((before, now)) },
        Err(error) => {
            log::warn!("cannot ask for the limit of descriptors: {error}");
            Limits { connections: wished, wished, descriptors: None }
        }
    }
}

fn fitting(wished: usize, descriptors: u64) -> usize {
    let room = descriptors.saturating_sub(RESERVED).max(1);
    wished.min(usize::try_from(room).unwrap_or(usize::MAX))
}

/// What else needs a descriptor: the three standard streams, listeners, poll, wakers, and the few
/// connections over the limit that are still answered.
const RESERVED: u64 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_fit_into_the_descriptors() {
        for (wished, descriptors, connections) in [
            (100_000, 1_048_576, 100_000),
            (100_000, 1024, 960),
            (900, 1024, 900),
            (100_000, 65, 1),
            (100_000, 0, 1),
            (100_000, u64::MAX, 100_000),
        ] {
            assert_eq!(fitting(wished, descriptors), connections, "{wished} in {descriptors}");
        }
    }

    #[test]
    fn raising_again_finds_nothing_left() {
        let (_, raised) = raise(1).descriptors.unwrap();
        assert_eq!(raise(1).descriptors, Some((raised, raised)));
    }
}
