//! An object in which what can't be had is `null`, and `why` says the reason.

use serde_json::{Map, Value};

use crate::reading::Reading;

/// Collects values and the reasons of those that are missing.
#[derive(Default)]
pub(super) struct Object {
    map: Map<String, Value>,
    missing: Vec<(String, String)>,
}

impl Object {
    pub(super) fn put(&mut self, name: &str, value: impl Into<Value>) -> &mut Self {
        self.map.insert(name.into(), value.into());
        self
    }

    /// A value, or null with its reason.
    pub(super) fn read<T: Into<Value>>(&mut self, name: &str, value: Reading<T>) -> &mut Self {
        match value {
            Ok(v) => {
                self.map.insert(name.into(), v.into());
            }
            Err(why) => {
                self.map.insert(name.into(), Value::Null);
                self.missing.push((name.into(), why.to_string()));
            }
        }
        self
    }

    /// The object, with `why` if something is missing.
    pub(super) fn done(&mut self) -> Value {
        if let Some((_, first)) = self.missing.first() {
            let same = self.missing.iter().all(|(_, w)| w == first);
            let why = if same {
                first.clone()
            } else {
                let parts: Vec<String> = self
                    .missing
                    .iter()
                    .map(|(n, w)| format!("{n}: {w}"))
                    .collect();
                parts.join("; ")
            };
            self.map.insert("why".into(), why.into());
        }
        Value::Object(std::mem::take(&mut self.map))
    }
}
