//! The whole server over a kernel made of memory, with virtual time.

#[path = "../kernel/mod.rs"]
mod kernel;

use std::sync::Arc;
use std::time::Duration;

use kernel::{Kernel, Wire};
use tidings::Publication;
use tidings::internals::{Command, Commands, Config, EventLoop, Parts};

use super::clients::{self, Frames, Head, Part, Responses};
use super::{Input, in_every_way};

/// Small bounds, so that an input of some hundred bytes reaches them.
fn config() -> Config {
    let mut config = Config::default();
    config.history_messages = 3;
    config.history_bytes = 2000;
    config.message_bytes_max = 300;
    config.poll_bytes_max = 600;
    config.head_bytes_max = 1024;
    config.channels_max = 6;
    config.connections_max = 6;
    config.idempotency_keys_max = 3;
    config.intake_bytes_max = 8000;
    config.output_bytes_max = 8000;
    config.deflate_bytes_min = 30;
    config.drain = Duration::from_secs(2);
    config
}

fn server() -> (EventLoop<Kernel>, Arc<Commands>) {
    let commands = Arc::new(Commands::new(8, 4000, Box::new(|| {})));
    let parts = Parts { commands: Arc::clone(&commands), ..Parts::default() };
    let server = EventLoop::new(Kernel::new(1), config(), parts).expect("the configuration's names are names");
    (server, commands)
}

/// Turns until nothing is left to do at this moment. The work is bounded: nothing here asks for a
/// thousand turns.
fn settle(server: &mut EventLoop<Kernel>) {
    for _ in 0..1000 {
        let turn = server.turn(Some(Duration::ZERO)).expect("the kernel has no faults");
        if !turn.more || turn.stopped {
            return;
        }
    }
    panic!("a thousand turns, and still something is left over");
}

/// One connection is told the same however its bytes come. In the end the client ends, and then
/// the server lets go of the connection.
pub fn connection(input: &[u8]) {
    in_every_way(&input[..input.len().min(2048)], |pieces| {
        let (mut server, _) = server();
        let wire = server.os().connect_reliably();
        settle(&mut server);
        let mut told = Vec::new();
        for piece in pieces {
            server.os().send(wire, piece);
            settle(&mut server);
            told.extend(server.os().receive(wire, usize::MAX));
        }
        server.check_invariants();
        server.os().half_close(wire);
        for _ in 0..1000 {
            settle(&mut server);
            told.extend(server.os().receive(wire, usize::MAX));
            if server.os().is_released(wire) {
                break;
            }
            server.turn(Some(Duration::from_secs(10))).expect("the kernel has no faults");
        }
        server.check_invariants();
        assert!(server.os().is_released(wire), "an ended connection is let go");
        assert_eq!(server.os().leaked(), None);
        comparable(&told)
    });
}

/// What is told however the bytes come: each answer up to the first refusal, and of that the status
/// and the body. Whether the connection goes on after it depends on whether the body had come that
/// it refuses; `100 Continue` comes only if it had not; and what a WebSocket is told depends on
/// which of its messages came in one turn.
fn comparable(told: &[u8]) -> Vec<String> {
    let mut responses = Responses::default();
    responses.receive(told);
    let mut out = Vec::new();
    let mut status = 0;
    // The body of an answer to HEAD is not there although its head tells of one: what follows is
    // read in its place. It is compared all the same, but for what follows a refusal.
    while let Ok(Some(part)) = responses.next_part() {
        match part {
            Part::Head(head) => {
                status = head.status;
                match status {
                    100 => {}
                    101 => return out,
                    102..400 => out.push(format!("{status} {:?}", head.headers)),
                    _ => out.push(status.to_string()),
                }
            }
            Part::Body(bytes) if status >= 400 && bytes.starts_with(b"HTTP/1.1 ") => return out,
            Part::Body(bytes) => out.push(String::from_utf8_lossy(&bytes).into_owned()),
            Part::End if status >= 400 => return out,
            Part::End => {}
        }
    }
    out
}

/// The input is a script for a few clients, a publisher within the process, and the clock.
/// Whatever they do, every turn leaves the books in order, and when all clients have ended, the
/// server holds no connection.
pub fn script(input: &[u8]) {
    let mut script = Input(input);
    let (mut server, commands) = server();
    server.os().send_buffer = 64 << (script.number(4) * 3);
    let mut clients: Vec<Client> = Vec::new();
    for _ in 0..200 {
        if script.is_over() {
            break;
        }
        step(&mut script, &mut server, &commands, &mut clients);
        let turn = server.turn(Some(Duration::ZERO)).expect("the kernel has no faults");
        server.check_invariants();
        if turn.stopped {
            return;
        }
    }
    for client in &mut clients {
        client.read(server.os(), usize::MAX);
        server.os().close_client(client.wire);
    }
    for _ in 0..1000 {
        if clients.iter().all(|client| server.os_ref().is_released(client.wire)) {
            return;
        }
        let turn = server.turn(Some(Duration::from_secs(1))).expect("the kernel has no faults");
        server.check_invariants();
        if turn.stopped {
            return;
        }
    }
    panic!("a client has gone, and the server holds its connection");
}

