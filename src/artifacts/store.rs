//! The object store, and the files of attempts on their way to it.

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt, TryStreamExt};
use hashbrown::HashMap;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{GetOptions, GetResult, GetResultPayload, ObjectMeta, ObjectStore, ObjectStoreExt};
use parking_lot::Mutex;
use tokio::sync::{OnceCell, Semaphore, SemaphorePermit, mpsc};

use super::error::ArtifactError;
use super::file::Budget;
use super::keys;
use super::known::Known;
use super::leftovers::{self, Leftovers};
use super::link::LinkKey;
use super::object::{Complete, NewObject, PART_BYTES, Uploading, blocking};
use super::s3::{self, Bucket};
use super::staged::StagedFile;
use crate::files::require_private_directory;
use crate::model::{ArtifactLimits, ArtifactName, Event, Namespace, StoreId, TaskId};
use crate::telemetry::metrics::ArtifactCounts;

/// Files of attempts that are copied at a time: more would not make a disk faster.
const COPIES_MAX: usize = 8;
/// The directory of all objects.
const OBJECTS: &str = "objects";

pub struct Options {
    /// Created when it is first used.
    pub directory: PathBuf,
    /// Where the objects are; `None`: in the directory.
    pub bucket: Option<Bucket>,
    pub limits: ArtifactLimits,
    /// Time for which artifacts are kept after the end of their task.
    pub age: Duration,
}

#[cfg(test)]
impl Options {
    /// Small limits.
    pub fn sample(directory: &std::path::Path) -> Self {
        let limits = ArtifactLimits { count: 3, file_bytes: 1 << 20, task_bytes: 3 << 19 };
        Self { directory: directory.to_owned(), bucket: None, limits, age: Duration::from_hours(1) }
    }
}

/// Cheap to clone; all clones are of the same store.
#[derive(Clone)]
pub struct ArtifactStore(Arc<Inner>);

