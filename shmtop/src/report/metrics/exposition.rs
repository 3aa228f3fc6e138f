//! Families and samples as text, in either dialect. Knows nothing of what is measured.

use std::fmt::{Display, Write as _};

/// Which text is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// The Prometheus text format 0.0.4.
    Text,
}

impl Dialect {
    /// The Content-Type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// What a family is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Counter,
    Gauge,
    Histogram,
    /// A 1 whose labels say something.
    Info,
}

/// Text in the making.
pub(super) struct Exposition {
    out: String,
    dialect: Dialect,
}

impl Exposition {
    pub(super) fn new(dialect: Dialect) -> Self {
        Self {
            out: String::new(),
            dialect,
        }
    }

    /// A family with its samples, as (suffix beyond the type's own, labels, value); left out if there are none. `name` has
    /// no suffix of its type, and ends in its unit if it has one.
    pub(super) fn family<L: AsRef<str>, V: Display>(
        &mut self,
        name: &str,
        kind: Type,
        help: &str,
        samples: impl IntoIterator<Item = (&'static str, L, V)>,
    ) {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return;
        }
        let suffix = match kind {
            Type::Counter => "_total",
            Type::Info => "_info",
            Type::Gauge | Type::Histogram => "",
        };
        let open = self.dialect == Dialect::OpenMetrics;
        // The older format has the suffix in the family's name, and no infos.
        let title = format!("{name}{}", if open { "" } else { suffix });
        let word = match kind {
            Type::Counter => "counter",
            Type::Info if open => "info",
            Type::Info | Type::Gauge => "gauge",
            Type::Histogram => "histogram",
        };
        // Writing to a String can't fail.
        let _ = writeln!(self.out, "# TYPE {title} {word}");
        if let Some(unit) = ["seconds", "bytes", "ratio"]
            .into_iter()
            .find(|u| open && name.ends_with(&format!("_{u}")))
        {
            let _ = writeln!(self.out, "# UNIT {title} {unit}");
        }
        let help = match self.dialect {
            Dialect::OpenMetrics => escape(help),
            Dialect::Text => help.replace('\\', "\\\\").replace('\n', "\\n"),
        };
        let _ = writeln!(self.out, "# HELP {title} {help}");
        for (more, labels, value) in samples {
            let labels = labels.as_ref();
            let _ = match labels {
                "" => writeln!(self.out, "{name}{suffix}{more} {value}"),
                _ => writeln!(self.out, "{name}{suffix}{more}{{{labels}}} {value}"),
            };
        }
    }

    /// The whole text. `# EOF` ends OpenMetrics and is a comment in the other, where it tells as well that nothing is missing.
    pub(super) fn finish(mut self) -> String {
        self.out.push_str("# EOF\n");
        self.out
    }
}

/// A label's value.
pub(super) fn escape(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}
