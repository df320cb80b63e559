//! Strategy Shared: sessions of real applications in stores that the operator makes, through everything that happens to
//! pods.
//!
//! Each test has a namespace, an application and a store of its own, so they run side by side.

#[cfg(test)]
mod applications;
#[cfg(test)]
mod common;
#[cfg(test)]
mod lifecycle;
#[cfg(test)]
mod mistakes;
#[cfg(test)]
mod support;
