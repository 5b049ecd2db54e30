//! Judging a parsed filter: what it names must exist, and it must be able to answer yes or no.

use cel::common::ast::{EntryExpr, Expr, LiteralValue, operators};
use cel::{Context, IdedExpr, Value};

use super::{ENV, FilterError, Source, cost};

/// Most nodes a filter's tree may have, macros expanded.
const NODES_MAX: usize = 1_000;

const VARIABLES: [&str; 4] = ["type", "subject", "data", "attributes"];
/// Names of types, for `type(x) == int`.
const TYPES: [&str; 10] = ["int", "uint", "double", "bool", "string", "bytes", "list", "map", "null_type", "type"];
/// Functions as `name(args)`, with how many arguments they take.
const FUNCTIONS: [(&str, usize); 10] = [
    ("size", 1),
    ("string", 1),
    ("int", 1),
    ("uint", 1),
    ("double", 1),
    ("bool", 1),
    ("bytes", 1),
    ("dyn", 1),
    ("type", 1),
    ("matches", 2),
];
/// Functions as `x.name(args)`.
const METHODS: [(&str, usize); 5] = [("size", 0), ("contains", 1), ("startsWith", 1), ("endsWith", 1), ("matches", 1)];
const MACROS: [&str; 6] = ["all", "exists", "exists_one", "existsOne", "map", "filter"];

/// Refuses what cannot work on any event, and what could work only at any price.
pub(super) fn judge(expression: &IdedExpr, source: &Source<'_>) -> Result<(), FilterError> {
    let mut judge = Judge { source, nodes: 0, scope: Vec::new(), in_loop: false };
    judge.visit(expression)?;
    if never_bool(&expression.expr) {
        return Err(source.error(expression.id, "must be a condition (true or false), such as data.plan == 'pro'"));
    }
    Ok(())
}

struct Judge<'s, 'e> {
    source: &'s Source<'s>,
    nodes: usize,
    /// Variables of the comprehensions around.
    scope: Vec<&'e str>,
    in_loop: bool,
}

