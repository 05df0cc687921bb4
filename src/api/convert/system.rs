//! Host health and server limits.

use crate::model::limits::PayloadLimit;
use crate::model::{MemoryAccount, MemoryPart, Retention, limits};
use crate::proto::v1;
use crate::telemetry::host::HostHealth;

use super::numbers::{to_i32, to_i64};
use super::time::duration;

pub fn health(health: &HostHealth) -> v1::SystemHealth {
    v1::SystemHealth {
        cpu_percent: health.cpu_percent,
        memory_used_bytes: to_i64(health.memory_used_bytes),
        memory_total_bytes: to_i64(health.memory_total_bytes),
        memory_percent: health.memory_percent,
        process_memory_bytes: to_i64(health.process_memory_bytes),
        process_threads: to_i32(health.process_threads),
        process_cpu_percent: health.process_cpu_percent,
        cores: to_i32(health.cores),
    }
}

pub fn limits(retention: Retention, memory: &MemoryAccount, payload: PayloadLimit) -> v1::Limits {
    v1::Limits {
        payload_bytes: to_i64(payload.0),
        result_bytes: to_i64(payload.0),
        batch_tasks: to_i32(limits::BATCH_TASKS_MAX),
        labels: to_i32(limits::LABELS_MAX),
        label_key_bytes: to_i32(limits::LABEL_KEY_BYTES_MAX),
        label_value_bytes: to_i32(limits::LABEL_VALUE_BYTES_MAX),
        display_name_bytes: to_i32(limits::DISPLAY_NAME_BYTES_MAX),
        name_bytes: to_i32(limits::NAME_BYTES_MAX),
        args: to_i32(limits::ARGS_MAX),
        arg_bytes: to_i32(limits::ARG_BYTES_MAX),
        page_size: to_i32(limits::PAGE_SIZE_MAX),
        filter_values: to_i32(limits::FILTER_VALUES_MAX),
        timeout: Some(duration(limits::TIMEOUT_MAX)),
        delay: Some(duration(limits::DELAY_MAX)),
        attempts: to_i32(limits::ATTEMPTS_MAX),
        grace: Some(duration(limits::GRACE_MAX)),
        wait: Some(duration(limits::WAIT_MAX)),
        message_bytes: to_i64(payload.message_bytes()),
        output_bytes: to_i64(limits::OUTPUT_KEPT_BYTES),
        retained_tasks: to_i64(retention.count),
        retained_age: Some(duration(retention.age)),
        remembered_request_ids: to_i64(retention.requests.count),
        remembered_request_id_age: Some(duration(retention.requests.age)),
        request_memory_bytes: to_i64(memory.limit(MemoryPart::Requests)),
        payload_memory_bytes: to_i64(memory.limit(MemoryPart::Payloads)),
        retained_bytes: to_i64(retention.bytes),
    }
}
