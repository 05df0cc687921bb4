//! The limits of the machine, the container and the shell, compared with what the configuration needs.

use rustix::process::{Resource, getrlimit};

use crate::config::{Config, Handler, MEMORY_BASE, Pool, PoolKind, UNWRITTEN_BYTES_MIN, unwritten_bytes};
use crate::telemetry::control_groups::processes_max;
use crate::telemetry::host::HostSampler;

use super::report::Finding;

/// Open files of a server with many connections and processes.
const FILES: u64 = 4_096;
/// Threads besides those of pools: runtime, scheduler, store.
const THREADS_BASE: u64 = 32;
/// Memory of one worker thread: measured 44 kB before its first task and 110 kB after some thousands.
const MEMORY_THREAD: u64 = 128 << 10;

pub(super) fn check(config: &Config) -> Vec<Finding> {
    let sizes = |kind: &PoolKind| -> u64 {
        config.pools.iter().filter(|pool| pool.kind == *kind).map(|pool| pool.local_workers() as u64).sum()
    };
    let threads = sizes(&PoolKind::Threads);
    let workers = threads + sizes(&PoolKind::Async);
    let limits = &config.limits;
    let budgets = limits.queued_payload_bytes.0 + limits.request_bytes.0 + limits.response_bytes.0;
    let available = HostSampler::new().health().memory_total_bytes;
    let base = MEMORY_BASE - UNWRITTEN_BYTES_MIN + unwritten_bytes(Some(available));
    // Each worker runs at most one process at a time.
    let wanted = threads + workers + THREADS_BASE;
    // The kernel does not apply the limit of a user to root.
    let of_user = getrlimit(Resource::Nproc).current.filter(|_| !rustix::process::geteuid().is_root());
    let processes = [of_user, processes_max()].into_iter().flatten().min();
    vec![
        open_files(getrlimit(Resource::Nofile).current),
        processes_and_threads(wanted, processes),
        memory_use(base + threads * MEMORY_THREAD + budgets, available),
    ]
    .into_iter()
    .chain(config.pools.iter().filter_map(|pool| task_memory(pool, config, available)))
    .collect()
}

/// Compares the memory with what the tasks of a pool may take, if its handlers have limits.
fn task_memory(pool: &Pool, config: &Config, available: u64) -> Option<Finding> {
    let is_its =
        |handler: &&Handler| handler.pool.as_ref() == Some(&pool.name) || handler.allowed_pools.contains(&pool.name);
    let limit = config.handlers.iter().filter(is_its).filter_map(|handler| Some(handler.limits.memory?.0)).max()?;
    let (workers, name) = (pool.local_workers() as u64, &pool.name);
    let wanted = workers.saturating_mul(limit);
    let text = format!(
        "tasks of pool `{name}` may need {} MiB of {} MiB of memory: {workers} × {} MiB",
        wanted >> 20,
        available >> 20,
        limit >> 20
    );
    if available == 0 || wanted <= available {
        return Some(Finding::ok("limits", text));
    }
    let advice = "lower the size of the pool or limits.memory of its handlers; tasks do not start while less than \
                  limits.memory_reserve is unused";
    Some(Finding::warning("limits", text).with_advice(advice))
}

fn open_files(allowed: Option<u64>) -> Finding {
    match allowed {
        Some(allowed) if allowed < FILES => {
            let text = format!("limit of {allowed} open files; each connection and process needs some");
            let advice = format!("raise it to at least {FILES} with ulimit -n, or LimitNOFILE= in the systemd unit");
            Finding::warning("limits", text).with_advice(advice)
        }
        Some(allowed) => Finding::ok("limits", format!("limit of {allowed} open files")),
        None => Finding::ok("limits", "no limit of open files"),
    }
}

fn processes_and_threads(wanted: u64, allowed: Option<u64>) -> Finding {
    match allowed {
        Some(allowed) if allowed < wanted => {
            let text = format!("limit of {allowed} processes and threads; the pools may need {wanted}");
            Finding::failure("limits", text)
                .with_advice("raise ulimit -u or the container's pids limit, or reduce the size of pools")
        }
        Some(allowed) => {
            Finding::ok("limits", format!("the pools may need {wanted} processes and threads, of {allowed} allowed"))
        }
        None => Finding::ok("limits", format!("the pools may need {wanted} processes and threads; there is no limit")),
    }
}

fn memory_use(wanted: u64, available: u64) -> Finding {
    let text =
        format!("the server may need {} MiB of {} MiB of memory, not counting handlers", wanted >> 20, available >> 20);
    if available > 0 && wanted > available {
        let advice = "lower limits.queued_payload_bytes, limits.request_bytes or the size of pools, or add memory";
        return Finding::failure("limits", text).with_advice(advice);
    }
    if available > 0 && wanted > available / 4 * 3 {
        let advice = "little memory is left for queued tasks and handlers; add memory, or lower \
                      limits.queued_payload_bytes";
        return Finding::warning("limits", text).with_advice(advice);
    }
    Finding::ok("limits", text)
}

#[cfg(test)]
mod tests {
    use super::super::report::State;
    use super::*;

    #[test]
    fn the_documentation_has_the_same_figures() {
        let manual = include_str!("../../../docs/kubernetes.md");
        assert!(manual.contains(&format!("| memory | {} MiB + ", MEMORY_BASE >> 20)));
        assert!(manual.contains(&format!("{} KiB per worker thread", MEMORY_THREAD >> 10)));
    }

    #[test]
    fn limits_that_are_too_low_are_reported_with_both_numbers() {
        assert_eq!(open_files(Some(1_024)).state, State::Warn);
        assert_eq!(open_files(Some(65_536)).state, State::Ok);
        assert_eq!(open_files(None).state, State::Ok);
        assert_eq!(processes_and_threads(100, Some(64)).state, State::Fail);
        assert!(processes_and_threads(100, Some(64)).text.contains("64"));
        assert_eq!(processes_and_threads(100, None).state, State::Ok);
        assert!(processes_and_threads(100, None).text.ends_with("100 processes and threads; there is no limit"));
        assert_eq!(memory_use(300 << 20, 256 << 20).state, State::Fail);
        assert_eq!(memory_use(200 << 20, 256 << 20).state, State::Warn);
        assert_eq!(memory_use(100 << 20, 256 << 20).state, State::Ok);
        assert_eq!(memory_use(100 << 20, 0).state, State::Ok);
    }
}
