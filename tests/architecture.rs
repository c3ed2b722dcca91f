//! What stands on what: the arrows and the absences of `ARCHITECTURE.md`, read from `src/`.
//!
//! The files are read as text. Comments and tests are left out: a test may name what it likes.
//! Every exception below stands with its reason, and one that is not needed any more fails.

use std::fs;
use std::path::Path;

/// The house from its face to its ground. A module may name what stands in a lower row, never
/// what stands above it or beside it.
const LAYERS: &[&[&str]] = &[
    &["server"],
    &["event_loop"],
    &["engine"],
    &["metrics"],
    &["app"],
    &["connection", "hub", "route", "commands", "pages"],
    &["form"],
    &["protocol"],
    &["names", "text", "gap", "message"],
    &["error", "config"],
    &["cursor", "rights", "slab", "buffer", "deadlines", "os"],
];

/// What a module must not name although it stands below, each with what would be lost.
const ABSENCES: &[(&str, &[&str], &str)] = &[
    ("hub", &["protocol", "form", "config", "os"], "the hub speaks of messages, channels, cursors, subscriber keys"),
    ("connection", &["cursor", "message", "gap", "names", "os"], "a connection turns bytes into events, and is told"),
    ("event_loop", &["protocol", "form", "connection", "hub"], "the loop asks the engine what to do"),
    ("form", &["os", "config", "deadlines", "slab", "buffer"], "a form is a pure function of a message"),
    ("route", &["os", "deadlines", "message", "slab"], "an action is a pure function of a head and the policy"),
    ("protocol", &["os", "config", "deadlines", "slab", "names"], "wire formats are bytes to values and back"),
];

/// Words by which a file would reach for the system: sockets, clocks, randomness, files, threads.
/// `HashMap` is among them, for its order is random in each run.
const SYSTEM: &[&str] = &[
    "mio",
    "socket2",
    "std::net",
    "core::net",
    "std::fs",
    "std::env",
    "std::process",
    "std::thread",
    "Instant",
    "SystemTime",
    "RandomState",
    "HashMap",
    "HashSet",
];

/// Who may say such a word besides `src/os.rs`, and the whole line it stands in.
const SYSTEM_EXCEPTIONS: &[(&str, &str, &str)] = &[
    (
        "server.rs",
        "use std::net::{SocketAddr, TcpListener, ToSocketAddrs};",
        "it binds; the listeners are the system's",
    ),
    ("server.rs", "let socket = socket2::Socket::new(", "it binds, with the options that only a new socket takes"),
    ("server.rs", "socket2::Domain::for_address(address),", "as above"),
    ("server.rs", "socket2::Type::STREAM,", "as above"),
    ("server.rs", "Some(socket2::Protocol::TCP),", "as above"),
    ("protocol/http/uri.rs", "use core::net::Ipv6Addr;", "an address as text, no socket"),
];

