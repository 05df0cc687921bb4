//! System calls that the standard library and rustix lack. All `unsafe` code of the runners is here.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::fs::Metadata;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::process::{DumpableBehavior, Pid, geteuid, set_dumpable_behavior, setsid};

use super::account::{Account, drop_capabilities};
use super::limits::Limits;

/// How a process ended and what it used.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exit {
    pub(super) status: ExitStatus,
    pub(super) cpu_time: Duration,
    /// Largest resident set size; `None` if it cannot be distinguished from that of the shim.
    pub(super) peak_memory_bytes: Option<u64>,
}

/// Reaps a child, or any child. Unless `wait` is set, returns `None` while it is running.
///
/// # Errors
/// `ECHILD` if there is no such child.
#[expect(unsafe_code, reason = "only wait4 returns the usage of a single child")]
pub(super) fn reap(child: Option<Pid>, wait: bool) -> io::Result<Option<(Pid, Exit)>> {
    let mut status = 0;
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    let options = if wait { 0 } else { libc::WNOHANG };
    let pid = child.map_or(-1, |child| child.as_raw_nonzero().get());
    let found = loop {
        // SAFETY: both pointers are to live locals of the right types.
        let found = unsafe { libc::wait4(pid, &raw mut status, options, usage.as_mut_ptr()) };
        if found >= 0 {
            break found;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    };
    // SAFETY: zeroed is a valid rusage.
    let usage = unsafe { usage.assume_init() };
    let exit = Exit {
        status: ExitStatus::from_raw(status),
        cpu_time: time(usage.ru_utime) + time(usage.ru_stime),
        peak_memory_bytes: peak_above_own(usage.ru_maxrss),
    };
    Ok(Pid::from_raw(found).map(|pid| (pid, exit)))
}

fn time(time: libc::timeval) -> Duration {
    let micros = u32::try_from(time.tv_usec).unwrap_or(0);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), micros * 1_000)
}

/// A child starts with the memory of its parent, which the kernel counts into the child's peak. So the peak
/// describes the child only if it is above the parent's own.
#[expect(unsafe_code, reason = "rustix has no getrusage")]
fn peak_above_own(peak_kib: libc::c_long) -> Option<u64> {
    let mut own = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the pointer is to a live local of the right type; zeroed is a valid rusage.
    let own = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, own.as_mut_ptr());
        own.assume_init()
    };
    (peak_kib > own.ru_maxrss).then(|| u64::try_from(peak_kib).unwrap_or(0) * 1024)
}

/// What [`Spawner::spawn`] starts.
pub(super) struct Program<'a> {
    pub(super) path: &'a CStr,
    /// Without the name of the program, which is its path.
    pub(super) args: &'a [&'a CStr],
    pub(super) env: &'a [&'a CStr],
    pub(super) directory: &'a CStr,
    pub(super) stdio: [BorrowedFd<'a>; 3],
    /// They become the files 3 and 4, and must have higher numbers in this process.
    pub(super) reports: Option<[BorrowedFd<'a>; 2]>,
    pub(super) limits: Limits,
    /// Added to the niceness of this process.
    pub(super) nice: u8,
    /// `None`: that of this process.
    pub(super) account: Option<Account>,
}

/// Starts programs without copying this process: until it has become the program, the child uses the memory of this
/// process, which waits for that. `posix_spawn` does the same, but makes over a hundred system calls to reset signals,
/// and sets no limits.
pub(super) struct Spawner {
    /// The stack of the child. Signals that this process catches may be handled on it.
    stack: Box<[u128]>,
}

/// 64 KiB.
const STACK_WORDS: usize = 4 * 1024;

impl Spawner {
    pub(super) fn new() -> Self {
        Self { stack: vec![0; STACK_WORDS].into_boxed_slice() }
    }

    /// Starts a program as the leader of a session and a process group of its own, with default dispositions and an
    /// empty mask of signals. It inherits the three files, which must not be standard files of this process, and
    /// those that are not closed on exec.
    ///
    /// # Errors
    /// As the system calls.
    #[expect(unsafe_code, reason = "the standard library starts programs more slowly")]
    pub(super) fn spawn(&mut self, program: &Program<'_>) -> io::Result<Pid> {
        let pointers = |first: Option<&CStr>, rest: &[&CStr]| -> Vec<*const c_char> {
            let all = first.into_iter().chain(rest.iter().copied()).map(CStr::as_ptr);
            all.chain([std::ptr::null()]).collect()
        };
        let argv = pointers(Some(program.path), program.args);
        let env = pointers(None, program.env);
        let mut child = Child { program, argv: &argv, env: &env, error: 0 };
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        // SAFETY: the child has its own stack, whose top is aligned, and makes system calls only. Until it has become
        // the program or exited this thread, the only one of this process, waits, so all that it uses is live, and only
        // it writes to `child`.
        let pid = unsafe {
            let top = self.stack.as_mut_ptr_range().end.cast::<c_void>();
            libc::clone(become_program, top, flags, (&raw mut child).cast())
        };
        if pid < 0 {
            return Err(io::Error::last_os_error());
        }
        if program.account.is_some() {
            // The child has shared the memory of this process when it has changed its user, which may undo it.
            let _ = hide_process();
        }
        let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidData)?;
        if child.error == 0 {
            return Ok(pid);
        }
        let _ = reap(Some(pid), true);
        Err(io::Error::from_raw_os_error(child.error))
    }
}