struct Inner {
    options: Options,
    /// `None` until it is first used.
    objects: Mutex<Option<Arc<dyn ObjectStore>>>,
    store_id: OnceLock<StoreId>,
    uploading: Uploading,
    /// By the prefix of the attempt.
    budgets: Mutex<HashMap<Path, Weak<Budget>>>,
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
            store_id: OnceLock::new(),
            uploading: Uploading::default(),
            budgets: Mutex::default(),
            copies: Semaphore::new(COPIES_MAX),
            link_key: OnceCell::new(),
            known: Known::default(),
            counts: Arc::default(),
            checks,
            requested_checks: Mutex::new(Some(receiver)),
        }))
    }

    /// The tasks whose artifacts these are. A bucket can have those of several servers, and each removes its own only.
    pub fn belongs_to(&self, store_id: StoreId) {
        self.0.store_id.get_or_init(|| store_id);
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
    pub(super) fn new_file(&self) -> Result<StagedFile, ArtifactError> {
        let directory = self.0.options.directory.join("staging");
        let created = StagedFile::create(&directory, self.0.options.bucket.is_some());
        created.map_err(|source| ArtifactError::Directory { path: directory, source })
    }

    /// Waits for the turn to store a file of an attempt.
    pub(super) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        // The semaphore is never closed.
        self.0.copies.acquire().await.ok()
    }

    /// Makes a file of this server an object, durably. Returns its size and its SHA-256.
    pub(super) async fn keep(
        &self,
        key: &Path,
        name: &ArtifactName,
        file: StagedFile,
    ) -> Result<(u64, [u8; 32]), ArtifactError> {
        let bytes = file.bytes();
        let file = if file.is_linkable() {
            match self.link(key, name, file).await? {
                Ok(sha256) => return Ok((bytes, sha256)),
                Err(file) => file,
            }
        } else {
            file
        };
        let object = self.create_upload(key.clone(), name, bytes).await?;
        // It is an upload, which does not come here again.
        Box::pin(self.fill(object, name, file.into_file())).await
    }

    /// Gives a file the name of an object, and returns its SHA-256. It comes back if it must be copied.
    async fn link(
        &self,
        key: &Path,
        name: &ArtifactName,
        file: StagedFile,
    ) -> Result<Result<[u8; 32], StagedFile>, ArtifactError> {
        self.objects().await?;
        let failed = ArtifactError::io("store", name);
        // First, because it takes long, and nothing must be left of an attempt that is stopped meanwhile.
        let file = blocking(move || file.sync().map(|()| file)).await.map_err(&failed)?;
        let path = self.0.options.directory.join(OBJECTS).join(key.as_ref());
        let uploading = self.0.uploading.guard(key.clone());
        let link = move || {
            let _uploading = uploading;
            if let Err(error) = file.link(&path) {
                tracing::info!(path = %path.display(), %error, "failed to move a file into the object store; copying it");
                return Ok(Err(file));
            }
            file.sync_name(&path).map(|()| Ok(file.sha256()))
        };
        let linked = blocking(link).await.map_err(failed)?;
        if linked.is_ok() {
            self.counts().stored.fetch_add(1, Ordering::Relaxed);
        }
        Ok(linked)
    }

    /// Copies a file to the store, durably. Returns its size and its SHA-256.
    ///
    /// # Errors
    /// Also if it has more than `bytes_max`.
    pub(super) async fn copy(
        &self,
        key: &Path,
        name: &ArtifactName,
        file: File,
        bytes_max: u64,
    ) -> Result<(u64, [u8; 32]), ArtifactError> {
        self.fill(self.create(key.clone(), name, bytes_max).await?, name, file).await
    }

    async fn fill(
        &self,
        mut object: NewObject,
        name: &ArtifactName,
        file: File,
    ) -> Result<(u64, [u8; 32]), ArtifactError> {
        let file = Arc::new(file);
        loop {
            let part = read_part(&file, name, object.bytes(), PART_BYTES).await?;
            if part.is_empty() {
                return self.finish(object).await;
            }
            object.write(part).await?;
        }
    }

    /// Makes an object durable. Returns its size and its SHA-256.
    pub(super) async fn finish(&self, object: NewObject) -> Result<(u64, [u8; 32]), ArtifactError> {
        match object.complete().await? {
            Complete::File { key, name, file } => self.keep(&key, &name, file).await,
            Complete::Upload { bytes, sha256 } => {
                self.counts().stored.fetch_add(1, Ordering::Relaxed);
                Ok((bytes, sha256))
            }
        }
    }

    /// Begins an object, which exists once it is finished.
    pub(super) async fn create(
        &self,
        key: Path,
        name: &ArtifactName,
        bytes_max: u64,
    ) -> Result<NewObject, ArtifactError> {
        if self.0.options.bucket.is_none() {
            let store = self.clone();
            let file = blocking(move || store.new_file()).await?;
            if file.is_linkable() {
                return Ok(NewObject::staged(key, name.clone(), bytes_max, file));
            }
        }
        self.create_upload(key, name, bytes_max).await
    }

    async fn create_upload(&self, key: Path, name: &ArtifactName, bytes_max: u64) -> Result<NewObject, ArtifactError> {
        let part_bytes = match self.0.options.bucket {
            Some(_) => s3::part_bytes(bytes_max),
            None => PART_BYTES,
        };
        let target = (self.objects().await?, part_bytes);
        let uploading = self.0.uploading.guard(key.clone());
        Ok(NewObject::upload(key, name.clone(), bytes_max, target, uploading))
    }

    /// The bytes of an attempt, which its uploads that are under way share; `used` are those of its objects.
    pub(super) fn budget(&self, attempt: Path, used: u64) -> Arc<Budget> {
        let mut budgets = self.0.budgets.lock();
        budgets.retain(|_, budget| budget.strong_count() > 0);
        if let Some(budget) = budgets.get(&attempt).and_then(Weak::upgrade) {
            return budget;
        }
        let budget = Arc::new(Budget::new(self.limits(), used));
        budgets.insert(attempt, Arc::downgrade(&budget));
        budget
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
        let GetResult { payload, range, .. } = self.objects().await?.get_opts(&key, part).await?;
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
        Ok(self.objects().await?.list(Some(prefix)).try_collect().await?)
    }

    pub(super) async fn delete(&self, key: &Path) -> Result<(), ArtifactError> {
        match self.objects().await?.delete(key).await {
            Err(object_store::Error::NotFound { .. }) => Ok(()),
            result => Ok(result?),
        }
    }

    /// Removes what a crash has left of unfinished uploads and files of attempts, and finds the tasks that have objects.
    pub(super) async fn find_leftovers(&self) -> Leftovers {
        let store = self.clone();
        let mut found = blocking(move || {
            let Inner { options, uploading, .. } = &*store.0;
            let mut found = Leftovers::default();
            found.remove_staged(&options.directory.join("staging"));
            found.find(&options.directory.join(OBJECTS), uploading);
            found
        })
        .await;
        if let Some(bucket) = &self.0.options.bucket {
            match self.list_tasks().await {
                Ok(tasks) => found.tasks = tasks,
                Err(error) => found.skip(bucket, error),
            }
        }
        found
    }

    async fn list_tasks(&self) -> Result<Vec<(Namespace, TaskId)>, ArtifactError> {
        Ok(leftovers::list(&*self.objects().await?).await?)
    }

    pub(super) async fn objects(&self) -> Result<Arc<dyn ObjectStore>, ArtifactError> {
        if let Some(objects) = &*self.0.objects.lock() {
            return Ok(Arc::clone(objects));
        }
        let store = self.clone();
        blocking(move || {
            let mut objects = store.0.objects.lock();
            if let Some(objects) = &*objects {
                return Ok(Arc::clone(objects));
            }
            Ok(Arc::clone(objects.insert(store.open()?)))
        })
        .await
    }

    /// Blocks.
    fn open(&self) -> Result<Arc<dyn ObjectStore>, ArtifactError> {
        let Options { directory, bucket, .. } = &self.0.options;
        if let Some(bucket) = bucket {
            // A test has no store.
            let StoreId(number) = self.0.store_id.get().copied().unwrap_or(StoreId(0));
            return Ok(s3::open(bucket, &format!("{number:016x}"))?);
        }
        let directory = directory.join(OBJECTS);
        prepare(&directory).map_err(|source| ArtifactError::Directory { path: directory.clone(), source })?;
        let opened = LocalFileSystem::new_with_prefix(&directory)?;
        Ok(Arc::new(opened.with_fsync(true).with_automatic_cleanup(true)))
    }
}

/// Creates the directory durably.
fn prepare(directory: &std::path::Path) -> io::Result<()> {
    require_private_directory(directory)?;
    directory.ancestors().skip(1).take(2).try_for_each(|ancestor| File::open(ancestor)?.sync_all())
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
