//! The hub as its callers see it: the rules as tables, then long random runs beside a model.

use super::reading::ChannelInfo;
use super::subscribing::Start;
use super::*;
use crate::cursor::After;
use crate::gap::{Gap, GapReason};
use crate::message::Payload;

mod model;

const EPOCH: u32 = 7;

const ROOMY: Limits = Limits {
    history_messages: 1000,
    history_bytes: 1 << 20,
    history_age_ms: 3_600_000,
    channels_max: 100,
    idempotency_keys_max: 100,
    idempotency_age_ms: 300_000,
    burst_bytes_max: 1 << 20,
};

fn hub(limits: Limits) -> Hub {
    Hub::new(limits, Epoch::new(EPOCH).unwrap())
}

fn plain<'a>(channel: &'a str, payload: &'a str) -> Publish<'a> {
    Publish {
        ticket: None,
        channel,
        event: None,
        media_type: None,
        payload: payload.as_bytes(),
        only_after: None,
        key: None,
        replay_only: false,
        time_ms: 0,
        monotonic_ms: 0,
    }
}

/// Publishes one message in a turn of its own and tells what became of it.
fn publish(hub: &mut Hub, publish: Publish<'_>) -> Outcome {
    hub.publish(publish).unwrap();
    hub.commit();
    let settled = hub.next_settled().unwrap();
    assert_eq!(hub.channel_name(settled.channel), publish.channel);
    assert_eq!(hub.next_settled(), None);
    hub.check_invariants();
    settled.outcome
}

/// Publishes one message to each of these channels in turn.
fn publish_to(hub: &mut Hub, channels: &str) {
    for channel in channels.split_whitespace() {
        assert!(matches!(publish(hub, plain(channel, channel)), Outcome::Accepted { .. }));
    }
}

fn names(set: &str) -> Vec<String> {
    set.split_whitespace().map(String::from).collect()
}

fn subscribe(hub: &mut Hub, key: u32, set: &str, after: After) -> Start {
    let start = hub.subscribe(key, &names(set), &after).unwrap();
    hub.check_invariants();
    start
}

fn at(seq: u64) -> After {
    After::At(Cursor { epoch: Epoch::new(EPOCH).unwrap(), seq })
}

/// What a subscriber would read now, by number.
fn unread(hub: &Hub, key: u32) -> Vec<u64> {
    let unread: Vec<u64> = hub.merged_after(key).map(|message| hub.seq(message)).collect();
    assert_eq!(hub.has_news(key), !unread.is_empty());
    unread
}

/// A gap in one line, as the tables below write it.
fn show(gap: &Option<Gap>) -> String {
    match gap {
        None => String::new(),
        Some(gap) => format!("{:?} {}..{} on from {}", gap.reason, gap.after, gap.through.seq, gap.cursor.seq),
    }
}

#[test]
fn a_message_comes_back_as_it_was_published() {
    let mut hub = hub(ROOMY);
    for (event, media_type, payload, text) in [
        (None, None, &b""[..], true),
        (Some("price"), Some("application/json"), b"{}", true),
        (None, Some("application/octet-stream"), b"abc", false),
        (Some("\u{e9}"), None, b"\xff", false),
    ] {
        let publish = Publish { event, media_type, payload, time_ms: 99, ..plain("news", "") };
        let Outcome::Accepted { seq, message, subscribers: 0, .. } = self::publish(&mut hub, publish) else { panic!() };
        let message = hub.message(message);
        assert_eq!((message.id, message.channel, message.time_ms), (hub.cursor(seq), "news", 99));
        assert_eq!((message.event, message.media_type), (event, media_type));
        assert_eq!(message.payload.bytes(), payload);
        assert_eq!(matches!(message.payload, Payload::Text(_)), text);
    }
}

#[test]
fn subscribers_are_counted_just_before_delivery() {
    let mut hub = hub(ROOMY);
    subscribe(&mut hub, 0, "a b", After::Now);
    subscribe(&mut hub, 5, "a", After::Now);
    hub.publish(Publish { ticket: Some(Ticket(3)), ..plain("a", "") }).unwrap();
    hub.publish(Publish { ticket: None, ..plain("b", "") }).unwrap();
    let readers = |hub: &Hub| hub.subscribers(hub.find("a").unwrap()).iter().map(|&(key, _)| key).collect::<Vec<_>>();
    assert_eq!(readers(&hub), [0, 5]);
    hub.unsubscribe(5);
    hub.unsubscribe(99);
    assert_eq!(readers(&hub), [0]);
    assert!(hub.has_proposals());
    hub.commit();
    let first = hub.next_settled().unwrap();
    assert_eq!(first.ticket, Some(Ticket(3)));
    assert!(matches!(first.outcome, Outcome::Accepted { seq: 1, subscribers: 1, .. }), "{first:?}");
    let second = hub.next_settled().unwrap();
    assert_eq!(second.ticket, None);
    assert!(matches!(second.outcome, Outcome::Accepted { seq: 2, subscribers: 1, .. }), "{second:?}");
    assert!(!hub.has_proposals());
    assert_eq!(unread(&hub, 0), [1, 2]);
    hub.set_cursor(0, 2);
    assert_eq!(unread(&hub, 0), []);
}

