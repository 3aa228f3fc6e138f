//! The language of `check --assert`: comparisons of figures, joined by `&&`, `||`, `!`.
//!
//! ```text
//! expr    = and { "||" and }
//! and     = not { "&&" not }
//! not     = "!" not | compare
//! compare = sum [ ("<" | "<=" | ">" | ">=" | "==" | "!=") sum ]
//! sum     = product { ("+" | "-") product }
//! product = atom { ("*" | "/") atom }
//! atom    = number | figure | "(" expr ")"
//! ```
//! A number may have `_` between digits. Types are checked when parsing: an assertion is a truth value, a figure a number.
//! A figure that can't be had makes its comparison unknown, and an assertion that is unknown does not hold.

use std::collections::BTreeSet;

use super::parse::ParseError;
use crate::reading::{Reading, Why};

/// A node of the tree.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    Number(f64),
    Figure(&'static str),
    Arithmetic(char, Box<Node>, Box<Node>),
    Compare(&'static str, Box<Node>, Box<Node>),
    Not(Box<Node>),
    And(Box<Node>, Box<Node>),
    Or(Box<Node>, Box<Node>),
}

impl Node {
    pub(super) fn is_truth(&self) -> bool {
        !matches!(
            self,
            Self::Number(_) | Self::Figure(_) | Self::Arithmetic(..)
        )
    }
}

/// A parsed assertion.
#[derive(Clone, Debug, PartialEq)]
pub struct Expr {
    root: Node,
}

impl Expr {
    /// Parses `text`.
    ///
    /// # Errors
    /// With the place and what is expected there.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        Ok(Self {
            root: super::parse::parse(text)?,
        })
    }

    /// The figures it uses, in alphabetical order.
    pub fn figures(&self) -> BTreeSet<&'static str> {
        let mut out = BTreeSet::new();
        collect(&self.root, &mut out);
        out
    }

    /// Whether it holds, given the figures.
    ///
    /// # Errors
    /// The reason of a missing figure, if the answer depends on it.
    pub fn holds(&self, figure: &dyn Fn(&str) -> Reading<f64>) -> Reading<bool> {
        truth(&self.root, figure)
    }
}

fn collect(node: &Node, out: &mut BTreeSet<&'static str>) {
    match node {
        Node::Number(_) => {}
        Node::Figure(name) => {
            out.insert(name);
        }
        Node::Not(a) => collect(a, out),
        Node::Arithmetic(_, a, b) | Node::Compare(_, a, b) | Node::And(a, b) | Node::Or(a, b) => {
            collect(a, out);
            collect(b, out);
        }
    }
}

fn truth(node: &Node, figure: &dyn Fn(&str) -> Reading<f64>) -> Reading<bool> {
    match node {
        Node::Not(a) => truth(a, figure).map(|t| !t),
        // One side alone can decide, even if the other is unknown.
        Node::And(a, b) => match (truth(a, figure), truth(b, figure)) {
            (Ok(false), _) | (_, Ok(false)) => Ok(false),
            (Err(why), _) | (_, Err(why)) => Err(why),
            _ => Ok(true),
        },
        Node::Or(a, b) => match (truth(a, figure), truth(b, figure)) {
            (Ok(true), _) | (_, Ok(true)) => Ok(true),
            (Err(why), _) | (_, Err(why)) => Err(why),
            _ => Ok(false),
        },
        Node::Compare(op, a, b) => {
            let (a, b) = (number(a, figure)?, number(b, figure)?);
            Ok(match *op {
                "<" => a < b,
                "<=" => a <= b,
                ">" => a > b,
                ">=" => a >= b,
                "==" => a == b,
                _ => a != b,
            })
        }
        Node::Number(_) | Node::Figure(_) | Node::Arithmetic(..) => {
            Err(Why::not_applicable("a number is no truth value"))
        }
    }
}

