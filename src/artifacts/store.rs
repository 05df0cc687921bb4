//! The object store: a directory of the server.

use std::collections::HashSet;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    GetOptions, GetResult, GetResultPayload, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
};
use parking_lot::Mutex;
use ring::digest::{Context, SHA256};
use tokio::runtime::Handle;
use tokio::sync::{OnceCell, Semaphore, mpsc};
use tokio::task::spawn_blocking;

use super::error::ArtifactError;
use super::keys;
use super::known::Known;
use super::leftovers;
use super::link::LinkKey;
use crate::files::{create_private_directory, random_name, remove_if_present, require_private_directory};
use crate::model::{ArtifactLimits, ArtifactName, Event, Namespace, TaskId};
use crate::telemetry::metrics::ArtifactCounts;

/// Bytes that are read and written at once.
const PART_BYTES: u64 = 256 << 10;
/// Files of attempts that are copied at a time: more would not make a disk faster.
const COPIES_MAX: usize = 8;
const FILE_MODE: u32 = 0o600;

pub struct Options {
    /// Created when it is first used.
    pub directory: PathBuf,
    pub limits: ArtifactLimits,
    /// Time for which artifacts are kept after the end of their task.
    pub age: Duration,
}

#[cfg(test)]
impl Options {
    /// Small limits.
    pub fn sample(directory: &std::path::Path) -> Self {
        let limits = ArtifactLimits { count: 3, file_bytes: 1 << 20, task_bytes: 3 << 19 };
        Self { directory: directory.to_owned(), limits, age: Duration::from_hours(1) }
    }
}

/// Cheap to clone; all clones are of the same store.
#[derive(Clone)]
pub struct ArtifactStore(Arc<Inner>);

struct Inner {
    options: Options,
    /// `None` until it is first used.
    objects: Mutex<Option<LocalFileSystem>>,
    /// The files that objects under way will be.
    uploading: Mutex<HashSet<PathBuf>>,
    copies: Semaphore,
    link_key: OnceCell<LinkKey>,
    known: Known,
    counts: Arc<ArtifactCounts>,
    checks: mpsc::UnboundedSender<TaskId>,
    requested_checks: Mutex<Option<mpsc::UnboundedReceiver<TaskId>>>,
}

impl fmt::Debug for ArtifactStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ArtifactStore").field(&self.0.options.directory).finish()
    }
}

impl ArtifactStore {
    pub fn new(options: Options) -> Self {
        let (checks, receiver) = mpsc::unbounded_channel();
        Self(Arc::new(Inner {
            options,
            objects: Mutex::default(),
            uploading: Mutex::default(),
            copies: Semaphore::new(COPIES_MAX),
            link_key: OnceCell::new(),
            known: Known::default(),
            counts: Arc::default(),
            checks,
            requested_checks: Mutex::new(Some(receiver)),
        }))
    }

    pub fn limits(&self) -> ArtifactLimits {
        self.0.options.limits
    }

    /// Time for which artifacts are kept after the end of their task.
    pub fn age(&self) -> Duration {
        self.0.options.age
    }

    pub fn counts(&self) -> &Arc<ArtifactCounts> {
        &self.0.counts
    }

    /// Takes note of durable events: what is not named by a task that has ended is removed.
    pub fn observe(&self, events: &[Event]) {
        for task in self.0.known.changed_by(events) {
            self.request_check(task);
        }
    }

    /// Asks for a comparison of what the store has with what the task names.
    pub(super) fn request_check(&self, task: TaskId) {
        // Fails only if the server stops; the next one looks at all objects.
        let _ = self.0.checks.send(task);
    }

    /// Objects of a task are about to be added.
    pub(super) fn expect(&self, namespace: &Namespace, task: &TaskId) {
        self.0.known.insert(namespace, task);
    }

    pub(super) fn known(&self) -> &Known {
        &self.0.known
    }

    /// For the only cleaner.
    pub(super) fn take_requested_checks(&self) -> Option<mpsc::UnboundedReceiver<TaskId>> {
        self.0.requested_checks.lock().take()
    }