impl<'e> Judge<'_, 'e> {
    fn visit(&mut self, node: &'e IdedExpr) -> Result<(), FilterError> {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            return Err(FilterError::new(format!("has more than {NODES_MAX} parts; make it shorter")));
        }
        match &node.expr {
            Expr::Literal(_) => Ok(()),
            Expr::Ident(name) => self.name(node.id, name),
            Expr::Select(select) => self.visit(&select.operand),
            Expr::List(list) => list.elements.iter().try_for_each(|element| self.visit(element)),
            Expr::Map(map) => map.entries.iter().try_for_each(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => {
                    self.visit(&entry.key)?;
                    self.visit(&entry.value)
                }
                EntryExpr::StructField(field) => self.visit(&field.value),
            }),
            Expr::Call(call) => {
                self.function(node.id, &call.func_name, call.target.is_some(), call.args.len())?;
                if call.func_name == "matches" {
                    // With a target the pattern is the first argument, without it the second.
                    self.pattern(node.id, call.args.last())?;
                }
                let operands: Vec<_> = call.target.as_deref().into_iter().chain(&call.args).collect();
                self.operands(&call.func_name, &operands)?;
                operands.into_iter().try_for_each(|operand| self.visit(operand))
            }
            Expr::Comprehension(comprehension) => {
                if self.in_loop {
                    return Err(self.source.error(
                        node.id,
                        "has a comprehension inside another (all, exists, map, filter); only one level is allowed",
                    ));
                }
                self.visit(&comprehension.iter_range)?;
                self.in_loop = true;
                self.scope.extend([&*comprehension.iter_var, &*comprehension.accu_var]);
                self.scope.extend(comprehension.iter_var2.as_deref());
                for part in [
                    &comprehension.accu_init,
                    &comprehension.loop_cond,
                    &comprehension.loop_step,
                    &comprehension.result,
                ] {
                    self.visit(part)?;
                }
                self.scope.clear();
                self.in_loop = false;
                Ok(())
            }
            Expr::Struct(_) => Err(self.source.error(node.id, "makes an object of a type; there are none here")),
            Expr::Unspecified => Err(self.source.error(node.id, "has a part that cannot be understood")),
        }
    }

    fn name(&self, node: u64, name: &str) -> Result<(), FilterError> {
        if self.scope.contains(&name) || VARIABLES.contains(&name) || TYPES.contains(&name) {
            return Ok(());
        }
        Err(self
            .source
            .error(node, format!("names {name:?}, which is not there; there are type, subject, data and attributes")))
    }

    fn function(&self, node: u64, name: &str, member: bool, args: usize) -> Result<(), FilterError> {
        // Operators have names no identifier can have.
        if !name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic()) {
            return Ok(());
        }
        let (same_style, other_style): (&[_], &[_]) =
            if member { (&METHODS, &FUNCTIONS) } else { (&FUNCTIONS, &METHODS) };
        if same_style.contains(&(name, args)) {
            return Ok(());
        }
        let message = if same_style.iter().any(|(known, _)| *known == name) {
            format!("calls {name} with {args} argument(s), which it does not take")
        } else if MACROS.contains(&name) {
            format!("uses {name} in a form there is not; write list.{name}(x, condition on x)")
        } else if name == "has" {
            "uses has in a form there is not; write has(data.member)".to_owned()
        } else if other_style.iter().any(|(known, _)| *known == name) {
            let form = if member { format!("{name}(x)") } else { format!("x.{name}(…)") };
            format!("calls {name} the wrong way round; write {form}")
        } else {
            format!("calls {name:?}, which is not there")
        };
        Err(self.source.error(node, message))
    }

    /// A pattern must be a literal, so that it can be judged now and no event can bring its own.
    fn pattern(&self, node: u64, pattern: Option<&IdedExpr>) -> Result<(), FilterError> {
        let Some(Expr::Literal(LiteralValue::String(text))) = pattern.map(|p| &p.expr) else {
            return Err(self.source.error(node, "calls matches with a pattern that is not a literal string"));
        };
        if cost::of_pattern(text.inner()) > cost::PATTERN_MAX {
            return Err(self
                .source
                .error(node, "has a pattern that is too costly; shorten it or lower its {n,m} counts"));
        }
        let compiled = IdedExpr {
            id: 0,
            expr: Expr::Call(cel::common::ast::CallExpr {
                func_name: "matches".into(),
                target: Some(Box::new(IdedExpr { id: 0, expr: Expr::Literal(LiteralValue::String("".into())) })),
                args: pattern.cloned().into_iter().collect(),
            }),
        };
        match Value::resolve(&compiled, &Context::with_env(ENV.clone())) {
            Ok(_) => Ok(()),
            Err(error) => {
                let text = error.to_string();
                let last = text.lines().last().unwrap_or("bad pattern").trim();
                Err(self.source.error(node, format!("has a bad pattern: {last}")))
            }
        }
    }

    /// `'a' && x` can only fail.
    fn operands(&self, function: &str, operands: &[&IdedExpr]) -> Result<(), FilterError> {
        let conditions = match function {
            operators::LOGICAL_AND | operators::LOGICAL_OR | operators::LOGICAL_NOT => operands,
            operators::CONDITIONAL => operands.get(..1).unwrap_or_default(),
            _ => return Ok(()),
        };
        match conditions.iter().find(|operand| never_bool(&operand.expr)) {
            Some(operand) => {
                Err(self.source.error(operand.id, "uses something that is not true or false as a condition"))
            }
            None => Ok(()),
        }
    }
}

/// Whether an expression is known never to be true or false.
fn never_bool(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(literal) => !matches!(literal, LiteralValue::Boolean(_)),
        Expr::List(_) | Expr::Map(_) | Expr::Struct(_) => true,
        // `data` itself may be the JSON text `true`.
        Expr::Ident(name) => {
            ["type", "subject", "attributes"].contains(&name.as_str()) || TYPES.contains(&name.as_str())
        }
        Expr::Call(call) => match call.func_name.as_str() {
            operators::ADD
            | operators::SUBSTRACT
            | operators::MULTIPLY
            | operators::DIVIDE
            | operators::MODULO
            | operators::NEGATE
            | "size"
            | "string"
            | "int"
            | "uint"
            | "double"
            | "bytes"
            | "type" => true,
            operators::CONDITIONAL => call.args.iter().skip(1).any(|branch| never_bool(&branch.expr)),
            "dyn" => call.args.iter().any(|arg| never_bool(&arg.expr)),
            _ => false,
        },
        // `map` and `filter` gather a list; `all` and `exists` fold true and false.
        Expr::Comprehension(comprehension) => matches!(comprehension.accu_init.expr, Expr::List(_)),
        Expr::Select(_) | Expr::Unspecified => false,
    }
}
