//! Other systems' lists: looking at them, taking messages over, and who of the fleet watches them.
//!
//! Invariant: a message is either in its list as it was, or taken over whole: `lua/take_over.lua` is one script that
//! takes only what is still as it was seen.
//!
//! Next: `protocol` for what messages mean, `bridge` for who calls.

use redis::Value;

use super::script::{self, Call, Lanes, Reply};
use super::{Error, SetAside, Store, turn};
use crate::effects::Key;
use crate::job::{JobId, NewJob};
use crate::protocol::{Message, Moment, Protocol, Record, Source, Tell};

/// Bytes of records after which a look reads no further one.
const LOOK_BYTES: usize = 1024 * 1024;

/// What a look at a list has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// Entries of the list.
    pub length: u64,
    /// The first of them.
    pub found: Vec<Found>,
}

/// An entry of a list, and the record that it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The id, byte for byte.
    pub id: Vec<u8>,
    /// The record.
    pub record: Record,
    /// What the record's state is compared by when the entry is taken.
    state: Vec<u8>,
}

/// What a take-over did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TakenOver {
    /// Entries that left the list.
    pub taken: u32,
    /// Jobs that wait in the queue now.
    pub new: u32,
    /// Entries that were dropped: their job has ended, or was taken over before.
    pub known: u32,
    /// What could not become a job, for the log.
    pub set_aside: Vec<SetAside>,
    /// Whether the queue takes no more at the moment.
    pub is_full: bool,
}

/// What a host is told of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// Whether this host is the one of the fleet that watches it.
    pub is_ours: bool,
    /// Whether it has entries; also when it is no list.
    pub has_entries: bool,
}

impl Store {
    /// Looks at the first entries of a list, at most `most`, and their records; at none while about `waiting_max` jobs
    /// wait in the queue.
    ///
    /// # Errors
    /// [`Error::Refused`] when the key is no list; when Redis cannot be reached.
    pub async fn look_at(&self, source: &Source, most: usize, waiting_max: u32) -> Result<Look, Error> {
        let mut lanes = Lanes::default();
        lanes.place(&source.queue);
        let mut call = self.list_call(&script::LOOK, &lanes, [&source.list]);
        call.arg(source.record_prefix).arg(most).arg(LOOK_BYTES).arg(waiting_max);
        call.arg(source.fields.len()).arg(source.fields);
        let mut reply = self.send("a look at a list", &script::LOOK, &call).await?;
        let length = first_number(&mut reply)?;
        let mut found = Vec::with_capacity(reply.len() / 3);
        while !reply.is_empty() {
            let (id, state, values) = (reply.bytes()?, reply.bytes()?, reply.next()?);
            let record = match state.as_slice() {
                b"none" => Record::Missing,
                b"other" => Record::Other,
                _ => Record::Fields(fields(values)),
            };
            found.push(Found { id, record, state });
        }
        Ok(Look { length: u64::from(length), found })
    }

    /// Takes messages of a list over, as far as they are still as they were found. No more than `waiting_max` jobs will
    /// wait in the queue then.
    ///
    /// # Errors
    /// [`Error::Refused`] when a key is of the wrong type; when Redis cannot be reached or is full. Nothing was taken
    /// then, or the call may be made again.
    pub async fn take_over(
        &self,
        protocol: Protocol,
        source: &Source,
        messages: &[(Found, Message)],
        waiting_max: u32,
    ) -> Result<TakenOver, Error> {
        let mut lanes = Lanes::default();
        let place = lanes.place(&source.queue);
        let mut call = self.list_call(&script::TAKE_OVER, &lanes, [&source.list]);
        call.arg(source.record_prefix).arg(source.fields.first().copied().unwrap_or_default());
        call.arg(waiting_max).arg(protocol.word()).arg(told(protocol)).arg(messages.len());
        for (found, message) in messages {
            call.arg(&found.id).arg(&found.state);
            write_message(&mut call, place, message);
        }
        let mut reply = self.send("a take-over", &script::TAKE_OVER, &call).await?;
        Ok(TakenOver {
            taken: first_number(&mut reply)?,
            new: reply.count()?,
            known: reply.count()?,
            set_aside: turn::set_aside(reply.nested()?, &lanes)?,
            is_full: reply.count()? == 1,
        })
    }

