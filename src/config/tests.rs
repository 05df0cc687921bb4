//! Tests of loading, validation, schema and documentation.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

use super::load::CONFIG_VARIABLE;
use super::units::{ByteSize, HumanDuration};
use super::*;
use crate::model::{self, HandlerName, PoolName};

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn variables(env: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    env.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))).collect()
}

pub(super) fn from_file(text: &str) -> Result<Config, ConfigError> {
    load(Some(file(text).path()), variables(&[]), Overrides::default())
}

fn from_env(env: &[(&str, &str)]) -> Result<Config, ConfigError> {
    load(None, variables(env), Overrides::default())
}

/// Field and line (0 for none) of each problem.
pub(super) fn problems(result: Result<Config, ConfigError>) -> Vec<(String, u32)> {
    let error = result.expect_err("the configuration is invalid");
    let line = |location: &str| location.rsplit(':').next().and_then(|line| line.parse().ok()).unwrap_or(0);
    error.problems().iter().map(|problem| (problem.field.clone(), line(&problem.location))).collect()
}

fn handler(name: &str) -> HandlerName {
    HandlerName::parse(name).unwrap()
}

fn pool(name: &str) -> PoolName {
    PoolName::parse(name).unwrap()
}

#[test]
fn the_default_configuration_has_two_pools_and_four_built_in_handlers() {
    let config = from_env(&[]).unwrap();
    assert_eq!(config, Config::default());
    let catalog = config.catalog();
    assert_eq!(catalog.pools.keys().collect::<Vec<_>>(), [&pool("default"), &pool("remote")]);
    let names: Vec<_> = catalog.handlers.keys().map(HandlerName::as_str).collect();
    assert_eq!(names, ["compute", "expression", "heavy", "io"]);
    for spec in catalog.handlers.values() {
        assert_eq!((&spec.pool, &spec.allowed_pools[..]), (&pool("default"), &[][..]));
        assert!(!spec.payload_description.is_empty() && !spec.description.is_empty());
        assert_eq!(spec.blocking, spec.name.as_str() != "io");
        assert_eq!(spec.grace, Duration::from_secs(5));
    }
    let cores = std::thread::available_parallelism().unwrap().get();
    assert_eq!(catalog.pools[&pool("default")].size, (2 * cores).min(32));
    let remote = &catalog.pools[&pool("remote")];
    assert_eq!((remote.kind, remote.size), (model::PoolKind::Remote, 0));
}

#[test]
fn command_line_overrides_environment_overrides_file() {
    let file = file(
        "[server]\nlisten = \"127.0.0.1:1\"\ndrain_limit = \"1s\"\nmax_in_flight = 5\n[store]\ndirectory = \"/f\"\n",
    );
    let env = [
        ("LINESHAFT_SERVER__LISTEN", "127.0.0.1:2"),
        ("LINESHAFT_SERVER__DRAIN_LIMIT", "2"),
        ("LINESHAFT_LIMITS__QUEUED_PAYLOAD_BYTES", "2MiB"),
        ("LINESHAFT_STORE__MEMORY", "true"),
        ("LINESHAFT_SERVER", "http://not-a-server-setting"),
        ("PATH", "/bin"),
    ];
    let overrides = Overrides {
        listen: Some("127.0.0.1:3".parse().unwrap()),
        data_dir: Some("/flag".into()),
        ..Overrides::default()
    };
    let config = load(Some(file.path()), variables(&env), overrides).unwrap();
    assert_eq!(config.server.listen.port(), 3);
    assert_eq!(config.server.drain_limit, HumanDuration(Duration::from_secs(2)));
    assert_eq!(config.server.max_in_flight, 5);
    assert_eq!(config.limits.queued_payload_bytes, ByteSize(2 << 20));
    assert_eq!((config.store.directory.to_str(), config.store.memory), (Some("/flag"), false));
}

#[test]
fn an_explicit_path_overrides_the_variable_with_the_path() {
    let (named, explicit) = (file("[retention]\ncount = 1"), file("[retention]\ncount = 2"));
    let env = [(CONFIG_VARIABLE, named.path().to_str().unwrap())];
    assert_eq!(from_env(&env).unwrap().retention.count, 1);
    let config = load(Some(explicit.path()), variables(&env), Overrides::default()).unwrap();
    assert_eq!(config.retention.count, 2);
    let error = from_env(&[(CONFIG_VARIABLE, "/does/not/exist.toml")]).unwrap_err();
    assert!(error.to_string().contains("/does/not/exist.toml"), "{error}");
}

