//! Loads the configuration from its sources.

use std::collections::HashMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use config::{Environment, File, FileFormat};

use super::diagnostics::{explain, intended_setting, is_list_of_tables, is_shown};
use super::error::{ConfigError, Problem, Problems};
use super::provenance::{Lines, Provenance};
use super::settings::Config;

/// Environment variable with the path of the configuration file.
pub const CONFIG_VARIABLE: &str = "LINESHAFT_CONFIG";
const PREFIX: &str = "LINESHAFT";
const SEPARATOR: &str = "__";
const ONLY_IN_FILE: &str = "is a list of tables, which cannot be set by a variable; use the file";

/// Settings from the command line. `None` does not change a setting.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    pub listen: Option<SocketAddr>,
    pub insecure: Option<bool>,
    /// `store.directory`; also sets `store.memory` to false unless `memory` is set.
    pub data_dir: Option<PathBuf>,
    pub memory: Option<bool>,
    /// Names and descriptions of the functions of the program that the server is a part of.
    pub functions: Vec<(String, String)>,
    /// Size of the pool of these functions.
    pub function_slots: usize,
}

/// A valid configuration, and where its settings are set.
pub struct Loaded {
    pub config: Config,
    provenance: Provenance,
}

impl Loaded {
    /// A problem that only a running server can find. `field` is a path such as `handler[2]`.
    pub fn problem(&self, field: &str, description: String) -> ConfigError {
        let location = self.provenance.location_of(field);
        ConfigError::Invalid(vec![Problem { field: field.to_owned(), value: String::new(), description, location }])
    }
}

/// Where the configuration of a server comes from, so that it can be loaded again.
pub struct Sources {
    path: Option<PathBuf>,
    env: Vec<(OsString, OsString)>,
    overrides: Overrides,
}

impl Sources {
    /// As the arguments of [`load`].
    pub fn new(
        path: Option<PathBuf>,
        env: impl IntoIterator<Item = (OsString, OsString)>,
        overrides: Overrides,
    ) -> Self {
        Self { path, env: env.into_iter().collect(), overrides }
    }

    /// The file, if there is one.
    pub fn file(&self) -> Option<PathBuf> {
        self.path.clone().or_else(|| split(self.env.iter().cloned(), &mut Problems::default()).0)
    }

    pub fn load(&self) -> Result<Loaded, ConfigError> {
        load_located(self.path.as_deref(), self.env.iter().cloned(), self.overrides.clone())
    }
}

/// Loads the configuration: defaults, then the file, then the environment, then the command line.
///
/// The file is `path`, or the value of `LINESHAFT_CONFIG`, or none. Of the environment, `LINESHAFT_SECTION__KEY` and
/// `LINESHAFT_BUILTINS` are settings. Lists of tables can only be set in the file.
pub fn load(
    path: Option<&Path>,
    env: impl IntoIterator<Item = (OsString, OsString)>,
    overrides: Overrides,
) -> Result<Config, ConfigError> {
    load_located(path, env, overrides).map(|loaded| loaded.config)
}

fn load_located(
    path: Option<&Path>,
    env: impl IntoIterator<Item = (OsString, OsString)>,
    overrides: Overrides,
) -> Result<Loaded, ConfigError> {
    let mut problems = Problems::default();
    let (file_from_env, env, others) = split(env, &mut problems);
    let path = path.map(Path::to_owned).or(file_from_env);
    let (text, mut provenance) = match &path {
        Some(path) => read(path)?,
        None => (String::new(), Provenance::default()),
    };
    for (variable, value) in &env {
        match check_variable(variable, value) {
            Ok(field) => provenance.set(&field, format!("environment variable {variable}")),
            Err(problem) => problems.0.push(problem),
        }
    }
    problems.0.extend(others.iter().filter_map(|(variable, value)| single_underscore(variable, value)));
    if !problems.0.is_empty() {
        return Err(ConfigError::Invalid(problems.0));
    }
    let mut config = merge(&text, env)?;
    let (functions, slots) = (overrides.functions.clone(), overrides.function_slots);
    overrides.apply(&mut config, &mut provenance);
    config.add_defaults();
    config.add_functions(functions, slots);
    config.validate().map_err(|error| located(error, &provenance))?;
    config.load_schemas().map_err(|error| located(error, &provenance))?;
    Ok(Loaded { config, provenance })
}

impl Overrides {
    fn apply(self, config: &mut Config, provenance: &mut Provenance) {
        let mut set = |field: &str| provenance.set(field, "command line");
        if let Some(listen) = self.listen {
            config.server.listen = listen;
            set("server.listen");
        }
        if let Some(insecure) = self.insecure {
            config.server.insecure = insecure;
            set("server.insecure");
        }
        if let Some(directory) = self.data_dir {
            config.store.directory = directory;
            config.store.memory = false;
            set("store.directory");
        }
        if let Some(memory) = self.memory {
            config.store.memory = memory;
            set("store.memory");
        }
    }
}

type Variables = Vec<(String, String)>;

