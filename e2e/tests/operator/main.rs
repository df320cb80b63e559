//! Faults of the operator and of the API server, and the life of the release: one test at a time, since all share the
//! operator. Run with `--test-threads=1`.

#[cfg(test)]
mod faults;
#[cfg(test)]
mod injection;
#[cfg(test)]
mod long;
#[cfg(test)]
mod release;
#[cfg(test)]
mod support;
#[cfg(test)]
mod webhook;