struct Child<'a> {
    program: &'a Program<'a>,
    argv: &'a [*const c_char],
    env: &'a [*const c_char],
    /// Why it has not become the program.
    error: c_int,
}

/// The main function of a child. It shares its memory with its parent, so it makes system calls only.
extern "C" fn become_program(child: *mut c_void) -> c_int {
    // SAFETY: `Spawner::spawn` passes a live `Child` that nothing else uses meanwhile.
    #[expect(unsafe_code, reason = "the C library passes a pointer")]
    let child = unsafe { &mut *child.cast::<Child<'_>>() };
    let Err(error) = child.exec();
    // Without a number only if there was no system call.
    child.error = error.raw_os_error().unwrap_or(libc::EINVAL);
    1
}

impl Child<'_> {
    #[expect(unsafe_code, reason = "the standard library and rustix have neither dispositions nor exec")]
    fn exec(&self) -> io::Result<std::convert::Infallible> {
        let Program { path, directory, stdio: [stdin, stdout, stderr], reports, limits, nice, account, .. } =
            self.program;
        // The one signal that this process ignores.
        // SAFETY: SIG_DFL installs no code. The child has its own dispositions.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
        unblock_signals();
        setsid()?;
        rustix::stdio::dup2_stdin(stdin)?;
        rustix::stdio::dup2_stdout(stdout)?;
        rustix::stdio::dup2_stderr(stderr)?;
        for (number, file) in (3..).zip(reports.iter().flatten()) {
            // SAFETY: the file is open; what had the number before is of no use to the program.
            if unsafe { libc::dup2(file.as_raw_fd(), number) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        limits.set()?;
        if *nice > 0 {
            rustix::process::nice((*nice).into())?;
        }
        if let Some(account) = account {
            account.assume()?;
        }
        drop_capabilities()?;
        // As the new user, who may enter other directories than the server.
        rustix::process::chdir(*directory)?;
        // SAFETY: the path ends with a zero byte, and the arrays of such texts with a null pointer.
        unsafe { libc::execve(path.as_ptr(), self.argv.as_ptr(), self.env.as_ptr()) };
        Err(io::Error::last_os_error())
    }
}

/// Runs `prepare` in the child, between fork and exec.
///
/// `prepare` must make system calls only: no allocation, no locks. Callers pass rustix calls, which
/// are bare system calls on Linux.
#[expect(unsafe_code, reason = "the only way to run code between fork and exec")]
pub(super) fn before_exec(command: &mut Command, prepare: impl FnMut() -> io::Result<()> + Send + Sync + 'static) {
    // SAFETY: as documented, `prepare` is async-signal-safe.
    unsafe { command.pre_exec(prepare) };
}

/// Prevents other processes of this user from reading the environment, the memory and the open files of this process, and
/// from debugging it. The copies that it makes of itself are hidden, too; a program that is executed is not.
///
/// # Errors
/// As the system call.
pub(super) fn hide_process() -> io::Result<()> {
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// Lets the calling thread use files as another user, until it is dropped.
pub(super) struct FileRights {
    before: (c_int, c_int),
}

impl FileRights {
    /// Without the capabilities for it, nothing changes, and calls fail as they did before.
    #[expect(unsafe_code, reason = "rustix has no setfsuid")]
    pub(super) fn of(account: Account) -> Self {
        // SAFETY: the calls have no preconditions. The group is changed first, as long as the user is allowed to.
        let gid = unsafe { libc::setfsgid(account.gid) };
        // SAFETY: as above.
        let uid = unsafe { libc::setfsuid(account.uid) };
        Self { before: (uid, gid) }
    }

    /// The rights of the owner, unless that is this user.
    pub(super) fn of_owner(file: &Metadata) -> Option<Self> {
        let account = Account { uid: file.uid(), gid: file.gid() };
        (account.uid != geteuid().as_raw()).then(|| Self::of(account))
    }
}

impl Drop for FileRights {
    #[expect(unsafe_code, reason = "rustix has no setfsuid")]
    fn drop(&mut self) {
        let (uid, gid) = self.before;
        // SAFETY: the calls have no preconditions.
        unsafe {
            libc::setfsuid(uid.cast_unsigned());
            libc::setfsgid(gid.cast_unsigned());
        }
        // A change of the user may undo it.
        let _ = hide_process();
    }
}

/// Prevents children from inheriting the files that the server was started with. The standard library
/// already does so for the files that the server opens.
#[expect(unsafe_code, reason = "rustix has no close_range")]
pub(super) fn close_inherited_files_on_exec() -> io::Result<()> {
    // SAFETY: only sets a flag on open files; nothing is closed.
    match unsafe { libc::close_range(3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC.cast_signed()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Gives this process, and so all that it starts, the default disposition of each signal that it was started with
/// as ignored, and an empty signal mask. SIGPIPE stays ignored here; the standard library resets it in children.
#[expect(unsafe_code, reason = "the standard library and rustix have no signal dispositions")]
pub(super) fn reset_signals() {
    for signal in (1..=libc::SIGRTMAX()).filter(|signal| *signal != libc::SIGPIPE) {
        let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: the pointers are to live locals or null, zeroed is a valid sigaction, and SIG_DFL installs no code.
        // The call fails for the two signals that the C library reserves for itself.
        unsafe {
            let found = libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr());
            if found == 0 && action.assume_init_ref().sa_sigaction == libc::SIG_IGN {
                libc::signal(signal, libc::SIG_DFL);
            }
        }
    }
    unblock_signals();
}

/// Empties the signal mask of the calling thread, and so of the threads and processes that it starts.
pub(super) fn unblock_signals() {
    set_signal_mask(None);
}

#[expect(unsafe_code, reason = "the standard library and rustix have no signal mask")]
fn set_signal_mask(blocked: Option<c_int>) {
    let mut mask = std::mem::MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: the pointers are to a live local, which `sigemptyset` initializes, or null.
    unsafe {
        libc::sigemptyset(mask.as_mut_ptr());
        if let Some(signal) = blocked {
            libc::sigaddset(mask.as_mut_ptr(), signal);
        }
        libc::sigprocmask(libc::SIG_SETMASK, mask.as_ptr(), std::ptr::null_mut());
    }
}

/// Gives the signals that stop a server no effect on this process; for the supervisor. They are caught instead of
/// ignored, because programs inherit ignored signals, but not handlers.
pub(super) fn catch_stop_signals() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT] {
        catch(signal);
    }
}

/// Lets [`wait`] return when a child exits, and only there.
pub(super) fn catch_child_exits() {
    catch(libc::SIGCHLD);
    set_signal_mask(Some(libc::SIGCHLD));
}

#[expect(unsafe_code, reason = "the standard library and rustix cannot install a signal handler")]
fn catch(signal: c_int) {
    extern "C" fn no_effect(_: c_int) {}
    // SAFETY: the handler does nothing, so it is async-signal-safe.
    unsafe { libc::signal(signal, no_effect as extern "C" fn(c_int) as libc::sighandler_t) };
}

/// A file and what [`wait`] waits for on it; nothing without a file.
pub(super) type Source<'a> = (Option<BorrowedFd<'a>>, PollFlags);

/// Waits until a source is ready, a child exits (see [`catch_child_exits`]), or the time is over. Returns what the
/// sources are ready for. May return early.
#[expect(unsafe_code, reason = "rustix has no ppoll with a signal mask")]
pub(super) fn wait<const N: usize>(sources: [Source<'_>; N], timeout: Option<Duration>) -> [PollFlags; N] {
    let mut files = sources.map(|(file, events)| libc::pollfd {
        fd: file.map_or(-1, |file| file.as_raw_fd()),
        events: events.bits().cast_signed(),
        revents: 0,
    });
    let timeout = timeout.map(|timeout| libc::timespec {
        tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    });
    let timeout = timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    let mut none = std::mem::MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: all pointers are to live locals, or null; `sigemptyset` initializes the mask. A failed call changes
    // nothing.
    unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        libc::ppoll(files.as_mut_ptr(), N as libc::nfds_t, timeout, none.as_ptr());
    }
    files.map(|file| PollFlags::from_bits_retain(file.revents.cast_unsigned()))
}

/// Lets the kernel reap the children of this process as soon as they exit: orphans that it gets as the init process
/// of a container, and the supervisor. Programs that it starts do not inherit this.
#[expect(unsafe_code, reason = "the standard library and rustix have no signal dispositions")]
pub(super) fn reap_children_automatically() -> io::Result<()> {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: zeroed is a valid sigaction with SIG_DFL and an empty mask; SIG_DFL installs no code.
    let result = unsafe {
        action.assume_init_mut().sa_flags = libc::SA_NOCLDWAIT;
        libc::sigaction(libc::SIGCHLD, action.as_ptr(), std::ptr::null_mut())
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Copies this process; returns the copy's id, and `None` in the copy. The copy has only the calling thread, so
/// no other thread may hold a lock, such as that of the memory allocator.
#[expect(unsafe_code, reason = "a copy shares its memory with this process; starting the program again costs more")]
pub(super) fn fork() -> io::Result<Option<Pid>> {
    // SAFETY: the supervisor, which calls this, has one thread only.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        pid => Ok(Pid::from_raw(pid)),
    }
}

/// Ends a copy made by [`fork`], without what the program it is a copy of does at its end.
#[expect(unsafe_code, reason = "the standard library has no such exit")]
pub(super) fn exit_copy() -> ! {
    // SAFETY: has no preconditions.
    unsafe { libc::_exit(0) }
}
