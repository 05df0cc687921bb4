//! Compiled modules on disk, so that a restart does not compile them again.
//!
//! Compiled code runs with the rights of the server. So a file is used only if no other user can have written it, and if its
//! content has not changed since it was written. The name of a file depends on the module, and on the version and the settings
//! of the compiler.

use std::hash::{Hash as _, Hasher as _};
use std::io;
use std::path::Path;

use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use siphasher::sip::SipHasher24;
use wasmtime::Module;
use wasmtime::component::Component;

use super::program::Compiled;
use crate::files::{read_private, require_private_directory};
use crate::model::ModuleDigest;
use crate::runners::kept_files::{InUse, KeptFiles};

pub(super) struct Cache {
    files: KeptFiles,
    /// Of the compiler.
    version: u64,
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
        Some(Self { files: KeptFiles::new(directory.to_owned()), version: hasher.finish() })
    }

    /// Keeps the compiled form of a module as long as the returned mark exists.
    pub(super) fn mark(&self, binary: &[u8]) -> InUse {
        self.files.mark(&self.name(binary))
    }

    /// The compiled form of a module, if it is here.
    pub(super) fn load(&self, engine: &wasmtime::Engine, binary: &[u8], is_component: bool) -> Option<Compiled> {
        let path = self.files.path(&self.name(binary));
        let loaded =
            read_private(&path).and_then(|file| deserialize(engine, &file, is_component).map_err(io::Error::other));
        match loaded {
            Ok(compiled) => Some(compiled),
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
        if let Err(error) = self.write(&name, compiled) {
            let path = self.files.path(&name);
            let path = path.display();
            tracing::warn!(%error, %path, "failed to keep a compiled WebAssembly module; it is compiled again at the next start");
        }
    }

    /// The digest of the code, and the code.
    fn write(&self, name: &str, compiled: &Compiled) -> io::Result<()> {
        let code = match compiled {
            Compiled::Module(module) => module.serialize(),
            Compiled::Component(component) => component.serialize(),
        };
        let code = code.map_err(io::Error::other)?;
        self.files.write(name, &[digest(&SHA256, &code).as_ref(), &code].concat())
    }

    /// Removes the files that are not in use.
    pub(super) fn remove_unused(&self) {
        self.files.remove_unused();
    }

    fn name(&self, binary: &[u8]) -> String {
        format!("{}-{:016x}", ModuleDigest::of(binary), self.version)
    }
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