    /// A new file without a name, whose space is free again once it is closed. Blocks.
    pub(super) fn new_file(&self) -> Result<File, ArtifactError> {
        let directory = self.0.options.directory.join("staging");
        new_file_in(&directory).map_err(|source| ArtifactError::Directory { path: directory, source })
    }

    /// Copies a file to the store, durably. Returns its size and its SHA-256.
    ///
    /// # Errors
    /// Also if it has more than `bytes_max`.
    pub(super) async fn put(
        &self,
        key: &Path,
        name: &ArtifactName,
        file: File,
        bytes_max: u64,
    ) -> Result<(u64, [u8; 32]), ArtifactError> {
        // The semaphore is never closed.
        let _turn = self.0.copies.acquire().await;
        let mut object = self.create(key.clone(), name, bytes_max).await?;
        let file = Arc::new(file);
        loop {
            let part = read_part(&file, name, object.bytes, PART_BYTES).await?;
            if part.is_empty() {
                return object.finish().await;
            }
            object.write(part).await?;
        }
    }

    /// Begins an object, which exists once it is finished.
    pub(super) async fn create(
        &self,
        key: Path,
        name: &ArtifactName,
        bytes_max: u64,
    ) -> Result<NewObject, ArtifactError> {
        let store = self.clone();
        // Creates the directories and waits until they are durable.
        let begun = blocking(move || {
            let objects = store.objects()?;
            let uploading = Uploading::new(&store, objects.path_to_filesystem(&key)?);
            let upload = Handle::current().block_on(objects.put_multipart(&key))?;
            Ok::<_, ArtifactError>((uploading, upload))
        });
        let (uploading, upload) = begun.await?;
        let hash = Context::new(&SHA256);
        Ok(NewObject { upload, hash, bytes: 0, bytes_max, name: name.clone(), uploading })
    }

    /// Opens a part of an artifact, which can be read to its end even if the artifact is removed meanwhile.
    ///
    /// # Errors
    /// [`ArtifactError::is_missing`] if it was removed.
    pub async fn read(
        &self,
        (namespace, task): (&Namespace, &TaskId),
        fence: u64,
        name: &ArtifactName,
        range: Range<u64>,
    ) -> Result<BoxStream<'static, Result<Bytes, ArtifactError>>, ArtifactError> {
        if range.is_empty() {
            return Ok(stream::empty().boxed());
        }
        let key = keys::of_artifact(namespace, task, fence, name);
        let part = GetOptions { range: Some(range.into()), ..GetOptions::default() };
        let GetResult { payload, range, .. } = self.objects()?.get_opts(&key, part).await?;
        Ok(match payload {
            GetResultPayload::File(file, _) => pieces(Arc::new(file), name.clone(), range).boxed(),
            GetResultPayload::Stream(pieces) => pieces.err_into().boxed(),
        })
    }

    /// The key with which links are signed.
    ///
    /// # Errors
    /// [`ArtifactError`] if it can be neither read nor made.
    pub async fn link_key(&self) -> Result<LinkKey, ArtifactError> {
        let open = async || {
            let directory = self.0.options.directory.clone();
            let opened = blocking(move || LinkKey::open(&directory).map_err(|source| (directory, source))).await;
            opened.map_err(|(path, source)| ArtifactError::Directory { path, source })
        };
        Ok(self.0.link_key.get_or_try_init(open).await?.clone())
    }

    pub(super) async fn list(&self, prefix: &Path) -> Result<Vec<ObjectMeta>, ArtifactError> {
        Ok(self.objects()?.list(Some(prefix)).try_collect().await?)
    }

    pub(super) async fn delete(&self, key: &Path) -> Result<(), ArtifactError> {
        match self.objects()?.delete(key).await {
            Err(object_store::Error::NotFound { .. }) => Ok(()),
            result => Ok(result?),
        }
    }

    /// Removes what a crash has left of unfinished uploads and files of attempts, and returns the tasks that have objects.
    pub(super) async fn find_leftovers(&self) -> io::Result<Vec<(Namespace, TaskId)>> {
        let store = self.clone();
        blocking(move || {
            let Inner { options, uploading, .. } = &*store.0;
            for file in leftovers::entries(&options.directory.join("staging"))? {
                remove_if_present(&file)?;
            }
            leftovers::find(&options.directory.join("objects"), uploading)
        })
        .await
    }

    /// Blocks at its first call.
    fn objects(&self) -> Result<LocalFileSystem, ArtifactError> {
        let mut objects = self.0.objects.lock();
        if let Some(objects) = &*objects {
            return Ok(objects.clone());
        }
        let directory = self.0.options.directory.join("objects");
        prepare(&directory).map_err(|source| ArtifactError::Directory { path: directory.clone(), source })?;
        let opened = LocalFileSystem::new_with_prefix(&directory)?.with_fsync(true).with_automatic_cleanup(true);
        Ok(objects.insert(opened).clone())
    }
}

