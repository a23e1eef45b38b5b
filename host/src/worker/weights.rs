//! Shares one reserve call between several queues by their weights.
//!
//! Each queue has a credit: it grows by the queue's share of what was handed out and shrinks by what the queue got.
//! Under backlog the credits even out, so 3:1 is served 3:1 over any longer stretch whatever the batch size. A queue
//! that had nothing to give earns no credit; it cannot save up while it is empty and then starve the others.
//!
//! Strictly, the first queue is asked for everything, and each later one for what those before it leave over.

/// The weights of the queues a worker serves, and what they are owed.
#[derive(Clone, Debug)]
pub struct Weights {
    queues: Vec<Share>,
    is_strict: bool,
}

#[derive(Clone, Debug)]
struct Share {
    weight: f64,
    credit: f64,
}

impl Weights {
    /// Weights in the order of the queues; each at least 1.
    #[must_use]
    pub fn new(weights: impl IntoIterator<Item = u32>) -> Self {
        let share = |weight: u32| Share { weight: f64::from(weight.max(1)), credit: 0.0 };
        Self { queues: weights.into_iter().map(share).collect(), is_strict: false }
    }

    /// `n` queues in the order in which they go before each other.
    #[must_use]
    pub fn strict(n: usize) -> Self {
        Self { is_strict: true, ..Self::new(vec![1; n]) }
    }

    /// How many of `limit` jobs each queue may give first; what a queue leaves goes to the others, those owed most
    /// first. The numbers add up to `limit`.
    #[must_use]
    pub fn quotas(&self, limit: u32) -> Vec<u32> {
        if self.is_strict {
            return (0..self.queues.len()).map(|n| if n == 0 { limit } else { 0 }).collect();
        }
        let sum: f64 = self.queues.iter().map(|q| q.weight).sum();
        let mut owed: Vec<f64> = self.queues.iter().map(|q| q.credit + f64::from(limit) * q.weight / sum).collect();
        let mut quotas = vec![0_u32; owed.len()];
        // One at a time to whom it is owed most: exact for every remainder, and `limit` is at most a few hundred.
        for _ in 0..limit {
            let Some(most) = (0..owed.len()).max_by(|a, b| owed[*a].total_cmp(&owed[*b])) else { break };
            quotas[most] += 1;
            owed[most] -= 1.0;
        }
        quotas
    }

    /// The queues in the order in which they may take what others left.
    #[must_use]
    pub fn order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.queues.len()).collect();
        // Strict queues earn no credit, and a stable sort leaves them as they are.
        order.sort_by(|a, b| self.queues[*b].credit.total_cmp(&self.queues[*a].credit));
        order
    }

    /// Tells what came of `quotas`: how many jobs each queue gave.
    pub fn served(&mut self, quotas: &[u32], taken: &[u32]) {
        if self.is_strict {
            return;
        }
        let is_asked = |n: usize| quotas[n] > 0 || taken[n] > 0;
        // A queue that was not asked may have a backlog: it earns its share until it is asked.
        let is_owed = |n: usize| !is_asked(n) || (taken[n] >= quotas[n] && taken[n] > 0);
        let owed: f64 = (0..self.queues.len()).filter(|n| is_owed(*n)).map(|n| self.queues[n].weight).sum();
        let total: u32 = (0..self.queues.len()).filter(|n| is_owed(*n)).map(|n| taken[n]).sum();
        // It was asked and had less than its share: nothing is owed to it. What was goes to the others, so that all
        // credits together stay nothing and none drifts away.
        let forfeited: f64 = (0..self.queues.len()).filter(|n| !is_owed(*n)).map(|n| self.queues[n].credit).sum();
        for (n, queue) in self.queues.iter_mut().enumerate() {
            queue.credit = if is_owed(n) {
                queue.credit + (f64::from(total) + forfeited) * queue.weight / owed - f64::from(taken[n])
            } else {
                0.0
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Draws `calls` batches of `limit` from queues that never run empty, except those in `empty`.
    fn drain(weights: &mut Weights, limit: u32, calls: usize, empty: &[usize]) -> Vec<u32> {
        let mut total = vec![0; weights.queues.len()];
        for _ in 0..calls {
            let quotas = weights.quotas(limit);
            let mut taken: Vec<u32> =
                quotas.iter().enumerate().map(|(n, q)| if empty.contains(&n) { 0 } else { *q }).collect();
            let left = limit - taken.iter().sum::<u32>();
            if let Some(first) = weights.order().into_iter().find(|n| !empty.contains(n)) {
                taken[first] += left;
            }
            weights.served(&quotas, &taken);
            total.iter_mut().zip(&taken).for_each(|(sum, n)| *sum += n);
        }
        total
    }

    #[test]
    fn three_to_one_is_served_three_to_one_at_any_batch_size() {
        for limit in [1, 2, 3, 7, 64] {
            let mut weights = Weights::new([3, 1]);
            let calls = 10_000 / limit as usize;
            let total = drain(&mut weights, limit, calls, &[]);
            let share = f64::from(total[0]) / f64::from(total[0] + total[1]);
            assert!((share - 0.75).abs() < 0.01, "batch {limit}: {total:?}");
        }
    }

    #[test]
    fn an_empty_queue_leaves_its_share_to_the_others_and_saves_nothing_up() {
        let mut weights = Weights::new([1, 1]);
        assert_eq!(drain(&mut weights, 10, 100, &[0]), [0, 1000]);
        let after = drain(&mut weights, 10, 100, &[]);
        assert!((450..=550).contains(&after[0]), "the queue that was empty does not starve the other: {after:?}");
    }

    #[test]
    fn the_first_of_strict_queues_is_asked_for_everything_however_long_it_was_served() {
        let mut weights = Weights::strict(3);
        assert_eq!(drain(&mut weights, 7, 100, &[]), [700, 0, 0]);
        assert_eq!(drain(&mut weights, 7, 100, &[0]), [0, 700, 0]);
        assert_eq!((weights.quotas(7), weights.order()), (vec![7, 0, 0], vec![0, 1, 2]));
    }

    #[test]
    fn quotas_add_up_to_the_limit() {
        let weights = Weights::new([5, 3, 1]);
        for limit in 0..40 {
            assert_eq!(weights.quotas(limit).iter().sum::<u32>(), limit);
        }
    }
}
