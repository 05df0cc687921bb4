//! `expression`: evaluates an expression of the Common Expression Language over variables.
//!
//! The language has no loops but macros over lists, and the crate has no budget of its own;
//! `meter` gives it one, so that an expression is bounded in time and memory and can
//! be stopped.

use std::collections::HashMap;
use std::sync::Arc;

use cel::common::ast::IdedExpr;
use cel::{Context, Env, Value};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::Value as Json;

use super::meter::{self, Meter, Verdict};
use super::{Halt, compute_now, invalid, parse};
use crate::model::{Failure, FailureReason};
use crate::runners::{BoxFuture, Outcome, Run, Runner};

pub(super) const DESCRIPTION: &str = "Evaluates an expression of the Common Expression Language (CEL).";
pub(super) const PAYLOAD: &str = r#"{"expression": "...", "variables": {...}}; at most 4096 bytes of expression, 10,000 elements in variables, 1,000,000 steps. Result: the value as JSON."#;

/// Bytes of one expression.
pub const SOURCE_BYTES_MAX: usize = 4_096;
/// Values in all variables together, nested ones included.
pub const ELEMENTS_MAX: usize = 10_000;
/// Depth of a variable's lists and objects.
const DEPTH_MAX: usize = 32;
/// Characters of an evaluation error that are shown.
const MESSAGE_CHARS_MAX: usize = 512;
/// Characters that can deepen an expression, up to which any stack will do.
const DEEPENING_MAX: usize = 64;
/// Depth of an expression up to which it is evaluated on its worker's stack.
const SHALLOW_DEPTH_MAX: usize = 10;
/// Stack for the deepest expression of [`SOURCE_BYTES_MAX`]; only what is used takes memory.
const STACK_BYTES: usize = 128 << 20;
/// Expressions kept compiled; the cache starts anew when it is full.
const COMPILED_MAX: usize = 256;

/// The runner of `expression`: the environment is built once, and expressions stay compiled.
pub struct Expression {
    env: Arc<Env>,
    compiled: Arc<Mutex<HashMap<Box<str>, Arc<Compiled>>>>,
}

/// An expression that charges for its steps.
struct Compiled {
    expression: IdedExpr,
    depth: usize,
}

impl Default for Expression {
    fn default() -> Self {
        let mut env = Env::stdlib();
        env.add_extension(cel::extensions::encoders).expect("the standard library has no base64");
        meter::declare(&mut env);
        Self { env: Arc::new(env), compiled: Arc::default() }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    expression: String,
    #[serde(default)]
    variables: serde_json::Map<String, Json>,
}

impl Runner for Expression {
    fn run(&self, run: Run) -> BoxFuture<Outcome> {
        let this = Self { env: Arc::clone(&self.env), compiled: Arc::clone(&self.compiled) };
        compute_now(run, move |run| this.evaluate(run))
    }
}

impl Expression {
    fn evaluate(&self, run: &Run) -> Result<String, Halt> {
        let Request { expression, variables } = parse(&run.payload)?;
        let compiled = self.compiled(&expression)?;
        let mut context = Context::with_env(Arc::clone(&self.env));
        let mut elements = 0;
        for (name, value) in variables {
            check_name(&name)?;
            let value = to_cel(&name, value, 0, &mut elements)?;
            context.add_variable_from_value(name, value);
        }
        let (result, verdict) = on_stack(compiled.depth > SHALLOW_DEPTH_MAX, || {
            let meter = Meter::start(Arc::clone(&run.stop));
            let result = Value::resolve(&compiled.expression, &context);
            (result, meter.finish())
        })?;
        match verdict {
            Verdict::Fine => {}
            Verdict::Stopped => return Err(Halt::Stopped),
            Verdict::TooManySteps => {
                let limit = meter::STEPS_MAX;
                return Err(invalid(format!("payload: `expression` takes more than {limit} steps")).into());
            }
        }
        let value = result.map_err(|error| handler_error(&error.to_string()))?;
        let json = to_json(&value).map_err(|what| handler_error(&format!("the result has {what}")))?;
        Ok(json.to_string())
    }