#[test]
fn an_unknown_setting_is_reported_with_file_and_line() {
    for (text, field, line) in [
        ("\n[server]\nlisten = \"127.0.0.1:1\"\nlissen = 5\n", "server.lissen", 4),
        ("colour = 1\n", "colour", 1),
        ("[[pool]]\nname = \"a\"\n\n[[pool]]\nname = \"b\"\nsizes = 4\n", "pool[1].sizes", 6),
        (
            "[[handler]]\nname = \"a\"\nrunner = \"process\"\nargv = [\"a\"]\n[handler.retry]\ntimes = 4\n",
            "handler[0].retry.times",
            6,
        ),
    ] {
        let error = from_file(text).unwrap_err();
        assert!(error.to_string().contains("unknown setting"), "{error}");
        assert_eq!(problems(Err(error)), [(field.to_owned(), line)]);
    }
}

#[test]
fn a_malformed_value_is_reported_with_file_and_line() {
    for (text, field, line) in [
        ("[retention]\n\nage = \"soon\"\n", "retention.age", 3),
        ("[server]\nlisten = \"here\"\n", "server.listen", 2),
        ("[limits]\nqueued_payload_bytes = -1\n", "limits.queued_payload_bytes", 2),
        ("[[pool]]\nname = \"a\"\nkind = \"fibres\"\n", "pool[0].kind", 3),
        ("[[pool]]\nsize = 1\n", "pool[0]", 1),
    ] {
        assert_eq!(problems(from_file(text)), [(field.to_owned(), line)], "{text}");
    }
    let text = from_file("[server]\nlisten = \"here\"\n").unwrap_err().to_string();
    assert!(text.contains(":2: server.listen = \"here\": must be an address and a port, such as"), "{text}");
    let broken = from_file("[server]\nlisten = \n").unwrap_err();
    assert!(broken.problems()[0].location.ends_with(":2"), "{broken}");
}

#[test]
fn errors_say_what_to_write_instead() {
    let handler = "[[handler]]\nname = \"x\"\nrunner = \"process\"\nargv = [\"/bin/true\"]\n";
    for (text, expected) in [
        ("[pool]\nname = \"a\"\n", ":1: pool: is a list of tables: write [[pool]] and set name ="),
        ("\n[pool.default]\nsize = 3\n", ":2: pool: is a list of tables: write [[pool]]"),
        ("[auth.certificate]\nsubject = \"a\"\n", ": write [[auth.certificate]] and set subject ="),
        ("[[server]]\ninsecure = true\n", ":1: server[0]: is a single table: write [server]"),
        (&format!("{handler}[[handler.retry]]\nattempts = 3\n"), ":5: handler[0].retry[0]: is a single table"),
        (&format!("{handler}[[handler.env]]\nA = \"b\"\n"), ": write [handler.env]"),
        ("[[pools]]\nname = \"a\"\n", "unknown setting `pools`; did you mean `pool`?"),
        ("[server]\nlistn = \"127.0.0.1:1\"\n", "; did you mean `listen`?"),
        ("[server]\nmax-in-flight = 3\n", "; did you mean `max_in_flight`?"),
        ("listen = \"127.0.0.1:1\"\n", "unknown setting `listen`; it belongs in [server]; the settings are `builtins`"),
        ("[server]\nlisten = 7070\n", "must be an address and a port, such as \"127.0.0.1:7070\", not this number"),
        ("[server]\nlisten = localhost:7070\n", "; strings need quotes"),
        (
            "[server]\nmax_in_flight = \"9\"\n",
            ":2: server.max_in_flight = \"9\": must be a whole number, 0 or more, not a string",
        ),
        ("[server]\nmax_in_flight = -9\n", "= -9: must be a whole number, 0 or more, not this number"),
        ("server = 1\n", "server = 1: must be a table, not this number"),
        ("builtins = \"no\"\n", "must be true or false, not a string"),
        (
            "[[pool]]\nname = \"a\"\nkind = \"thread\"\n",
            "must be one of `threads`, `async`, `remote`; did you mean `threads`?",
        ),
        ("[log]\n[server]\n[log]\n", ":3: log: is defined twice"),
        (&handler.replace(['[', ']'], "").replacen("handler", "[[handler]]", 1), "must be a list, such as [\"one\""),
    ] {
        let message = from_file(text).unwrap_err().to_string();
        assert!(message.contains(expected), "{text}\n{message}\nexpected: {expected}");
    }
    let variable = from_env(&[("LINESHAFT_SERVER_LISTEN", "127.0.0.1:1")]).unwrap_err().to_string();
    assert!(
        variable.contains("LINESHAFT_SERVER_LISTEN: server.listen")
            && variable.contains("write LINESHAFT_SERVER__LISTEN"),
        "{variable}"
    );
}

