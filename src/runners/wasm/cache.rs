//! Compiled modules on disk, so that a restart does not compile them again.
//!
//! Compiled code runs with the rights of the server. So a file is used only if no other user can have written it, and if its
//! content has not changed since it was written. The name of a file depends on the module, and on the version and the settings
//! of the compiler.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::hash::{Hash as _, Hasher as _};
use std::io;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use siphasher::sip::SipHasher24;
use wasmtime::Module;
use wasmtime::component::Component;

use super::program::Compiled;
use crate::files::{self, read_private, require_private_directory};

const FILE_MODE: u32 = 0o600;

pub(super) struct Cache {
    directory: PathBuf,
    /// Of the compiler.
    version: u64,
    /// Names of files.
    used: Mutex<BTreeSet<String>>,
}

impl Cache {
    /// `None`, and a warning, if the directory cannot be used.
    pub(super) fn open(directory: &Path, engine: &wasmtime::Engine) -> Option<Self> {
        if let Err(error) = require_private_directory(directory) {
            let directory = directory.display();
            tracing::warn!(%error, %directory, "WebAssembly modules are compiled at each start, since there is no directory for them");
            return None;
        }
        let mut hasher = SipHasher24::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Some(Self { directory: directory.to_owned(), version: hasher.finish(), used: Mutex::default() })
    }

    /// The compiled form of a module, if it is here.
    pub(super) fn load(&self, engine: &wasmtime::Engine, binary: &[u8], is_component: bool) -> Option<Compiled> {
        let name = self.name(binary);
        let path = self.directory.join(&name);
        let loaded =
            read_private(&path).and_then(|file| deserialize(engine, &file, is_component).map_err(io::Error::other));
        match loaded {
            Ok(compiled) => {
                self.used.lock().insert(name);
                Some(compiled)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                let path = path.display();
                tracing::warn!(%error, %path, "a compiled WebAssembly module is not used; the module is compiled again");
                None
            }
        }
    }

    /// Writes the compiled form of a module, or logs why it cannot.
    pub(super) fn keep(&self, binary: &[u8], compiled: &Compiled) {
        let name = self.name(binary);
        let path = self.directory.join(&name);
        if let Err(error) = write(&path, compiled) {
            let path = path.display();
            tracing::warn!(%error, %path, "failed to keep a compiled WebAssembly module; it is compiled again at the next start");
        }
        self.used.lock().insert(name);
    }

    /// Removes the files that were not used since the last call, and drafts of a crash.
    pub(super) fn remove_unused(&self) {
        let used = std::mem::take(&mut *self.used.lock());
        let Ok(entries) = std::fs::read_dir(&self.directory) else { return };
        for entry in entries.flatten().filter(|entry| !used.contains(&*entry.file_name().to_string_lossy())) {
            // What cannot be removed now is tried again at the next start.
            let _ = std::fs::remove_file(entry.path());
        }
    }

    fn name(&self, binary: &[u8]) -> String {
        let mut name = String::new();
        for byte in digest(&SHA256, binary).as_ref() {
            let _ = write!(name, "{byte:02x}");
        }
        format!("{name}-{:016x}", self.version)
    }
}

/// The digest of the code, and the code.
fn write(path: &Path, compiled: &Compiled) -> io::Result<()> {
    let code = match compiled {
        Compiled::Module(module) => module.serialize(),
        Compiled::Component(component) => component.serialize(),
    };
    let code = code.map_err(io::Error::other)?;
    let file = [digest(&SHA256, &code).as_ref(), &code].concat();
    // A file that cannot be trusted would keep its owner and mode.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    files::replace(path, &file, FILE_MODE)
}

#[expect(unsafe_code, reason = "wasmtime cannot check compiled code")]
fn deserialize(engine: &wasmtime::Engine, file: &[u8], is_component: bool) -> wasmtime::Result<Compiled> {
    let Some((found, code)) = file.split_at_checked(SHA256_OUTPUT_LEN) else {
        return Err(wasmtime::Error::msg("it is too short"));
    };
    if found != digest(&SHA256, code).as_ref() {
        return Err(wasmtime::Error::msg("its content has changed since it was written"));
    }
    // SAFETY: the code was written by `write`: the file is private to this user, and the digest is that of the code. Wasmtime
    // itself compares its version and settings.
    let compiled = unsafe {
        if is_component {
            Compiled::Component(Component::deserialize(engine, code)?)
        } else {
            Compiled::Module(Module::deserialize(engine, code)?)
        }
    };
    Ok(compiled)
}