    /// Takes or renews the watch of lists for `session`, one word, as far as no other host has it.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn watch_lists(&self, sources: &[Source], session: &str) -> Result<Vec<Told>, Error> {
        let mut reply = self.watch_call(sources, session, "watch").await?;
        let mut told = Vec::with_capacity(sources.len());
        for _ in sources {
            told.push(Told { is_ours: reply.count()? == 1, has_entries: reply.count()? > 0 });
        }
        Ok(told)
    }

    /// Leaves what `session` watches to others.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn leave_lists(&self, sources: &[Source], session: &str) -> Result<(), Error> {
        self.watch_call(sources, session, "leave").await.map(drop)
    }

    async fn watch_call(&self, sources: &[Source], session: &str, word: &str) -> Result<Reply, Error> {
        let lists = sources.iter().map(|source| &source.list);
        let mut call = self.list_call(&script::WATCH_LISTS, &Lanes::default(), lists);
        call.arg(session).arg(word).arg(sources.len());
        self.send("the watch of lists", &script::WATCH_LISTS, &call).await
    }

    fn list_call<'a>(
        &self,
        script: &super::link::Script,
        lanes: &Lanes<'_>,
        lists: impl IntoIterator<Item = &'a Key>,
    ) -> Call {
        let more: Vec<String> =
            lists.into_iter().map(|list| String::from_utf8_lossy(list.as_bytes()).into_owned()).collect();
        self.call(script, lanes, &more)
    }
}

fn write_message(call: &mut Call, place: usize, message: &Message) {
    match message {
        Message::Job { job, is_again } => {
            call.arg(if *is_again { "R" } else { "J" });
            write_job(call, place, job);
        }
        Message::Refused { job, reason } => {
            call.arg("D").arg(reason);
            write_job(call, place, job);
        }
        Message::Answered { id, text } => {
            call.arg("A").arg(*text).arg(id.as_bytes());
        }
        Message::Aside { reason } => {
            call.arg("S").arg(reason);
        }
        Message::Ended => {
            call.arg("E");
        }
    }
}

fn write_job(call: &mut Call, place: usize, job: &NewJob) {
    let id = job.id.clone().unwrap_or_else(JobId::generate);
    call.job(place, id.as_bytes(), job);
}

/// The first number of an answer, which is a text instead when a key is of the wrong type.
fn first_number(reply: &mut Reply) -> Result<u32, Error> {
    match reply.next()? {
        Value::Int(n) => u32::try_from(n).map_err(|_| reply.odd(&n.to_string())),
        Value::BulkString(reason) => Err(Error::Refused(String::from_utf8_lossy(&reason).into_owned())),
        other => Err(reply.odd(&format!("{other:?}"))),
    }
}

fn fields(values: Value) -> Vec<Option<Vec<u8>>> {
    let Value::Array(values) = values else { return Vec::new() };
    let bytes = |value| if let Value::BulkString(bytes) = value { Some(bytes) } else { None };
    values.into_iter().map(bytes).collect()
}

/// What a system is told and when, as `lua/answer.lua` reads it: a line for each write, tabs between its words.
pub(super) fn told(protocol: Protocol) -> String {
    let line = |(moment, tell): &(Moment, Tell)| {
        let mut words = vec![moment.word().to_owned()];
        let mut add = |more: &[&str]| words.extend(more.iter().map(|&word| word.to_owned()));
        match tell {
            Tell::Fields { key, words, time, fields } => {
                add(&["F", key, words, time]);
                fields.iter().for_each(|(name, value)| add(&[name, value]));
            }
            Tell::Remove { key, fields } => {
                add(&["H", key]);
                add(fields);
            }
            Tell::Reply { key, ttl } => add(&["Q", key, &ttl.as_millis().to_string()]),
        }
        words.join("\t")
    };
    protocol.told().iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hero_is_told_is_text_that_the_script_can_take_apart() {
        assert_eq!(
            told(Protocol::Hero).lines().collect::<Vec<_>>(),
            [
                "started\tF\thero:job:\t\tupdated_at\tstatus\tstarted",
                "again\tH\thero:job:\toutput\terror",
                "again\tF\thero:job:\t\tupdated_at\tstatus\tstarted",
                "done\tF\thero:job:\toutput\tupdated_at\tstatus\tfinished",
                "done\tQ\thero:q:reply:\t3600000",
                "failed\tF\thero:job:\terror\tupdated_at\tstatus\terror",
                "failed\tQ\thero:q:reply:\t3600000",
            ]
        );
    }
}
