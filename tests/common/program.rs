//! The program itself, where memory, descriptors or processor time are to be measured: the clients'
//! would count in this process. Numbers come from proc(5).

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};

pub struct Program {
    pub address: SocketAddr,
    /// What it said at its start, up to the last line of the banner.
    pub banner: String,
    child: Child,
}

impl Program {
    pub fn start(arguments: &[&str]) -> Program {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tidings"))
            .args(["--listen", "127.0.0.1:0"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut stderr = BufReader::new(child.stderr.take().expect("a pipe"));
        let mut banner = String::new();
        while !banner.contains("\nmemory: ") {
            let read = stderr.read_line(&mut banner).expect("UTF-8");
            assert!(read > 0, "it ended: {banner}");
        }
        // What else it says nobody reads; it must not block for that.
        std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
        let address = banner.lines().find_map(|line| line.strip_prefix("listening on http://")?.parse().ok());
        Program { address: address.expect("the program tells its address"), banner, child }
    }

    /// All of them, if it was told to listen in other places too.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let lines = self.banner.lines().filter_map(|line| line.strip_prefix("listening on http://"));
        lines.map(|address| address.parse().expect("an address")).collect()
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to leave, by SIGTERM, and waits until it has; how it ended.
    pub fn leave(mut self) -> ExitStatus {
        self.signal("TERM");
        self.child.wait().expect("it is a child of ours")
    }

    /// Sends it a signal, by kill(1).
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status();
        assert!(sent.expect("kill(1)").success());
    }

    /// Returns when its main thread sleeps (`S`), as it does only in its wait, or is stopped (`T`).
    pub fn wait_for_state(&self, state: char) {
        let begin = std::time::Instant::now();
        loop {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("it runs");
            if stat.rsplit_once(") ").is_some_and(|(_, fields)| fields.starts_with(state)) {
                return;
            }
            assert!(begin.elapsed() < super::PATIENCE, "waited in vain for {state}: {stat}");
            std::thread::yield_now();
        }
    }

    /// What the kernel says that the program has in memory.
    pub fn resident_bytes(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// The most that it ever was.
    pub fn peak_bytes(&self) -> u64 {
        self.status("VmHWM:")
    }

    fn status(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("proc(5) has it");
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
        kib * 1024
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
