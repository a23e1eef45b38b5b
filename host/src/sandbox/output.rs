//! What a guest says: log lines from `wasi:logging`, stdout and stderr, and a command's result on stdout.
//!
//! Invariant: a guest can say as much as it likes and costs no more than [`LOG_BYTES_MAX`] to its listener and
//! [`TAIL_BYTES_MAX`] of memory; the end of its log is always kept, because that is where it says why it died. A secret that it
//! was given leaves this file as `***`.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

use super::limits::ResultLimit;
use crate::job::RESULT_BYTES_MAX;
use crate::outcome::Outcome;
use crate::ports::{JobSink, Level};
use crate::secret::{Hidden, SecretValue};

/// Log bytes of one attempt that its listener hears, stdout and stderr included.
pub const LOG_BYTES_MAX: usize = 256 * 1024;
/// Log lines of one attempt that its listener hears.
pub const LOG_LINES_MAX: u32 = 1_000;
/// The end of the log that is reported with the attempt.
pub const TAIL_BYTES_MAX: usize = 64 * 1024;
/// Progress reports of one attempt that its listener hears.
pub const PROGRESS_REPORTS_MAX: u32 = 10_000;
/// A longer line is cut into several.
const LINE_BYTES_MAX: usize = 8 * 1024;
/// The end of stderr that explains a trap.
const LAST_WORDS_BYTES_MAX: usize = 4 * 1024;
/// What a stream accepts at once.
const WRITE_BYTES_MAX: usize = 64 * 1024;

/// The log of one attempt, shared by its streams.
#[derive(Clone)]
pub(super) struct Log(Arc<Mutex<Lines>>);

struct Lines {
    sink: Arc<dyn JobSink>,
    bytes_left: usize,
    lines_left: u32,
    reports_left: u32,
    is_cut: bool,
    tail: Tail,
    last_words: Tail,
    /// What was written to stdout and stderr since their last line end.
    pending: [Vec<u8>; 2],
    /// The secrets that the guest was given; nobody else pays for them.
    hidden: Option<Box<Hidden>>,
}

/// Where bytes came from.
#[derive(Clone, Copy)]
pub(super) enum Source {
    Stdout = 0,
    Stderr = 1,
}

impl Log {
    pub(super) fn new(sink: Arc<dyn JobSink>) -> Self {
        Self(Arc::new(Mutex::new(Lines {
            sink,
            bytes_left: LOG_BYTES_MAX,
            lines_left: LOG_LINES_MAX,
            reports_left: PROGRESS_REPORTS_MAX,
            is_cut: false,
            tail: Tail::new(TAIL_BYTES_MAX),
            last_words: Tail::new(LAST_WORDS_BYTES_MAX),
            pending: [Vec::new(), Vec::new()],
            hidden: None,
        })))
    }

    /// Has a secret hidden in everything that is said from now on, and in what is kept of what was said before.
    pub(super) fn hide(&self, value: &SecretValue) {
        self.lock().hidden.get_or_insert_default().hide(value);
    }

    /// Hides the secrets in what is told of the end of the attempt.
    pub(super) fn hide_in(&self, outcome: &mut Outcome) {
        if let Some(hidden) = &self.lock().hidden {
            outcome.texts_mut().into_iter().for_each(|text| *text = hidden.scrub_text(text).into_owned());
        }
    }

