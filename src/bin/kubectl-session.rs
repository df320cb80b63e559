//! `kubectl session`: the operator's companion on the command line.

fn main() {}