#[test]
fn arrows_point_down() {
    let mut wrong = Vec::new();
    for file in library() {
        let Some(row) = row_of(&file.module) else { continue };
        for named in file.names_of_crate().filter(|named| *named != file.module) {
            match row_of(named) {
                Some(below) if below > row => {}
                Some(_) => wrong.push(format!("src/{} names {named}, which does not stand below it", file.path)),
                None => wrong.push(format!("src/{} names {named}, which has no place in LAYERS", file.path)),
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn what_must_not_be_named_is_not() {
    for (module, absent, why) in ABSENCES {
        let files: Vec<Source> = library().into_iter().filter(|file| file.module == *module).collect();
        assert!(!files.is_empty(), "{module} is a module");
        for file in files {
            let named = file.names_of_crate().find(|named| absent.contains(named));
            assert_eq!(named, None, "src/{}: {why}", file.path);
        }
    }
}

#[test]
fn only_os_touches_the_system() {
    let mut used = vec![false; SYSTEM_EXCEPTIONS.len()];
    for file in library().iter().filter(|file| file.path != "os.rs") {
        for line in file.code.lines().filter(|line| SYSTEM.iter().any(|word| has_word(line, word))) {
            let is_exception = |(path, allowed, _): &(&str, &str, &str)| *path == file.path && *allowed == line.trim();
            match SYSTEM_EXCEPTIONS.iter().position(is_exception) {
                Some(nth) => used[nth] = true,
                None => panic!("src/{}: time, randomness and sockets come in through Os: {line}", file.path),
            }
        }
    }
    for ((path, line, _), used) in SYSTEM_EXCEPTIONS.iter().zip(used) {
        assert!(used, "an exception that nobody needs: src/{path}: {line}");
    }
}

/// Whoever adds one shall first ask who would implement it besides its first user.
#[test]
fn the_only_traits_are_os_and_app() {
    let mut traits = Vec::new();
    for file in library() {
        traits.extend(file.code.lines().filter(|line| has_word(line, "trait")).map(|line| line.trim().to_owned()));
    }
    assert_eq!(traits, ["pub trait App: Send {", "pub trait Os {"]);
}

/// The engine owns everything and keys refer, so nothing is counted or borrowed at run time.
#[test]
fn nothing_is_shared_within_the_thread() {
    for file in library() {
        for word in ["Rc", "RefCell", "thread_local", "unsafe"] {
            let line = file.code.lines().find(|line| has_word(line, word) && !line.contains("forbid"));
            assert_eq!(line, None, "src/{}", file.path);
        }
    }
}

#[test]
fn the_program_is_an_embedder_like_any_other() {
    for file in sources().iter().filter(|file| file.is_of_the_program()) {
        let named = file.names_of_crate().find(|named| *named != "cli");
        assert_eq!(named, None, "src/{}", file.path);
        assert!(!has_word(&file.code, "internals"), "src/{}: `internals` is for tests", file.path);
        for word in ["TcpListener", "TcpStream", "UdpSocket", "mio"] {
            assert!(!has_word(&file.code, word), "src/{}: {word}", file.path);
        }
    }
}

/// `lib.rs` declares the modules in reading order, the ground first.
#[test]
fn lib_declares_each_module_after_those_it_names() {
    let files = library();
    let lib = files.iter().find(|file| file.path == "lib.rs").expect("the root");
    let declared: Vec<&str> =
        lib.code.lines().filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';')).collect();
    let all: Vec<&str> = LAYERS.concat();
    assert_eq!(sorted(&declared), sorted(&all), "LAYERS has every module, once");
    let place = |module: &str| declared.iter().position(|name| *name == module).expect("declared");
    for file in files.iter().filter(|file| file.path != "lib.rs") {
        for named in file.names_of_crate().filter(|named| *named != file.module) {
            assert!(place(named) < place(&file.module), "{named} is declared before {}", file.module);
        }
    }
}

/// The map is of use only if it is whole.
#[test]
fn the_map_names_every_file() {
    let map = read(&root().join("ARCHITECTURE.md"));
    for file in sources() {
        assert!(map.contains(&format!("`{}`", file.path)), "ARCHITECTURE.md does not name src/{}", file.path);
    }
    let mut mapped = map.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`')).map(|(path, _)| path);
    let lost = mapped.find(|path| path.ends_with(".rs") && !root().join("src").join(path).exists());
    assert_eq!(lost, None, "ARCHITECTURE.md names a file that is gone");
}

/// A bound without its line in the page of limits is a bound that no operator knows.
#[test]
fn every_bound_of_the_configuration_is_documented() {
    let page = read(&root().join("docs/limits.md"));
    let config = read(&root().join("src/config.rs"));
    let fields = config.lines().filter_map(|line| line.strip_prefix("    pub ")?.split_once(": "));
    let fields = fields.filter(|(name, _)| !name.contains(' '));
    let names: Vec<String> = fields.map(|(name, _)| name.replace('_', "-")).collect();
    assert!(names.contains(&"history-bytes".to_owned()), "the fields are found: {names:?}");
    // Rules, not bounds.
    let is_bound = |name: &&String| {
        !matches!(name.as_str(), "hosts" | "origins" | "tokens" | "allow-anyone-to-publish" | "log-connections")
    };
    for name in names.iter().filter(is_bound) {
        assert!(page.contains(&format!("`{name}`")), "docs/limits.md does not name {name}");
    }
}

/// One file of `src/`, without comments and tests.
struct Source {
    /// Below `src/`.
    path: String,
    /// The module of the crate's root it belongs to.
    module: String,
    code: String,
}

impl Source {
    fn is_of_the_program(&self) -> bool {
        self.module == "main" || self.module == "cli"
    }

    /// The modules of the root that the file names by `crate::`.
    fn names_of_crate(&self) -> impl Iterator<Item = &str> {
        self.code
            .match_indices("crate::")
            .map(|(at, start)| {
                let rest = &self.code[at + start.len()..];
                let end = rest.find(|c: char| !is_word_char(c)).unwrap_or(rest.len());
                assert!(end > 0, "src/{}: name one module by each `crate::`, so that it can be read", self.path);
                &rest[..end]
            })
            // `crate::Config` names the public face.
            .filter(|name| name.starts_with(|c: char| c.is_ascii_lowercase()))
    }
}

fn row_of(module: &str) -> Option<usize> {
    LAYERS.iter().position(|row| row.contains(&module))
}

/// The files of the library.
fn library() -> Vec<Source> {
    sources().into_iter().filter(|file| !file.is_of_the_program()).collect()
}

/// All files but those that hold tests only.
fn sources() -> Vec<Source> {
    let mut files = Vec::new();
    collect(&root().join("src"), "", &mut files);
    files.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(files.iter().any(|file| file.path == "hub/log.rs"), "the files are found");
    files
}

fn collect(folder: &Path, prefix: &str, files: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).expect("a folder of src") {
        let entry = entry.expect("readable").path();
        let name = entry.file_name().expect("named").to_str().expect("ASCII");
        let path = format!("{prefix}{name}");
        if name == "tests" || name == "tests.rs" {
            continue;
        } else if entry.is_dir() {
            collect(&entry, &format!("{path}/"), files);
        } else if let Some(stem) = path.strip_suffix(".rs") {
            let module = stem.split('/').next().unwrap_or(stem).to_owned();
            files.push(Source { code: code(&read(&entry)), path, module });
        }
    }
}

/// The lines of a file that are neither comments nor tests. Tests come last in a file.
fn code(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let mut code = String::new();
    for (nth, line) in lines.iter().enumerate() {
        if line.starts_with("#[cfg(test)]") && lines.get(nth + 1).is_some_and(|next| next.ends_with("mod tests {")) {
            break;
        }
        let line = line.split(" // ").next().unwrap_or(line);
        if !line.trim_start().starts_with("//") {
            code.push_str(line);
            code.push('\n');
        }
    }
    code
}

/// True if the word stands in the text, not as a part of a longer one, and not as a name's last
/// part behind a dot.
fn has_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        !before.is_some_and(|c| is_word_char(c) || c == '.') && !after.is_some_and(is_word_char)
    })
}

fn is_word_char(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn sorted<'a>(names: &[&'a str]) -> Vec<&'a str> {
    let mut names = names.to_vec();
    names.sort_unstable();
    names
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

#[test]
fn words_and_code_are_told_from_what_only_looks_so() {
    for (text, word, want) in [
        ("use std::net::TcpListener;", "std::net", true),
        ("let mio = 1", "mio", true),
        ("mionic", "mio", false),
        ("a_mio", "mio", false),
        ("self.mio", "mio", false),
        ("Instant::now()", "Instant", true),
        ("InstantNoodles", "Instant", false),
    ] {
        assert_eq!(has_word(text, word), want, "{text}");
    }
    let text = "//! crate::hub\nuse crate::slab; // crate::os\n#[cfg(test)]\nmod tests;\nfn f() {}\n#[cfg(test)]\nmod tests {\nuse mio;\n}\n";
    assert_eq!(code(text), "use crate::slab;\n#[cfg(test)]\nmod tests;\nfn f() {}\n");
}
