//! Strategies Shared and Replicated: sessions of real applications in stores that the operator makes or in the pods
//! themselves, through everything that happens to pods.
//!
//! Each test has a namespace and an application of its own, so they run side by side.

#[cfg(test)]
mod applications;
#[cfg(test)]
mod common;
#[cfg(test)]
mod drained;
#[cfg(test)]
mod drill;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod injection;
#[cfg(test)]
mod lifecycle;
#[cfg(test)]
mod long;
#[cfg(test)]
mod mistakes;
#[cfg(test)]
mod replicated;
#[cfg(test)]
mod support;
