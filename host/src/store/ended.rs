//! Listening for jobs that end.

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;

use super::{Error, Store};
use crate::job::JobId;

/// The ids of jobs that end, as they come; jobs that other programs end are not among them.
pub struct Ends(BoxStream<'static, JobId>);

impl std::fmt::Debug for Ends {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ends").finish_non_exhaustive()
    }
}

impl Ends {
    /// The next one; `None` when the connection broke. Cancel-safe.
    pub async fn next(&mut self) -> Option<JobId> {
        self.0.next().await
    }
}

impl Store {
    /// Listens for the ends of all jobs, on a connection of its own.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn listen_to_ends(&self) -> Result<Ends, Error> {
        let listener = self.link.listen(&self.keys.ended()).await?;
        Ok(Ends(listener.into_on_message().map(|message| JobId::from_bytes(message.get_payload_bytes())).boxed()))
    }
}
