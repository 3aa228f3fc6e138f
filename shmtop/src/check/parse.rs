//! Text to tree: the grammar of [`super::expr`], by recursive descent with bounded depth.
//!
//! Every refusal names its place, so that a typo in a CI file costs one look.

use super::expr::Node;
use super::figures::FIGURES;

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

/// Parses an assertion.
pub(super) fn parse(text: &str) -> Result<Node, ParseError> {
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
        return Err(p.error(
            p.at,
            "expected an operator (&& || < <= > >= == != + - * /) or the end",
        ));
    }
    if !root.is_truth() {
        return Err(p.error(0, "a number is no assertion: compare it, e.g. p99_us < 5"));
    }
    Ok(root)
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
                let names = || FIGURES.iter().map(|f| f.name);
                let instead = match crate::text::nearest(names(), &word) {
                    Some(near) => format!("did you mean {near}?"),
                    None => format!("there are {}", names().collect::<Vec<_>>().join(", ")),
                };
                self.error(start, format!("no figure has this name; {instead}"))
            })
    }
}
