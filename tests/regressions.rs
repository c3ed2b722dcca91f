//! Seeds that once failed, each with its story. A run is a whole simulation; see `simulation.rs`.

mod clients;
mod kernel;
mod world;

/// The form: the seed, then what it found in one sentence: what was wrong, what a client saw.
///
/// `(4711, "A reader paused by its answers' limit never read again: its edge had been told."),`
///
/// A seed names a run of the simulation as it was. When the simulation changes so that its seeds
/// mean other runs, a story worth keeping becomes a test of its own beside the code it is about, as
/// `times.rs` and `revoking.rs` have them; its line goes.
const STORIES: &[(u64, &str)] = &[
    (164, "A publish read in the turn of its connection's idle deadline was accepted, and its answer cut off."),
    (10531, "Slots of the dead that a queue still named counted as connections: a client was told of too many."),
    (1263, "A server that had stood still closed healthy WebSockets as silent, which it had not pinged meanwhile."),
];

// Found before crowds, scrapes and half of the faults were in the simulation. Their seeds are
// other runs now and show nothing of their stories, which are told here for who looks for a kind of bug:
//
// - The answer to unsubscribe named the head to a client whose messages were still to be written.
// - Input held behind an unanswered publish was looked at again and again, until the turn's budget was spent.
// - The log gave up a burst that one large read had brought, before a healthy subscriber was visited.
// - After a subscribe that was refused a gap began at a cursor that the client had never been told.
// - What a new channel had lost was told before the answer that named the channel.
// - A WebSocket that read slowly was not pinged meanwhile, and closed as silent once it read again.
// - The ticket of a client that had gone was given to another, who was then told of the first one's message.
// - A closing client waited for its turn to be written to, and was cut off without its close frame.

#[test]
fn seeds_that_failed_once() {
    for &(seed, story) in STORIES {
        println!("seed {seed}: {story}");
        world::run_reporting(seed);
    }
}

#[test]
fn every_seed_stands_once_and_has_a_story() {
    for (nth, (seed, story)) in STORIES.iter().enumerate() {
        assert!(story.ends_with('.'), "seed {seed} needs its story");
        assert!(STORIES[..nth].iter().all(|(other, _)| other != seed), "seed {seed} stands twice");
    }
}