#[test]
fn a_refused_newborn_channel_keeps_its_name_for_the_answer() {
    let mut hub = hub(ROOMY);
    let elsewhere = Cursor { epoch: Epoch::new(1).unwrap(), seq: 0 };
    let refused = Publish { only_after: Some(elsewhere), ..plain("news", "") };
    assert_eq!(publish(&mut hub, refused), Outcome::Moved { at: hub.cursor(0) });
    assert_eq!(publish(&mut hub, Publish { replay_only: true, ..plain("news", "") }), Outcome::Draining);
    assert_eq!(hub.find("news"), None, "it left no trace");
}

#[test]
fn conditions_within_one_commit_see_each_other() {
    let mut hub = hub(ROOMY);
    let first = Publish { only_after: Some(hub.cursor(0)), ..plain("news", "") };
    hub.publish(first).unwrap();
    hub.publish(first).unwrap();
    hub.commit();
    assert!(matches!(hub.next_settled().unwrap().outcome, Outcome::Accepted { seq: 1, .. }));
    assert_eq!(hub.next_settled().unwrap().outcome, Outcome::Moved { at: hub.cursor(1) });
}

#[test]
fn where_a_subscriber_starts() {
    // Number:            1 2 3 4 5 6 7; two per channel are kept, so a lost 1 and 3.
    let published = "a b a b a a c";
    let other = Cursor { epoch: Epoch::new(9).unwrap(), seq: 2 };
    for (set, after, cursor, gap) in [
        ("a", After::Now, 7, ""),
        ("a", After::Earliest, 4, ""),
        ("a b", After::Earliest, 1, ""),
        ("z", After::Earliest, 7, ""),
        ("a", at(7), 7, ""),
        ("a", at(3), 3, ""),
        ("a", at(2), 4, "Evicted 7-2..3 on from 4"),
        ("a b", at(2), 3, "Evicted 7-2..3 on from 3"),
        ("a", at(0), 4, "Evicted 7-0..3 on from 4"),
        ("b", at(0), 0, ""),
        ("z", at(0), 0, ""),
        ("a", at(8), 4, "Future 7-8..3 on from 4"),
        ("z", at(8), 7, "Future 7-8..0 on from 7"),
        ("a b", After::At(other), 1, "Epoch 9-2..3 on from 1"),
        ("c", After::Unknown("?".into()), 6, "Unknown ?..0 on from 6"),
    ] {
        let mut hub = hub(Limits { history_messages: 2, ..ROOMY });
        publish_to(&mut hub, published);
        hub.trim(0, u64::MAX);
        let start = subscribe(&mut hub, 1, set, after.clone());
        assert_eq!((start.cursor.seq, show(&start.gap)), (cursor, gap.into()), "{set} after {after:?}");
        assert_eq!(hub.cursor_of(1), cursor);
        assert_eq!(hub.loss(1), None, "it was said");
    }
}

#[test]
fn a_loss_is_said_once() {
    let mut hub = hub(Limits { history_messages: 2, ..ROOMY });
    subscribe(&mut hub, 0, "a b", After::Now);
    publish_to(&mut hub, "b a a a");
    hub.trim(0, u64::MAX);
    assert_eq!(show(&hub.loss(0)), "Evicted 7-0..2 on from 0", "b's 1 is kept");
    assert_eq!(hub.loss(0), None);
    assert_eq!(unread(&hub, 0), [1, 3, 4]);
    publish_to(&mut hub, "b b");
    hub.trim(0, u64::MAX);
    assert_eq!(show(&hub.loss(0)), "Evicted 7-0..2 on from 2", "1 went after the first telling");
    assert_eq!(unread(&hub, 0), [3, 4, 5, 6]);
    hub.set_cursor(0, 6);
    publish_to(&mut hub, "c c c");
    hub.trim(0, u64::MAX);
    assert_eq!(hub.loss(0), None, "not its channel");
}

#[test]
fn who_keeps_up_never_sees_a_gap_whatever_the_limits() {
    let nothing = Limits { history_messages: 0, history_bytes: 0, history_age_ms: 0, ..ROOMY };
    let mut hub = hub(nothing);
    subscribe(&mut hub, 0, "a", After::Now);
    for _ in 0..3 {
        hub.publish(plain("a", "x")).unwrap();
        hub.publish(plain("a", "y")).unwrap();
        hub.commit();
        while hub.next_settled().is_some() {}
        let head = hub.head();
        hub.trim(0, head - 2);
        assert_eq!(unread(&hub, 0), [head - 1, head], "not offered yet, so not evicted");
        hub.set_cursor(0, head);
        hub.trim(0, head);
        hub.check_invariants();
        assert_eq!((hub.loss(0), hub.stats().messages), (None, 0));
    }
}

