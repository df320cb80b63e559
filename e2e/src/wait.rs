//! Waiting for conditions: bounded, and with a last look in the error.

use std::fmt::Debug;
use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// Looks until there is something, and gives it. `look` returns `Ok(Err(…))` with what it saw while it is not yet what
/// is waited for.
///
/// # Errors
/// At once when looking fails; after `limit` with what was seen last.
pub async fn eventually<T, S, F>(what: &str, limit: Duration, mut look: impl FnMut() -> F) -> Result<T>
where
    S: Debug,
    F: Future<Output = Result<Result<T, S>>>,
{
    let begun = Instant::now();
    loop {
        match look().await? {
            Ok(found) => return Ok(found),
            Err(seen) if begun.elapsed() > limit => {
                bail!("{what}: not within {limit:?}; seen last: {seen:#?}")
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}
