//! Secrets while they are in memory, and hiding them in what a guest says.
//!
//! Invariant: a value is shown by nothing here, `Debug` included, and its memory is overwritten when it is dropped. What
//! was handed to a guest lies in its sandbox, which is reset after the attempt.
//!
//! Next: `supplies/secrets.rs` for where they come from, `sandbox/output.rs` for where they are hidden.

use std::borrow::Cow;
use std::fmt;

use zeroize::Zeroizing;

/// Largest secret in bytes.
pub const SECRET_BYTES_MAX: usize = 64 * 1024;
/// Shortest secret that is hidden: a shorter one would take half of a log away.
pub const HIDDEN_BYTES_MIN: usize = 4;
/// Shortest line of a secret of several lines that is hidden by itself.
const HIDDEN_LINE_BYTES_MIN: usize = 8;
/// Longer texts are looked for in pieces, so that one that is cut by the end of a line is found as well.
const PIECE_BYTES_MAX: usize = 256;
/// What stands where a secret was.
const MARK: &str = "***";

/// The value of a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretValue(Zeroizing<Vec<u8>>);

impl SecretValue {
    /// Takes a value over.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The value itself, for whoever may have it.
    #[must_use]
    pub fn reveal(&self) -> &[u8] {
        &self.0
    }

    /// Without the one line end that files of text have at their end.
    #[must_use]
    pub fn without_line_end(mut self) -> Self {
        if self.0.last() == Some(&b'\n') {
            self.0.pop();
            if self.0.last() == Some(&b'\r') {
                self.0.pop();
            }
        }
        self
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MARK)
    }
}

/// Finds secrets in what is said.
#[derive(Clone, Default)]
pub struct Hidden {
    /// What is looked for, the longest first.
    pieces: Vec<Zeroizing<Vec<u8>>>,
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hidden({} pieces)", self.pieces.len())
    }
}

impl Hidden {
    /// Has a value hidden from now on: the whole, each of its lines, and both as they stand in a quoted text.
    pub fn hide(&mut self, value: &SecretValue) {
        let whole = value.reveal().trim_ascii();
        let least = if whole.contains(&b'\n') { HIDDEN_LINE_BYTES_MIN } else { HIDDEN_BYTES_MIN };
        for line in whole.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| line.len() >= least) {
            self.add(line);
            if let Some(quoted) = quoted(line) {
                self.add(&quoted);
            }
        }
        self.pieces.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        self.pieces.dedup();
    }

    fn add(&mut self, text: &[u8]) {
        let n_pieces = text.len().div_ceil(PIECE_BYTES_MAX).max(1);
        let pieces = text.chunks(text.len().div_ceil(n_pieces));
        self.pieces.extend(pieces.filter(|p| p.len() >= HIDDEN_BYTES_MIN).map(|piece| Zeroizing::new(piece.to_vec())));
    }

    /// The longest piece that bytes begin with.
    fn at_start_of(&self, bytes: &[u8]) -> Option<usize> {
        self.pieces.iter().find(|piece| bytes.starts_with(piece)).map(|piece| piece.len())
    }

    /// Bytes without the secrets in them.
    #[must_use]
    pub fn scrub<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        let mut begins = [false; 256];
        self.pieces.iter().filter_map(|piece| piece.first()).for_each(|byte| begins[usize::from(*byte)] = true);
        let mut clean: Option<Vec<u8>> = None;
        let (mut at, mut kept) = (0, 0);
        // Where the last one ended: what follows at once is a part of it.
        let mut hidden_to = None;
        while at < bytes.len() {
            let found = begins[usize::from(bytes[at])].then(|| self.at_start_of(&bytes[at..])).flatten();
            let Some(length) = found else {
                at += 1;
                continue;
            };
            let clean = clean.get_or_insert_default();
            clean.extend_from_slice(&bytes[kept..at]);
            if hidden_to != Some(at) {
                clean.extend_from_slice(MARK.as_bytes());
            }
            at += length;
            (kept, hidden_to) = (at, Some(at));
        }
        match clean {
            None => Cow::Borrowed(bytes),
            Some(mut clean) => {
                clean.extend_from_slice(&bytes[kept..]);
                Cow::Owned(clean)
            }
        }
    }

    /// A text without the secrets in it.
    #[must_use]
    pub fn scrub_text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match self.scrub(text.as_bytes()) {
            Cow::Borrowed(_) => Cow::Borrowed(text),
            Cow::Owned(clean) => Cow::Owned(String::from_utf8_lossy(&clean).into_owned()),
        }
    }

    /// The end of a longer text, without the secrets in it, and without the rest of one that its cut went through.
    #[must_use]
    pub fn scrub_end<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        let rests = self.pieces.iter().flat_map(|piece| (1..piece.len()).map(move |cut| &piece[cut..]));
        match rests.filter(|rest| bytes.starts_with(rest)).map(<[u8]>::len).max() {
            None => self.scrub(bytes),
            Some(length) => Cow::Owned([MARK.as_bytes(), &self.scrub(&bytes[length..])].concat()),
        }
    }

    /// How many bytes at the end of a scrubbed text could be the beginning of a secret.
    #[must_use]
    pub fn open_end(&self, bytes: &[u8]) -> usize {
        let starts = self.pieces.iter().flat_map(|piece| (1..piece.len()).map(move |length| &piece[..length]));
        starts.filter(|start| bytes.ends_with(start)).map(<[u8]>::len).max().unwrap_or(0)
    }
}

