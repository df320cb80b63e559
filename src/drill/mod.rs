//! The drill: users of a web application, played over HTTP, and what became of the session of each.
//!
//! A [`Drill`] logs users in, lets them fill baskets, goes on using the application while something happens to it
//! (an *event*: a pod is deleted, the Deployment is scaled, …), and accounts for every user in a [`Report`]: kept,
//! moved to another pod, lost, spoilt, back after a logout. It believes only what the application answers.
//!
//! Nothing here knows of session policies, and only [`event`] knows of Kubernetes.

pub mod account;
pub mod application;
pub mod client;
pub mod event;
pub mod html;
mod newcomers;
pub mod progress;
pub mod report;
mod run;
pub mod table;
#[cfg(test)]
mod tests;
mod user;

pub use account::{Class, Failure};
pub use application::Application;
pub use client::Target;
pub use report::Report;
pub use run::{Drill, Error, Marks, Options};
