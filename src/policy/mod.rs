//! The controller of `SessionPolicy`.

pub mod survives;
