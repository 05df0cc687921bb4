//! `expression`: evaluates an expression of the Common Expression Language (CEL) over variables.
//!
//! CEL has no loops except macros over lists, and the `cel` crate has no limit on steps. `step_budget` adds
//! one, so that an evaluation is bounded in time and memory and can be stopped.

use std::collections::HashMap;
use std::sync::Arc;

use cel::common::ast::IdedExpr;
use cel::{Context, Env, Value};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::Value as Json;

use super::patterns;
use super::payload::{invalid, parse};
use super::step_budget::{self, StepBudget, Verdict};
use super::work::{WorkError, run_blocking};
use crate::model::spec::JSON;
use crate::model::{Failure, FailureReason, Payload, Reservation};
use crate::runners::parents::NoResults;
use crate::runners::{BoxFuture, Outcome, Run, RunReport, Runner};

/// Variable with the results of the parents of the task, unless the payload has one of this name.
const PARENTS_VARIABLE: &str = "parents";
/// Bytes of one expression.
const SOURCE_BYTES_MAX: usize = 4_096;
/// Values in all variables together, nested ones included, and in the results of all parents.
const ELEMENTS_MAX: usize = 10_000;
const PARENT_ELEMENTS_MAX: usize = 100_000;
/// Nesting depth of a variable's lists and objects.
const DEPTH_MAX: usize = 32;
/// Characters of an error of the `cel` crate that a failure contains.
const MESSAGE_CHARS_MAX: usize = 512;
/// Up to so many characters that can add a nesting level, an expression is parsed on the worker's stack.
const NESTING_CHARS_MAX: usize = 64;
/// Depth up to which an expression is evaluated on the worker's stack.
const SHALLOW_DEPTH_MAX: usize = 10;
/// Stack for the deepest expression of [`SOURCE_BYTES_MAX`]; only touched pages take memory.
const STACK_BYTES: usize = 128 << 20;
/// Compiled expressions in the cache; it is cleared when it is full.
const COMPILED_MAX: usize = 256;

/// Builds the CEL environment once and caches compiled expressions.
pub struct Expression {
    env: Arc<Env>,
    compiled: Arc<Mutex<HashMap<Box<str>, Arc<Compiled>>>>,
}

/// An expression with calls that charge its steps to the budget.
struct Compiled {
    expression: IdedExpr,
    depth: usize,
}