#[test]
fn a_burst_past_its_bound_is_cut_regardless() {
    let mut hub = hub(Limits { history_bytes: 200, burst_bytes_max: 200, ..ROOMY });
    publish_to(&mut hub, "a b a b a"); // 97 bytes each
    assert_eq!(hub.trim(0, 0), 1, "not offered, and gone");
    assert_eq!(hub.stats().bytes, 4 * 97, "within the burst");
    assert_eq!(hub.trim(0, 2), 0);
    assert_eq!(hub.stats().bytes, 3 * 97, "2 may go, 3 may not");
    assert_eq!(hub.trim(0, 5), 0);
    assert_eq!(hub.stats().bytes, 2 * 97);
}

#[test]
fn as_many_bytes_are_kept_as_the_limit_says() {
    for (history_bytes, kept) in [(3 * 97, 3), (3 * 97 - 1, 2), (97, 1), (96, 0)] {
        let mut hub = hub(Limits { history_bytes, ..ROOMY });
        publish_to(&mut hub, "a b a b"); // 97 bytes each
        hub.trim(0, u64::MAX);
        assert_eq!(hub.stats().messages, kept, "{history_bytes} bytes");
    }
}

#[test]
fn age_is_one_deadline_for_all() {
    let mut hub = hub(Limits { history_age_ms: 1000, ..ROOMY });
    assert_eq!(hub.next_expiry_ms(), None);
    for (channel, monotonic_ms) in [("a", 100), ("b", 1000), ("a", 1049)] {
        publish(&mut hub, Publish { monotonic_ms, ..plain(channel, "") });
    }
    for (now_ms, left, next) in [
        (1099, 3, Some(1100)),
        (1100, 2, Some(2000)),
        (1999, 2, Some(2000)),
        (2000, 0, None), // 1000 and 1049 are one tick
    ] {
        hub.trim(now_ms, u64::MAX);
        hub.check_invariants();
        assert_eq!((hub.stats().messages, hub.next_expiry_ms()), (left, next), "at {now_ms}");
    }
    let mut hub = self::hub(Limits { history_age_ms: u64::MAX, ..ROOMY });
    publish_to(&mut hub, "a");
    hub.trim(u64::MAX, u64::MAX);
    assert_eq!((hub.stats().messages, hub.next_expiry_ms()), (1, None), "for ever");
}

#[test]
fn delete_is_no_loss() {
    let mut hub = hub(ROOMY);
    subscribe(&mut hub, 0, "a b", After::Now);
    publish_to(&mut hub, "a b a");
    assert!(hub.delete("a"));
    hub.check_invariants();
    assert!(!hub.delete("a"), "there are none left");
    assert!(!hub.delete("z"));
    assert_eq!((hub.loss(0), unread(&hub, 0)), (None, vec![2]));
    assert_eq!(show(&subscribe(&mut hub, 1, "a", at(0)).gap), "");
    let condition = Publish { only_after: Some(hub.cursor(2)), ..plain("a", "") };
    assert_eq!(publish(&mut hub, condition), Outcome::Moved { at: hub.cursor(3) }, "kept or not");
}

#[test]
fn a_pinned_message_is_readable_after_it_is_gone() {
    let mut hub = hub(Limits { history_messages: 1, ..ROOMY });
    publish_to(&mut hub, "a b");
    let [a, b] = ["a", "b"].map(|name| hub.next_after(hub.find(name).unwrap(), 0).unwrap());
    hub.pin(a);
    hub.pin(b);
    assert!(!hub.is_detached(a));
    publish_to(&mut hub, "a");
    hub.trim(0, u64::MAX);
    hub.delete("b");
    hub.delete("a");
    hub.check_invariants();
    assert_eq!((hub.stats().messages, hub.detached_bytes()), (0, 2 * 97));
    assert!(hub.is_detached(a) && hub.is_detached(b));
    assert_eq!((hub.message(a).channel, hub.message(a).payload), ("a", Payload::Text("a")));
    assert_eq!((hub.message(b).channel, hub.message(b).payload), ("b", Payload::Text("b")));
    hub.unpin(a);
    hub.unpin(b);
    hub.check_invariants();
    assert_eq!(hub.detached_bytes(), 0);
}

