//! Bounding what an evaluation can cost, before it runs.
//!
//! The unit is about a nanosecond. The bound is computed over the tree from two facts about an
//! event: its size in bytes, and the longest array or object in it. Every cost is linear in the
//! sizes of what is looked at, so inside a comprehension the *average* element gives the exact sum.

use cel::IdedExpr;
use cel::common::ast::{ComprehensionExpr, EntryExpr, Expr, LiteralValue, operators};

use super::Facts;

/// The most an evaluation may cost: some tens of milliseconds, for the worst there is.
pub(super) const BUDGET: f64 = 50_000_000.0;
/// What all evaluations for one publish may cost together (P5): some two seconds at the very worst,
/// usually a small part of that, because every bound is of the worst there is.
const PUBLISH: f64 = 40.0 * BUDGET;
/// Preparing one evaluation.
pub(super) const EVALUATION: f64 = 2_000.0;
/// Compiling a filter, per byte of its source.
const COMPILE: f64 = 250.0;
/// What is not worth another thread's time.
const QUICK: f64 = 500_000.0;
/// Evaluating any node.
const NODE: f64 = 50.0;
/// One round of a comprehension.
const ROUND: f64 = 300.0;
/// Copying or comparing structured values, per byte of JSON.
const DEEP: f64 = 16.0;
/// Joining texts or lists, per byte; high because the result also takes memory.
const JOIN: f64 = 16.0;
/// Running a pattern, per byte.
const SCAN: f64 = 20.0;
/// The most compiling a pattern may cost. It is compiled at every call.
pub(super) const PATTERN_MAX: f64 = 10_000_000.0;
/// Where estimating begins and ends, in bytes of event.
const SMALLEST: usize = 1 << 8;
const LARGEST: usize = 1 << 26;

/// What an event brings.
#[derive(Clone, Copy)]
struct Input {
    bytes: f64,
    longest: f64,
}

/// Bounds on one expression's value, and on the cost of getting it.
#[derive(Clone, Copy)]
struct Bound {
    cost: f64,
    /// Bytes, as JSON would take.
    size: f64,
    /// Members of it, or of anything in it.
    len: f64,
}

const SCALAR: Bound = Bound { cost: NODE, size: 8.0, len: 0.0 };

/// What filters may still cost, all together. What one evaluation may cost is bounded besides.
#[derive(Clone, Debug)]
pub struct FilterBudget {
    left: f64,
}

/// A [`FilterBudget`] is spent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the filters cost too much together")]
pub struct TooCostly;

impl FilterBudget {
    /// For everything one call publishes.
    pub fn of_publish() -> Self {
        FilterBudget { left: PUBLISH }
    }

    /// So much, in units of about a nanosecond.
    pub fn of(cost: f64) -> Self {
        FilterBudget { left: cost }
    }

    /// For explaining one event. More than matching it took, because filters are compiled again: an
    /// event that was accepted can be explained.
    pub fn of_explanation() -> Self {
        FilterBudget { left: 2.0 * PUBLISH }
    }

    /// Takes `cost` away, if there is as much left.
    pub(crate) fn spend(&mut self, cost: f64) -> Result<(), TooCostly> {
        if cost > self.left {
            return Err(TooCostly);
        }
        self.left -= cost;
        Ok(())
    }
}

/// A bound on what filters would cost on some event, known without looking at its JSON.
#[derive(Clone, Copy, PartialEq, PartialOrd, Debug, Default)]
pub struct FilterCost(pub(crate) f64);

impl FilterCost {
    /// Whether it is so little that the evaluations need no thread of their own.
    pub fn is_quick(self) -> bool {
        self.0 <= QUICK
    }
}

impl std::ops::AddAssign for FilterCost {
    fn add_assign(&mut self, other: Self) {
        self.0 += other.0;
    }
}

/// What converting an event's JSON costs.
pub(crate) fn of_conversion(bytes: usize) -> f64 {
    DEEP * bytes as f64
}

/// What compiling a filter costs.
pub(crate) fn of_compiling(source: &str) -> f64 {
    COMPILE * source.len() as f64
}

/// The worst costs by size of event, for the sizes on which this can never cost too much.
#[derive(Clone, Debug)]
pub(super) struct Costs(Box<[f64]>);

