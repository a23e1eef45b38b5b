//! JSON lines from a file or from stdin, for commands that take many things at once.
//!
//! Invariant: no more than one line is held, and of a line that is too long no more than is allowed.

use std::path::Path;

use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, BufReader};

use super::Failure;
use super::exec::check_regular;

/// Bytes that are read at a time.
const CHUNK_BYTES: usize = 256 * 1024;
/// What some editors put before the first line.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The lines of an input, one after the other. Empty ones are passed over, but counted.
pub(super) struct Lines {
    input: Box<dyn AsyncBufRead + Unpin>,
    bytes_max: usize,
    text: Vec<u8>,
    number: u64,
    /// Whether `text` is a line that was given out, not the beginning of the next one.
    is_whole: bool,
}

impl Lines {
    /// Opens a file, or stdin for `-`.
    pub(super) async fn open(file: &Path, bytes_max: usize) -> Result<Self, Failure> {
        let input: Box<dyn AsyncBufRead + Unpin> = if file.as_os_str() == "-" {
            Box::new(BufReader::with_capacity(CHUNK_BYTES, tokio::io::stdin()))
        } else {
            check_regular(file)?;
            let opened = tokio::fs::File::open(file).await;
            let opened =
                opened.map_err(|error| Failure::usage(format!("cannot read `{}`: {error}", file.display())))?;
            Box::new(BufReader::with_capacity(CHUNK_BYTES, opened))
        };
        Ok(Self { input, bytes_max, text: Vec::new(), number: 0, is_whole: true })
    }

    /// Goes to the next line that has something in it; false at the end. One that was interrupted goes on where it was.
    ///
    /// The error of a line that is too long is the whole sentence that [`refused`] makes.
    pub(super) async fn advance(&mut self) -> Result<bool, Failure> {
        loop {
            if self.is_whole {
                self.text.clear();
                self.number += 1;
                self.is_whole = false;
            }
            let room = (self.bytes_max + 1).saturating_sub(self.text.len()) as u64;
            (&mut self.input).take(room).read_until(b'\n', &mut self.text).await?;
            self.is_whole = true;
            if self.text.is_empty() {
                return Ok(false);
            }
            if self.text.len() > self.bytes_max && !self.text.ends_with(b"\n") {
                return Err(refused(self.number, &format!("it has more than {} bytes", self.bytes_max)));
            }
            if !self.text().is_empty() {
                return Ok(true);
            }
        }
    }

    /// The line without what ends it, and without a byte order mark.
    pub(super) fn text(&self) -> &[u8] {
        let text = match self.number {
            1 => self.text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&self.text),
            _ => &self.text,
        };
        text.trim_ascii()
    }

    /// Its number, from 1.
    pub(super) const fn number(&self) -> u64 {
        self.number
    }
}

/// The failure of a line that cannot be taken.
pub(super) fn refused(number: u64, why: &str) -> Failure {
    Failure::usage(format!("line {number} was refused: {why}"))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    async fn read(bytes: &[u8], bytes_max: usize) -> Result<Vec<(u64, String)>, Failure> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        let mut lines = Lines::open(file.path(), bytes_max).await.ok().unwrap();
        let mut found = Vec::new();
        while lines.advance().await? {
            found.push((lines.number(), String::from_utf8(lines.text().to_vec()).unwrap()));
        }
        Ok(found)
    }

    #[tokio::test]
    async fn lines_are_numbered_and_empty_ones_passed_over() {
        let found = read(b"\xef\xbb\xbfa\r\n\n  \r\nb\n\xef\xbb\xbf\nc", 10).await.ok().unwrap();
        let expected = [(1, "a"), (4, "b"), (5, "\u{feff}"), (6, "c")];
        assert_eq!(found, expected.map(|(number, text)| (number, text.to_owned())));
        assert_eq!(read(b"", 10).await.ok().unwrap(), []);
        assert_eq!(read(b"\n\n", 10).await.ok().unwrap(), []);
    }

    #[tokio::test]
    async fn a_line_may_have_as_many_bytes_as_are_allowed_and_no_more() {
        assert_eq!(read(b"12345\n12345", 5).await.ok().unwrap().len(), 2);
        for long in [&b"1\n123456\n"[..], b"1\n123456", b"1\n1234567890123"] {
            let said = format!("{:?}", read(long, 5).await.unwrap_err());
            assert!(said.contains("line 2 was refused: it has more than 5 bytes"), "{said}");
        }
    }
}