#[test]
fn an_invalid_variable_is_reported_by_name() {
    let env = [
        ("LINESHAFT_SERVER__LISTEN", "here"),
        ("LINESHAFT_SERVER__PORT", "1"),
        ("LINESHAFT_NOWHERE__X", "1"),
        ("LINESHAFT_POOL__0__SIZE", "1"),
        ("LINESHAFT_BUILTINS", "perhaps"),
        ("LINESHAFT_RETENTION__COUNT", "10"),
    ];
    let error = from_env(&env).unwrap_err();
    for (variable, value) in &env[..5] {
        let location = format!("environment variable {variable}");
        let problem = error.problems().iter().find(|problem| problem.location == location);
        let problem = problem.unwrap_or_else(|| panic!("{variable} is not in: {error}"));
        // A value is shown only of a setting that exists.
        let shown = if ["here", "perhaps"].contains(value) { format!("{value:?}") } else { String::new() };
        assert_eq!(problem.value, shown, "{variable}");
    }
    assert_eq!(error.problems().len(), 5, "{error}");
    let format = from_env(&[("LINESHAFT_LOG__FORMAT", "xml")]).unwrap_err().to_string();
    assert!(format.contains("`auto`, `pretty`, `json`"), "{format}");
}

#[test]
fn a_value_out_of_range_is_reported_with_value_limit_and_location() {
    let file = file("[retention]\nage = \"0s\"\n[log]\nfilter = \"lineshaft=loud\"\n");
    let env = [("LINESHAFT_SERVER__MAX_IN_FLIGHT", "0")];
    let overrides = Overrides { listen: Some("0.0.0.0:1".parse().unwrap()), ..Overrides::default() };
    let error = load(Some(file.path()), variables(&env), overrides).unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("4 problems"), "{text}");
    let variable =
        "environment variable LINESHAFT_SERVER__MAX_IN_FLIGHT: server.max_in_flight = 0: must be 1 to 1000000";
    assert!(text.contains(variable), "{text}");
    assert!(text.contains(".toml:2: retention.age = 0s: must be 1s to 3650d"), "{text}");
    assert!(text.contains(".toml:4: log.filter = \"lineshaft=loud\": "), "{text}");
    assert!(text.contains("command line: server.listen = 0.0.0.0:1: "), "{text}");
}

#[test]
fn listening_on_other_addresses_requires_authentication_or_insecure() {
    let listen = |listen: &str| from_env(&[("LINESHAFT_SERVER__LISTEN", listen)]);
    for address in ["127.0.0.1:0", "[::1]:7070", "127.1.2.3:1", "[::ffff:127.0.0.1]:1"] {
        assert!(listen(address).is_ok(), "{address}");
    }
    for address in ["0.0.0.0:7070", "[::]:7070", "192.168.1.1:7070", "[::ffff:10.0.0.1]:1"] {
        let error = listen(address).unwrap_err().to_string();
        assert!(error.contains("server.listen") && error.contains("server.insecure = true"), "{error}");
    }
    let both = [("LINESHAFT_SERVER__LISTEN", "0.0.0.0:7070"), ("LINESHAFT_SERVER__INSECURE", "true")];
    assert!(from_env(&both).is_ok());
}

const FULL: &str = r#"
[[pool]]
name = "web"
kind = "async"
size = 200
durability = "memory"

[[pool]]
name = "cpu"
timeout = 60
queue_limit = 5
paused = true

[[handler]]
name = "sort"
runner = "process"
argv = ["/usr/bin/sort", "-n"]
arg_pattern = "[0-9]+"
env = { LC_ALL = "C", mixedCase = "kept.as.is" }
env_pass = ["PATH"]
allowed_pools = ["cpu"]
timeout = "2m"
grace = "1s"
retry = { attempts = 5, factor = 1, delay = "100ms" }
limits = { memory = "64MiB", cpu = "10s", open_files = 64, processes = 9 }
user = "reports"
group = "1002"
nice = 10
payload_file = "in"
result_file = "out"

[[handler]]
name = "compute"
runner = "builtin"
builtin = "compute"
pool = "cpu"
description = "ours"

