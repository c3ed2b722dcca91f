//! The tokens of options and files: read at the start, and the files again at each SIGHUP.
//!
//! Fails closed: what cannot be read or understood stops the start, and at a reload leaves the
//! server with the tokens it has. No message shows a token; it says in which line of which file.

use std::fs::{File, Metadata};
use std::io::{self, Read};

use tidings::Tokens;

use super::options::Settings;
use super::values::Secret;

/// Where tokens come from.
#[derive(Clone, Debug)]
pub(crate) struct Sources {
    publish: Vec<Secret>,
    subscribe: Vec<Secret>,
    files: Vec<String>,
}

impl Sources {
    pub(crate) fn of(settings: &Settings) -> Sources {
        Sources {
            publish: settings.publish_tokens.clone(),
            subscribe: settings.subscribe_tokens.clone(),
            files: settings.token_files.clone(),
        }
    }

    /// False if reading again could bring nothing new.
    pub(crate) fn can_change(&self) -> bool {
        !self.files.is_empty()
    }

    /// All tokens as they are now; or which option or file is wrong, and why.
    pub(crate) fn read(&self) -> Result<Tokens, String> {
        let mut tokens = Tokens::default();
        for secret in &self.publish {
            let (token, prefix) = secret.token();
            tokens.allow_publish(token, prefix).map_err(|error| format!("--publish-token: {error}"))?;
        }
        for secret in &self.subscribe {
            let (token, prefix) = secret.token();
            tokens.allow_subscribe(token, prefix).map_err(|error| format!("--subscribe-token: {error}"))?;
        }
        for file in &self.files {
            let text = read(file).map_err(|error| format!("--token-file {file}: it cannot be read: {error}"))?;
            tokens.allow_lines(&text).map_err(|error| format!("--token-file {file}: {error}"))?;
        }
        Ok(tokens)
    }
}

/// Ten thousand lines of two names and a word each, and as much in comments.
const FILE_BYTES_MAX: u64 = 8 << 20;

fn read(path: &str) -> io::Result<Vec<u8>> {
    // To open a pipe might wait for ever, and signals would go unheard.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if metadata.len() > FILE_BYTES_MAX {
        return Err(io::Error::other("it has more than 8 MiB"));
    }
    if is_open_to_others(&metadata) {
        log::warn!("the token file {path} can be read or changed by every user of this host: chmod o= {path}");
    }
    let mut text = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut text)?;
    Ok(text)
}

#[cfg(unix)]
fn is_open_to_others(metadata: &Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    metadata.permissions().mode() & 0o006 != 0
}

#[cfg(not(unix))]
fn is_open_to_others(_: &Metadata) -> bool {
    false
}
