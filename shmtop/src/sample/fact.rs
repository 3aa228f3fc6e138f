//! [`Fact`]: a [`Reading`] as samples store it, readable in JSON and with a default for fixtures.
//!
//! The rest of shmtop computes with [`Reading`], where `?` hands a reason on; [`Fact::get`] leads there. It leaves out
//! any arithmetic.

use crate::reading::{Reading, Why, WhyKind};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A value that was read, or why it could not be.
///
/// In JSON a known value stands as itself and an unknown one as `{"unknown": "why", "kind": "no_permission"}`; the kind
/// may be left out and is then `not_there`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact<T> {
    /// What was read.
    Known(T),
    /// Why nothing was.
    Unknown(Why),
}

impl<T> Default for Fact<T> {
    fn default() -> Self {
        Self::Unknown(Why::not_there("not in this sample"))
    }
}

impl<T> Fact<T> {
    /// The value, if there is one.
    pub fn known(&self) -> Option<&T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Unknown(_) => None,
        }
    }

    /// Why there is none.
    pub fn why(&self) -> Option<&Why> {
        match self {
            Self::Known(_) => None,
            Self::Unknown(why) => Some(why),
        }
    }

    /// To compute with.
    pub fn as_reading(&self) -> Reading<&T> {
        match self {
            Self::Known(value) => Ok(value),
            Self::Unknown(why) => Err(why.clone()),
        }
    }
}

impl<T: Copy> Fact<T> {
    /// To compute with, by copy.
    pub fn get(&self) -> Reading<T> {
        self.as_reading().copied()
    }
}

impl<T> From<Reading<T>> for Fact<T> {
    fn from(reading: Reading<T>) -> Self {
        match reading {
            Ok(value) => Self::Known(value),
            Err(why) => Self::Unknown(why),
        }
    }
}

/// What stands in JSON. `Unknown` is tried first, because a struct whose fields all have defaults takes any map.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Stored<T> {
    Unknown {
        unknown: String,
        #[serde(default = "not_there")]
        kind: WhyKind,
    },
    Known(T),
}

fn not_there() -> WhyKind {
    WhyKind::NotThere
}

impl<T: Serialize> Serialize for Fact<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Known(value) => value.serialize(serializer),
            Self::Unknown(why) => Stored::<T>::Unknown {
                unknown: why.text.to_string(),
                kind: why.kind,
            }
            .serialize(serializer),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Fact<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match Stored::deserialize(deserializer)? {
            Stored::Unknown { unknown, kind } => Self::Unknown(Why::of(kind, unknown)),
            Stored::Known(value) => Self::Known(value),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_value_stands_as_itself_and_an_unknown_one_says_why() {
        let known: Fact<u64> = Fact::Known(7);
        let unknown: Fact<u64> = Fact::Unknown(Why::no_permission("hidepid"));
        assert_eq!(serde_json::to_string(&known).unwrap(), "7");
        assert_eq!(
            serde_json::to_string(&unknown).unwrap(),
            r#"{"unknown":"hidepid","kind":"no_permission"}"#
        );
        for fact in [known, unknown] {
            let json = serde_json::to_string(&fact).unwrap();
            assert_eq!(serde_json::from_str::<Fact<u64>>(&json).unwrap(), fact);
        }
    }

    #[test]
    fn a_fixture_may_leave_the_kind_out() {
        let fact: Fact<u64> = serde_json::from_str(r#"{"unknown":"hidden"}"#).unwrap();
        assert_eq!(fact, Fact::Unknown(Why::not_there("hidden")));
    }

    #[test]
    fn no_limit_is_a_known_value() {
        let none: Fact<Option<u64>> = serde_json::from_str("null").unwrap();
        assert_eq!(none, Fact::Known(None));
    }
}