#[test]
fn a_message_is_the_next_one_for_every_cursor_from_the_one_before() {
    let mut hub = hub(Limits { history_messages: 2, ..ROOMY });
    publish_to(&mut hub, "b b a b a a");
    let [a, b] = ["a", "b"].map(|name| hub.find(name).unwrap());
    let before = |hub: &Hub, channel, seq| {
        let message = hub.next_after(channel, seq - 1).unwrap();
        assert_eq!(hub.seq(message), seq);
        hub.before(channel, seq)
    };
    assert_eq!([3, 5, 6].map(|seq| before(&hub, a, seq)), [0, 3, 5]);
    hub.trim(0, u64::MAX);
    assert_eq!([5, 6].map(|seq| before(&hub, a, seq)), [3, 5], "lost or not");
    assert_eq!([2, 4].map(|seq| before(&hub, b, seq)), [1, 2]);
    assert_eq!(hub.before(a, 3), 2, "3 is lost itself");
}

#[test]
fn further_channels_start_after_the_cursor() {
    let mut hub = hub(Limits { history_messages: 1, ..ROOMY });
    publish_to(&mut hub, "b b a c");
    hub.trim(0, u64::MAX);
    subscribe(&mut hub, 0, "a", at(2));
    let start = hub.widen(0, &names("a c z")).unwrap();
    hub.check_invariants();
    assert_eq!((start.cursor.seq, start.gap), (2, None));
    assert_eq!(unread(&hub, 0), [3, 4]);
    assert_eq!(hub.widen(0, &names("b")).unwrap().gap, None, "b lost 1, which is before the cursor");
    hub.narrow(0, &names("b c x"));
    hub.check_invariants();
    assert_eq!(hub.channel_count(0), 2);
    hub.narrow(0, &names("a z"));
    assert_eq!((hub.channel_count(0), hub.cursor_of(0)), (0, 2));
    subscribe(&mut hub, 1, "a", at(0));
    let start = hub.widen(1, &names("b")).unwrap();
    hub.check_invariants();
    assert_eq!((start.cursor.seq, show(&start.gap)), (1, "Evicted 7-0..1 on from 1".into()));
    assert_eq!(hub.loss(1), None);
}

#[test]
fn the_list_pages_by_name_and_leaves_out_what_is_empty() {
    let mut hub = hub(ROOMY);
    publish_to(&mut hub, "b ab a ab gone");
    hub.delete("gone");
    subscribe(&mut hub, 0, "abc", After::Now);
    let list = |prefix, after, max| {
        let line = |info: ChannelInfo<'_>| {
            let span = info.oldest.zip(info.newest).map_or(String::new(), |(first, last)| format!("{first}-{last}"));
            format!("{} {} {} {span}", info.name, info.messages, info.bytes)
        };
        hub.list(prefix, after, max, &mut 0).map(line).collect::<Vec<_>>().join("; ")
    };
    assert_eq!(list("", None, 9), "a 1 97 3-3; ab 2 196 2-4; abc 0 0 ; b 1 97 1-1");
    assert_eq!(list("", None, 2), "a 1 97 3-3; ab 2 196 2-4");
    assert_eq!(list("", Some("ab"), 9), "abc 0 0 ; b 1 97 1-1");
    assert_eq!(list("ab", None, 9), "ab 2 196 2-4; abc 0 0 ");
    assert_eq!(list("ab", Some("a"), 9), "ab 2 196 2-4; abc 0 0 ");
    assert_eq!(list("ab", Some("ab"), 9), "abc 0 0 ");
    assert_eq!(list("b", Some("a"), 9), "b 1 97 1-1", "what is between the two is no end");
    assert_eq!(list("g", None, 9), "");
    for (prefix, max, looked_at) in [("", 9, 5), ("", 2, 2), ("a", 9, 3), ("g", 9, 1), ("z", 9, 0)] {
        let mut looks = 0;
        hub.list(prefix, None, max, &mut looks).for_each(drop);
        assert_eq!(looks, looked_at, "{prefix:?}: what is left out was looked at");
    }
}

#[test]
fn channels_are_bounded_and_the_refused_change_nothing() {
    let mut hub = hub(Limits { channels_max: 2, ..ROOMY });
    publish_to(&mut hub, "a");
    subscribe(&mut hub, 0, "b", After::Now);
    assert_eq!(hub.publish(plain("c", "")), Err(PublishRefused::ChannelsFull));
    assert_eq!(hub.subscribe(1, &names("a c"), &After::Now), Err(SubscribeRefused::ChannelsFull));
    assert_eq!(hub.widen(0, &names("c")), Err(SubscribeRefused::ChannelsFull));
    hub.check_invariants();
    assert_eq!((hub.stats().channels, hub.subscribers(hub.find("a").unwrap())), (2, &[][..]));
    hub.delete("a");
    publish_to(&mut hub, "c");
    assert_eq!(hub.find("a"), None, "a rested, and made room");
    let start = subscribe(&mut hub, 0, "c", at(0));
    assert_eq!(start.gap, None, "a's message was deleted, not lost");
}
