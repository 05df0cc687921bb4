//! A limit on the steps of an evaluation.
//!
//! A compiled expression is rewritten so that every iteration of a macro, every element of a list or map
//! that it builds, and every sum and comparison passes through a function of this module. That function
//! charges steps by the size of the value, so that doubling a value repeatedly is bounded in the same way as
//! looping. An expression cannot call it, because its name is not an identifier.

use std::cell::RefCell;
use std::sync::Arc;

use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, operators};
use cel::common::types::{CelBytes, CelList, CelMap, CelString, DYN_TYPE};
use cel::common::value::{CowVal, Val};
use cel::{Env, ExecutionError};

use crate::runners::StopSignal;

/// Steps of one evaluation.
pub(super) const STEPS_MAX: u64 = 1_000_000;
/// Nesting depth of an expression, so that its evaluation fits the stack.
const DEPTH_MAX: usize = 100;
/// Bytes of a string that count as one step.
pub(super) const BYTES_PER_STEP: usize = 16;
/// Steps between two checks of the deadline.
const DEADLINE_CHECK_STEPS: u64 = 1_024;
/// Charges a value with all that it contains. Not an identifier, so that no expression can call it.
const CHARGE: &str = "@charge";
/// Charges the bytes of a string; any other value is one step.
const CHARGE_TEXT: &str = "@charge_text";

thread_local! {
    static CURRENT: RefCell<Option<Account>> = const { RefCell::new(None) };
}

struct Account {
    stop: Arc<StopSignal>,
    steps_left: u64,
    check_deadline_at: u64,
    verdict: Verdict,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    WithinBudget,
    /// A stop was requested.
    Stopped,
    /// More than [`STEPS_MAX`].
    TooManySteps,
}

/// The budget of the evaluation that runs on this thread.
pub(super) struct StepBudget(());

impl StepBudget {
    /// Starts a budget. A thread has at most one, because evaluation is synchronous.
    pub(super) fn start(stop: Arc<StopSignal>) -> Self {
        let account = Account {
            stop,
            steps_left: STEPS_MAX,
            check_deadline_at: STEPS_MAX - DEADLINE_CHECK_STEPS,
            verdict: Verdict::WithinBudget,
        };
        CURRENT.set(Some(account));
        Self(())
    }

    /// Ends the budget. The value of an expression must not be used unless it stayed within the budget.
    #[expect(clippy::unused_self, reason = "only the owner of a budget can end it")]
    pub(super) fn finish(self) -> Verdict {
        CURRENT.take().map_or(Verdict::WithinBudget, |account| account.verdict)
    }
}

impl Drop for StepBudget {
    fn drop(&mut self) {
        CURRENT.set(None);
    }
}

impl Account {
    fn charge_text(&mut self, value: &dyn Val) {
        let bytes = match (value.downcast_ref::<CelString>(), value.downcast_ref::<CelBytes>()) {
            (Some(text), _) => text.inner().len(),
            (None, Some(bytes)) => bytes.inner().len(),
            (None, None) => 0,
        };
        self.spend(1 + bytes / BYTES_PER_STEP);
    }

    fn charge(&mut self, value: &dyn Val) {
        self.charge_text(value);
        if let Some(list) = value.downcast_ref::<CelList>() {
            for element in list.inner() {
                if self.verdict != Verdict::WithinBudget {
                    return;
                }
                self.charge(element.as_ref());
            }
        } else if let Some(map) = value.downcast_ref::<CelMap>() {
            for element in map.inner().values() {
                if self.verdict != Verdict::WithinBudget {
                    return;
                }
                self.charge(element.as_ref());
            }
        }
    }

    fn spend(&mut self, steps: usize) {
        match self.steps_left.checked_sub(steps as u64) {
            Some(left) => self.steps_left = left,
            None => self.verdict = Verdict::TooManySteps,
        }
        let cause = if self.steps_left <= self.check_deadline_at {
            self.check_deadline_at = self.steps_left.saturating_sub(DEADLINE_CHECK_STEPS);
            self.stop.cause()
        } else {
            self.stop.requested_cause()
        };
        if cause.is_some() {
            self.verdict = Verdict::Stopped;
        }
    }
}

/// Adds the charging functions to an environment.
pub(super) fn declare(env: &mut Env) {
    env.add_overload(CHARGE, CHARGE, vec![DYN_TYPE], charge).expect("declared once");
    env.add_overload(CHARGE_TEXT, CHARGE_TEXT, vec![DYN_TYPE], charge_text).expect("declared once");
}

/// Charges steps to the evaluation that runs on this thread; an error if they are used up or a stop was requested.
pub(super) fn spend(steps: usize) -> Result<(), ExecutionError> {
    debit(|account| account.spend(steps))
}

fn charge<'b, 'v>(mut arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let value = arguments.pop().ok_or(ExecutionError::MissingArgumentOrTarget)?;
    debit(|account| account.charge(value.as_ref()))?;
    Ok(value)
}

fn charge_text<'b, 'v>(mut arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let value = arguments.pop().ok_or(ExecutionError::MissingArgumentOrTarget)?;
    debit(|account| account.charge_text(value.as_ref()))?;
    Ok(value)
}

fn debit(charge: impl FnOnce(&mut Account)) -> Result<(), ExecutionError> {
    let verdict = CURRENT.with_borrow_mut(|account| match account {
        Some(account) => {
            charge(account);
            account.verdict
        }
        None => Verdict::WithinBudget,
    });
    match verdict {
        Verdict::WithinBudget => Ok(()),
        Verdict::Stopped => Err(ExecutionError::function_error("evaluation", "stopped")),
        Verdict::TooManySteps => Err(ExecutionError::function_error("evaluation", "too many steps")),
    }
}

