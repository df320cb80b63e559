//! End-to-end tests of session-operator on a real cluster.