    /// A text without the secrets in it.
    pub(super) fn without_secrets<'a>(&self, text: &'a str) -> Cow<'a, str> {
        self.lock().without_secrets(text)
    }

    /// A line of `wasi:logging`.
    pub(super) fn line(&self, level: Level, context: &str, message: &str) {
        let mut lines = self.lock();
        let colon = if context.is_empty() { "" } else { ": " };
        for part in [level.as_str(), " ", context, colon, message, "\n"] {
            lines.tail.push(part.as_bytes());
        }
        lines.say(level, context, message);
    }

    /// A progress report.
    pub(super) fn progress(&self, percent: u8, message: &str) {
        let mut lines = self.lock();
        if lines.reports_left > 0 && message.len() <= LINE_BYTES_MAX {
            lines.reports_left -= 1;
            lines.sink.progress(percent.min(100), &lines.without_secrets(message));
        }
    }

    /// Bytes on stdout or stderr.
    pub(super) fn write(&self, source: Source, bytes: &[u8]) {
        let mut lines = self.lock();
        lines.tail.push(bytes);
        if matches!(source, Source::Stderr) {
            lines.last_words.push(bytes);
        }
        // Nobody hears any more of it: a flood of gigabytes costs no more than its copies.
        if lines.is_cut {
            return;
        }
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            lines.append(source, &rest[..end]);
            lines.end_line(source);
            rest = &rest[end + 1..];
        }
        lines.append(source, rest);
    }

    /// The end of stderr as text.
    pub(super) fn last_words(&self) -> String {
        let lines = self.lock();
        lines.last_words.text(lines.hidden.as_deref())
    }

    /// Ends every open line, and gives the tail and whether more was said than was kept.
    pub(super) fn finish(&self) -> (String, bool) {
        let mut lines = self.lock();
        for source in [Source::Stdout, Source::Stderr] {
            if !lines.pending[source as usize].is_empty() {
                lines.end_line(source);
            }
        }
        (lines.tail.text(lines.hidden.as_deref()), lines.is_cut || lines.tail.is_cut)
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lines {
    fn append(&mut self, source: Source, mut bytes: &[u8]) {
        loop {
            let pending = &mut self.pending[source as usize];
            let room = LINE_BYTES_MAX - pending.len();
            if bytes.len() <= room {
                pending.extend_from_slice(bytes);
                return;
            }
            pending.extend_from_slice(&bytes[..room]);
            bytes = &bytes[room..];
            let rest = self.open_end(source);
            self.end_line(source);
            self.pending[source as usize] = rest;
        }
    }

    /// Takes what could be the beginning of a secret from the end of a line that is cut.
    fn open_end(&mut self, source: Source) -> Vec<u8> {
        let Some(hidden) = &self.hidden else { return Vec::new() };
        let pending = &mut self.pending[source as usize];
        if let Cow::Owned(clean) = hidden.scrub(pending) {
            *pending = clean;
        }
        let end = pending.len() - hidden.open_end(pending);
        pending.split_off(end)
    }

    fn without_secrets<'a>(&self, text: &'a str) -> Cow<'a, str> {
        self.hidden.as_ref().map_or(Cow::Borrowed(text), |hidden| hidden.scrub_text(text))
    }

    fn end_line(&mut self, source: Source) {
        let mut line = std::mem::take(&mut self.pending[source as usize]);
        // Before it becomes text: a secret need not be text.
        if let Some(hidden) = &self.hidden
            && let Cow::Owned(clean) = hidden.scrub(&line)
        {
            line = clean;
        }
        let context = ["stdout", "stderr"][source as usize];
        self.say(Level::Info, context, &String::from_utf8_lossy(&line));
    }

    fn say(&mut self, level: Level, context: &str, message: &str) {
        let bytes = context.len() + message.len();
        if self.lines_left == 0 || bytes > self.bytes_left {
            self.is_cut = true;
            return;
        }
        self.lines_left -= 1;
        self.bytes_left -= bytes;
        self.sink.log(level, &self.without_secrets(context), &self.without_secrets(message));
    }
}

/// The last bytes of a stream.
struct Tail {
    bytes: VecDeque<u8>,
    bytes_max: usize,
    is_cut: bool,
}

impl Tail {
    const fn new(bytes_max: usize) -> Self {
        Self { bytes: VecDeque::new(), bytes_max, is_cut: false }
    }

    fn push(&mut self, bytes: &[u8]) {
        let over = (self.bytes.len() + bytes.len()).saturating_sub(self.bytes_max);
        if over == 0 {
            self.bytes.extend(bytes);
            return;
        }
        self.is_cut = true;
        self.bytes.drain(..over.min(self.bytes.len()));
        self.bytes.extend(&bytes[bytes.len().saturating_sub(self.bytes_max)..]);
    }

    fn text(&self, hidden: Option<&Hidden>) -> String {
        let (front, back) = self.bytes.as_slices();
        if let Some(hidden) = hidden {
            let bytes = [front, back].concat();
            let clean = if self.is_cut { hidden.scrub_end(&bytes) } else { hidden.scrub(&bytes) };
            return String::from_utf8_lossy(&clean).into_owned();
        }
        if back.is_empty() {
            return String::from_utf8_lossy(front).into_owned();
        }
        String::from_utf8_lossy(&[front, back].concat()).into_owned()
    }
}

/// A stream of the guest that ends in its log.
#[derive(Clone)]
pub(super) struct LogStream {
    pub(super) log: Log,
    pub(super) source: Source,
}

/// The stdout of a command: its result.
#[derive(Clone, Default)]
pub(super) struct ResultStream(Arc<Mutex<Vec<u8>>>);

