//! The replication core.
//!
//! Owns what a command means, who holds which key, what goes to which member and when a reply may leave. It does no
//! I/O, has no clock and no source of randomness: everything comes in through [`Core`]'s methods, so that hundreds of
//! cores can run in one thread under test.
//!
//! # How a front uses it
//!
//! ```text
//! per connection:  let mut client = Client::new();
//! GET:             match core.get(now, &mut client, key) {
//!                      Lookup::Found { value, .. } => copy it into the output buffer,
//!                      Lookup::Missing             => nil,
//!                      Lookup::WrongType           => error,
//!                      Lookup::Elsewhere           => core.execute(now, &mut client, &command, &mut out) }
//! anything else:   match core.execute(now, &mut client, &command, &mut out) {
//!                      Executed::Done(reply)       => answer,
//!                      Executed::Pending(ticket)   => stop reading this connection's commands until
//!                                                     Output::Complete { ticket, .. } comes }
//! after each read: core.step(now, &Input::Flush, &mut out); then carry out everything in `out`
//! timer:           at core.next_tick_ms(): core.step(now, &Input::Tick, &mut out)
//! ```

mod acknowledge;
mod antientropy;
mod apply;
mod classify;
mod client;
mod clock;
mod command;
mod config;
mod decide;
mod forward;
mod gather;
mod groups;
mod handoff;
mod heartbeat;
mod io;
mod life;
mod members;
mod missed;
mod node;
mod numbers;
mod peek;
mod placement;
mod read;
mod rename;
mod replicate;
mod room;
mod settle;
mod stats;
mod step;
mod stream;
#[cfg(test)]
mod testing;
mod upstream;
mod version;
mod view;
mod wire;

pub use client::{Base, Client, Observed};
pub use clock::{Clock, Hlc, Now};
pub use command::{Command, CommandError, Condition, ExpireCondition, Kind, Op, Reply, Restored, SetExpiry};
#[cfg(test)]
pub use config::Faults;
pub use config::{Acknowledge, Config, GroupRules, Mode, NodeInfo};
pub use groups::{group_of, is_lock};
pub use io::{Event, Input, KeyEvent, LinkId, Output, TicketId};
pub use members::MemberState;
pub use node::{Core, Counters, Executed, Lookup};
pub use stats::{MemberStats, Stats};
pub use upstream::{Fetched, Stored, UpstreamPortion, UpstreamStats, UpstreamWrite};
pub use version::{Incarnation, NodeId, Version};

/// The newest wire version this build speaks. It also speaks the one before.
pub const WIRE_VERSION: u8 = wire::NEWEST;

/// The longest frame that a core sends, bytes; a longer one from a peer is to be refused unread.
pub const MAX_FRAME: usize = 64 << 20;
