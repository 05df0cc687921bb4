//! The user that a program runs as, if it is not the server's.

use std::fs;
use std::io;

use rustix::process::geteuid;
use rustix::thread::{
    CapabilitySet, CapabilitySets, Gid, Uid, capabilities, set_capabilities, set_thread_groups, set_thread_res_gid,
    set_thread_res_uid,
};

use super::options::OptionsError;

/// The capabilities that a server needs to run programs as another user, to give them directories and to stop them.
const REQUIRED: [(CapabilitySet, &str); 4] = [
    (CapabilitySet::CHOWN, "CAP_CHOWN"),
    (CapabilitySet::KILL, "CAP_KILL"),
    (CapabilitySet::SETGID, "CAP_SETGID"),
    (CapabilitySet::SETUID, "CAP_SETUID"),
];
/// Needed in addition if `/proc` hides the processes of other users.
const SEE_ALL: (CapabilitySet, &str) = (CapabilitySet::SYS_PTRACE, "CAP_SYS_PTRACE");

/// A user, not root, and its only group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Account {
    /// Looks up names and numbers in `/etc/passwd` and `/etc/group`. Without `group` it is the user's primary one.
    ///
    /// # Errors
    /// When a name is not there, there is no group, or the user is root.
    pub(super) fn resolve(user: &str, group: Option<&str>) -> Result<Self, OptionsError> {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        Self::find(user, group, &read("/etc/passwd"), &read("/etc/group"))
    }

    fn find(user: &str, group: Option<&str>, users: &str, groups: &str) -> Result<Self, OptionsError> {
        let found = entry(users, user);
        let uid = found.as_ref().and_then(|fields| id(fields[2])).or_else(|| id(user));
        let uid = uid.ok_or_else(|| OptionsError::UnknownUser(user.to_owned()))?;
        if uid == 0 {
            return Err(OptionsError::Root);
        }
        let gid = if let Some(group) = group {
            let gid = entry(groups, group).and_then(|fields| id(fields[2])).or_else(|| id(group));
            gid.ok_or_else(|| OptionsError::UnknownGroup(group.to_owned()))?
        } else {
            let gid = found.and_then(|fields| id(fields.get(3)?));
            gid.ok_or_else(|| OptionsError::NoGroup(user.to_owned()))?
        };
        Ok(Self { uid, gid })
    }

    /// Makes the calling thread this user, without a way back and without other groups. Makes system calls only, so that
    /// it can run before exec.
    pub(super) fn assume(self) -> io::Result<()> {
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        set_thread_groups(&[])?;
        set_thread_res_gid(gid, gid, gid)?;
        Ok(set_thread_res_uid(uid, uid, uid)?)
    }
}

/// Gives up what the calling thread may do beyond its user, unless that is root. Makes system calls only.
pub(super) fn drop_capabilities() -> io::Result<()> {
    if geteuid().is_root() {
        return Ok(());
    }
    let none = CapabilitySet::empty();
    // Ambient capabilities go with the others.
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    Ok(set_capabilities(None, sets)?)
}

/// The capabilities that this process lacks to run programs as other users.
pub(super) fn missing_capabilities() -> io::Result<Vec<&'static str>> {
    let own = capabilities(None)?.effective;
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let see_all = hides_processes(&mounts).then_some(SEE_ALL);
    let required = REQUIRED.into_iter().chain(see_all);
    Ok(required.filter(|(capability, _)| !own.contains(*capability)).map(|(_, name)| name).collect())
}

/// Whether `/proc` is mounted so that it shows only the processes of the same user.
fn hides_processes(mounts: &str) -> bool {
    let proc = mounts.lines().rfind(|line| line.split(' ').nth(4) == Some("/proc")).unwrap_or_default();
    let mut options = proc.split([' ', ',']).filter_map(|option| option.strip_prefix("hidepid="));
    options.any(|mode| !matches!(mode, "0" | "off"))
}

/// The fields of the line with this name or number.
fn entry<'a>(database: &'a str, wanted: &str) -> Option<Vec<&'a str>> {
    let entries = database.lines().map(|line| line.split(':').collect::<Vec<_>>()).filter(|fields| fields.len() > 2);
    let entries: Vec<_> = entries.collect();
    let named = entries.iter().find(|fields| fields[0] == wanted);
    named.or_else(|| entries.iter().find(|fields| fields[2] == wanted)).cloned()
}

/// A number that the kernel does not take for "no change".
fn id(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| *id < u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const USERS: &str = "root:x:0:0:root:/root:/bin/sh\nreports:x:1001:1002::/:/bin/false\n\ntoor:x:0:0::/:\n+::::::\n";
    const GROUPS: &str = "root:x:0:\nreports:x:1002:\nshared:x:1003:reports\n";

    fn find(user: &str, group: Option<&str>) -> Result<(u32, u32), OptionsError> {
        Account::find(user, group, USERS, GROUPS).map(|account| (account.uid, account.gid))
    }

    #[test]
    fn names_and_numbers_are_looked_up() {
        assert_eq!(find("reports", None), Ok((1001, 1002)));
        assert_eq!(find("1001", None), Ok((1001, 1002)));
        assert_eq!(find("reports", Some("shared")), Ok((1001, 1003)));
        assert_eq!(find("70000", Some("70001")), Ok((70000, 70001)));
        assert_eq!(find("70000", Some("shared")), Ok((70000, 1003)));
    }

    #[test]
    fn what_is_not_known_or_would_be_root_is_an_error() {
        assert_eq!(find("report", None), Err(OptionsError::UnknownUser("report".into())));
        assert_eq!(find("", None), Err(OptionsError::UnknownUser(String::new())));
        assert_eq!(find("4294967295", Some("reports")), Err(OptionsError::UnknownUser("4294967295".into())));
        assert_eq!(find("reports", Some("nobody")), Err(OptionsError::UnknownGroup("nobody".into())));
        assert_eq!(find("70000", None), Err(OptionsError::NoGroup("70000".into())));
        for root in ["root", "0", "toor", "00"] {
            assert_eq!(find(root, Some("reports")), Err(OptionsError::Root), "{root}");
        }
    }

    #[test]
    fn a_proc_that_hides_processes_is_noticed() {
        let mount = |options| {
            format!("22 1 0:20 / /sys rw - sysfs s rw\n23 1 0:21 / /proc rw,nosuid - proc proc rw{options}\n")
        };
        for (options, hides) in
            [("", false), (",hidepid=0", false), (",hidepid=2", true), (",gid=4,hidepid=invisible", true)]
        {
            assert_eq!(hides_processes(&mount(options)), hides, "{options}");
        }
    }
}