[[handler]]
name = "filter"
runner = "wasm"
module = "/modules/filter.wasm"
argv = ["filter", "--all"]
arg_pattern = "[a-z]+"
env = { LEVEL = "7" }
env_pass = ["TZ"]
clock = true
content_type = "application/json"
permanent_exit_codes = [2]
limits = { memory = "32MiB" }
pool = "cpu"
"#;

#[test]
fn every_setting_of_pools_and_handlers_reaches_the_catalog() {
    let config = from_file(FULL).unwrap();
    let catalog = config.catalog();
    let web = &catalog.pools[&pool("web")];
    assert_eq!((web.kind, web.size, web.durability), (model::PoolKind::Async, 200, model::Durability::Memory));
    let cpu = &catalog.pools[&pool("cpu")];
    assert_eq!((cpu.timeout, cpu.queue_limit, cpu.paused), (Duration::from_mins(1), 5, true));
    let sort = &catalog.handlers[&handler("sort")];
    assert_eq!((sort.runner, sort.pool.as_str(), sort.blocking), ("process", "web", false));
    assert_eq!((sort.timeout, sort.grace), (Some(Duration::from_mins(2)), Duration::from_secs(1)));
    assert_eq!((sort.retry.attempts_max, sort.retry.delay), (5, Duration::from_millis(100)));
    assert_eq!(sort.arg_pattern.as_ref().map(model::ArgPattern::as_str), Some("[0-9]+"));
    let Some(Launch::Process(process)) = config.handlers[0].launch() else { panic!("sort is a process") };
    assert_eq!(process.argv, ["/usr/bin/sort", "-n"]);
    assert_eq!(process.env["mixedCase"].reveal(), "kept.as.is");
    assert_eq!((process.limits.memory, process.limits.processes), (Some(ByteSize(64 << 20)), Some(9)));
    assert_eq!((process.user.as_deref(), process.group.as_deref()), (Some("reports"), Some("1002")));
    let files = (process.payload_file.as_deref(), process.result_file.as_deref());
    assert_eq!((process.nice, files), (10, (Some("in"), Some("out"))));
    assert_eq!(config.handlers[1].launch(), Some(Launch::Builtin(Builtin::Compute)));
    let Some(Launch::Wasm(wasm)) = config.handlers[2].launch() else { panic!("filter is a module") };
    assert_eq!(wasm.module, Path::new("/modules/filter.wasm"));
    assert_eq!((&wasm.argv[..], wasm.clock), (&["filter".to_owned(), "--all".to_owned()][..], true));
    assert!(wasm.arg_pattern.is_some());
    assert_eq!((wasm.env["LEVEL"].reveal(), &wasm.env_pass[..]), ("7", &["TZ".to_owned()][..]));
    assert_eq!((wasm.memory, wasm.content_type.as_deref()), (Some(ByteSize(32 << 20)), Some("application/json")));
    assert_eq!((&wasm.permanent_exit_codes[..], &wasm.retry_exit_codes[..]), (&[2..=2][..], &[75..=75][..]));
    assert!(catalog.handlers[&handler("filter")].blocking);
}

#[test]
fn built_in_handlers_use_the_first_suitable_pool() {
    let config = from_file(FULL).unwrap();
    let catalog = config.catalog();
    assert_eq!(catalog.handlers.len(), 6);
    assert_eq!(catalog.handlers[&handler("compute")].description, "ours");
    let (heavy, io) = (&catalog.handlers[&handler("heavy")], &catalog.handlers[&handler("io")]);
    assert_eq!((&heavy.pool, &heavy.allowed_pools[..]), (&pool("cpu"), &[][..]));
    assert_eq!((&io.pool, &io.allowed_pools[..]), (&pool("web"), &[pool("cpu")][..]));
    let without = from_file(&format!("builtins = false\n{FULL}")).unwrap();
    assert_eq!(without.catalog().handlers.len(), 3);
}

#[test]
fn a_handler_that_uses_the_cpu_cannot_run_in_an_async_pool() {
    let text = "[[pool]]\nname = \"web\"\nkind = \"async\"\n[[handler]]\nname = \"sum\"\nrunner = \"builtin\"\n\
                builtin = \"compute\"\npool = \"web\"\n[[handler]]\nname = \"wait\"\nrunner = \"builtin\"\n\
                builtin = \"io\"\n";
    let error = from_file(&format!("builtins = false\n{text}")).unwrap_err();
    let message = error.to_string();
    assert!(message.contains("`sum`") && message.contains("\"web\""), "{message}");
    assert_eq!(problems(Err(error)), [("handler[0].pool".to_owned(), 9)]);
    let implied = from_file(text).unwrap_err();
    assert_eq!(implied.problems().len(), 4, "{implied}");
    let expected = "builtins: the built-in handler `compute` has only async pools; add a pool of kind \"threads\"";
    assert!(implied.to_string().contains(expected) && !implied.to_string().contains("handler[2]"), "{implied}");
}

