//! Presets at work on real servers: an unchanged application in a sandbox that has exactly what a preset adds to a
//! container, a real store with TLS and a user that sees the keys of one prefix only, and users of the drill who stay
//! logged in when every process of the application is killed.
//!
//! No cluster: `e2e/stage frameworks` installs what these tests need.

#[cfg(test)]
mod django;
#[cfg(test)]
mod express;
#[cfg(test)]
mod memcached;
#[cfg(test)]
mod php;
#[cfg(test)]
mod sandbox;
#[cfg(test)]
mod spring;
#[cfg(test)]
mod store;
#[cfg(test)]
mod tomcat;
#[cfg(test)]
mod trial;
