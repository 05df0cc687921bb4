//! The schedules of the configuration: checked as those of calls are, and taken over by the scheduler.

use std::sync::Arc;

use hashbrown::HashMap;

use crate::api;
use crate::config::{self, Config, Dst, Overlap};
use crate::model::{Clock, Coded, ScheduleKey, ScheduleSpec, SystemClock};
use crate::proto::v1::{self, payload::Kind, schedule_spec::Rule};

use super::error::InvalidSetting;

pub(super) type ConfiguredSchedules = HashMap<ScheduleKey, ScheduleSpec>;

/// Settings of a schedule, by the fields of the contract.
const SETTINGS: [(&str, &str); 7] = [
    ("spec.cron.pattern", "cron"),
    ("spec.cron.time_zone", "time_zone"),
    ("spec.interval", "every"),
    ("spec.start_at", "start"),
    ("spec.end_at", "end"),
    ("spec.task.display_name", "name"),
    ("spec.task.payload", "payload"),
];

/// Converts the schedules of a valid configuration.
///
/// # Errors
/// [`InvalidSetting`].
pub(super) fn configured(config: &Config) -> Result<ConfiguredSchedules, InvalidSetting> {
    let (catalog, now) = (Arc::new(config.catalog()), SystemClock.now());
    let mut schedules = ConfiguredSchedules::with_capacity(config.schedules.len());
    for (index, schedule) in config.schedules.iter().enumerate() {
        let Some(key) = schedule.key() else { continue };
        let spec = api::configured_schedule(request(schedule), &key, &catalog, now);
        let spec = spec.map_err(|error| invalid(index, &error))?;
        schedules.insert(key, spec);
    }
    Ok(schedules)
}

fn invalid(index: usize, error: &dyn Coded) -> InvalidSetting {
    let violation = error.details().violations.into_iter().next();
    let (field, description) = violation
        .map_or_else(|| (String::new(), error.to_string()), |violation| (violation.field, violation.description));
    let setting = SETTINGS.iter().find(|(of_contract, _)| *of_contract == field).map(|(_, setting)| *setting);
    let setting = setting.unwrap_or_else(|| {
        let rest = field.strip_prefix("spec.").unwrap_or(&field);
        rest.strip_prefix("task.").unwrap_or(rest)
    });
    let separator = if setting.is_empty() { "" } else { "." };
    InvalidSetting { setting: format!("schedule[{index}]{separator}{setting}"), description }
}

fn request(schedule: &config::Schedule) -> v1::ScheduleSpec {
    let duration = |duration: &config::HumanDuration| prost_types::Duration::try_from(duration.0).ok();
    let time = |text: &Option<String>| text.as_ref().and_then(|text| text.parse().ok());
    let rule = match (&schedule.cron, &schedule.every) {
        (Some(pattern), _) => Some(Rule::Cron(v1::CronRule {
            pattern: pattern.clone(),
            time_zone: schedule.time_zone.clone(),
            dst_policy: dst_policy(schedule.dst).into(),
        })),
        (None, every) => every.as_ref().and_then(duration).map(Rule::Interval),
    };
    v1::ScheduleSpec {
        rule,
        start_at: time(&schedule.start),
        end_at: time(&schedule.end),
        max_runs: schedule.max_runs.unwrap_or_default().into(),
        jitter: duration(&schedule.jitter),
        catch_up_window: duration(&schedule.catch_up_window),
        overlap: overlap(schedule.overlap).into(),
        task: Some(v1::SubmitTaskRequest {
            handler: schedule.handler.clone(),
            payload: payload(schedule),
            priority: priority(schedule.priority).into(),
            pool: schedule.pool.clone().unwrap_or_default(),
            display_name: schedule.name.clone(),
            labels: schedule.labels.clone().into_iter().collect(),
            timeout: schedule.timeout.as_ref().and_then(duration),
            args: schedule.args.clone(),
            ..v1::SubmitTaskRequest::default()
        }),
    }
}

fn payload(schedule: &config::Schedule) -> Option<v1::Payload> {
    let (data, content_type) = match (&schedule.json, &schedule.payload) {
        (Some(json), _) => (json.to_string(), "application/json"),
        (None, Some(text)) => (text.clone(), "text/plain; charset=utf-8"),
        (None, None) => return None,
    };
    Some(v1::Payload { kind: Some(Kind::Data(data.into())), content_type: content_type.to_owned() })
}

fn dst_policy(dst: Dst) -> v1::DstPolicy {
    match dst {
        Dst::Once => v1::DstPolicy::Once,
        Dst::Skip => v1::DstPolicy::Skip,
        Dst::WallClock => v1::DstPolicy::WallClock,
    }
}

fn overlap(overlap: Overlap) -> v1::OverlapPolicy {
    match overlap {
        Overlap::Skip => v1::OverlapPolicy::Skip,
        Overlap::Queue => v1::OverlapPolicy::Queue,
        Overlap::Allow => v1::OverlapPolicy::Allow,
        Overlap::CancelOld => v1::OverlapPolicy::CancelOld,
    }
}

fn priority(priority: config::Priority) -> v1::Priority {
    match priority {
        config::Priority::Low => v1::Priority::Low,
        config::Priority::Normal => v1::Priority::Normal,
        config::Priority::High => v1::Priority::High,
        config::Priority::Critical => v1::Priority::Critical,
    }
}
