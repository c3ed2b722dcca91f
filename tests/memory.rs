//! The memory bound that the program prints at its start, and a server driven to it.
//!
//! Everything that has a limit is filled to it at the same time: history with the smallest
//! messages, channels and keys with the longest names, connections with whole sets of channels,
//! unfinished bodies, answers that nobody reads. The most that was ever resident, as the kernel
//! tells it, must be within the bound, and near enough to it to show that it was reached.
//!
//! `TIDINGS_MEMORY_SCALE=8` makes all limits as many times as large.

#![cfg(all(target_os = "linux", feature = "cli"))]

mod common;

use std::net::SocketAddr;

use common::http::{Client, Request};
use common::program::Program;
use common::websocket::WebSocket;

const MIB: usize = 1 << 20;
const KIB: usize = 1 << 10;

#[test]
fn resident_memory_stays_within_the_printed_bound_and_comes_near_it() {
    let scale: usize = std::env::var("TIDINGS_MEMORY_SCALE").map_or(1, |text| text.parse().expect("a number"));
    let (history, intake, output) = (24 * scale * MIB, 8 * scale * MIB, 8 * scale * MIB);
    let (channels, connections, keys) = (4000 * scale, 600 * scale, 4000 * scale);
    rlimit::increase_nofile_limit((2 * connections) as u64 + 256).expect("descriptors");
    let program = Program::start(&[
        &format!("--history-bytes={history}"),
        "--history-messages=1000000000",
        &format!("--intake-bytes-max={intake}"),
        &format!("--output-bytes-max={output}"),
        &format!("--channels-max={channels}"),
        &format!("--connections-max={connections}"),
        &format!("--idempotency-keys-max={keys}"),
        "--message-bytes-max=64KiB",
        "--poll-bytes-max=128KiB",
        "--publish-bytes-per-turn-max=256KiB",
        "--head-timeout=10m",
        "--body-timeout=10m",
        "--stall-timeout=10m",
        "--ping=10m",
    ]);
    let bound = printed_bound(&program.banner);
    let start = program.resident_bytes();
    let address = program.address;

    fill_channels_and_keys(address, channels - 100, keys);
    let readers = fill_connections(address, connections / 2);
    // Whoever is to be slow has its channel before history is full of something else.
    publish(address, "big", 64 * KIB - 16);
    publish(address, "big", 64 * KIB - 16);
    let stalled = fill_output(address, output);
    let unfinished = fill_intake(address, intake);
    fill_history(address, history);

    let peak = program.peak_bytes();
    let mib = |bytes: u64| bytes as f64 / MIB as f64;
    eprintln!("resident: {:.1} MiB at the start, {:.1} at most, bound {:.1}", mib(start), mib(peak), mib(bound));
    assert!(peak <= bound, "{peak} bytes were resident, the printed bound is {bound}");
    // What cannot be filled from outside is a third of it: commands of other threads, a turn's
    // scratch, the burst, and the allocator's share.
    assert!(peak * 5 >= bound * 2, "{peak} bytes of {bound} are too few to have been the worst case");

    // It still serves, and what it cannot take it refuses.
    let answer = Request::new(address, "GET", "/channels/big?after=earliest&wait=0").send();
    assert_eq!(answer.status, 200);
    drop((readers, stalled, unfinished));
}

/// "memory: at most 123 MiB by these limits"
fn printed_bound(banner: &str) -> u64 {
    let line = banner.lines().find_map(|line| line.strip_prefix("memory: at most ")).expect("the banner has it");
    let mib: u64 = line.split(' ').next().and_then(|number| number.parse().ok()).expect("a number of MiB");
    mib << 20
}

fn publish(address: SocketAddr, channel: &str, bytes: usize) {
    let answer = Request::new(address, "POST", &format!("/channels/{channel}")).body(vec![b'x'; bytes]).send();
    assert_eq!(answer.status, 200);
}

/// One message each, under a key, all names as long as they may be.
fn fill_channels_and_keys(address: SocketAddr, channels: usize, keys: usize) {
    let mut client = Client::connect(address);
    let count = channels.max(keys);
    for batch in 0..count.div_ceil(50) {
        let range = batch * 50..count.min((batch + 1) * 50);
        for nth in range.clone() {
            let request = Request::new(address, "POST", &format!("/channels/{:0128}", nth % channels));
            client.send(request.header("Idempotency-Key", format!("{nth:0128}")).bytes());
        }
        for _ in range {
            assert_eq!(client.response("POST").status, 200);
        }
    }
}

/// Subscribers that each read 64 channels.
fn fill_connections(address: SocketAddr, count: usize) -> Vec<Client> {
    let set: Vec<String> = (0..64).map(|nth| format!("set{nth}")).collect();
    let target = format!("/channels/{}?transport=sse", set.join(","));
    let mut clients: Vec<Client> = (0..count).map(|_| Request::new(address, "GET", &target).start()).collect();
    for client in &mut clients {
        assert_eq!(client.response_head().status, 200);
    }
    clients
}

/// Polls for large answers, again and again, by clients whose kernel takes next to nothing and who
/// do not read.
fn fill_output(address: SocketAddr, output: usize) -> Vec<socket2::Socket> {
    let requests = Request::new(address, "GET", "/channels/big?after=earliest&wait=0").bytes().repeat(8);
    let mut sockets = Vec::new();
    for _ in 0..output / (100 * KIB) {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        socket.set_recv_buffer_size(2048).expect("an option of every socket");
        socket.connect(&address.into()).expect("the server listens");
        socket.send(&requests).expect("it fits");
        sockets.push(socket);
    }
    sockets
}

/// Bodies of 64 KiB, each a byte short of its end, until the server refuses one.
fn fill_intake(address: SocketAddr, intake: usize) -> Vec<Client> {
    let whole = Request::new(address, "POST", "/channels/x").body(vec![b'x'; 64 * KIB]).bytes();
    let start = || {
        let mut client = Client::connect(address);
        client.send(&whole[..whole.len() - 1]);
        client
    };
    let clients: Vec<Client> = (0..intake / (64 * KIB)).map(|_| start()).collect();
    let mut last = start();
    let answer = last.response("POST");
    assert_eq!((answer.status, answer.code().as_str()), (503, "busy"), "the budget is spent");
    clients
}

/// The smallest messages, for which the bookkeeping is everything.
fn fill_history(address: SocketAddr, history: usize) {
    const COUNTED: usize = 97;
    const FRAMES: usize = 1000;
    let mut socket = WebSocket::open(Request::new(address, "GET", "/channels/small"), &["tidings.raw"]).expect("101");
    // A frame of one byte, with a mask of nothing.
    let frames = b"\x81\x81\0\0\0\0x".repeat(FRAMES);
    for _ in 0..history.div_ceil(COUNTED * FRAMES) + 1 {
        socket.client.send(&frames);
        // It hears its own messages, and so never runs ahead.
        assert_eq!(socket.client.take(3 * FRAMES), b"\x81\x01x".repeat(FRAMES));
    }
}
