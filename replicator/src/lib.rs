//! `session-replicator`: sessions in memory, spoken to over Redis and memcached protocols, replicated between pods.
//!
//! * [`store`] keeps the entries: compact, single-threaded, no I/O and no clock.
//! * [`core`] is the replication: what a command does, what goes to which member, when a reply may leave.
//!   It does no I/O either; time and randomness come in as arguments.
//! * [`front`] is what applications speak to, [`net`] carries frames between members, [`runtime`] is the process.
//! * [`fuzzing`] holds for any bytes from a client or a peer what has to hold.
//! * [`sim`] runs many cores in one thread against a fake clock and a faulty network.

pub mod config;
pub mod core;
pub mod front;
pub mod fuzzing;
pub mod net;
pub mod runtime;
pub mod sim;
pub mod store;
