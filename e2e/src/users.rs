//! Users of drills whose event replaces pods, and what has to become of them.

use std::borrow::Borrow;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use futures::FutureExt;
use futures::future::try_join_all;
use session_operator::drill::{Class, Options, Report};
use tokio::sync::Barrier;

use crate::app::Running;

/// Users who stay logged in.
pub const USERS: u32 = 30;

/// Users who log out before the event and have to stay out.
pub const LEAVERS: u32 = 5;

/// Options of a drill whose event replaces pods.
pub fn users() -> Options {
    Options {
        members: USERS,
        leavers: LEAVERS,
        period: Duration::from_millis(500),
        timeout: Duration::from_secs(20),
        before: Duration::from_secs(2),
        settle: Duration::from_secs(4),
        ..Options::default()
    }
}

/// Fails unless every member still has the session, wherever it is served now, and everybody who logged out stays out.
pub fn nobody_lost(report: &Report) -> Result<()> {
    ensure!(
        report.count(Class::Kept) + report.count(Class::Moved) == USERS
            && report.count(Class::LoggedOut) == LEAVERS,
        "{}",
        report.table()
    );
    Ok(())
}

/// Drills several applications around one and the same event, which begins when the users of all are logged in.
pub async fn drill_together(
    applications: &[impl Borrow<(Running, SocketAddr)>],
    options: &Options,
    name: &str,
    event: impl Future<Output = Result<()>>,
) -> Result<Vec<Report>> {
    let logged_in = Barrier::new(applications.len());
    // Every drill waits for the same event, and each wants its outcome.
    let event = async { event.await.map_err(|error| format!("{error:#}")) };
    let event = event.boxed_local().shared();
    let drills = applications.iter().map(|application| {
        let (running, entry) = application.borrow();
        let (logged_in, event) = (&logged_in, event.clone());
        running.drill_with(*entry, options.clone(), name, async move || {
            logged_in.wait().await;
            event.await.map_err(|error| anyhow!(error))
        })
    });
    try_join_all(drills).await
}