impl ResultStream {
    /// What was written.
    pub(super) fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Takes bytes without ever waiting.
trait Take: Clone + Send + Sync + Unpin + 'static {
    fn take_bytes(&self, bytes: &[u8]) -> Result<(), ResultLimit>;
}

impl Take for LogStream {
    fn take_bytes(&self, bytes: &[u8]) -> Result<(), ResultLimit> {
        self.log.write(self.source, bytes);
        Ok(())
    }
}

impl Take for ResultStream {
    fn take_bytes(&self, bytes: &[u8]) -> Result<(), ResultLimit> {
        let mut result = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if result.len() + bytes.len() > RESULT_BYTES_MAX {
            return Err(ResultLimit { limit: RESULT_BYTES_MAX });
        }
        result.extend_from_slice(bytes);
        Ok(())
    }
}

/// One handle on a stream.
struct Handle<T>(T);

#[async_trait]
impl<T: Take> Pollable for Handle<T> {
    async fn ready(&mut self) {}
}

#[async_trait]
impl<T: Take> OutputStream for Handle<T> {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.0.take_bytes(&bytes).map_err(|error| StreamError::Trap(error.into()))
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_BYTES_MAX)
    }

    fn write_zeroes(&mut self, count: usize) -> StreamResult<()> {
        // The default makes a buffer as large as the guest says.
        if count > WRITE_BYTES_MAX {
            return Err(StreamError::trap("more zeroes than `check-write` allowed"));
        }
        self.write(Bytes::from(vec![0; count]))
    }
}

impl<T: Take> AsyncWrite for Handle<T> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Poll::Ready(self.0.take_bytes(bytes).map(|()| bytes.len()).map_err(std::io::Error::other))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

macro_rules! stdout_stream {
    ($stream:ty) => {
        impl IsTerminal for $stream {
            fn is_terminal(&self) -> bool {
                false
            }
        }

        impl StdoutStream for $stream {
            fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
                Box::new(Handle(self.clone()))
            }

            fn p2_stream(&self) -> Box<dyn OutputStream> {
                Box::new(Handle(self.clone()))
            }
        }
    };
}

stdout_stream!(LogStream);
stdout_stream!(ResultStream);

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Heard(Mutex<Vec<(Level, String, String)>>);

    impl JobSink for Heard {
        fn log(&self, level: Level, context: &str, message: &str) {
            self.0.lock().unwrap().push((level, context.to_owned(), message.to_owned()));
        }

        fn progress(&self, _: u8, _: &str) {}
    }

    #[test]
    fn lines_are_put_together_from_pieces_and_the_last_needs_no_end() {
        let heard = Arc::new(Heard::default());
        let log = Log::new(heard.clone());
        log.write(Source::Stderr, b"one\ntw");
        log.write(Source::Stdout, b"out");
        log.write(Source::Stderr, b"o\n\nthree");
        log.line(Level::Warn, "disk", "full");
        let (tail, is_cut) = log.finish();
        let lines: Vec<_> = heard.0.lock().unwrap().iter().map(|(_, c, m)| format!("{c}|{m}")).collect();
        assert_eq!(lines, ["stderr|one", "stderr|two", "stderr|", "disk|full", "stdout|out", "stderr|three"]);
        assert_eq!((tail.as_str(), is_cut), ("one\ntwouto\n\nthreewarn disk: full\n", false));
    }

    #[test]
    fn a_flood_is_cut_and_its_end_is_kept() {
        let heard = Arc::new(Heard::default());
        let log = Log::new(heard.clone());
        for n in 0..10_000 {
            log.write(Source::Stderr, format!("{n:0>99}\n").as_bytes());
        }
        let (tail, is_cut) = log.finish();
        assert!(is_cut && tail.len() == TAIL_BYTES_MAX && tail.ends_with("9999\n"));
        assert_eq!(heard.0.lock().unwrap().len(), LOG_LINES_MAX as usize);
        assert!(log.last_words().ends_with("9999\n"));
    }

    #[test]
    fn a_line_without_end_is_cut_into_pieces() {
        let heard = Arc::new(Heard::default());
        let log = Log::new(heard.clone());
        log.write(Source::Stdout, &vec![b'x'; 3 * LINE_BYTES_MAX + 1]);
        log.finish();
        assert_eq!(heard.0.lock().unwrap().len(), 4);
    }

    #[test]
    fn a_result_over_the_limit_is_an_error() {
        let stream = ResultStream::default();
        stream.take_bytes(&vec![0; RESULT_BYTES_MAX]).unwrap();
        assert!(stream.take_bytes(b"x").is_err());
        assert_eq!(stream.take().len(), RESULT_BYTES_MAX);
    }
}
