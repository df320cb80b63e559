//! The contract of an affinity adapter.
