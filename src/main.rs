//! The operator: arguments → run.

fn main() {}