/// Inserts charging calls into an expression. Returns its depth, or the limit if it is nested deeper.
pub(super) fn instrument(expression: &mut IdedExpr) -> Result<usize, usize> {
    let mut deepest = 0;
    visit(expression, 0, &mut deepest)?;
    Ok(deepest)
}

fn visit(node: &mut IdedExpr, depth: usize, deepest: &mut usize) -> Result<(), usize> {
    if depth > DEPTH_MAX {
        return Err(DEPTH_MAX);
    }
    *deepest = depth.max(*deepest);
    let deeper = depth + 1;
    match &mut node.expr {
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => {}
        Expr::Select(select) => visit(&mut select.operand, deeper, deepest)?,
        Expr::List(list) => {
            for element in &mut list.elements {
                visit(element, deeper, deepest)?;
                wrap(element);
            }
        }
        Expr::Map(map) => visit_entries(map.entries.iter_mut().map(|entry| &mut entry.expr), deeper, deepest)?,
        Expr::Struct(fields) => visit_entries(fields.entries.iter_mut().map(|entry| &mut entry.expr), deeper, deepest)?,
        Expr::Comprehension(comprehension) => visit_comprehension(comprehension, deeper, deepest)?,
        Expr::Call(call) => {
            if visit_call(call, deeper, deepest)? {
                wrap(node);
            }
        }
    }
    Ok(())
}

fn visit_entries<'e>(
    entries: impl Iterator<Item = &'e mut EntryExpr>,
    depth: usize,
    deepest: &mut usize,
) -> Result<(), usize> {
    for entry in entries {
        let value = match entry {
            EntryExpr::StructField(field) => &mut field.value,
            EntryExpr::MapEntry(entry) => {
                visit(&mut entry.key, depth, deepest)?;
                &mut entry.value
            }
        };
        visit(value, depth, deepest)?;
        wrap(value);
    }
    Ok(())
}

/// Returns whether the value of the call can be larger than its arguments.
fn visit_call(call: &mut CallExpr, depth: usize, deepest: &mut usize) -> Result<bool, usize> {
    for argument in call.target.as_deref_mut().into_iter().chain(&mut call.args) {
        visit(argument, depth, deepest)?;
    }
    match call.func_name.as_str() {
        // The accumulator of a macro grows by elements that are already charged, and the evaluator
        // optimizes this form of the call.
        operators::ADD => {
            Ok(!matches!(&call.args[..], [IdedExpr { expr: Expr::Ident(name), .. }, _] if name.starts_with('@')))
        }
        operators::EQUALS | operators::NOT_EQUALS | operators::IN => {
            call.args.last_mut().into_iter().for_each(wrap);
            Ok(false)
        }
        operators::LESS | operators::LESS_EQUALS | operators::GREATER | operators::GREATER_EQUALS => {
            call.args.last_mut().into_iter().for_each(wrap_text);
            Ok(false)
        }
        // They read the whole text. `matches` charges by itself.
        "contains" | "startsWith" | "endsWith" | "size" | "int" | "uint" | "double" | "bool" | "timestamp"
        | "duration" => {
            call.target.as_deref_mut().into_iter().chain(&mut call.args).for_each(wrap_text);
            Ok(false)
        }
        "string" | "bytes" | "base64.encode" | "base64.decode" | "encode" | "decode" => Ok(true),
        _ => Ok(false),
    }
}

/// Charges each iteration of a macro, keeping the forms that the evaluator optimizes.
fn visit_comprehension(comprehension: &mut ComprehensionExpr, depth: usize, deepest: &mut usize) -> Result<(), usize> {
    visit(&mut comprehension.iter_range, depth, deepest)?;
    visit(&mut comprehension.accu_init, depth, deepest)?;
    visit(&mut comprehension.loop_cond, depth, deepest)?;
    visit(&mut comprehension.loop_step, depth, deepest)?;
    visit(&mut comprehension.result, depth, deepest)?;
    if !matches!(comprehension.loop_cond.expr, Expr::Literal(_)) {
        wrap(&mut comprehension.loop_cond);
        return Ok(());
    }
    match &mut comprehension.loop_step.expr {
        // filter, exists_one: `condition ? @result + … : @result`.
        Expr::Call(call) if call.func_name == operators::CONDITIONAL => {
            call.args.first_mut().into_iter().for_each(wrap);
        }
        // map: `@result + [element]`, whose element is already charged unless it is a literal.
        Expr::Call(call) if call.func_name == operators::ADD => {
            if let Some(Expr::List(list)) = call.args.last_mut().map(|argument| &mut argument.expr) {
                list.elements.iter_mut().filter(|element| is_literal(element)).for_each(wrap_always);
            }
        }
        _ => wrap_always(&mut comprehension.loop_cond),
    }
    Ok(())
}

fn wrap(node: &mut IdedExpr) {
    // The size of a literal is bounded by the length of the expression.
    if !is_literal(node) {
        wrap_in(CHARGE, node);
    }
}

fn wrap_text(node: &mut IdedExpr) {
    if !is_literal(node) {
        wrap_in(CHARGE_TEXT, node);
    }
}

fn is_literal(node: &IdedExpr) -> bool {
    matches!(node.expr, Expr::Literal(_))
}

fn wrap_always(node: &mut IdedExpr) {
    wrap_in(CHARGE, node);
}

fn wrap_in(function: &str, node: &mut IdedExpr) {
    let id = node.id;
    let inner = std::mem::take(node);
    *node =
        IdedExpr { id, expr: Expr::Call(CallExpr { func_name: function.to_owned(), target: None, args: vec![inner] }) };
}