#[test]
fn a_configured_file_has_a_remote_pool_only_if_it_lists_one() {
    let config = from_file("[[pool]]\nname = \"p\"\n").unwrap();
    assert_eq!(config.catalog().pools.keys().collect::<Vec<_>>(), [&pool("p")]);
    let config = from_file("[[pool]]\nname = \"far\"\nkind = \"remote\"\n[[pool]]\nname = \"p\"\nsize = 3\n").unwrap();
    let catalog = config.catalog();
    let kinds: Vec<_> = catalog.pools.values().map(|pool| (pool.name.as_str(), pool.kind, pool.size)).collect();
    assert_eq!(kinds, [("far", model::PoolKind::Remote, 0), ("p", model::PoolKind::Threads, 3)]);
    assert!(catalog.handlers.values().all(|handler| handler.pool == pool("p") && handler.allowed_pools.is_empty()));
}

#[test]
fn a_remote_pool_has_no_size() {
    let text = "builtins = false\n[[pool]]\nname = \"far\"\nkind = \"remote\"\nsize = 4\n";
    let error = from_file(text).unwrap_err();
    assert!(error.to_string().contains(":5: pool[0].size = 4: is not allowed for kind = \"remote\""), "{error}");
}

#[test]
fn only_remote_handlers_run_in_remote_pools() {
    let remote = "[[handler]]\nname = \"resize\"\nrunner = \"remote\"\n";
    let config = from_file(remote).unwrap();
    let spec = &config.catalog().handlers[&handler("resize")];
    assert_eq!((spec.runner, &spec.pool, spec.blocking), ("remote", &pool("remote"), false));
    assert_eq!(config.handlers[0].launch(), Some(Launch::Remote));

    let pools = "[[pool]]\nname = \"p\"\n[[pool]]\nname = \"far\"\nkind = \"remote\"\n";
    let chosen = from_file(&format!("{pools}{remote}allowed_pools = [\"p\"]\n"));
    assert_eq!(problems(chosen), [("handler[0].allowed_pools[0]".to_owned(), 9)]);
    let process = "[[handler]]\nname = \"sort\"\nrunner = \"process\"\nargv = [\"sort\"]\npool = \"far\"\n";
    let error = from_file(&format!("{pools}{process}")).unwrap_err();
    assert!(error.to_string().contains("handler `sort` runs in the server"), "{error}");
    assert_eq!(problems(Err(error)), [("handler[0].pool".to_owned(), 10)]);
    let error = from_file(&format!("[[pool]]\nname = \"p\"\n{remote}")).unwrap_err();
    assert!(error.to_string().contains("use a pool of kind \"remote\""), "{error}");
}

#[test]
fn a_remote_handler_has_no_settings_of_other_runners() {
    let allowed = "[[handler]]\nname = \"resize\"\nrunner = \"remote\"\ndescription = \"d\"\n\
                   payload_description = \"an image\"\ntimeout = \"1m\"\ngrace = \"1s\"\nretry = { attempts = 2 }\n";
    assert!(from_file(allowed).is_ok());
    let settings = [
        ("builtin", "builtin = \"io\""),
        ("argv", "argv = [\"a\"]"),
        ("arg_pattern", "arg_pattern = \"a\""),
        ("env", "env = { A = \"b\" }"),
        ("env_pass", "env_pass = [\"A\"]"),
        ("working_directory", "working_directory = \"/\""),
        ("user", "user = \"a\""),
        ("group", "group = \"a\""),
        ("limits.memory", "limits = { memory = \"2MiB\" }"),
    ];
    for (field, setting) in settings {
        let error = from_file(&format!("{allowed}{setting}\n")).unwrap_err();
        assert!(error.to_string().contains("is only allowed for runner = "), "{error}");
        assert_eq!(problems(Err(error)), [(format!("handler[0].{field}"), 9)]);
    }
}

