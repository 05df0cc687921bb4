//! Processes that tests start, and Linux namespaces for tests that change the machine.

use std::process::{Child, Command};

/// A process that is killed when dropped.
pub struct KillOnDrop(pub Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        // The process may have exited already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs the calling test again in a process with its own namespaces (`mount`, `net`), where it has root privileges.
/// Returns true in that process; in the outer process the test has then passed.
pub fn isolated(test: &str, namespaces: &[&str]) -> bool {
    const INSIDE: &str = "LINESHAFT_TEST_ISOLATED";
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let flags = unshare_flags(namespaces);
    // Mount points inside the namespace can only be removed from outside.
    let scratch = tempfile::tempdir().unwrap();
    #[expect(clippy::disallowed_methods, reason = "starts this test again")]
    let status = Command::new("unshare")
        .args(&flags)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .env("TMPDIR", scratch.path())
        .status()
        .unwrap();
    assert!(status.success(), "{test} failed in its namespaces");
    false
}

/// The options of `unshare` that create these namespaces with root privileges inside.
pub fn unshare_flags(namespaces: &[&str]) -> Vec<String> {
    let kinds: Vec<String> = namespaces.iter().map(|kind| format!("--{kind}")).collect();
    let user = ["--user".to_owned(), "--map-root-user".to_owned()];
    let allowed = |flags: &[String]| run("unshare", flags.iter().map(String::as_str).chain(["true"])).0;
    // Without root, a user namespace is enough where the kernel allows it.
    let flags = if allowed(&kinds) { kinds } else { [&user[..], &kinds[..]].concat() };
    assert!(allowed(&flags), "this test needs root, or user namespaces: `unshare {}`", flags.join(" "));
    flags
}

/// A command that takes away what only root may do.
pub fn without_root() -> &'static [&'static str] {
    let command: &[_] = &["unshare", "--user", "--map-user=1000", "--map-group=1000"];
    if rustix::process::geteuid().is_root() { command } else { &[] }
}

/// The ids of the child processes, with their states: `Z` is one that has exited and was not reaped.
pub fn children(parent: u32) -> Vec<(u32, char)> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let child = |entry: std::fs::DirEntry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        (fields.next()?.parse() == Ok(parent)).then_some((pid, state))
    };
    processes.filter_map(child).collect()
}

/// Whether a process of this machine has the text in its command line.
pub fn is_running(text: &str) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let command = |entry: std::fs::DirEntry| std::fs::read(entry.path().join("cmdline")).ok();
    processes.filter_map(command).any(|command| String::from_utf8_lossy(&command).contains(text))
}

/// Runs a program; returns whether it succeeded, and its output (stdout, then stderr).
pub fn run<'a>(program: &str, args: impl IntoIterator<Item = &'a str>) -> (bool, String) {
    #[expect(clippy::disallowed_methods, reason = "starts tools of the system")]
    let output = Command::new(program).args(args).output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}