    fn compiled(&self, source: &str) -> Result<Arc<Compiled>, Failure> {
        let bytes = source.len();
        if bytes > SOURCE_BYTES_MAX {
            return Err(invalid(format!(
                "payload: `expression` has {bytes} bytes, at most {SOURCE_BYTES_MAX} are allowed"
            )));
        }
        if let Some(compiled) = self.compiled.lock().get(source) {
            return Ok(Arc::clone(compiled));
        }
        let expression = compile(&self.env, source)?;
        let expression = Arc::new(expression);
        let mut compiled = self.compiled.lock();
        if compiled.len() >= COMPILED_MAX {
            compiled.clear();
        }
        compiled.insert(source.into(), Arc::clone(&expression));
        Ok(expression)
    }
}

/// Parses and meters an expression. One that may be nested deeply is parsed on a deep stack: the parser
/// recurses, and its own limit does not count chains such as `1 + 1 + 1 + …`.
fn compile(env: &Env, source: &str) -> Result<Compiled, Failure> {
    let deepening = source.bytes().filter(|byte| !byte.is_ascii_alphanumeric() && !matches!(byte, b' ' | b',' | b'_'));
    let deep = deepening.count() > DEEPENING_MAX;
    on_stack(deep, || {
        let program =
            env.compile(source).map_err(|error| invalid(shortened(&format!("payload: `expression`: {error}"))))?;
        let mut expression = program.expression().clone();
        let depth = meter::instrument(&mut expression)
            .map_err(|limit| invalid(format!("payload: `expression` is nested deeper than {limit} levels")))?;
        Ok(Compiled { expression, depth })
    })?
}

/// Calls `work` here, or on a thread with a deep stack.
fn on_stack<T: Send>(deep: bool, work: impl FnOnce() -> T + Send) -> Result<T, Failure> {
    if !deep {
        return Ok(work());
    }
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("deep-expression".to_owned()).stack_size(STACK_BYTES);
        let thread = thread
            .spawn_scoped(scope, work)
            .map_err(|error| Failure::new(FailureReason::HandlerError, format!("failed to start a thread: {error}")))?;
        Ok(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

fn check_name(name: &str) -> Result<(), Failure> {
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if starts_well && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Ok(());
    }
    Err(invalid(format!("payload: `variables` has the name {name:?}, which is not an identifier")))
}

/// JSON to CEL. Whole numbers become `int`, so that they mix with the literals of an expression.
fn to_cel(name: &str, json: Json, depth: usize, elements: &mut usize) -> Result<Value, Failure> {
    *elements += 1;
    if *elements > ELEMENTS_MAX {
        return Err(invalid(format!("payload: `variables` has more than {ELEMENTS_MAX} elements")));
    }
    if depth > DEPTH_MAX {
        return Err(invalid(format!("payload: `variables.{name}` is nested deeper than {DEPTH_MAX} levels")));
    }
    Ok(match json {
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Bool(value),
        Json::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(int), ..) => Value::Int(int),
            (None, Some(uint), _) => Value::UInt(uint),
            (None, None, float) => Value::Float(float.unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::String(Arc::new(text)),
        Json::Array(list) => {
            let list = list.into_iter().map(|json| to_cel(name, json, depth + 1, elements));
            Value::List(Arc::new(list.collect::<Result<_, _>>()?))
        }
        Json::Object(map) => {
            let map = map.into_iter().map(|(key, json)| Ok((key, to_cel(name, json, depth + 1, elements)?)));
            Value::Map(map.collect::<Result<HashMap<String, Value>, Failure>>()?.into())
        }
    })
}

/// CEL to JSON, or what in it JSON cannot say.
fn to_json(value: &Value) -> Result<Json, String> {
    Ok(match value {
        Value::Null => Json::Null,
        Value::Bool(value) => Json::Bool(*value),
        Value::Int(int) => Json::from(*int),
        Value::UInt(uint) => Json::from(*uint),
        Value::Float(float) => match serde_json::Number::from_f64(*float) {
            Some(number) => Json::Number(number),
            None => return Err(format!("the number {float}, which JSON cannot say")),
        },
        Value::String(text) => Json::from(text.as_str()),
        Value::List(list) => Json::Array(list.iter().map(to_json).collect::<Result<_, _>>()?),
        Value::Map(map) => {
            let entries = map.map.iter().map(|(key, value)| Ok((key.to_string(), to_json(value)?)));
            Json::Object(entries.collect::<Result<_, String>>()?)
        }
        Value::Timestamp(time) => Json::from(time.to_rfc3339()),
        Value::Duration(span) => Json::from(format!("{}s", span.as_seconds_f64())),
        Value::Bytes(_) => return Err("bytes, which JSON cannot say; use base64.encode".to_owned()),
        other => return Err(format!("a {}, which JSON cannot say", other.type_of())),
    })
}

/// The same expression over the same variables fails the same way: no retry.
fn handler_error(message: &str) -> Failure {
    let mut failure = Failure::new(FailureReason::HandlerError, shortened(message));
    failure.retryable = false;
    failure
}

fn shortened(message: &str) -> String {
    match message.char_indices().nth(MESSAGE_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &message[..end]),
        None => message.to_owned(),
    }
}
