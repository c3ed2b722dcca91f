//! The contract's section "Options named here", as the program and the library show it.

#![cfg(feature = "cli")]

use std::process::{Command, Stdio};
use std::time::Duration;

/// What the program prints when asked something.
fn tidings(arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidings"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TIDINGS_")) {
        command.env_remove(name);
    }
    let output = command.args(arguments).stdin(Stdio::null()).output().expect("the program starts");
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// protocol: `--listen ADDRESS:PORT` (repeatable), `--host NAME`, `--origin ORIGIN`
/// protocol: `--publish-token T` or `T:PREFIX`, `--subscribe-token T` or `T:PREFIX`, `--token-file FILE` (each repeatable)
#[test]
fn the_options_are_there() {
    let help = tidings(&["--help"]);
    for option in [
        "--listen",
        "--host",
        "--origin",
        "--publish-token",
        "--subscribe-token",
        "--token-file",
        "--allow-anyone-to-publish",
        "--stdin",
        "--history-messages",
        "--history-bytes",
        "--history-age",
        "--message-bytes-max",
        "--poll-bytes-max",
        "--channels-max",
        "--connections-max",
        "--connections-per-address-max",
        "--heartbeat",
        "--ping",
        "--drain",
        "--drain-grace",
    ] {
        assert!(help.split_whitespace().any(|word| word == option), "{option} is not in\n{help}");
    }
    let printed =
        tidings(&["--print-config", "--listen", "127.0.0.1:1", "--listen", "[::1]:2", "--host", "a", "--host", "b"]);
    for value in ["127.0.0.1:1", "[::1]:2", "a", "b"] {
        assert!(printed.split([' ', ',', '\n']).any(|word| word == value), "{value} is not in\n{printed}");
    }
}

/// protocol: A TIME is a number of seconds or has a unit
#[test]
fn times_and_sizes_have_units() {
    for (arguments, shown) in [
        (["--ping", "90"], "ping 90s"),
        (["--ping", "15s"], "ping 15s"),
        (["--drain", "250ms"], "drain 250ms"),
        (["--history-age", "5m"], "history-age 5m"),
        (["--history-age", "1h"], "history-age 1h"),
        (["--history-bytes", "65536"], "history-bytes 64KiB"),
        (["--history-bytes", "64KiB"], "history-bytes 64KiB"),
        (["--message-bytes-max", "16MiB"], "message-bytes-max 16MiB"),
    ] {
        let printed = tidings(&["--print-config", arguments[0], arguments[1]]);
        let found = printed.lines().map(|line| line.split_whitespace().take(2).collect::<Vec<_>>().join(" "));
        assert!(found.into_iter().any(|line| line == shown), "{arguments:?}: {shown:?} is not in\n{printed}");
    }
}

/// protocol: Each has its environment variable, `TIDINGS_` and the name in capitals.
#[test]
fn each_option_has_its_variable() {
    let printed = tidings(&["--help"]);
    let ask = |name: &str, value: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_tidings"))
            .arg("--print-config")
            .env(name, value)
            .stdin(Stdio::null())
            .output()
            .expect("the program starts");
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    assert!(printed.contains("TIDINGS_"), "{printed}");
    for (option, value) in [
        ("listen", "127.0.0.1:1"),
        ("host", "a.example"),
        ("origin", "https://a.example"),
        ("stdin", "news"),
        ("history-messages", "7"),
        ("history-bytes", "7MiB"),
        ("history-age", "7m"),
        ("message-bytes-max", "7KiB"),
        ("poll-bytes-max", "7KiB"),
        ("channels-max", "7"),
        ("connections-max", "7"),
        ("connections-per-address-max", "7"),
        ("heartbeat", "7s"),
        ("ping", "7s"),
        ("drain", "7s"),
        ("drain-grace", "7s"),
    ] {
        let name = format!("TIDINGS_{}", option.to_ascii_uppercase().replace('-', "_"));
        let (good, printed) = ask(&name, value);
        let line = printed.lines().find(|line| line.split_whitespace().next() == Some(option));
        let line = line.unwrap_or_else(|| panic!("{option} is not in\n{printed}"));
        assert!(good && line.contains(value) && line.ends_with(&name), "{name}={value}: {line}");
    }
}

/// protocol: default | listens on `127.0.0.1:8080`
#[test]
fn it_listens_on_loopback_by_itself() {
    let printed = tidings(&["--print-config"]);
    let listen = printed.lines().find(|line| line.starts_with("listen ")).expect("a line for listen");
    assert_eq!(listen.split_whitespace().collect::<Vec<_>>(), ["listen", "127.0.0.1:8080", "default"]);
}

/// protocol: `--history-messages N`, `--history-bytes SIZE`, `--history-age TIME`, `--message-bytes-max SIZE`
#[test]
fn the_library_has_the_defaults_of_the_contract() {
    let config = tidings::Config::default();
    assert_eq!(config.history_messages, 1000);
    assert_eq!(config.history_bytes, 64 << 20);
    assert_eq!(config.history_age, Duration::from_secs(3600));
    assert_eq!(config.message_bytes_max, 256 << 10);
    assert_eq!(config.poll_bytes_max, 1 << 20);
    assert_eq!(config.heartbeat, Duration::from_secs(15));
    assert_eq!(config.ping, Duration::from_secs(25));
    assert_eq!(config.drain, Duration::from_secs(10));
    assert_eq!(config.drain_grace, Duration::ZERO);
    assert!(config.hosts.is_empty() && config.origins.is_empty() && !config.allow_anyone_to_publish);
}
