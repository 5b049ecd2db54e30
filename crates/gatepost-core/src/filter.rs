//! Filters: CEL over `type`, `subject`, `data` and `attributes` (SETTLED, Events and types).
//!
//! A filter comes from a tenant and runs on the publish path, so nothing about it is trusted: its
//! source is measured before it is parsed (`scan`), its tree is judged before it is kept
//! (`check`), and its run-time cost is bounded before it is evaluated (`cost`). What would cost
//! too much on a given event is an error of that evaluation, never a slow publish.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock};

use cel::common::ast::SourceInfo;
use cel::{Context, Env, IdedExpr, Value};

use crate::matching::MatchFacts;
use crate::webhook::bounds;

mod check;
mod cost;
mod facts;
mod scan;

pub use cost::{FilterBudget, FilterCost, TooCostly};
pub(crate) use cost::{of_compiling, of_conversion};
pub use facts::Facts;
pub(crate) use facts::shaped_size;

/// The standard functions and macros, without optional values: one set for all filters.
static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib().with_optional_support(false)));

/// Why a text is not a filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}{}", position(*.line, *.column))]
pub struct FilterError {
    /// What is wrong, and where it helps what to write instead.
    pub message: String,
    /// The line, from 1, when known.
    pub line: Option<u32>,
    /// The column, from 1, when known.
    pub column: Option<u32>,
}

fn position(line: Option<u32>, column: Option<u32>) -> String {
    match (line, column) {
        (Some(line), Some(column)) => format!(" (line {line}, column {column})"),
        _ => String::new(),
    }
}

impl FilterError {
    fn new(message: impl Into<String>) -> Self {
        FilterError { message: message.into(), line: None, column: None }
    }

    /// An error at a byte offset of `source`.
    fn at(source: &str, offset: usize, message: impl Into<String>) -> Self {
        let before = source.get(..offset).unwrap_or(source);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        FilterError { message: message.into(), line: u32::try_from(line).ok(), column: u32::try_from(column).ok() }
    }
}

/// What a filter says about an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FilterResult {
    /// It is wanted.
    True,
    /// It is not.
    False,
    /// No answer (a missing member, no Boolean, too costly): not wanted, and said so in the trace.
    Error,
}

/// A compiled filter.
#[derive(Clone, Debug)]
pub struct Filter {
    expression: Arc<IdedExpr>,
    costs: Arc<cost::Costs>,
}

/// Costs up to this are taken as the worst for the event's size, not bounded more closely.
const CLOSE_ENOUGH: f64 = 20_000.0;

impl Filter {
    /// Compiles a filter, within [`bounds::FILTER_MAX`] bytes.
    ///
    /// # Errors
    /// Says what is wrong, and where.
    pub fn compile(source: &str) -> Result<Self, FilterError> {
        if source.trim().is_empty() {
            return Err(FilterError::new("is empty; leave filter out to take every event of these types"));
        }
        if source.len() > bounds::FILTER_MAX {
            let max = bounds::FILTER_MAX;
            return Err(FilterError::new(format!("is {} bytes long; at most {max} are allowed", source.len())));
        }
        scan::measure(source)?;
        let (expression, info) = parse(source)?;
        check::judge(&expression, &Source { text: source, info: &info })?;
        let costs = cost::Costs::new(&expression).ok_or_else(|| {
            FilterError::new(
                "would take too long even on a small event; use fewer or simpler comprehensions and patterns",
            )
        })?;
        Ok(Filter { expression: Arc::new(expression), costs: Arc::new(costs) })
    }

    /// Evaluates the filter on one event.
    pub fn evaluate(&self, facts: &MatchFacts<'_>) -> FilterResult {
        self.evaluate_shared(&Facts::new(facts))
    }

    /// Evaluates the filter on an event whose JSON is parsed at most once for all filters.
    pub fn evaluate_shared(&self, facts: &Facts<'_>) -> FilterResult {
        if facts.size() > self.costs.cheap_up_to() && cost::on(&self.expression, facts) > cost::BUDGET {
            return FilterResult::Error;
        }
        self.run(facts)
    }

    /// As [`Filter::evaluate_shared`], paid for out of `budget`.
    ///
    /// # Errors
    /// When there is not enough left; then nothing was evaluated.
    pub fn evaluate_within(&self, facts: &Facts<'_>, budget: &mut FilterBudget) -> Result<FilterResult, TooCostly> {
        let mut cost = self.costs.at_most(facts.size());
        if cost > CLOSE_ENOUGH {
            cost = cost::on(&self.expression, facts);
            if facts.size() > self.costs.cheap_up_to() && cost > cost::BUDGET {
                budget.spend(cost::EVALUATION)?;
                return Ok(FilterResult::Error);
            }
        }
        budget.spend(cost::EVALUATION + cost)?;
        Ok(self.run(facts))
    }

    /// The most an evaluation can cost on an event of so many bytes, whatever is in it.
    pub(crate) fn cost_at_most(&self, bytes: usize) -> FilterCost {
        FilterCost(cost::EVALUATION + self.costs.at_most(bytes))
    }

    fn run(&self, facts: &Facts<'_>) -> FilterResult {
        let mut context = Context::with_env(Arc::clone(&ENV));
        context.set_variable_resolver(facts);
        // The interpreter is not ours. Should it panic on some event, that event does not match;
        // it must not take the publisher's request with it. Nothing of ours is changed in there.
        match catch_unwind(AssertUnwindSafe(|| Value::resolve(&self.expression, &context))) {
            Ok(Ok(Value::Bool(true))) => FilterResult::True,
            Ok(Ok(Value::Bool(false))) => FilterResult::False,
            _ => FilterResult::Error,
        }
    }
}

/// A source text with what the parser knows about its nodes.
struct Source<'a> {
    text: &'a str,
    info: &'a SourceInfo,
}

impl Source<'_> {
    fn error(&self, node: u64, message: impl Into<String>) -> FilterError {
        match self.info.offset_for(node) {
            Some((start, _)) => FilterError::at(self.text, start as usize, message),
            None => FilterError::new(message),
        }
    }
}

/// Whether there is a single `=` outside of texts: in CEL nothing is assigned.
fn is_assigned(source: &str) -> bool {
    let (mut quote, mut before) = (None, ' ');
    let mut chars = source.chars().peekable();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(_), '\\') => drop(chars.next()),
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '=') if !"=!<>".contains(before) && chars.peek() != Some(&'=') => return true,
            _ => {}
        }
        before = c;
    }
    false
}

fn parse(source: &str) -> Result<(IdedExpr, SourceInfo), FilterError> {
    let parser = ENV.parser().max_recursion_depth(scan::DEPTH_MAX as u16).error_recovery_limit(1);
    // As in `evaluate_shared`: the parser meets hostile text.
    let parsed = catch_unwind(AssertUnwindSafe(|| parser.parse_with_source_info(source)))
        .map_err(|_| FilterError::new("cannot be parsed"))?;
    parsed.map_err(|errors| match errors.errors.into_iter().next() {
        Some(first) => FilterError {
            message: format!(
                "is not valid CEL: {}{}",
                first.msg,
                if is_assigned(source) { "; equality is ==" } else { "" }
            ),
            line: u32::try_from(first.pos.0).ok().filter(|line| *line > 0),
            column: u32::try_from(first.pos.1).ok().map(|column| column + 1),
        },
        None => FilterError::new("is not valid CEL"),
    })
}

#[cfg(test)]
mod tests;