impl Costs {
    /// `None` when even a small event can be too costly.
    pub(super) fn new(expression: &IdedExpr) -> Option<Self> {
        let worst = |bytes: usize| {
            // An array of n members has at least 2n bytes.
            let input = Input { bytes: bytes as f64, longest: bytes as f64 / 2.0 };
            bound(expression, input, &mut Vec::new()).cost
        };
        let sizes = std::iter::successors(Some(SMALLEST), |size| Some(size * 2)).take_while(|size| *size <= LARGEST);
        let costs: Box<[f64]> = sizes.map(worst).take_while(|cost| *cost <= BUDGET).collect();
        (!costs.is_empty()).then_some(Costs(costs))
    }

    /// The largest event (in bytes, a power of two) on which it can never cost too much.
    pub(super) fn cheap_up_to(&self) -> usize {
        SMALLEST << (self.0.len() - 1)
    }

    /// The most it can cost on an event of so many bytes; never more than [`BUDGET`], beyond which
    /// nothing is evaluated.
    pub(super) fn at_most(&self, bytes: usize) -> f64 {
        let step = bytes.div_ceil(SMALLEST).next_power_of_two().trailing_zeros() as usize;
        self.0.get(step).copied().unwrap_or(BUDGET)
    }
}

/// The most this can cost on this event. Converts the event's JSON.
pub(super) fn on(expression: &IdedExpr, facts: &Facts<'_>) -> f64 {
    let input = Input { bytes: facts.size() as f64, longest: facts.longest() as f64 };
    bound(expression, input, &mut Vec::new()).cost
}

/// What compiling a pattern can cost, from its text alone. Counted repetition multiplies.
pub(super) fn of_pattern(pattern: &str) -> f64 {
    let mut total = 10_000.0;
    let mut times = 1.0_f64;
    let mut chars = pattern.chars().peekable();
    // Upper- and lower-case forms, Unicode classes and counters each make an automaton larger.
    let fold = if pattern.contains("(?") { 4.0 } else { 1.0 };
    while let Some(char) = chars.next() {
        total += fold
            * match char {
                '\\' => match chars.next() {
                    Some('w' | 'W' | 'd' | 'D' | 's' | 'S' | 'b' | 'B' | 'p' | 'P') => 200_000.0,
                    _ => 1_000.0,
                },
                '[' => 5_000.0,
                '.' => 3_000.0,
                _ => 1_000.0,
            };
        if char == '{' {
            let mut number = 0.0_f64;
            let mut largest = 1.0_f64;
            while let Some(next) = chars.next_if(|c| c.is_ascii_digit() || *c == ',' || *c == ' ') {
                number = match next.to_digit(10) {
                    Some(digit) => (number * 10.0 + f64::from(digit)).min(1e9),
                    None => 0.0,
                };
                largest = largest.max(number);
            }
            times = (times * largest).min(1e12);
        }
    }
    total * times
}

type Scope<'e> = Vec<(&'e str, Bound)>;

fn bound<'e>(node: &'e IdedExpr, input: Input, scope: &mut Scope<'e>) -> Bound {
    match &node.expr {
        Expr::Literal(LiteralValue::String(text)) => Bound { size: text.inner().len() as f64, ..SCALAR },
        Expr::Literal(LiteralValue::Bytes(bytes)) => Bound { size: bytes.inner().len() as f64, ..SCALAR },
        Expr::Literal(_) | Expr::Unspecified | Expr::Struct(_) => SCALAR,
        Expr::Ident(name) => match scope.iter().rev().find(|(known, _)| known == name) {
            Some((_, bound)) => Bound { cost: NODE, ..*bound },
            None => Bound { cost: NODE, size: input.bytes, len: input.longest },
        },
        Expr::Select(select) => {
            let operand = bound(&select.operand, input, scope);
            Bound { cost: operand.cost + NODE, ..operand }
        }
        Expr::List(list) => gather(list.elements.iter(), input, scope),
        Expr::Map(map) => {
            let parts = map.entries.iter().flat_map(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => [Some(&entry.key), Some(&entry.value)],
                EntryExpr::StructField(field) => [Some(&field.value), None],
            });
            gather(parts.flatten(), input, scope)
        }
        Expr::Call(call) => {
            let operands: Vec<_> = call.target.as_deref().into_iter().chain(&call.args).collect();
            let bounds: Vec<_> = operands.iter().map(|operand| bound(operand, input, scope)).collect();
            let pattern = operands.last().map(|last| &last.expr);
            of_call(&call.func_name, &bounds, pattern)
        }
        Expr::Comprehension(comprehension) => of_comprehension(comprehension, input, scope),
    }
}

