//! Random sequences of operations: how they are made from a seed, and how a failing one is made short.
//!
//! An operation names what it works on by a number that is only looked up when it runs. So every part of a sequence is
//! a sequence too, and it can be shortened by leaving operations out.

use crate::support::dice::Dice;

/// Clients that take turns.
pub(super) const CLIENTS: usize = 4;
/// Queues of a sequence.
pub(super) const QUEUES: usize = 3;
/// Operations of a sequence.
pub(super) const OPERATIONS: usize = 60;
/// Ids that are drawn from; the same one comes up twice now and then.
pub(super) const IDS: u64 = 100;
const IDEMPOTENCY_KEYS: u64 = 8;
/// Replays that shortening may cost.
const REPLAYS_MAX: usize = 400;

const MILLI: i64 = 1_000_000;
const SECOND: i64 = 1_000_000_000;

/// What one client does, and how much time passes before it.
#[derive(Clone, Debug)]
pub(super) struct Operation {
    pub(super) client: usize,
    pub(super) step: Step,
    pub(super) action: Action,
}

/// How time passes.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// By so many nanoseconds.
    By(i64),
    /// To the moment at which something becomes due, and so many nanoseconds beside it.
    ToEdge { pick: usize, beside: i64 },
}

#[derive(Clone, Debug)]
pub(super) enum Action {
    Enqueue(Vec<Draft>),
    Turn { ends: Vec<(Hold, Ending)>, ask: Option<Ask> },
    Extend { holds: Vec<Hold>, lease_ms: i64 },
    Sweep { queues: Vec<usize> },
    Requeue { pick: usize, is_other_queue: bool, after: Option<i64>, is_reset: bool },
}

/// A job to enqueue.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    pub(super) id: u64,
    pub(super) queue: usize,
    /// Nanoseconds from now to its run time; also into the past.
    pub(super) after: Option<i64>,
    pub(super) key: Option<u64>,
    pub(super) max_attempts: Option<u32>,
}

/// A lease that a client means, and the token it shows.
#[derive(Clone, Debug)]
pub(super) struct Hold {
    pub(super) pick: usize,
    /// One that it has ended before, or lost.
    pub(super) is_past: bool,
    pub(super) token: Token,
}

#[derive(Clone, Debug)]
pub(super) enum Token {
    Own,
    /// One that was given out for some other lease.
    Foreign(usize),
    Unknown,
    Empty,
}

#[derive(Clone, Debug)]
pub(super) enum Ending {
    Done,
    /// Again after so many milliseconds.
    Retry(u64),
    Dlq,
    Release,
}

/// A reserve.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    /// Queues and their quotas.
    pub(super) shares: Vec<(usize, u32)>,
    pub(super) limit: u32,
    pub(super) lease_ms: u64,
    pub(super) is_sweep: bool,
}

/// The sequence of a seed.
pub(super) fn sequence(seed: u64) -> Vec<Operation> {
    // Neighbouring seeds are to have nothing in common.
    let mut dice = Dice::of(seed).fork();
    (0..OPERATIONS)
        .map(|_| Operation { client: dice.place(CLIENTS), step: step(&mut dice), action: action(&mut dice) })
        .collect()
}

fn step(dice: &mut Dice) -> Step {
    match dice.below(100) {
        0..25 => Step::By(0),
        25..40 => Step::By(dice.nanos(2 * MILLI)),
        40..65 => Step::By(dice.nanos(2 * SECOND)),
        65..72 => Step::By(dice.nanos(40 * SECOND)),
        72..99 => {
            let besides = [-MILLI, -1, 0, 0, 1, MILLI];
            Step::ToEdge { pick: dice.place(16), beside: besides[dice.place(besides.len())] }
        }
        // Longer than a dead row is kept.
        _ => Step::By(31 * 86_400 * SECOND),
    }
}

fn action(dice: &mut Dice) -> Action {
    match dice.below(100) {
        0..25 => Action::Enqueue(dice.some(1, 3, draft)),
        25..75 => {
            let ends = dice.some(0, 3, |dice| (hold(dice), ending(dice)));
            let is_asking = ends.is_empty() || !dice.is_one_in(4);
            Action::Turn { ends, ask: is_asking.then(|| ask(dice)) }
        }
        75..83 => Action::Extend { holds: dice.some(1, 3, hold), lease_ms: 1 + dice.nanos(20_000) },
        83..92 => Action::Sweep { queues: queues(dice, QUEUES) },
        _ => Action::Requeue {
            pick: dice.place(IDS as usize),
            is_other_queue: dice.is_one_in(8),
            after: dice.is_one_in(2).then(|| dice.nanos(8 * SECOND) - 2 * SECOND),
            is_reset: dice.is_one_in(2),
        },
    }
}

/// Up to `most` different queues, in any order.
fn queues(dice: &mut Dice, most: usize) -> Vec<usize> {
    let (n, first, step) = (1 + dice.place(most), dice.place(QUEUES), 1 + dice.place(QUEUES - 1));
    (0..n).map(|place| (first + place * step) % QUEUES).collect()
}

fn draft(dice: &mut Dice) -> Draft {
    Draft {
        id: dice.below(IDS),
        queue: dice.place(QUEUES),
        after: dice.is_one_in(3).then(|| dice.nanos(10 * SECOND) - 2 * SECOND),
        key: dice.is_one_in(4).then(|| dice.below(IDEMPOTENCY_KEYS)),
        max_attempts: dice.is_one_in(2).then(|| 1 + dice.number(6)),
    }
}

fn hold(dice: &mut Dice) -> Hold {
    let token = match dice.below(20) {
        0..2 => Token::Foreign(dice.place(64)),
        2 => Token::Unknown,
        3 => Token::Empty,
        _ => Token::Own,
    };
    Hold { pick: dice.place(16), is_past: dice.is_one_in(4), token }
}

fn ending(dice: &mut Dice) -> Ending {
    match dice.below(10) {
        0..3 => Ending::Done,
        3..6 => Ending::Retry(if dice.is_one_in(3) { 0 } else { 1 + dice.below(5000) }),
        6..8 => Ending::Dlq,
        _ => Ending::Release,
    }
}

fn ask(dice: &mut Dice) -> Ask {
    let shares = queues(dice, 2).into_iter().map(|queue| (queue, dice.number(4))).collect();
    let lease_ms = if dice.is_one_in(3) { 30_000 } else { 1 + dice.below(6000) };
    Ask { shares, limit: 1 + dice.number(4), lease_ms, is_sweep: !dice.is_one_in(3) }
}

/// Leaves out what a failing sequence does not need to fail; `fails` replays a candidate.
pub(super) async fn shortened<F: Future<Output = bool>>(
    mut operations: Vec<Operation>,
    mut fails: impl FnMut(Vec<Operation>) -> F,
) -> Vec<Operation> {
    let mut replays = 0;
    let mut length = operations.len() / 2;
    while length > 0 {
        let mut at = 0;
        let mut is_shorter = false;
        while at < operations.len() && replays < REPLAYS_MAX {
            let mut candidate = operations.clone();
            candidate.drain(at..(at + length).min(operations.len()));
            replays += 1;
            if fails(candidate.clone()).await {
                operations = candidate;
                is_shorter = true;
            } else {
                at += length;
            }
        }
        // Single operations are tried again as long as that helps.
        if length > 1 || !is_shorter || replays >= REPLAYS_MAX {
            length /= 2;
        }
    }
    operations
}