fn new_file_in(directory: &std::path::Path) -> io::Result<File> {
    let path = directory.join(random_name()?);
    let open = || OpenOptions::new().read(true).write(true).create_new(true).mode(FILE_MODE).open(&path);
    let file = match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            create_private_directory(directory)?;
            open()?
        }
        opened => opened?,
    };
    remove_if_present(&path)?;
    Ok(file)
}

/// Creates the directory durably.
fn prepare(directory: &std::path::Path) -> io::Result<()> {
    require_private_directory(directory)?;
    directory.ancestors().skip(1).take(2).try_for_each(|ancestor| File::open(ancestor)?.sync_all())
}

/// An object that is being written. It does not exist before it is finished, and never if this is dropped.
pub(super) struct NewObject {
    upload: Box<dyn MultipartUpload>,
    hash: Context,
    bytes: u64,
    bytes_max: u64,
    name: ArtifactName,
    uploading: Uploading,
}

impl NewObject {
    pub(super) async fn write(&mut self, part: Bytes) -> Result<(), ArtifactError> {
        self.bytes += part.len() as u64;
        if self.bytes > self.bytes_max {
            return Err(ArtifactError::FileTooLarge { name: self.name.clone(), limit: self.bytes_max });
        }
        self.hash.update(&part);
        Ok(self.upload.put_part(part.into()).await?)
    }

    /// Makes the object durable. Returns its size and its SHA-256.
    pub(super) async fn finish(mut self) -> Result<(u64, [u8; 32]), ArtifactError> {
        self.upload.complete().await?;
        self.uploading.store.counts().stored.fetch_add(1, Ordering::Relaxed);
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(self.hash.finish().as_ref());
        Ok((self.bytes, sha256))
    }
}

/// Protects the file of an upload from [`leftovers::find`].
struct Uploading {
    store: ArtifactStore,
    path: PathBuf,
}

impl Uploading {
    fn new(store: &ArtifactStore, path: PathBuf) -> Self {
        store.0.uploading.lock().insert(path.clone());
        Self { store: store.clone(), path }
    }
}

impl Drop for Uploading {
    fn drop(&mut self) {
        self.store.0.uploading.lock().remove(&self.path);
    }
}

/// A part of a file, piece by piece.
fn pieces(
    file: Arc<File>,
    name: ArtifactName,
    range: Range<u64>,
) -> impl Stream<Item = Result<Bytes, ArtifactError>> + Send {
    async_stream::try_stream! {
        let mut next = range.start;
        while next < range.end {
            let piece = read_part(&file, &name, next, PART_BYTES.min(range.end - next)).await?;
            if piece.is_empty() {
                break;
            }
            next += piece.len() as u64;
            yield piece;
        }
    }
}

/// The part of a file that begins at `offset`, wherever a writer of it is; shorter than `bytes` only at its end.
async fn read_part(file: &Arc<File>, name: &ArtifactName, offset: u64, bytes: u64) -> Result<Bytes, ArtifactError> {
    let file = Arc::clone(file);
    let read = move || {
        let mut part = vec![0; usize::try_from(bytes).map_err(io::Error::other)?];
        let mut length = 0;
        while length < part.len() {
            match file.read_at(&mut part[length..], offset + length as u64) {
                Ok(0) => break,
                Ok(read) => length += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        part.truncate(length);
        Ok(part.into())
    };
    blocking(read).await.map_err(ArtifactError::io("read", name))
}

/// Runs a call that blocks outside of the threads of the runtime.
async fn blocking<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> T {
    spawn_blocking(call).await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}
