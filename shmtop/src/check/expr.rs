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

use super::summary::FIGURES;
use crate::reading::{Reading, Why};

/// Deepest nesting; more is an error, not a stack overflow.
const MAX_DEPTH: usize = 64;
/// Longest text.
const MAX_BYTES: usize = 4096;

/// Where an expression stops making sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// The whole text.
    pub text: String,
    /// Byte offset of the trouble.
    pub at: usize,
    /// What is expected or wrong there.
    pub says: String,
}

impl std::fmt::Display for ParseError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let column = self.text.get(..self.at).map_or(0, |s| s.chars().count());
        let shown: String = self
            .text
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        write!(f, "{}\n  {shown}\n  {}^", self.says, " ".repeat(column))
    }
}

impl std::error::Error for ParseError {}

#[derive(Clone, Debug, PartialEq)]
enum Node {
    Number(f64),
    Figure(&'static str),
    Arithmetic(char, Box<Node>, Box<Node>),
    Compare(&'static str, Box<Node>, Box<Node>),
    Not(Box<Node>),
    And(Box<Node>, Box<Node>),
    Or(Box<Node>, Box<Node>),
}

impl Node {
    fn is_truth(&self) -> bool {
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
        let mut p = Parser {
            text,
            at: 0,
            depth: 0,
        };
        if text.len() > MAX_BYTES {
            return Err(p.error(0, format!("longer than {MAX_BYTES} bytes")));
        }
        let root = p.or()?;
        p.space();
        if p.at < text.len() {
            return Err(p.error(p.at, "expected an operator or the end"));
        }
        if !root.is_truth() {
            return Err(p.error(0, "a number is no assertion: compare it, e.g. p99_us < 5"));
        }
        Ok(Self { root })
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

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl Parser<'_> {
    fn error(&self, at: usize, says: impl Into<String>) -> ParseError {
        ParseError {
            text: self.text.to_owned(),
            at,
            says: says.into(),
        }
    }

    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or("")
    }

    fn space(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    /// Takes `token` if it comes next.
    fn take(&mut self, token: &str) -> bool {
        self.space();
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn or(&mut self) -> Result<Node, ParseError> {
        self.joined("||", Self::and, Node::Or)
    }

    fn and(&mut self) -> Result<Node, ParseError> {
        self.joined("&&", Self::not, Node::And)
    }

    fn joined(
        &mut self,
        token: &str,
        side: fn(&mut Self) -> Result<Node, ParseError>,
        make: fn(Box<Node>, Box<Node>) -> Node,
    ) -> Result<Node, ParseError> {
        self.space();
        let start = self.at;
        let mut left = side(self)?;
        while self.take(token) {
            if !left.is_truth() {
                return Err(self.error(
                    start,
                    format!("{token} joins comparisons; this is a number"),
                ));
            }
            self.space();
            let at = self.at;
            let right = side(self)?;
            if !right.is_truth() {
                return Err(self.error(at, format!("{token} joins comparisons; this is a number")));
            }
            left = make(Box::new(left), Box::new(right));
        }
        Ok(left)
    }

    fn deeper<T>(
        &mut self,
        f: impl FnOnce(&mut Self) -> Result<T, ParseError>,
    ) -> Result<T, ParseError> {
        if self.depth == MAX_DEPTH {
            return Err(self.error(self.at, format!("nested more than {MAX_DEPTH} deep")));
        }
        self.depth += 1;
        let out = f(self);
        self.depth -= 1;
        out
    }

    fn not(&mut self) -> Result<Node, ParseError> {
        self.space();
        if self.rest().starts_with('!') && !self.rest().starts_with("!=") {
            self.at += 1;
            self.space();
            let at = self.at;
            let inner = self.deeper(Self::not)?;
            if !inner.is_truth() {
                return Err(self.error(
                    at,
                    "! negates a comparison; this is a number: use parentheses",
                ));
            }
            return Ok(Node::Not(Box::new(inner)));
        }
        self.compare()
    }

    fn compare(&mut self) -> Result<Node, ParseError> {
        self.space();
        let start = self.at;
        let left = self.sum()?;
        self.space();
        let found = ["<=", ">=", "==", "!=", "<", ">"]
            .into_iter()
            .find(|t| self.rest().starts_with(t));
        let Some(op) = found else {
            if self.rest().starts_with('=') {
                return Err(self.error(self.at, "write == to compare"));
            }
            return Ok(left);
        };
        self.at += op.len();
        self.space();
        let at = self.at;
        let right = self.sum()?;
        for (node, at) in [(&left, start), (&right, at)] {
            if node.is_truth() {
                return Err(self.error(at, format!("{op} compares numbers; this is a comparison")));
            }
        }
        self.space();
        if self.rest().starts_with(['<', '>', '=']) {
            return Err(self.error(self.at, "comparisons don't chain: join two with &&"));
        }
        Ok(Node::Compare(op, Box::new(left), Box::new(right)))
    }

    fn sum(&mut self) -> Result<Node, ParseError> {
        self.arithmetic(&['+', '-'], Self::product)
    }

    fn product(&mut self) -> Result<Node, ParseError> {
        self.arithmetic(&['*', '/'], Self::atom)
    }

    fn arithmetic(
        &mut self,
        ops: &[char],
        side: fn(&mut Self) -> Result<Node, ParseError>,
    ) -> Result<Node, ParseError> {
        self.space();
        let start = self.at;
        let mut left = side(self)?;
        loop {
            self.space();
            let Some(op) = self.rest().chars().next().filter(|c| ops.contains(c)) else {
                return Ok(left);
            };
            self.at += 1;
            self.space();
            let at = self.at;
            let right = side(self)?;
            for (node, at) in [(&left, start), (&right, at)] {
                if node.is_truth() {
                    return Err(self.error(at, format!("{op} takes numbers; this is a comparison")));
                }
            }
            left = Node::Arithmetic(op, Box::new(left), Box::new(right));
        }
    }

    fn atom(&mut self) -> Result<Node, ParseError> {
        if self.take("(") {
            let inner = self.deeper(Self::or)?;
            if !self.take(")") {
                return Err(self.error(self.at, "expected )"));
            }
            return Ok(inner);
        }
        let start = self.at;
        let word: String = self
            .rest()
            .chars()
            .take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.'))
            .collect();
        if word.is_empty() {
            return Err(self.error(start, "expected a number, a figure or ("));
        }
        self.at += word.len();
        if word.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
            let value = word
                .replace('_', "")
                .parse::<f64>()
                .ok()
                .filter(|v| v.is_finite());
            return value.map(Node::Number).ok_or_else(|| {
                self.error(start, "not a number (units stand in the figure's name)")
            });
        }
        FIGURES
            .iter()
            .find(|f| f.name == word)
            .map(|f| Node::Figure(f.name))
            .ok_or_else(|| {
                let names: Vec<&str> = FIGURES.iter().map(|f| f.name).collect();
                self.error(
                    start,
                    format!("no figure has this name; there are {}", names.join(", ")),
                )
            })
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