impl Default for Expression {
    fn default() -> Self {
        let mut env = Env::stdlib();
        env.add_extension(cel::extensions::encoders).expect("the standard library does not declare base64");
        step_budget::declare(&mut env);
        patterns::declare(&mut env);
        Self { env: Arc::new(env), compiled: Arc::default() }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with `expression` and optional `variables`")]
struct Request {
    expression: String,
    #[serde(default)]
    variables: serde_json::Map<String, Json>,
}

impl Runner for Expression {
    fn run(&self, run: Run) -> BoxFuture<RunReport> {
        let this = Self { env: Arc::clone(&self.env), compiled: Arc::clone(&self.compiled) };
        Box::pin(async move {
            let parents = match parents(&run).await {
                Ok(parents) => parents,
                Err(error) => return Outcome::from(error).into(),
            };
            run_blocking(run, move |run| this.evaluate(run, parents)).await
        })
    }
}

/// The results of the parents of a task.
struct ParentValues {
    values: Vec<Value>,
    memory: Option<Reservation>,
}

/// Reads the results of the parents, if the payload can refer to them.
async fn parents(run: &Run) -> Result<Option<ParentValues>, NoResults> {
    let name = PARENTS_VARIABLE.as_bytes();
    let is_named = || run.payload.windows(name.len()).any(|part| part == name);
    let Some(parents) = run.parents.as_ref().filter(|_| is_named()) else { return Ok(None) };
    let (mut values, mut elements) = (Vec::new(), Elements::up_to(PARENT_ELEMENTS_MAX));
    let add = |result| {
        let name = format!("the result of parent {}", values.len());
        let json = parent_json(&name, result)?;
        values.push(to_cel(&name, json, 1, &mut elements)?);
        Ok(())
    };
    let memory = parents.read(&run.result_memory, &run.stop, add).await?;
    Ok(Some(ParentValues { values, memory }))
}

/// The value of a JSON result, or the text of any other.
fn parent_json(name: &str, result: Option<Payload>) -> Result<Json, Failure> {
    let Some(result) = result else { return Ok(Json::Null) };
    let is_json = result.content_type.split(';').next() == Some(JSON);
    if let Some(json) = is_json.then(|| serde_json::from_slice(&result.data).ok()).flatten() {
        return Ok(json);
    }
    match std::str::from_utf8(&result.data) {
        Ok(text) => Ok(Json::from(text)),
        Err(_) => Err(invalid(format!("{name} is neither JSON nor text"))),
    }
}

impl Expression {
    fn evaluate(&self, run: &Run, parents: Option<ParentValues>) -> Result<String, WorkError> {
        let Request { expression, variables } = parse(&run.payload)?;
        let compiled = self.compiled(&expression)?;
        let mut context = Context::with_env(Arc::clone(&self.env));
        let _memory = parents.map(|ParentValues { values, memory }| {
            context.add_variable_from_value(PARENTS_VARIABLE, Value::List(Arc::new(values)));
            memory
        });
        let mut elements = Elements::up_to(ELEMENTS_MAX);
        for (name, value) in variables {
            check_name(&name)?;
            let value = to_cel(&format!("payload: `variables.{name}`"), value, 0, &mut elements)?;
            context.add_variable_from_value(name, value);
        }
        let (result, verdict) = on_stack(compiled.depth > SHALLOW_DEPTH_MAX, || {
            let budget = StepBudget::start(Arc::clone(&run.stop));
            let result = Value::resolve(&compiled.expression, &context);
            patterns::forget();
            (result, budget.finish())
        })?;
        match verdict {
            Verdict::WithinBudget => {}
            Verdict::Stopped => return Err(WorkError::Stopped),
            Verdict::TooManySteps => {
                let limit = step_budget::STEPS_MAX;
                return Err(invalid(format!("payload: `expression` takes more than {limit} steps")).into());
            }
        }
        let value = result.map_err(|error| handler_error(&error.to_string()))?;
        let json = to_json(&value).map_err(|part| handler_error(&format!("result contains {part}")))?;
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

/// Parses an expression and instruments it. One that may be nested deeply is parsed on a large stack: the
/// parser recurses, and its own limit does not count chains such as `1 + 1 + 1 + …`.
fn compile(env: &Env, source: &str) -> Result<Compiled, Failure> {
    let nesting = source.bytes().filter(|byte| !byte.is_ascii_alphanumeric() && !matches!(byte, b' ' | b',' | b'_'));
    let large_stack = nesting.count() > NESTING_CHARS_MAX;
    on_stack(large_stack, || {
        let program =
            env.compile(source).map_err(|error| invalid(truncate(&format!("payload: `expression`: {error}"))))?;
        let mut expression = program.expression().clone();
        let depth = step_budget::instrument(&mut expression)
            .map_err(|limit| invalid(format!("payload: `expression` is nested deeper than {limit} levels")))?;
        Ok(Compiled { expression, depth })
    })?
}

/// Calls `work` on this thread, or on a thread with a large stack.
fn on_stack<T: Send>(large: bool, work: impl FnOnce() -> T + Send) -> Result<T, Failure> {
    if !large {
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
    let starts_with_letter = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if starts_with_letter && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Ok(());
    }
    Err(invalid(format!("payload: `variables` has the name {name:?}, must be an identifier")))
}

/// Number of converted values.
struct Elements {
    count: usize,
    max: usize,
}

impl Elements {
    fn up_to(max: usize) -> Self {
        Self { count: 0, max }
    }
}

/// Converts JSON to CEL. `name` is that of the value in errors. Integers become `int`, so that they can be combined with integer literals.
fn to_cel(name: &str, json: Json, depth: usize, elements: &mut Elements) -> Result<Value, Failure> {
    elements.count += 1;
    if elements.count > elements.max {
        return Err(invalid(format!("{name}, with the values before it, has more than {} elements", elements.max)));
    }
    if depth > DEPTH_MAX {
        return Err(invalid(format!("{name} is nested deeper than {DEPTH_MAX} levels")));
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

/// Converts CEL to JSON. The error describes the part that JSON cannot represent.
fn to_json(value: &Value) -> Result<Json, String> {
    Ok(match value {
        Value::Null => Json::Null,
        Value::Bool(value) => Json::Bool(*value),
        Value::Int(int) => Json::from(*int),
        Value::UInt(uint) => Json::from(*uint),
        Value::Float(float) => match serde_json::Number::from_f64(*float) {
            Some(number) => Json::Number(number),
            None => return Err(format!("the number {float}, which JSON cannot represent")),
        },
        Value::String(text) => Json::from(text.as_str()),
        Value::List(list) => Json::Array(list.iter().map(to_json).collect::<Result<_, _>>()?),
        Value::Map(map) => {
            let entries = map.map.iter().map(|(key, value)| Ok((key.to_string(), to_json(value)?)));
            Json::Object(entries.collect::<Result<_, String>>()?)
        }
        Value::Timestamp(time) => Json::from(time.to_rfc3339()),
        Value::Duration(duration) => Json::from(format!("{}s", duration.as_seconds_f64())),
        Value::Bytes(_) => return Err("bytes, which JSON cannot represent; use base64.encode".to_owned()),
        other => return Err(format!("a {}, which JSON cannot represent", other.type_of())),
    })
}

/// Not retryable: the same expression over the same variables would fail again.
fn handler_error(message: &str) -> Failure {
    let mut failure = Failure::new(FailureReason::HandlerError, truncate(message));
    failure.retryable = false;
    failure
}

fn truncate(message: &str) -> String {
    match message.char_indices().nth(MESSAGE_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &message[..end]),
        None => message.to_owned(),
    }
}
