//! What only the server can check of a valid configuration: its schedules, and the files of its connections.

use crate::config::{Config, ConfigError, Loaded};

use super::connections;
use super::error::InvalidSetting;
use super::schedules::{self, ConfiguredSchedules};

/// A configuration that was checked, and its schedules.
pub struct CheckedConfig {
    pub config: Config,
    pub(super) schedules: ConfiguredSchedules,
}

impl CheckedConfig {
    /// Blocks while it reads files.
    ///
    /// # Errors
    /// [`InvalidSetting`].
    pub fn new(config: Config) -> Result<Self, InvalidSetting> {
        let schedules = check(&config)?;
        Ok(Self { config, schedules })
    }
}

/// Checks a configuration that was loaded, and returns its schedules. An error has the line.
///
/// # Errors
/// [`ConfigError`].
pub(super) fn check_loaded(loaded: &Loaded) -> Result<ConfiguredSchedules, ConfigError> {
    check(&loaded.config).map_err(|InvalidSetting { setting, description }| loaded.problem(&setting, description))
}

fn check(config: &Config) -> Result<ConfiguredSchedules, InvalidSetting> {
    connections::check(config)?;
    schedules::configured(config)
}
