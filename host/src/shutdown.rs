//! How services learn that they are to stop.

use tokio::sync::watch;

/// Resolves when `shutdown` turns true. A sender that is gone means that the host is gone: that is a stop as well.
/// Cancel-safe.
pub async fn requested(shutdown: &mut watch::Receiver<bool>) {
    // Both ends of the wait mean the same.
    let _either = shutdown.wait_for(|is_stopped| *is_stopped).await.is_ok();
}