fn number(node: &Node, figure: &dyn Fn(&str) -> Reading<f64>) -> Reading<f64> {
    match node {
        Node::Number(v) => Ok(*v),
        Node::Figure(name) => figure(name),
        Node::Arithmetic(op, a, b) => {
            let (a, b) = (number(a, figure)?, number(b, figure)?);
            Ok(match op {
                '+' => a + b,
                '-' => a - b,
                '*' => a * b,
                _ if b == 0.0 => return Err(Why::not_applicable("division by zero")),
                _ => a / b,
            })
        }
        _ => Err(Why::not_applicable("a truth value is no number")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn with(p99: f64) -> impl Fn(&str) -> Reading<f64> {
        move |name| match name {
            "p99_us" => Ok(p99),
            "stalls" => Ok(0.0),
            other => Err(Why::not_yet(format!("{other} is missing"))),
        }
    }

    #[test]
    fn the_example_of_the_manual_holds_or_not_by_its_figures() {
        let e = Expr::parse("p99_us<5 && stalls==0").unwrap();
        assert_eq!(e.holds(&with(4.9)), Ok(true));
        assert_eq!(e.holds(&with(5.0)), Ok(false));
        assert_eq!(
            e.figures().into_iter().collect::<Vec<_>>(),
            ["p99_us", "stalls"]
        );
    }

    #[test]
    fn operators_bind_as_in_arithmetic() {
        let e = Expr::parse("1 + 2 * 3 == 7 && !(2 > 3 || 8 / 2 - 1 != 3)").unwrap();
        assert_eq!(e.holds(&with(0.0)), Ok(true));
    }

    #[test]
    fn a_missing_figure_decides_only_if_it_must() {
        assert_eq!(
            Expr::parse("rps > 1 && p99_us < 1")
                .unwrap()
                .holds(&with(9.0)),
            Ok(false)
        );
        assert_eq!(
            Expr::parse("rps > 1 || p99_us > 1")
                .unwrap()
                .holds(&with(9.0)),
            Ok(true)
        );
        let why = Expr::parse("rps > 1 && p99_us > 1")
            .unwrap()
            .holds(&with(9.0))
            .unwrap_err();
        assert_eq!(why.text, "rps is missing");
    }

    #[test]
    fn an_error_points_at_its_place() {
        let caret = |text: &str| {
            let e = Expr::parse(text).unwrap_err();
            (e.at, e.says)
        };
        assert_eq!(caret("p99_us <").0, 8);
        assert_eq!(caret("p99us < 5").0, 0);
        assert_eq!(caret("p99_us = 5"), (7, "write == to compare".into()));
        assert_eq!(caret("1 < 2 < 3").0, 6);
        assert_eq!(caret("(1 < 2"), (6, "expected )".into()));
        assert_eq!(caret("1 < 2 && 3").0, 9);
        assert_eq!(caret("5us > 1").0, 0);
        assert_eq!(caret("7").0, 0);
        let shown = Expr::parse("stalls == µ").unwrap_err().to_string();
        assert!(shown.ends_with("\n  stalls == µ\n            ^"), "{shown}");
    }

    #[test]
    fn nesting_is_bounded() {
        let deep = format!("{}1<2{}", "(".repeat(1000), ")".repeat(1000));
        assert!(Expr::parse(&deep).unwrap_err().says.contains("nested"));
        assert!(
            Expr::parse(&"!".repeat(1000))
                .unwrap_err()
                .says
                .contains("nested")
        );
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused_at_a_place_within_it(text in ".{0,60}") {
            if let Err(e) = Expr::parse(&text) {
                prop_assert!(e.at <= text.len());
                let _ = e.to_string();
            }
        }

        #[test]
        fn any_mix_of_tokens_is_parsed_or_refused(
            tokens in proptest::collection::vec(
                prop::sample::select(vec!["(", ")", "!", "&&", "||", "<", "==", "=", "+", "-", "*", "/", "1", ".5", "p99_us", "rps", " "]),
                0..40,
            )
        ) {
            let text: String = tokens.concat();
            if let Ok(e) = Expr::parse(&text) {
                let _ = e.holds(&with(1.0));
            }
        }
    }
}
