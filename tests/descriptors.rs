//! The program at the end of its descriptors: who comes is told so, who is there is served, and a
//! place that comes free is given away.

#![cfg(all(target_os = "linux", feature = "cli"))]

mod common;

use common::http::{Client, Request};
use common::program::Program;

/// The program sets some aside, so that its own limit of connections comes first. Here somebody
/// takes descriptors from it while it runs.
const DESCRIPTORS: u64 = 64;

/// protocol: Who comes when the system has no descriptor left is answered 503 `too_many_connections` unread.
#[test]
fn who_comes_when_descriptors_are_spent_is_told_and_the_next_is_served() {
    let program = Program::start(&["--drain", "0"]);
    let process = i32::try_from(program.id()).expect("a process id");
    let limit = Some((DESCRIPTORS, DESCRIPTORS));
    rlimit::prlimit(process, rlimit::Resource::NOFILE, limit, None).expect("a limit may be lowered");

    let request = Request::new(program.address, "GET", "/healthz");
    let mut kept: Vec<Client> = Vec::new();
    loop {
        let mut client = request.start();
        let answer = client.response("GET");
        if answer.status == 503 {
            break;
        }
        assert_eq!(answer.status, 200);
        kept.push(client);
    }
    assert!((30..DESCRIPTORS as usize).contains(&kept.len()), "{} connections in {DESCRIPTORS}", kept.len());

    // A hundred wait at the same time; each has its answer, whole, and the end.
    let mut late: Vec<Client> = (0..100).map(|_| request.start()).collect();
    for client in &mut late {
        let answer = client.response("GET");
        assert_eq!((answer.status, answer.code().as_str()), (503, "too_many_connections"));
        assert!(answer.header("Retry-After").is_some() && answer.lists("Connection", "close"), "{answer:?}");
        client.assert_closed();
    }
    for client in &mut kept {
        client.send(request.bytes());
        assert_eq!(client.response("GET").status, 200, "who is there is served");
    }

    // As many as leave may come, once the server has seen them leave.
    drop(kept.split_off(20));
    let begin = std::time::Instant::now();
    while request.send().status != 200 {
        assert!(begin.elapsed() < common::PATIENCE, "a place is free");
    }
    assert_eq!(program.leave().code(), Some(0));
}
