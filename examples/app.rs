//! The embedder's say: who may come in and who that is, a route of one's own, and what inbound
//! messages become.
//!
//!     cargo run --example app
//!     curl -H 'X-User: ann' -d 'hello' http://127.0.0.1:8080/channels/room
//!     curl http://127.0.0.1:8080/about

use tidings::{Access, App, Config, Inbound, Operation, Reaction, Request, Response, Server, Transport};

/// Who may speak. The place is a guest's number; the first is whoever said no name of these.
const GUESTS: [&str; 4] = ["nobody", "ann", "ben", "cleo"];

/// A house whose rooms are open to all, and where guests speak by their names.
#[derive(Default)]
struct House {
    /// Channels that are read, each counted for each who reads it.
    readers: usize,
}

impl App for House {
    fn authorize(&mut self, request: &Request<'_>, operation: Operation, _channels: &[&str]) -> Access {
        let name = request.header("X-User");
        let number = GUESTS.iter().position(|guest| name == Some(guest.as_bytes())).unwrap_or(0);
        match (operation, number) {
            (Operation::Delete, _) => Access::Deny("nobody throws messages away".into()),
            (Operation::Publish, 0) => Access::Deny("say who you are: X-User".into()),
            (_, number) => Access::AllowAs(number as u64),
        }
    }

    /// Over `tidings.v1`: who reads one room may read another.
    fn authorize_command(&mut self, _user: u64, operation: Operation, _channels: &[&str]) -> Access {
        match operation {
            Operation::Subscribe => Access::Allow,
            _ => Access::Deny("say it in plain messages, on a connection to one room".into()),
        }
    }

    fn request(&mut self, request: &Request<'_>) -> Option<Response> {
        (request.path() == "/about").then(|| Response::new("text/plain", format!("readers: {}\n", self.readers)))
    }

    fn message(&mut self, message: &Inbound<'_>) -> Reaction {
        match (message.payload, message.channels) {
            (b"ping", _) => Reaction::Reply(b"pong".to_vec()),
            (b"bye", _) => Reaction::Close(1000, "see you".into()),
            (shout, _) if message.binary => Reaction::PublishTo("noise".into(), shout.into()),
            (text, [room]) => {
                let name = GUESTS[message.user as usize].as_bytes();
                Reaction::PublishTo((*room).into(), [name, b": ", text].concat().into())
            }
            _ => Reaction::Close(1008, "which room? open a connection to one".into()),
        }
    }

    fn subscribed(&mut self, _user: u64, channels: &[&str], _transport: Transport) {
        self.readers += channels.len();
    }

    fn unsubscribed(&mut self, _user: u64, channels: &[&str], _transport: Transport) {
        self.readers -= channels.len();
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".into());
    let server = Server::bind_app(address, Config::default(), |_| House::default())?;
    println!("listening on http://{}", server.local_addrs()[0]);
    Ok(server.run()?)
}
