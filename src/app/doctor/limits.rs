//! What the machine, the container and the shell allow a server of this configuration.

use rustix::process::{Resource, getrlimit};

use crate::config::{Config, PoolKind};
use crate::telemetry::host::HostSampler;

use super::report::Finding;

/// Files that a server of many connections and processes may have open.
const FILES: u64 = 4_096;
/// Threads beside those of pools: runtime, scheduler, store.
const THREADS_OWN: u64 = 32;
/// Memory of a server without tasks, and of one thread: measured were 44 kB before its first task and 110 kB after
/// some thousand.
const MEMORY_OWN: u64 = 64 << 20;
const MEMORY_THREAD: u64 = 128 << 10;

pub(super) fn examine(config: &Config) -> Vec<Finding> {
    let sizes = |kind: &PoolKind| -> u64 {
        config.pools.iter().filter(|pool| pool.kind == *kind).map(|pool| pool.size as u64).sum()
    };
    let threads = sizes(&PoolKind::Threads);
    let workers = threads + sizes(&PoolKind::Async);
    let memory = HostSampler::new().health().memory_total_bytes;
    // The supervisor starts a process for each worker at most.
    let wanted = threads + workers + THREADS_OWN;
    let processes = [getrlimit(Resource::Nproc).current, pids_of_container()].into_iter().flatten().min();
    vec![
        files(getrlimit(Resource::Nofile).current),
        tasks(wanted, processes),
        needed(MEMORY_OWN + threads * MEMORY_THREAD + config.limits.queued_payload_bytes.0, memory),
    ]
}

/// `pids.max` of this control group, when it has one.
fn pids_of_container() -> Option<u64> {
    let group = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = group.lines().find_map(|line| line.strip_prefix("0::"))?;
    std::fs::read_to_string(format!("/sys/fs/cgroup{path}/pids.max")).ok()?.trim().parse().ok()
}

fn files(allowed: Option<u64>) -> Finding {
    match allowed {
        Some(allowed) if allowed < FILES => {
            let text = format!("{allowed} files may be open at a time; each connection and process takes some");
            let advice = format!("raise it to {FILES} or more: ulimit -n, or LimitNOFILE= of the unit");
            Finding::doubtful("limits", text).advise(advice)
        }
        Some(allowed) => Finding::well("limits", format!("{allowed} files may be open at a time")),
        None => Finding::well("limits", "any number of files may be open"),
    }
}

fn tasks(wanted: u64, allowed: Option<u64>) -> Finding {
    match allowed {
        Some(allowed) if allowed < wanted => {
            let text = format!("{allowed} threads and processes are allowed, the pools may need {wanted}");
            Finding::bad("limits", text).advise("raise ulimit -u or the container's pids limit, or make pools smaller")
        }
        _ => Finding::well("limits", format!("{wanted} threads and processes, which the pools may need, are allowed")),
    }
}

fn needed(wanted: u64, there: u64) -> Finding {
    let text = format!("{} MiB may be needed without tasks' own, {} MiB are there", wanted >> 20, there >> 20);
    if there > 0 && wanted > there {
        let advice = "lower limits.queued_payload_bytes or the size of pools, or give the server more memory";
        return Finding::bad("limits", text).advise(advice);
    }
    if there > 0 && wanted > there / 4 * 3 {
        let advice = "little is left for queued tasks and what handlers use; give it more, or lower \
                      limits.queued_payload_bytes";
        return Finding::doubtful("limits", text).advise(advice);
    }
    Finding::well("limits", text)
}

#[cfg(test)]
mod tests {
    use super::super::report::State;
    use super::*;

    #[test]
    fn the_manual_has_the_same_figures() {
        let manual = include_str!("../../../docs/kubernetes.md");
        assert!(manual.contains(&format!("| memory | {} MiB + ", MEMORY_OWN >> 20)));
        assert!(manual.contains(&format!("{} KiB per worker thread", MEMORY_THREAD >> 10)));
    }

    #[test]
    fn too_little_of_anything_is_told_with_the_numbers() {
        assert_eq!(files(Some(1_024)).state, State::Warn);
        assert_eq!(files(Some(65_536)).state, State::Ok);
        assert_eq!(files(None).state, State::Ok);
        assert_eq!(tasks(100, Some(64)).state, State::Fail);
        assert!(tasks(100, Some(64)).text.contains("64"));
        assert_eq!(tasks(100, None).state, State::Ok);
        assert_eq!(needed(300 << 20, 256 << 20).state, State::Fail);
        assert_eq!(needed(200 << 20, 256 << 20).state, State::Warn);
        assert_eq!(needed(100 << 20, 256 << 20).state, State::Ok);
        assert_eq!(needed(100 << 20, 0).state, State::Ok);
    }
}