/// Splits the environment: the path of the file, the variables that are settings, and other `LINESHAFT_` variables.
fn split(
    env: impl IntoIterator<Item = (OsString, OsString)>,
    problems: &mut Problems,
) -> (Option<PathBuf>, Variables, Variables) {
    let mut path = None;
    let (mut settings, mut others) = (Vec::new(), Vec::new());
    for (variable, value) in env {
        if variable == CONFIG_VARIABLE {
            path = Some(PathBuf::from(value)).filter(|path| !path.as_os_str().is_empty());
            continue;
        }
        let shown = variable.to_string_lossy();
        let Some(rest) = shown.strip_prefix("LINESHAFT_") else { continue };
        let is_setting = rest.contains(SEPARATOR) || rest == "BUILTINS";
        match (variable.to_str(), value.into_string()) {
            (Some(variable), Ok(value)) if is_setting => settings.push((variable.to_owned(), value)),
            (Some(variable), Ok(value)) => others.push((variable.to_owned(), value)),
            _ if is_setting => problems.0.push(Problem {
                field: field_of(rest),
                value: String::new(),
                description: "must be valid UTF-8".to_owned(),
                location: format!("environment variable {shown}"),
            }),
            _ => {}
        }
    }
    settings.sort();
    others.sort();
    (path, settings, others)
}

fn shown(field: &str, value: &str) -> String {
    if is_shown(field) { format!("{value:?}") } else { String::new() }
}

/// Reports a variable that has one underscore between section and key instead of two.
fn single_underscore(variable: &str, value: &str) -> Option<Problem> {
    let field = intended_setting(variable)?;
    let value = shown(&field, value);
    let corrected = field.replace('.', SEPARATOR).to_uppercase();
    let description = if is_list_of_tables(&field) {
        ONLY_IN_FILE.to_owned()
    } else {
        format!("section and key must be separated by two underscores: write {PREFIX}_{corrected}")
    };
    Some(Problem { description, field, value, location: format!("environment variable {variable}") })
}

/// Reads the file, and parses it separately from the other sources, because only here the line numbers are known.
fn read(path: &Path) -> Result<(String, Provenance), ConfigError> {
    let text =
        std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
    let name = path.display().to_string();
    let provenance = Provenance::of_file(&name, &text);
    match toml::from_str::<Config>(&text) {
        Ok(_) => Ok((text, provenance)),
        Err(error) => {
            let span = error.span();
            let field = span.as_ref().map(|span| provenance.field_at(span)).unwrap_or_default();
            let line = span.as_ref().map_or("", |span| line_at(&text, span.start));
            // The value of a table is its heading.
            let heading = line.trim_start().starts_with('[');
            Err(ConfigError::Invalid(vec![Problem {
                value: if heading { String::new() } else { provenance.value_of(&field, &text) },
                description: explain(&field, line, error.message()),
                field,
                location: span.map_or(name.clone(), |span| Lines::new(&name, &text).location(span.start)),
            }]))
        }
    }
}

/// The line that contains the byte offset.
fn line_at(text: &str, offset: usize) -> &str {
    let (before, after) = text.split_at_checked(offset).unwrap_or((text, ""));
    let start = before.rfind('\n').map_or(0, |end| end + 1);
    let end = offset + after.find('\n').unwrap_or(after.len());
    text.get(start..end).unwrap_or_default()
}

fn environment(env: impl IntoIterator<Item = (String, String)>) -> Environment {
    Environment::with_prefix(PREFIX)
        .prefix_separator("_")
        .separator(SEPARATOR)
        .source(Some(env.into_iter().collect::<HashMap<_, _>>()))
}

/// The field of a variable, from the part of its name after the prefix.
fn field_of(rest: &str) -> String {
    rest.to_lowercase().replace(SEPARATOR, ".")
}

/// Parses one variable alone, so that an error can name it. Returns its field.
fn check_variable(variable: &str, value: &str) -> Result<String, Problem> {
    let field = field_of(&variable["LINESHAFT_".len()..]);
    let problem = |description: String| Problem {
        field: field.clone(),
        value: shown(&field, value),
        description,
        location: format!("environment variable {variable}"),
    };
    if is_list_of_tables(&field) {
        return Err(problem(ONLY_IN_FILE.to_owned()));
    }
    // The library would take `[N]` as an index, and allocate a list of that length.
    if field.contains(['[', ']']) {
        return Err(problem("a list is set as a whole".to_owned()));
    }
    let source = environment([(variable.to_owned(), value.to_owned())]);
    config::Config::builder()
        .add_source(source)
        .build()
        .and_then(config::Config::try_deserialize::<Config>)
        .map_err(|error| problem(explain(&field, "", &message(error))))?;
    Ok(field)
}

fn merge(text: &str, env: Vec<(String, String)>) -> Result<Config, ConfigError> {
    config::Config::builder()
        .add_source(File::from_str(text, FileFormat::Toml))
        .add_source(environment(env))
        .build()
        .and_then(config::Config::try_deserialize)
        .map_err(|error| {
            let mut problems = Problems::default();
            problems.add("", "", message(error));
            ConfigError::Invalid(problems.0)
        })
}

/// The text of the error without field and source, which the problem contains itself.
fn message(error: config::ConfigError) -> String {
    match error {
        config::ConfigError::At { error, .. } => message(*error),
        config::ConfigError::Type { unexpected, expected, .. } => {
            format!("invalid type: {unexpected}, expected {expected}")
        }
        other => other.to_string(),
    }
}

fn located(error: ConfigError, provenance: &Provenance) -> ConfigError {
    match error {
        ConfigError::Invalid(mut problems) => {
            for problem in &mut problems {
                problem.location = provenance.location_of(&problem.field);
            }
            ConfigError::Invalid(problems)
        }
        other @ ConfigError::Unreadable { .. } => other,
    }
}