/// One line of the script.
fn step(script: &mut Input<'_>, server: &mut EventLoop<Kernel>, commands: &Commands, clients: &mut Vec<Client>) {
    let step = script.number(16);
    if clients.is_empty() || (step == 0 && clients.len() < 10) {
        clients.push(Client::new(server.os().connect()));
        return;
    }
    let nth = script.number(clients.len());
    let client = &mut clients[nth];
    match step {
        1 => client.send(server.os(), script.some()),
        2..=4 => client.send(server.os(), &request(script)),
        5..=6 => {
            let first = script.byte();
            let mut payload = script.some().to_vec();
            if first & 0x70 == clients::COMPRESSED {
                payload = clients::deflate::deflate(&payload, payload.len() % clients::deflate::WAYS);
            }
            let mut frame = clients::client_frame(clients::BINARY, &payload);
            frame[0] = first;
            client.send(server.os(), &frame);
        }
        7 => client.read(server.os(), script.byte().into()),
        8 => client.read(server.os(), usize::MAX),
        9 => server.os().half_close(client.wire),
        10 => server.os().close_client(client.wire),
        11 => server.os().reset(client.wire),
        12..=13 => {
            let time = Duration::from_millis(u64::from(script.byte()).pow(2));
            server.turn(Some(time)).expect("the kernel has no faults");
            server.check_invariants();
        }
        14 => {
            let channel = ["a", "b", "c,d", ""][script.number(4)].to_owned();
            // Full is an answer too.
            let _ = commands.push(Command::Publish(channel, Publication::from(script.some()), None));
        }
        _ if script.byte() == b'!' => server.drain(),
        _ => settle(server),
    }
}

/// A request that is understood, so that a script gets behind the first check.
fn request(script: &mut Input<'_>) -> Vec<u8> {
    let set = ["a", "b", "a,b", "c"][script.number(4)];
    let sse = "Accept: text/event-stream\r\n";
    let narrow = clients::Offer { window_bits: Some(9) };
    match script.number(14) {
        0 => clients::get(set, "", ""),
        1 => clients::get(set, "?wait=0&after=earliest", ""),
        2 => clients::get(set, "?wait=1&format=raw&after=earliest", ""),
        3 => clients::get(set, "", sse),
        4 => clients::get(set, "?format=json&after=earliest", sse),
        5 => clients::get(set, "?transport=sse", "Last-Event-ID: 1-1\r\n"),
        6 => clients::upgrade(set, "?after=earliest", None),
        7 => clients::upgrade(set, "", Some("tidings.v1")),
        8 => clients::upgrade(set, "", Some("tidings.raw")),
        9 => format!("DELETE /channels/{set} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes(),
        10 => clients::post(set, "?event=e", "Idempotency-Key: k\r\n", script.some()),
        12 => clients::upgrade_with(set, "?after=earliest", None, Some(clients::Offer { window_bits: None })),
        13 => clients::upgrade_with(set, "", Some("tidings.raw"), Some(narrow)),
        _ => clients::post(set, "", "", script.some()),
    }
}

/// What a client sends and is told. As long as its answers can be read without its requests, they
/// are: responses by RFC 9112, and frames behind a 101.
struct Client {
    wire: Wire,
    readable: bool,
    responses: Responses,
    frames: Option<Frames>,
}

impl Client {
    fn new(wire: Wire) -> Client {
        Client { wire, readable: true, responses: Responses::default(), frames: None }
    }

    fn send(&mut self, kernel: &mut Kernel, bytes: &[u8]) {
        kernel.send(self.wire, bytes);
        // The answer to HEAD has a length and no body.
        let has = |word: &[u8]| bytes.windows(word.len()).any(|window| window == word);
        self.readable &= !has(b"HE") && !has(b"AD");
    }

    fn read(&mut self, kernel: &mut Kernel, bytes_max: usize) {
        let bytes = kernel.receive(self.wire, bytes_max);
        if !self.readable {
            return;
        }
        self.responses.receive(&bytes);
        while let Some(part) = self.responses.next_part().expect("a response by RFC 9112") {
            match (part, &mut self.frames) {
                (Part::Head(head), _) if head.status == 101 => self.frames = Some(frames(&head)),
                (Part::Body(bytes), Some(frames)) => {
                    frames.receive(&bytes);
                    while frames.next_frame().expect("a frame by RFC 6455").is_some() {}
                }
                _ => {}
            }
        }
    }
}

/// A reader of what is sent behind this 101: compressed only if that was agreed, in its window.
fn frames(head: &Head) -> Frames {
    let Some(agreed) = head.header("Sec-WebSocket-Extensions") else { return Frames::default() };
    let bits = agreed.split_once("server_max_window_bits=").map_or("15", |(_, bits)| bits);
    Frames::agreed(1 << bits.parse::<u32>().expect("a number, and nothing behind it"))
}
