//! The program as its users meet it: what it prints, where, and how it ends.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The program, without any variable of ours from outside.
fn tidings(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidings"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TIDINGS_")) {
        command.env_remove(name);
    }
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn outcome(output: &Output) -> (Option<i32>, &str, &str) {
    let text = |bytes| std::str::from_utf8(bytes).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn questions_are_answered_on_standard_output() {
    for (arguments, first_line) in [
        (&["--help"][..], "tidings: a push server for long polling, Server-Sent Events and WebSocket"),
        (&["-h"], "tidings: a push server for long polling, Server-Sent Events and WebSocket"),
        (&["--version"], concat!("tidings ", env!("CARGO_PKG_VERSION"))),
        (&["-V", "--nonsense"], concat!("tidings ", env!("CARGO_PKG_VERSION"))),
        (&["--print-config"], "listen                      127.0.0.1:8080       default"),
    ] {
        let output = tidings(arguments).output().unwrap();
        let (code, stdout, stderr) = outcome(&output);
        assert_eq!((code, stdout.lines().next(), stderr), (Some(0), Some(first_line), ""), "{arguments:?}");
    }
}

#[test]
fn the_version_names_the_features() {
    let output = tidings(&["--version"]).output().unwrap();
    let features = if cfg!(feature = "deflate") { "features: cli, deflate" } else { "features: cli" };
    assert_eq!(outcome(&output).1.lines().nth(1), Some(features));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut child = tidings(&["--help"]).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(outcome(&output), (Some(0), "", ""));
}

#[test]
fn the_environment_is_read_and_shown() {
    let output = tidings(&["--print-config", "--ping=9s"]).env("TIDINGS_HISTORY_AGE", "900").output().unwrap();
    let (code, stdout, _) = outcome(&output);
    assert_eq!(code, Some(0));
    for line in [
        "history-age                 15m                  environment TIDINGS_HISTORY_AGE",
        "ping                        9s                   option --ping",
        "drain                       10s                  default",
    ] {
        assert!(stdout.lines().any(|printed| printed == line), "{line}\n{stdout}");
    }
}

#[test]
fn what_is_wrong_is_said_on_standard_error_with_code_2() {
    for (arguments, said) in [
        (&["--lisen", "127.0.0.1:0"][..], "tidings: there is no option --lisen; did you mean --listen?\n"),
        (&["--listen"], "tidings: --listen needs a value: an address or name and a port"),
        (&["--listen", "8080"], "tidings: --listen 8080: this is not right; right is an address or name and a port"),
        (&["--drain", "soon"], "tidings: --drain soon: this is not right; right is a whole number of seconds"),
        (&["serve"], "tidings: unexpected argument serve"),
        (&["--stdin", "a\nb\x1b"], "tidings: --stdin a\nb\\u{1b}: this is not right"),
        (&["--listen", "0.0.0.0:0"], "tidings: --listen 0.0.0.0:0: other hosts can reach this address"),
        (&["--print-config", "-l", "0.0.0.0:0"], "tidings: --listen 0.0.0.0:0: other hosts can reach this address"),
    ] {
        let output = tidings(arguments).output().unwrap();
        let (code, stdout, stderr) = outcome(&output);
        assert_eq!((code, stdout), (Some(2), ""), "{arguments:?}");
        assert!(stderr.starts_with(said), "{stderr}");
        assert!(stderr.ends_with("\nTry: tidings --help\n"), "{stderr}");
    }
}

#[test]
fn a_wrong_variable_is_named() {
    let output = tidings(&[]).env("TIDINGS_CONNECTIONS_MAX", "many").output().unwrap();
    let (code, _, stderr) = outcome(&output);
    assert_eq!(code, Some(2));
    assert!(stderr.starts_with("tidings: TIDINGS_CONNECTIONS_MAX=many: this is not right; right is a whole number"));
}

#[test]
fn an_address_that_cannot_be_had_is_explained_with_code_1() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    for (arguments, start, reason) in [
        (&["--listen", &taken][..], format!("tidings: cannot listen on {taken}: "), "the port is in use"),
        // RFC 6761 6.4: nobody has this name. Who only asks is told the same.
        (&["--listen", "nobody.invalid:1"], "tidings: --listen nobody.invalid:1: ".into(), "the name does not lead"),
        (
            &["--print-config", "--listen", "nobody.invalid:1"],
            "tidings: --listen nobody.invalid:1: ".into(),
            "the name does not lead",
        ),
        // RFC 5737: no host has this address.
        (
            &["--listen", "192.0.2.1:0", "--allow-anyone-to-publish"],
            "tidings: cannot listen on 192.0.2.1:0: ".into(),
            "the address is not one of this host's",
        ),
    ] {
        let output = tidings(arguments).output().unwrap();
        let (code, stdout, stderr) = outcome(&output);
        assert_eq!((code, stdout), (Some(1), ""), "{stderr}");
        assert!(stderr.contains(&format!("{start}{reason}")), "{stderr}");
    }
}

