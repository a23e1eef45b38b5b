//! Enqueueing: a batch of jobs, all or none.

use super::script::{self, Lanes};
use super::{ENQUEUE_MAX, Error, Store};
use crate::job::{JobId, NewJob};

/// A job that lies in Redis now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enqueued {
    /// Its id; of the first one when the idempotency key was known.
    pub id: JobId,
    /// Whether this call made it.
    pub is_new: bool,
}

impl Store {
    /// Enqueues a batch, all or none; one answer per job, in their order. Large batches are sent in pieces of
    /// [`ENQUEUE_MAX`], each all or none. A job without an id gets one; so an answer that was lost does not enqueue
    /// twice.
    ///
    /// # Errors
    /// When a job breaks a rule (nothing is sent), when Redis cannot be reached or is full.
    pub async fn enqueue(&self, jobs: &[NewJob]) -> Result<Vec<Enqueued>, Error> {
        for job in jobs {
            job.check().map_err(Error::Refused)?;
        }
        let mut answers = Vec::with_capacity(jobs.len());
        for piece in jobs.chunks(ENQUEUE_MAX) {
            self.enqueue_piece(piece, &mut answers).await?;
        }
        Ok(answers)
    }

    async fn enqueue_piece(&self, jobs: &[NewJob], answers: &mut Vec<Enqueued>) -> Result<(), Error> {
        let mut lanes = Lanes::default();
        let places: Vec<usize> = jobs.iter().map(|job| lanes.place(&job.queue)).collect();
        let ids: Vec<JobId> = jobs.iter().map(|job| job.id.clone().unwrap_or_else(JobId::generate)).collect();
        let mut call = self.call(&script::ENQUEUE, &lanes, &[]);
        call.arg(jobs.len());
        for ((job, id), place) in jobs.iter().zip(&ids).zip(places) {
            call.job(place, id.as_bytes(), job);
        }
        let mut reply = self.send("an enqueue", &script::ENQUEUE, &call).await?;
        let first = answers.len();
        answers.extend(ids.into_iter().map(|id| Enqueued { id, is_new: true }));
        while !reply.is_empty() {
            let place = usize::try_from(reply.number()?).unwrap_or(0).wrapping_sub(1);
            let known = JobId::from_bytes(&reply.bytes()?);
            let job = jobs.get(place).ok_or_else(|| reply.odd("an unknown job"))?;
            let answer = &mut answers[first + place];
            // An id that was made here is found in Redis only when the first answer to this very call was lost.
            answer.is_new = job.id.is_none() && known == answer.id;
            answer.id = known;
        }
        Ok(())
    }
}