#[test]
fn all_problems_of_pools_and_handlers_are_reported_together() {
    let text = r#"
[[pool]]
name = "a b"
size = 1001
[[pool]]
name = "p"
timeout = "25h"
queue_limit = 0
[[pool]]
name = "p"
[[handler]]
name = "x"
runner = "process"
pool = "nowhere"
builtin = "io"
grace = "6m"
arg_pattern = "("
env = { "A=B" = "1" }
retry = { attempts = 0, factor = 11, jitter = -0.5, delay = "1h" }
limits = { memory = 1, cpu = 0.5 }
[[handler]]
name = "x"
runner = "builtin"
pool = "p"
argv = ["a"]
limits = { memory = "64MiB" }
"#;
    let fields: Vec<_> = problems(from_file(text)).into_iter().map(|(field, _)| field).collect();
    for field in [
        "pool[0].name",
        "pool[0].size",
        "pool[1].timeout",
        "pool[1].queue_limit",
        "pool[2].name",
        "handler[0].argv",
        "handler[0].arg_pattern",
        "handler[0].pool",
        "handler[0].builtin",
        "handler[0].grace",
        "handler[0].env",
        "handler[0].retry.attempts",
        "handler[0].retry.factor",
        "handler[0].retry.jitter",
        "handler[0].retry.max_delay",
        "handler[0].limits.memory",
        "handler[0].limits.cpu",
        "handler[1].name",
        "handler[1].builtin",
        "handler[1].argv",
        "handler[1].limits.memory",
    ] {
        assert!(fields.iter().any(|found| found == field), "{field} is not in {fields:?}");
    }
}

#[test]
fn only_a_program_can_have_a_user_and_only_a_user_a_group_and_a_number_of_processes() {
    let handler = |settings: &str| format!("[[handler]]\nname = \"a\"\n{settings}\n");
    let builtin = "runner = \"builtin\"\nbuiltin = \"io\"\n";
    let process = "runner = \"process\"\nargv = [\"a\"]\n";
    for (settings, found) in [
        (format!("{builtin}user = \"reports\"\nlimits = {{ processes = 1 }}"), &["user", "limits.processes"][..]),
        (format!("{process}group = \"reports\"\nlimits = {{ processes = 1 }}"), &["group", "limits.processes"]),
        (
            format!("{process}user = \"\"\ngroup = \"\"\nlimits = {{ processes = 0 }}"),
            &["user", "group", "limits.processes"],
        ),
    ] {
        let fields: Vec<_> = problems(from_file(&handler(&settings))).into_iter().map(|(field, _)| field).collect();
        let expected: Vec<_> = found.iter().map(|field| format!("handler[0].{field}")).collect();
        assert_eq!(fields, expected, "{settings}");
    }
}

#[test]
fn a_dump_contains_every_default_and_loads_as_the_same_configuration() {
    for config in [Config::default(), from_file(FULL).unwrap()] {
        let text = config.dump();
        assert_eq!(from_file(&text).unwrap(), config, "{text}");
    }
    let text = Config::default().dump();
    for line in ["listen = \"127.0.0.1:7070\"", "age = \"7d\"", "queued_payload_bytes = \"", "[[pool]]"] {
        assert!(text.contains(line), "{line} is not in:\n{text}");
    }
}

#[test]
fn secrets_are_masked_in_dumps_and_errors() {
    let urls = "[telemetry]\nendpoint = \"http://me:s3cret@c:4317\"\n[auth.jwt]\njwks_url = \"https://me:s3cret@c/k?key=s3cret\"\n\
                issuer = \"i\"\naudience = \"a\"\n[[auth.jwt.grant]]\nclaim = \"c\"\nvalue = \"v\"\nrole = \"viewer\"\nnamespaces = [\"*\"]\n";
    let text = format!("{}{urls}", FULL.replace("kept.as.is", "s3cret"));
    let config = from_file(&text).unwrap();
    assert_eq!(from_file(&config.dump()).unwrap(), config);
    assert!(!format!("{config:?}").contains("s3cret"));
    let masked = config.dump_masked();
    assert!(!masked.contains("s3cret") && masked.contains("mixedCase = \"(hidden)\""), "{masked}");
    let refused = problems(from_file(&masked));
    for field in ["handler[0].env.mixedCase", "telemetry.endpoint", "auth.jwt.jwks_url"] {
        assert!(refused.iter().any(|(found, _)| found == field), "{field} is not in {refused:?}");
    }
    let handler = "[[handler]]\nname = \"x\"\nrunner = \"process\"\nargv = [\"true\"]\n";
    for wrong in [
        text.replace("\"s3cret\"", "[\"s3cret\"]"),
        text.replace("\"s3cret\"", "\"s3cret\\u0000\""),
        format!("{handler}env = {{ \"A=s3cret\" = \"x\" }}\n"),
        format!("{handler}env = \"A=s3cret\"\n"),
        format!("{handler}environment = \"s3cret\"\n"),
        "[telemetry]\nendpoint = \"c://me:s3cret@c\"\n".to_owned(),
        "[telemetry]\nendpoints = \"http://me:s3cret@c\"\n".to_owned(),
        urls.replace("https://", "htt://"),
    ] {
        let error = from_file(&wrong).unwrap_err().to_string();
        assert!(!error.contains("s3cret"), "{error}");
    }
    for variable in [
        "LINESHAFT_HANDLER__0__ENV__SECRET",
        "LINESHAFT_HANDLER__0__ENV",
        "LINESHAFT_TELEMETRY__ENDPOINTS",
        "LINESHAFT_TELEMETRY_ENDPOINT",
        "LINESHAFT_AUTH__PASSWORD",
    ] {
        let error = from_env(&[(variable, "http://me:s3cret@c")]).unwrap_err().to_string();
        assert!(error.contains(variable) && !error.contains("s3cret"), "{error}");
    }
}

