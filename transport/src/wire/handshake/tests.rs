//! The two machines against each other.
