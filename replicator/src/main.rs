//! The sidecar: arguments → run.

fn main() {}
