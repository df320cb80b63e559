//! SessionStores with real servers: what they hold through restarts, and whom they let in.

#[cfg(test)]
mod clustered;
mod memcached;
#[cfg(test)]
mod replicated;
#[cfg(test)]
mod rotation;
#[cfg(test)]
mod standalone;
#[cfg(test)]
mod support;
