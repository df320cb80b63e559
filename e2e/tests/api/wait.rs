//! Waiting for conditions, with a limit.

use std::time::{Duration, Instant};

/// How long anything may take. Far above what it takes on an idle machine, so that a busy one does not fail tests.
pub const LIMIT: Duration = Duration::from_secs(90);

/// Pause between two looks.
const PERIOD: Duration = Duration::from_millis(50);

/// Looks until there is an answer; fails with the last reason why there was none.
pub async fn until<T, F>(what: &str, mut look: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, String>>,
{
    let deadline = Instant::now() + LIMIT;
    loop {
        let why = match look().await {
            Ok(answer) => return answer,
            Err(why) => why,
        };
        assert!(
            Instant::now() < deadline,
            "waited {} s for {what}; at last: {why}",
            LIMIT.as_secs()
        );
        tokio::time::sleep(PERIOD).await;
    }
}
