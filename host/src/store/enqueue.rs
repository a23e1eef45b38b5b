//! Enqueueing: a batch of jobs, all or none.

use std::time::Duration;

use super::script::{self, Lanes, Reply};
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

/// How many replicas are to have a job before it counts as accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replicas {
    /// So many, at least one.
    pub count: u32,
    /// How long they may take.
    pub timeout: Duration,
}

impl Store {
    /// Enqueues a batch, all or none; one answer per job, in their order. Large batches are sent in pieces of
    /// [`ENQUEUE_MAX`], each all or none. A job without an id gets one; so an answer that was lost does not enqueue
    /// twice.
    ///
    /// # Errors
    /// When a job breaks a rule (nothing is sent), when Redis cannot be reached or is full.
    pub async fn enqueue(&self, jobs: &[NewJob]) -> Result<Vec<Enqueued>, Error> {
        self.enqueue_with(jobs, None).await.map(|(answers, _)| answers)
    }

    /// As [`Store::enqueue`], and then waits for replicas: also answers how many of them have all jobs. Fewer than were
    /// asked for is no error here: the jobs are enqueued. The same jobs again, by their ids or idempotency keys, are
    /// not written twice, and waited for once more.
    ///
    /// # Errors
    /// As [`Store::enqueue`].
    pub async fn enqueue_with(
        &self,
        jobs: &[NewJob],
        replicas: Option<Replicas>,
    ) -> Result<(Vec<Enqueued>, u32), Error> {
        for job in jobs {
            job.check().map_err(Error::Refused)?;
        }
        let mut answers = Vec::with_capacity(jobs.len());
        let mut n_replicas = u32::MAX;
        for piece in jobs.chunks(ENQUEUE_MAX) {
            n_replicas = self.enqueue_piece(piece, replicas, &mut answers).await?.min(n_replicas);
        }
        Ok((answers, n_replicas))
    }

    async fn enqueue_piece(
        &self,
        jobs: &[NewJob],
        replicas: Option<Replicas>,
        answers: &mut Vec<Enqueued>,
    ) -> Result<u32, Error> {
        let mut lanes = Lanes::default();
        let places: Vec<usize> = jobs.iter().map(|job| lanes.place(&job.queue)).collect();
        let ids: Vec<JobId> = jobs.iter().map(|job| job.id.clone().unwrap_or_else(JobId::generate)).collect();
        // A producer whose user may not touch jumpscripts enqueues all the same; a pin needs more.
        let mut call = if jobs.iter().any(|job| job.pin.is_some()) {
            self.call(&script::ENQUEUE, &lanes, &[])
        } else {
            self.call_without_jumpscripts(&script::ENQUEUE, &lanes)
        };
        call.arg(jobs.len());
        for ((job, id), place) in jobs.iter().zip(&ids).zip(places) {
            call.job(place, id.as_bytes(), job);
        }
        let what = "an enqueue";
        let (mut reply, n_replicas) = match replicas {
            None => (self.send(what, &script::ENQUEUE, &call).await?, u32::MAX),
            Some(Replicas { count, timeout }) => {
                let sent = self.link.script_and_wait(what, &script::ENQUEUE, call.command(), count, timeout);
                let (answer, n_replicas) = sent.await?;
                (Reply::new(answer, self.address(), what), n_replicas)
            }
        };
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
        Ok(n_replicas)
    }
}