/// A list or map made of parts: they are copied into it.
fn gather<'e>(parts: impl Iterator<Item = &'e IdedExpr>, input: Input, scope: &mut Scope<'e>) -> Bound {
    let mut all = Bound { cost: NODE, size: 2.0, len: 0.0 };
    let mut count = 0.0;
    for part in parts {
        let part = bound(part, input, scope);
        all.cost += part.cost + DEEP * part.size;
        all.size += part.size;
        all.len = all.len.max(part.len);
        count += 1.0;
    }
    all.len = all.len.max(count);
    all
}

fn of_call(function: &str, operands: &[Bound], pattern: Option<&Expr>) -> Bound {
    let size: f64 = operands.iter().map(|o| o.size).sum();
    let smallest = operands.iter().map(|o| o.size).fold(f64::INFINITY, f64::min).min(size);
    let len = operands.iter().map(|o| o.len).fold(0.0, f64::max);
    let before: f64 = NODE + operands.iter().map(|o| o.cost).sum::<f64>();
    let scalar = |work: f64| Bound { cost: before + work, ..SCALAR };
    match function {
        operators::LOGICAL_AND | operators::LOGICAL_OR | operators::LOGICAL_NOT => scalar(0.0),
        operators::EQUALS
        | operators::NOT_EQUALS
        | operators::LESS
        | operators::LESS_EQUALS
        | operators::GREATER
        | operators::GREATER_EQUALS => scalar(DEEP * smallest),
        // An error carries copies of what it is about, so these are charged for both sides.
        operators::IN | "contains" | "startsWith" | "endsWith" | "size" => scalar(DEEP * size),
        "matches" => {
            let compile = match pattern {
                Some(Expr::Literal(LiteralValue::String(text))) => of_pattern(text.inner()),
                _ => PATTERN_MAX,
            };
            scalar(compile + SCAN * size)
        }
        operators::CONDITIONAL | operators::INDEX | "dyn" => Bound { cost: before, size, len },
        operators::ADD => {
            let joined: f64 = operands.iter().map(|o| o.len).sum();
            Bound { cost: before + JOIN * size, size, len: joined }
        }
        // Conversions, and whatever else there may be: charged as if they copied everything.
        _ => Bound { cost: before + JOIN * size, size, len },
    }
}

fn of_comprehension<'e>(node: &'e ComprehensionExpr, input: Input, scope: &mut Scope<'e>) -> Bound {
    let range = bound(&node.iter_range, input, scope);
    let init = bound(&node.accu_init, input, scope);
    let rounds = range.len.max(1.0);
    let depth = scope.len();
    // Over all rounds the elements together are the range.
    scope.push((&node.iter_var, Bound { size: range.size / rounds, ..range }));
    scope.extend(node.iter_var2.as_deref().map(|name| (name, range)));
    // A list that is gathered is appended to in place: a round pays for its element only.
    scope.push((&node.accu_var, init));
    let condition = bound(&node.loop_cond, input, scope);
    let step = bound(&node.loop_step, input, scope);
    let gathered = Bound { cost: 0.0, size: init.size + rounds * step.size, len: rounds.max(step.len) };
    if let Some(accumulated) = scope.last_mut() {
        accumulated.1 = gathered;
    }
    let result = bound(&node.result, input, scope);
    scope.truncate(depth);
    let each = ROUND + condition.cost + step.cost;
    Bound { cost: NODE + range.cost + init.cost + DEEP * range.size + rounds * each + result.cost, ..result }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_costs_what_its_counters_multiply_to() {
        assert!(of_pattern("^[a-z]+@acme\\.com$") < 100_000.0);
        assert!(of_pattern("^\\w+@\\w+\\.\\w+$") < 1_000_000.0);
        assert!(of_pattern("a{1000}{1000}") > PATTERN_MAX);
        assert!(of_pattern("(\\w{100}){100}") > PATTERN_MAX);
        assert!(of_pattern("\\pL{1,999}") > PATTERN_MAX);
        assert!(of_pattern(&"\\w".repeat(1_000)) > PATTERN_MAX);
    }
}
