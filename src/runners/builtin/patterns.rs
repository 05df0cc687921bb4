//! `matches` of expressions: regular expressions whose cost is bounded and counted.
//!
//! The function of the `cel` crate compiles the pattern at each call and searches without a pause, so that one call can
//! outlast every time limit. Here a pattern has a limited size and is compiled once per evaluation, and the search
//! runs byte by byte on a lazily built automaton: steps are charged, and the deadline is looked at, along the way.

use std::cell::RefCell;

use cel::common::types::{CelBool, CelString};
use cel::{Env, ExecutionError};
use regex_automata::Input;
use regex_automata::hybrid::dfa::{Cache, DFA};
use regex_automata::nfa::thompson;

use super::step_budget::{BYTES_PER_STEP, spend};
use crate::model::error::innermost;

/// Bytes of a pattern; the slowest ones of this length take 50 ms to compile.
const PATTERN_BYTES_MAX: usize = 1_024;
/// Memory of a compiled pattern.
const COMPILED_BYTES_MAX: usize = 512 << 10;
/// Memory of the part of its automaton that was built on the way.
const AUTOMATON_BYTES_MAX: usize = 1 << 20;
/// Compiled patterns that an evaluation keeps.
const COMPILED_MAX: usize = 8;
/// Compiling costs this, whether it succeeds or not, so that an evaluation does it at most 100 times.
const COMPILE_STEPS: usize = 10_000;
/// Bytes of text that are searched between two looks at the budget and the deadline.
const CHUNK_BYTES: usize = 256;

thread_local! {
    static COMPILED: RefCell<Vec<Pattern>> = const { RefCell::new(Vec::new()) };
}

struct Pattern {
    source: Box<str>,
    automaton: DFA,
    cache: Cache,
}

/// Adds `matches(text, pattern)` and `text.matches(pattern)` to an environment.
pub(super) fn declare(env: &mut Env) {
    cel::add_overload!(env, fn matches: (CelString, CelString) -> Result<CelBool>).expect("declared once");
    cel::add_member_overload!(env, fn matches: (CelString, CelString) -> Result<CelBool>).expect("declared once");
}

/// Frees the patterns of the evaluation that ends on this thread.
pub(super) fn forget() {
    COMPILED.take();
}

fn matches(text: &CelString<'_>, pattern: &CelString<'_>) -> Result<CelBool, ExecutionError> {
    let source = pattern.inner();
    COMPILED.with_borrow_mut(|compiled| {
        if let Some(known) = compiled.iter_mut().find(|pattern| *pattern.source == *source) {
            return known.matches(text.inner()).map(CelBool::from);
        }
        compiled.truncate(COMPILED_MAX - 1);
        compiled.insert(0, Pattern::compile(source)?);
        compiled[0].matches(text.inner()).map(CelBool::from)
    })
}

impl Pattern {
    fn compile(source: &str) -> Result<Self, ExecutionError> {
        spend(COMPILE_STEPS)?;
        let bytes = source.len();
        if bytes > PATTERN_BYTES_MAX {
            return Err(error(format!("the pattern has {bytes} bytes, at most {PATTERN_BYTES_MAX} are allowed")));
        }
        let automaton = DFA::config()
            .unicode_word_boundary(true)
            .cache_capacity(AUTOMATON_BYTES_MAX)
            .skip_cache_capacity_check(true);
        let compiled = thompson::Config::new().nfa_size_limit(Some(COMPILED_BYTES_MAX));
        let automaton =
            DFA::builder().configure(automaton).thompson(compiled).build(source).map_err(|cause| {
                error(format!("{source:?} is not a pattern that can be used: {}", innermost(&cause)))
            })?;
        let cache = automaton.create_cache();
        Ok(Self { source: source.into(), automaton, cache })
    }

    /// Whether the pattern matches a part of the text.
    fn matches(&mut self, text: &str) -> Result<bool, ExecutionError> {
        let Self { automaton, cache, .. } = self;
        let mut state =
            automaton.start_state_forward(cache, &Input::new(text)).map_err(|cause| error(cause.to_string()))?;
        for chunk in text.as_bytes().chunks(CHUNK_BYTES) {
            let built = cache.memory_usage();
            for &byte in chunk {
                state = automaton.next_state(cache, state, byte).map_err(|cause| error(cause.to_string()))?;
                if state.is_tagged() {
                    if state.is_match() {
                        return Ok(true);
                    }
                    if state.is_dead() {
                        return Ok(false);
                    }
                    if state.is_quit() {
                        let instead = "it has a Unicode word boundary, and the text is not ASCII; write (?-u:\\b)";
                        return Err(error(format!("{:?} cannot be searched here: {instead}", self.source)));
                    }
                }
            }
            spend((chunk.len() + cache.memory_usage().saturating_sub(built)).div_ceil(BYTES_PER_STEP))?;
        }
        let end = automaton.next_eoi_state(cache, state).map_err(|cause| error(cause.to_string()))?;
        Ok(end.is_match())
    }
}

fn error(message: String) -> ExecutionError {
    ExecutionError::function_error("matches", message)
}