#[test]
fn with_authentication_every_address_is_allowed() {
    let listen = "[server]\nlisten = \"0.0.0.0:7070\"\n";
    assert!(from_file(listen).is_err());
    assert!(from_file(&format!("{listen}[auth]\ntokens_file = \"tokens.toml\"")).is_ok());
    let limits = format!("{listen}[auth.limits]\nsubmit_rate = 5");
    assert!(from_file(&limits).is_err(), "limits do not authenticate");
    let tls = format!("{listen}[tls]\ncertificate = \"a\"\nkey = \"b\"\nclient_ca = \"c\"");
    assert!(from_file(&tls).is_err(), "TLS alone does not authenticate");
    let certificate = "[[auth.certificate]]\nsubject = \"*\"\nrole = \"viewer\"\nnamespaces = [\"*\"]";
    assert!(from_file(&format!("{tls}\n{certificate}")).is_ok());
    assert!(from_file(&format!("{listen}{certificate}")).is_err());
}

#[test]
fn all_problems_of_tls_and_authentication_are_reported() {
    let wrong = r#"
[tls]
certificate = "a.pem"
handshake_timeout = "1ms"
max_handshakes = 0
[auth.jwt]
audience = "lineshaft"
jwks_url = "http://idp.example/keys"
algorithms = []
leeway = "1h"
[[auth.jwt.grant]]
claim = "groups"
role = "root"
namespaces = ["*"]
[[auth.certificate]]
subject = "x"
role = "viewer"
[auth.limits]
submit_rate = 0
submit_burst = 0
live_tasks = 0
live_payload_bytes = 5
open_streams = 0
"#;
    let mut fields: Vec<_> = problems(from_file(wrong)).into_iter().map(|(field, _)| field).collect();
    fields.sort();
    fields.dedup();
    let expected = [
        "auth.certificate[0]",
        "auth.jwt.algorithms",
        "auth.jwt.grant[0]",
        "auth.jwt.grant[0].value",
        "auth.jwt.issuer",
        "auth.jwt.jwks_url",
        "auth.jwt.leeway",
        "auth.limits.live_payload_bytes",
        "auth.limits.live_tasks",
        "auth.limits.open_streams",
        "auth.limits.submit_burst",
        "auth.limits.submit_rate",
        "tls.handshake_timeout",
        "tls.key",
        "tls.max_handshakes",
    ];
    assert_eq!(fields, expected);
    let scaler = "[tls]\ncertificate = \"a\"\nkey = \"b\"\nclient_ca = \"c\"\n[[auth.certificate]]\nsubject = \"x\"\n\
                  namespaces = [\"*\"]\nhandlers = [\"resize\"]\n";
    let of_role = |role: &str| from_file(&format!("{scaler}role = \"{role}\"\n"));
    assert!(of_role("viewer").unwrap_err().to_string().contains("only role worker"));
    assert_eq!(of_role("worker").unwrap().auth.certificates[0].grant().unwrap().handlers, [handler("resize")]);
    // With a shared secret, everyone who can read the server's files could sign tokens.
    let shared = "[auth.jwt]\nalgorithms = [\"HS256\"]";
    assert!(from_file(shared).unwrap_err().to_string().contains("HS256"));
}