/// A running server. Whatever a test finds, it does not outlive it.
struct Running {
    child: Child,
    stderr: Option<BufReader<ChildStderr>>,
    banner: String,
}

impl Running {
    fn start(mut command: Command) -> Running {
        let mut child = command.spawn().unwrap();
        let stderr = child.stderr.take().map(BufReader::new);
        let mut running = Running { child, stderr, banner: String::new() };
        running.hear("connections: at most ");
        running
    }

    /// Reads standard error up to a line with these words.
    fn hear(&mut self, words: &str) {
        let from = self.banner.len();
        let stderr = self.stderr.as_mut().unwrap();
        while !self.banner[from..].contains(words) {
            let heard = stderr.read_line(&mut self.banner).unwrap();
            assert_ne!(heard, 0, "the program ended without {words:?}:\n{}", self.banner);
        }
    }

    fn addresses(&self) -> Vec<&str> {
        self.banner.lines().filter_map(|line| line.strip_prefix("listening on http://")).collect()
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    fn exit_code(mut self) -> Option<i32> {
        // Takes what it still says, so that it cannot block on it.
        if let Some(stderr) = &mut self.stderr {
            stderr.read_to_string(&mut self.banner).unwrap();
        }
        self.child.wait().unwrap().code()
    }

    /// One request over a connection of its own; the whole answer.
    fn ask(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.addresses()[0]).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_banner_shows_the_ports_really_bound() {
    let server = Running::start(tidings(&["--listen", "127.0.0.1:0", "--listen", "127.0.0.1:0"]));
    let addresses = server.addresses();
    assert_eq!(addresses.len(), 2, "{}", server.banner);
    assert_ne!(addresses[0], addresses[1]);
    for address in &addresses {
        TcpStream::connect(address).unwrap();
    }
    let url = format!("'http://{}/channels/news'", addresses[0]);
    assert!(server.banner.contains(&format!("curl -d 'hello' {url}\n")), "{}", server.banner);
    assert!(server.banner.contains("?transport=sse'\n"), "{}", server.banner);
}

/// protocol: Exit code 0.
#[test]
fn both_signals_end_it_with_code_0() {
    for signal in ["TERM", "INT"] {
        let mut server = Running::start(tidings(&["--listen", "127.0.0.1:0", "--drain", "0"]));
        server.signal(signal);
        server.hear(&format!("INFO  SIG{signal}: draining"));
        assert_eq!(server.exit_code(), Some(0), "{signal}");
    }
}

/// protocol: SIGTERM or SIGINT: `/readyz` turns 503; the listener stays for `--drain-grace`
/// protocol: A second signal leaves at once.
#[test]
fn a_second_signal_does_not_wait_for_the_drain() {
    // The grace keeps the server listening for an hour, with or without anybody connected.
    let mut server = Running::start(tidings(&["--listen", "127.0.0.1:0", "--drain-grace", "1h"]));
    server.signal("TERM");
    server.hear("INFO  SIGTERM: draining");
    // The line is written before the loop hears of it.
    let begin = Instant::now();
    while !server
        .ask("GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .starts_with("HTTP/1.1 503 ")
    {
        assert!(begin.elapsed() < Duration::from_secs(10), "still ready");
    }
    server.signal("INT");
    assert_eq!(server.exit_code(), Some(0));
}

/// protocol: SIGHUP without a token file to be read again begins to leave as the others do; as a second signal it means nothing.
#[cfg(unix)]
#[test]
fn a_terminal_that_is_gone_ends_it_in_good_order() {
    let mut server = Running::start(tidings(&["--listen", "127.0.0.1:0", "--drain-grace", "1h"]));
    let readyz = "GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    server.signal("HUP");
    server.hear("INFO  SIGHUP: draining");
    let begin = Instant::now();
    while !server.ask(readyz).starts_with("HTTP/1.1 503 ") {
        assert!(begin.elapsed() < Duration::from_secs(10), "still ready");
    }
    // The shell says it, and the system too.
    server.signal("HUP");
    assert!(server.ask(readyz).contains("draining"));
    server.signal("TERM");
    server.hear("INFO  SIGTERM: leaving at once");
    assert_eq!(server.exit_code(), Some(0));

    let server = Running::start(tidings(&["--listen", "127.0.0.1:0", "--drain", "0"]));
    server.signal("HUP");
    assert_eq!(server.exit_code(), Some(0));
}

/// nohup(1) starts it with SIGHUP ignored, so that it stays.
#[cfg(target_os = "linux")]
#[test]
fn a_hangup_that_was_ignored_stays_so() {
    let mut command = Command::new("sh");
    let start = concat!("trap '' HUP; exec ", env!("CARGO_BIN_EXE_tidings"), " --listen 127.0.0.1:0 --drain 0");
    command.args(["-c", start]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut server = Running::start(command);
    server.signal("HUP");
    assert!(server.ask("GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").contains("ready\n"));
    server.signal("TERM");
    server.hear("INFO  SIGTERM: draining");
    assert!(!server.banner.contains("SIGHUP"), "{}", server.banner);
    assert_eq!(server.exit_code(), Some(0));
}

/// Whoever starts it on a free port learns the port by them.
#[test]
fn without_a_log_there_are_the_first_lines_and_no_more() {
    let mut command = tidings(&["--log", "off", "--listen", "127.0.0.1:0", "--host", "push.example.com"]);
    command.env("TIDINGS_NONSENSE", "x");
    let mut server = Running::start(command);
    assert!(server.banner.starts_with("tidings "), "{}", server.banner);
    server.signal("TERM");
    let mut rest = String::new();
    server.stderr.as_mut().unwrap().read_to_string(&mut rest).unwrap();
    assert!(!rest.contains("WARN") && !rest.contains("INFO"), "{rest}");
    assert_eq!(server.exit_code(), Some(0));
}

#[test]
fn lines_of_standard_input_are_published_and_serving_goes_on() {
    let mut command = tidings(&["--listen", "127.0.0.1:0", "--stdin", "log", "--message-bytes-max", "8"]);
    command.stdin(Stdio::piped());
    let mut server = Running::start(command);
    assert!(server.banner.contains("each line of standard input goes to the channel log\n"));
    let mut input = server.child.stdin.take().unwrap();
    input.write_all(b"one\r\nmuch too long\nb\xff\nlast").unwrap();
    drop(input);
    server.hear("line 2: 13 bytes, the limit is 8: skipped");
    server.hear("standard input has ended; lines: 4, published: 3; serving goes on");

    let answer =
        server.ask("GET /channels/log?after=earliest&wait=0 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let data: Vec<&str> = ["\"data\":\"one\"", "\"base64\":\"Yv8=\"", "\"data\":\"last\""].into();
    let places: Vec<Option<usize>> = data.iter().map(|data| answer.find(data)).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{answer}");
    assert_eq!(answer.matches("\"id\":").count(), 3, "{answer}");
}

#[test]
fn a_variable_without_an_option_is_worth_a_line() {
    let mut command = tidings(&["--listen", "127.0.0.1:0"]);
    // What Kubernetes sets beside a service of our name.
    command.env("TIDINGS_HISTROY_MESSAGES", "5").env("TIDINGS_PORT_80_TCP", "x").env("TIDINGS_SERVICE_HOST", "x");
    let server = Running::start(command);
    let line = "WARN  the variable TIDINGS_HISTROY_MESSAGES is not an option's, it has no effect; did you mean \
                TIDINGS_HISTORY_MESSAGES?\n";
    assert!(server.banner.starts_with(line), "{}", server.banner);
    assert_eq!(server.banner.matches("WARN").count(), 1, "{}", server.banner);
    let output = tidings(&["--print-config"]).env("TIDINGS_HISTROY_MESSAGES", "5").output().unwrap();
    assert_eq!((outcome(&output).0, outcome(&output).2), (Some(0), line));
}

/// Behind a proxy everybody comes from this host.
#[test]
fn a_name_that_others_use_and_no_token_is_worth_a_line() {
    let token = ["--publish-token", "t"];
    for (arguments, warned) in [
        (&["--host", "push.example.com"][..], true),
        (&["--host", "push.example.com", "--subscribe-token", "t"], true),
        (&["--host", "push.example.com", token[0], token[1]], false),
        (&["--host", "push.example.com", "--allow-anyone-to-publish"], false),
        (&["--host", "app.localhost", "--host", "[::1]"], false),
        (&[], false),
    ] {
        let line = "WARN  --host push.example.com: behind a proxy everybody counts as this host, so anyone may publish: \
                    set a token with --token-file, or add --allow-anyone-to-publish if that is meant\n";
        let output = tidings(&["--print-config"]).args(arguments).output().unwrap();
        assert_eq!(outcome(&output).2, if warned { line } else { "" }, "{arguments:?}");
        let server = Running::start({
            let mut command = tidings(&["--listen", "127.0.0.1:0"]);
            command.args(arguments);
            command
        });
        assert_eq!(server.banner.starts_with(line), warned, "{}", server.banner);
    }
}

/// `--print-config` and the banner say the same of a server that has fewer descriptors than were asked for.
#[cfg(target_os = "linux")]
#[test]
fn what_is_shown_is_what_will_hold() {
    let limited = |arguments: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit -n 300 && exec {} {arguments}", env!("CARGO_BIN_EXE_tidings"))]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    for (option, source) in [("", "default: 100000"), ("--connections-max 237", "option --connections-max: 237")] {
        let output = limited(&format!("--print-config {option}")).output().unwrap();
        let (code, printed, _) = outcome(&output);
        let line = format!(
            "connections-max             236                  {source}, but descriptors allow no more (ulimit -Hn)"
        );
        assert!(code == Some(0) && printed.lines().any(|printed| printed == line), "{printed}");
        let mut server = Running::start(limited(&format!("--listen 127.0.0.1:0 {option}")));
        server.hear("memory: at most ");
        let bound = |text: &str, before: &str| {
            let rest = text.split(before).nth(1).and_then(|rest| rest.split_whitespace().next());
            rest.unwrap().parse::<u64>().unwrap()
        };
        assert_eq!(bound(&server.banner, "memory: at most "), bound(printed, "# memory, at most "));
        let connections = format!(
            "connections: at most 236; descriptors: 300, the hard limit (ulimit -Hn), too few for connections-max {}\n",
            source.rsplit(' ').next().unwrap()
        );
        assert!(server.banner.contains(&connections), "{}", server.banner);
    }
    let output = limited("--print-config --connections-max 236").output().unwrap();
    let line = "connections-max             236                  option --connections-max";
    assert!(outcome(&output).1.lines().any(|printed| printed == line));
}

#[test]
fn it_serves_although_nobody_hears_it() {
    let mut server = Running::start(tidings(&["--listen", "127.0.0.1:0", "--drain", "0", "--log", "trace"]));
    // Standard error is a pipe without a reader now: every line of the log fails.
    server.stderr = None;
    TcpStream::connect(server.addresses()[0]).unwrap();
    server.signal("TERM");
    assert_eq!(server.exit_code(), Some(0));
}

// Tokens.

/// A token file of this test's own.
fn token_file(name: &str, lines: &str) -> String {
    let path = format!("{}/{}-{name}", env!("CARGO_TARGET_TMPDIR"), std::process::id());
    std::fs::write(&path, lines).unwrap();
    chmod("600", &path);
    path
}

fn chmod(mode: &str, path: &str) {
    assert!(Command::new("chmod").args([mode, path]).status().unwrap().success());
}

/// protocol: One that cannot be read, has another line or no token at all: no start.
#[test]
fn a_token_that_is_none_stops_the_start() {
    let rule = "the token must have 1 to 128 bytes of A-Z a-z 0-9 - . _ ~\n";
    for (name, lines, said) in [
        ("broken", "publish good\n\npublish s3cret/ \n", format!("line 3: {rule}")),
        ("word", "s3cret\n", "line 1: the line must begin with publish or subscribe, or with #".into()),
        ("long", "publish s3cret a b\n", "line 1: the line must be publish TOKEN, subscribe TOKEN".into()),
        ("prefix", "subscribe s3cret news.*\n", "line 1: the prefix must be the beginning of channel names".into()),
        ("empty", "", "there is no token in it\n".into()),
        ("comments", "# publish s3cret\n", "there is no token in it\n".into()),
    ] {
        let path = token_file(name, lines);
        for ask in [&["--listen", "127.0.0.1:0"][..], &["--print-config"]] {
            let output = tidings(ask).args(["--token-file", &path]).output().unwrap();
            let (code, stdout, stderr) = outcome(&output);
            assert_eq!((code, stdout), (Some(2), ""), "{stderr}");
            assert!(stderr.starts_with(&format!("tidings: --token-file {path}: {said}")), "{stderr}");
            assert!(!stderr.contains("s3cret"), "{stderr}");
        }
    }
    let missing = format!("{}/there-is-no-such-file", env!("CARGO_TARGET_TMPDIR"));
    for path in [&missing, env!("CARGO_TARGET_TMPDIR"), "/dev/null"] {
        let output = tidings(&["--listen", "127.0.0.1:0", "--token-file", path]).output().unwrap();
        let (code, _, stderr) = outcome(&output);
        assert_eq!(code, Some(2));
        assert!(stderr.starts_with(&format!("tidings: --token-file {path}: it cannot be read: ")), "{stderr}");
    }

    let right = "right is 1 to 128 bytes of A-Z a-z 0-9 - . _ ~, and perhaps a colon and how channel names begin";
    for (arguments, said) in [
        (&["--publish-token", "s3cret word"][..], format!("--publish-token ***: this is not right; {right}")),
        (&["--publish-token=s3cret:"], format!("--publish-token ***: this is not right; {right}")),
        (&["--subscribe-token", "s3cret:*"], format!("--subscribe-token ***: this is not right; {right}")),
        (&["--subscribe-token", ""], format!("--subscribe-token ***: this is not right; {right}")),
        (&["--publish-token", "a", "s3cret"], "unexpected argument behind a token; give the option again".into()),
    ] {
        let output = tidings(arguments).output().unwrap();
        let (code, stdout, stderr) = outcome(&output);
        assert_eq!((code, stdout), (Some(2), ""), "{stderr}");
        assert!(stderr.starts_with(&format!("tidings: {said}")), "{stderr}");
        assert!(!stderr.contains("s3cret"), "{stderr}");
    }
    let output = tidings(&[]).env("TIDINGS_PUBLISH_TOKEN", "good,s3cret!").output().unwrap();
    assert!(outcome(&output).2.starts_with("tidings: TIDINGS_PUBLISH_TOKEN=***: this is not right"));
}

#[test]
fn the_configuration_is_shown_without_its_tokens() {
    let mut command = tidings(&["--print-config", "--subscribe-token", "s3cret", "--subscribe-token", "s3cret:news."]);
    let output = command.env("TIDINGS_PUBLISH_TOKEN", "s3cret-too, s3cret-as-well:a").output().unwrap();
    let (code, stdout, stderr) = outcome(&output);
    assert_eq!((code, stderr), (Some(0), ""));
    for line in [
        "publish-token               ***,***:a            environment TIDINGS_PUBLISH_TOKEN",
        "subscribe-token             ***,***:news.        option --subscribe-token",
        "token-file                  -                    default",
    ] {
        assert!(stdout.lines().any(|printed| printed == line), "{line}\n{stdout}");
    }
    assert!(!stdout.contains("s3cret"), "{stdout}");
}

/// One request, and the status of its answer.
fn status(server: &Running, request: &str, token: &str) -> String {
    let answer = server.ask(&format!(
        "{request} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nContent-Length: 0\r\n\
         Connection: close\r\n\r\n"
    ));
    answer.get(9..12).unwrap_or_default().to_owned()
}

/// protocol: token files | lines `publish TOKEN [PREFIX]` and `subscribe TOKEN [PREFIX]`; `#` begins a word that is a comment with all behind it.
/// protocol: SIGHUP reads them again; if that fails, all tokens stay as they were.
#[cfg(unix)]
#[test]
fn token_files_are_read_again_at_sighup() {
    let path = token_file("reload", "# tokens\npublish s3cret-a news. # who\r\n\tsubscribe  s3cret-b\n");
    let arguments = ["--listen", "127.0.0.1:0", "--drain", "0", "--log", "trace", "--publish-token", "s3cret-option"];
    let mut server = Running::start({
        let mut command = tidings(&arguments);
        command.args(["--token-file", &path]);
        command
    });
    let statuses = |server: &Running| {
        ["s3cret-a", "s3cret-b", "s3cret-c", "s3cret-option"].map(|token| {
            let requests = ["POST /channels/news.1", "POST /channels/other", "GET /channels/other?wait=0"];
            requests.map(|request| status(server, request, token)).join(" ")
        })
    };
    let before = ["200 403 403", "403 403 200", "403 403 403", "200 200 200"];
    assert_eq!(statuses(&server), before);
    let mut stream = TcpStream::connect(server.addresses()[0]).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(b"GET /channels/other?transport=sse&token=s3cret-b HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut heard = [0; 4096];
    assert!(stream.read(&mut heard).unwrap() > 0);

    for (lines, said) in [
        ("", "there is no token in it"),
        ("publish s3cret-a\npublish s3cret-c s3cret-d s3cret-e\n", "line 2: the line must be publish TOKEN"),
    ] {
        std::fs::write(&path, lines).unwrap();
        server.signal("HUP");
        server.hear(&format!("ERROR SIGHUP: the tokens stay as they were: --token-file {path}: {said}"));
        assert_eq!(statuses(&server), before);
    }
    std::fs::remove_file(&path).unwrap();
    server.signal("HUP");
    server.hear(&format!("ERROR SIGHUP: the tokens stay as they were: --token-file {path}: it cannot be read"));
    assert_eq!(statuses(&server), before);

    std::fs::write(&path, "publish s3cret-a\nsubscribe s3cret-c o").unwrap();
    chmod("604", &path);
    server.signal("HUP");
    server.hear(&format!("WARN  the token file {path} can be read or changed by every user of this host"));
    server.hear("INFO  tokens: 2 to publish, 1 to subscribe; connections that have lost their right and end: 1");
    assert_eq!(statuses(&server), ["200 200 200", "403 403 403", "403 403 200", "200 200 200"]);
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert!(rest.ends_with("0\r\n\r\n"), "the stream was ended in good order: {rest:?}");

    server.signal("TERM");
    server.hear("INFO  SIGTERM: draining");
    if let Some(stderr) = &mut server.stderr {
        stderr.read_to_string(&mut server.banner).unwrap();
    }
    assert!(!server.banner.contains("s3cret"), "{}", server.banner);
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn a_token_opens_the_door_to_other_hosts() {
    let server = Running::start(tidings(&["--listen", "0.0.0.0:0", "--publish-token", "t"]));
    assert_eq!(status(&server, "POST /channels/a", "t"), "200");
    assert_eq!(status(&server, "POST /channels/a", "x"), "403");
    let output = tidings(&["--listen", "0.0.0.0:0", "--subscribe-token", "t"]).output().unwrap();
    let (code, _, stderr) = outcome(&output);
    assert_eq!(code, Some(2));
    assert!(stderr.contains("Set a token with --token-file or --publish-token"), "{stderr}");
}

#[test]
fn a_host_may_be_an_address_in_brackets() {
    let server = Running::start(tidings(&["--listen", "127.0.0.1:0", "--host", "[2001:db8::1]"]));
    let ask = |host: &str| server.ask(&format!("GET /healthz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"));
    assert!(ask("[2001:db8::1]:8080").starts_with("HTTP/1.1 200 "));
    assert!(ask("[2001:db8::2]").starts_with("HTTP/1.1 421 "));
    let output = tidings(&["--listen", "127.0.0.1:0", "--host", "2001:db8::1"]).output().unwrap();
    assert!(outcome(&output).2.starts_with("tidings: --host 2001:db8::1: this is not right; right is a host name"));
}
