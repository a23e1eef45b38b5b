//! `wasi:keyvalue` and `jobs` as guests call them.

use std::time::Duration;

use wasmtime::component::{Resource, ResourceTable};
use wasmtime_wasi::WasiView as _;

use super::{Refusal, StateMoved, Stop, Transaction, run_at};
use crate::job::NewJob;
use crate::sandbox::contract::{Wasi, atomics, batch, jobs, store};
use crate::sandbox::guest::Guest;
use crate::sandbox::host_calls::host_call;

/// An open bucket of a guest: its number in the transaction.
#[expect(unreachable_pub, reason = "the generated bindings re-export it")]
pub struct OpenBucket(usize);

const STORE: &str = "wasi:keyvalue/store";
const ATOMICS: &str = "wasi:keyvalue/atomics";
const BATCH: &str = "wasi:keyvalue/batch";
const JOBS: &str = "wasmhost:jumpscript/jobs";

type Answer<T> = wasmtime::Result<Result<T, store::Error>>;

/// What the guest is told; an attempt that can only be run again is stopped.
fn answer<T>(result: Result<T, Stop>) -> Answer<T> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(Stop::Denied) => Ok(Err(store::Error::AccessDenied)),
        Err(Stop::Other(text)) => Ok(Err(store::Error::Other(text))),
        Err(Stop::Moved) => Err(StateMoved.into()),
    }
}

impl Guest<Wasi> {
    fn transaction(&mut self) -> wasmtime::Result<&mut Transaction> {
        // It is made for every script that imports one of these interfaces.
        self.transaction.as_deref_mut().ok_or_else(|| wasmtime::format_err!("this attempt has no state"))
    }

    fn table(&mut self) -> &mut ResourceTable {
        self.ctx().table
    }

    fn bucket(&mut self, bucket: &Resource<OpenBucket>) -> wasmtime::Result<usize> {
        Ok(self.table().get(bucket)?.0)
    }
}

impl store::Host for Guest<Wasi> {
    fn open(&mut self, identifier: String) -> Answer<Resource<OpenBucket>> {
        host_call(STORE, "open");
        match self.transaction()?.open(&identifier) {
            Ok(n) => Ok(Ok(self.table().push(OpenBucket(n))?)),
            Err(stop) => answer(Err(stop)),
        }
    }
}

impl store::HostBucket for Guest<Wasi> {
    async fn get(&mut self, bucket: Resource<OpenBucket>, key: String) -> Answer<Option<Vec<u8>>> {
        host_call(STORE, "bucket.get");
        let n = self.bucket(&bucket)?;
        answer(self.transaction()?.get(n, &[key]).await.map(|mut values| values.pop().flatten()))
    }

    fn set(&mut self, bucket: Resource<OpenBucket>, key: String, value: Vec<u8>) -> Answer<()> {
        host_call(STORE, "bucket.set");
        let n = self.bucket(&bucket)?;
        answer(self.transaction()?.put(n, [(key, Some(value))]))
    }

    fn delete(&mut self, bucket: Resource<OpenBucket>, key: String) -> Answer<()> {
        host_call(STORE, "bucket.delete");
        let n = self.bucket(&bucket)?;
        answer(self.transaction()?.put(n, [(key, None)]))
    }

    async fn exists(&mut self, bucket: Resource<OpenBucket>, key: String) -> Answer<bool> {
        host_call(STORE, "bucket.exists");
        let n = self.bucket(&bucket)?;
        answer(self.transaction()?.get(n, &[key]).await.map(|values| values.iter().any(Option::is_some)))
    }

    async fn list_keys(&mut self, bucket: Resource<OpenBucket>, cursor: Option<u64>) -> Answer<store::KeyResponse> {
        host_call(STORE, "bucket.list-keys");
        let n = self.bucket(&bucket)?;
        let page = self.transaction()?.keys(n, cursor).await;
        answer(page.map(|(keys, cursor)| store::KeyResponse { keys, cursor }))
    }

    fn drop(&mut self, bucket: Resource<OpenBucket>) -> wasmtime::Result<()> {
        self.table().delete(bucket)?;
        Ok(())
    }
}

impl atomics::Host for Guest<Wasi> {
    async fn increment(&mut self, bucket: Resource<OpenBucket>, key: String, delta: u64) -> Answer<u64> {
        host_call(ATOMICS, "increment");
        let n = self.bucket(&bucket)?;
        answer(self.transaction()?.increment(n, key, delta).await)
    }
}

impl batch::Host for Guest<Wasi> {
    async fn get_many(
        &mut self,
        bucket: Resource<OpenBucket>,
        keys: Vec<String>,
    ) -> Answer<Vec<Option<(String, Vec<u8>)>>> {
        host_call(BATCH, "get-many");
        let n = self.bucket(&bucket)?;
        let values = self.transaction()?.get(n, &keys).await;
        answer(values.map(|values| keys.into_iter().zip(values).map(|(key, value)| Some((key, value?))).collect()))
    }

    fn set_many(&mut self, bucket: Resource<OpenBucket>, key_values: Vec<(String, Vec<u8>)>) -> Answer<()> {
        host_call(BATCH, "set-many");
        let n = self.bucket(&bucket)?;
        answer(self.transaction()?.put(n, key_values.into_iter().map(|(key, value)| (key, Some(value)))))
    }

    fn delete_many(&mut self, bucket: Resource<OpenBucket>, keys: Vec<String>) -> Answer<()> {
        host_call(BATCH, "delete-many");
        let n = self.bucket(&bucket)?;
        answer(self.transaction()?.put(n, keys.into_iter().map(|key| (key, None))))
    }
}

impl jobs::Host for Guest<Wasi> {
    fn enqueue(
        &mut self,
        queue: String,
        job_type: String,
        payload: Vec<u8>,
        options: jobs::Options,
    ) -> wasmtime::Result<Result<String, jobs::EnqueueError>> {
        host_call(JOBS, "enqueue");
        let transaction = self.transaction()?;
        let made = run_at(options.delay_ms, options.run_at_ms).and_then(|run_at| {
            transaction.enqueue(NewJob {
                content_type: options.content_type,
                metadata: options.metadata,
                run_at,
                idempotency_key: options.idempotency_key,
                priority: options.priority,
                limit_key: options.limit_key,
                max_attempts: options.max_attempts,
                timeout: options.timeout_ms.map(Duration::from_millis),
                ..NewJob::new(queue, job_type, payload)
            })
        });
        Ok(made.map_err(|refusal| match refusal {
            Refusal::Denied(text) => jobs::EnqueueError::Denied(text),
            Refusal::Invalid(text) => jobs::EnqueueError::Invalid(text),
            Refusal::Limit(text) => jobs::EnqueueError::Limit(text),
        }))
    }

    fn cancelled(&mut self) -> wasmtime::Result<bool> {
        host_call(JOBS, "cancelled");
        let is_asked = self.cancel.is_asked();
        let transaction = self.transaction()?;
        transaction.is_told_to_end |= is_asked;
        Ok(is_asked)
    }
}