#[test]
fn the_schema_has_a_description_for_every_setting() {
    let schema: serde_json::Value = serde_json::from_str(&Config::schema()).unwrap();
    let check = |name: &str, properties: &serde_json::Value| {
        for (key, property) in properties.as_object().unwrap() {
            assert!(property["description"].is_string(), "{name}.{key} has no description");
        }
    };
    check("", &schema["properties"]);
    for (name, definition) in schema["$defs"].as_object().unwrap() {
        if definition["properties"].is_object() {
            check(name, &definition["properties"]);
            assert_eq!(definition["additionalProperties"], false, "{name}");
        }
    }
}

/// `LINESHAFT_WRITE_DOCS=1 cargo test --lib row_for_every_setting` replaces the rows that differ.
#[test]
fn the_documentation_has_a_row_for_every_setting() {
    let schema: serde_json::Value = serde_json::from_str(&Config::schema()).unwrap();
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let mut lines: Vec<_> = fs::read_to_string(&page).unwrap().lines().map(str::to_owned).collect();
    let sections = [
        ("server.", "Server"),
        ("http.", "Http"),
        ("tls.", "Tls"),
        ("auth.", "Auth"),
        ("auth.jwt.", "Jwt"),
        ("auth.jwt.grant.", "ClaimGrant"),
        ("auth.certificate.", "Certificate"),
        ("auth.limits.", "AuthLimits"),
        ("store.", "Store"),
        ("retention.", "Retention"),
        ("artifacts.", "Artifacts"),
        ("limits.", "Limits"),
        ("log.", "Log"),
        ("telemetry.", "Telemetry"),
        ("pool.", "Pool"),
        ("pool.autoscale.", "Autoscale"),
        ("pool.weights.", "PoolWeight"),
        ("connection.", "Connection"),
        ("handler.", "Handler"),
        ("handler.retry.", "Retry"),
        ("handler.export.", "Export"),
        ("handler.http.", "HttpCall"),
        ("handler.limits.", "ProcessLimits"),
        ("task_limit.", "TaskLimit"),
        ("schedule.", "Schedule"),
    ];
    let tables = schema["$defs"].as_object().unwrap().values().filter(|table| table["properties"].is_object());
    assert_eq!(tables.count(), sections.len(), "a section of the schema is missing in this test");
    let sections = sections.iter().map(|(path, name)| (*path, &schema["$defs"][name]));
    let mut missing = Vec::new();
    for (path, section) in sections.chain([("", &schema)]) {
        for (key, setting) in section["properties"].as_object().unwrap() {
            let meaning = setting["description"].as_str().unwrap();
            let meaning = meaning.split_whitespace().collect::<Vec<_>>().join(" ");
            let row = format!("| `{path}{key}` | {meaning} |");
            match lines.iter_mut().find(|line| line.starts_with(&format!("| `{path}{key}` |"))) {
                Some(line) if *line == row => {}
                Some(line) if std::env::var_os("LINESHAFT_WRITE_DOCS").is_some() => *line = row,
                _ => missing.push(row),
            }
        }
    }
    assert!(missing.is_empty(), "docs/configuration.md does not have these rows:\n{}", missing.join("\n"));
    if std::env::var_os("LINESHAFT_WRITE_DOCS").is_some() {
        fs::write(&page, lines.join("\n") + "\n").unwrap();
    }
}

#[test]
fn variables_that_are_not_utf8_are_ignored_unless_they_are_settings() {
    let broken = || OsStr::from_bytes(b"x\xff").to_owned();
    let load_with = |name: OsString, value: OsString| load(None, [(name, value)], Overrides::default());
    assert_eq!(load_with("LS_COLORS".into(), broken()).unwrap(), Config::default());
    assert_eq!(load_with(broken(), "1".into()).unwrap(), Config::default());
    let error = load_with("LINESHAFT_SERVER__LISTEN".into(), broken()).unwrap_err().to_string();
    assert!(error.contains("LINESHAFT_SERVER__LISTEN: server.listen: must be valid UTF-8"), "{error}");
    let error = load_with(OsStr::from_bytes(b"LINESHAFT_LOG__\xff").to_owned(), "x".into()).unwrap_err().to_string();
    assert!(error.contains("must be valid UTF-8"), "{error}");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(broken());
    fs::write(&path, "builtins = false").unwrap();
    assert!(!load_with(CONFIG_VARIABLE.into(), path.into()).unwrap().builtins, "a path may have any bytes");
}

#[test]
fn a_variable_cannot_set_one_entry_of_a_list() {
    let error = from_env(&[("LINESHAFT_HTTP__HOSTS[4000000000]", "x")]).unwrap_err().to_string();
    assert!(error.contains("a list is set as a whole"), "{error}");
}