/// A text as it stands between quotes, in JSON and in what programs print for debugging; `None` when that is the same.
fn quoted(line: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let text = std::str::from_utf8(line).ok()?;
    let mut quoted = Zeroizing::new(serde_json::to_vec(text).ok()?);
    quoted.pop();
    quoted.remove(0);
    (quoted.as_slice() != line).then_some(quoted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hidden(values: &[&str]) -> Hidden {
        let mut hidden = Hidden::default();
        values.iter().for_each(|value| hidden.hide(&SecretValue::new(value.as_bytes().to_vec())));
        hidden
    }

    #[test]
    fn a_value_is_shown_by_nobody() {
        let value = SecretValue::new(b"hunter22".to_vec());
        assert_eq!(format!("{value:?} {:?}", Some(&value)), "*** Some(***)");
        assert!(!format!("{:?}", hidden(&["hunter22"])).contains("hunter"));
        let value = |text: &str| SecretValue::new(text.into()).without_line_end().reveal().to_vec();
        assert_eq!([value("a\r\n"), value("a\n\n"), value("a")], [b"a".to_vec(), b"a\n".to_vec(), b"a".to_vec()]);
    }

    #[test]
    fn a_secret_is_hidden_wherever_it_stands() {
        let hidden = hidden(&["hunter22", "hunter22-longer", "öl-und-gas"]);
        let said = hidden.scrub_text("a=hunter22, b=hunter22-longer c=öl-und-gashunter22 hunter2");
        assert_eq!(said, "a=***, b=*** c=*** hunter2");
        assert!(matches!(hidden.scrub_text("nothing of it"), Cow::Borrowed(_)));
    }

    #[test]
    fn the_lines_of_a_secret_and_its_quoted_form_are_hidden_too() {
        let hidden = hidden(&["-----BEGIN-----\nMIIEvQIBADANBg\n}\n", "a\"b\\c"]);
        assert_eq!(hidden.scrub_text("x MIIEvQIBADANBg }"), "x *** }");
        assert_eq!(hidden.scrub_text("key: \"a\\\"b\\\\c\" or a\"b\\c"), "key: \"***\" or ***");
    }

    #[test]
    fn what_is_too_short_to_hide_is_left_alone() {
        assert_eq!(hidden(&["abc", ""]).scrub_text("abcabc"), "abcabc");
    }

    #[test]
    fn a_long_secret_is_hidden_piece_by_piece() {
        let long: String = (0..1000).map(|n| char::from(b'a' + (n * n % 26) as u8)).collect();
        let hidden = hidden(&[&long]);
        assert_eq!(hidden.scrub_text(&format!("<{long}>")), "<***>");
        assert!(hidden.scrub_text(&long[..600]).starts_with("***"));
    }

    #[test]
    fn a_cut_through_a_secret_leaves_no_rest() {
        let hidden = hidden(&["hunter22"]);
        assert_eq!(hidden.scrub_end(b"nter22 and hunter22"), &b"*** and ***"[..]);
        assert_eq!(hidden.scrub_end(b"said hunter22"), &b"said ***"[..]);
        assert_eq!((hidden.open_end(b"said hunt"), hidden.open_end(b"said")), (4, 0));
    }
}
