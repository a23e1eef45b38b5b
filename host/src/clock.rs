//! Time as wasmhost keeps it: nanoseconds since the Unix epoch, and the one place that reads the system's clock.
//!
//! Invariant: lease arithmetic never uses this clock; the transitions ask the Redis server for its own
//! (`store/lua`). What is read here ends up in logs, ids and reports only.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A point in time in nanoseconds since the Unix epoch, as TaskHarbor writes its `*_nano` fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The current time of this machine.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the system clock")]
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Self(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
    }

    /// A time given in nanoseconds since the epoch.
    #[must_use]
    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// A time given in milliseconds since the epoch; saturates at the ends of the range.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    /// Nanoseconds since the epoch.
    #[must_use]
    pub const fn nanos(self) -> i64 {
        self.0
    }

    /// Whole milliseconds since the epoch, rounded down.
    #[must_use]
    pub const fn millis(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// Whole seconds since the epoch, rounded down.
    #[must_use]
    pub const fn seconds(self) -> i64 {
        self.0.div_euclid(1_000_000_000)
    }

    /// The nanoseconds within the second, 0 to 999,999,999.
    #[must_use]
    pub const fn nanos_in_second(self) -> i64 {
        self.0.rem_euclid(1_000_000_000)
    }

    /// This time moved forward; saturates at the end of the range.
    #[must_use]
    pub fn after(self, by: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(by.as_nanos()).unwrap_or(i64::MAX)))
    }

    /// The time from `earlier` to this one; zero when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC with milliseconds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_nanosecond(i128::from(self.0)) {
            Ok(time) => write!(f, "{time:.3}"),
            Err(_) => write!(f, "{}ns", self.0),
        }
    }
}

/// Parses a point in time as TaskHarbor's CLI does: RFC 3339, or Unix seconds, or milliseconds from 13 digits on.
///
/// # Errors
/// A sentence that names the text and the accepted forms.
pub fn parse_timestamp(text: &str) -> Result<Timestamp, String> {
    let bad = || {
        format!(
            "`{text}` is not a time; write RFC 3339 (2026-11-20T08:00:00Z), Unix seconds, or milliseconds (13 digits)"
        )
    };
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        let number: i64 = text.parse().map_err(|_| bad())?;
        let nanos = if text.len() >= 13 { number.checked_mul(1_000_000) } else { number.checked_mul(1_000_000_000) };
        return nanos.map(Timestamp).ok_or_else(bad);
    }
    let time: jiff::Timestamp = text.parse().map_err(|_| bad())?;
    i64::try_from(time.as_nanosecond()).map(Timestamp).map_err(|_| bad())
}

/// Parses a duration such as `500ms`, `30s`, `5m`, `1h30m`, `7d`, `2 days`; a unit is required. A day has 24 hours,
/// whatever clocks do.
///
/// # Errors
/// A sentence that names the text and an example.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("`{text}` is not a duration; write a number and a unit, such as 500ms, 30s, 5m or 1h30m");
    let with_days = || text.parse::<jiff::Span>()?.to_duration(jiff::SpanRelativeTo::days_are_24_hours());
    let signed = text.parse::<jiff::SignedDuration>().or_else(|_| with_days()).map_err(|_| bad())?;
    Duration::try_from(signed).map_err(|_| format!("`{text}` is negative; a duration is zero or more"))
}

/// Parses a time, or how long ago it was: `2h`.
///
/// # Errors
/// A sentence that names the text and the accepted forms.
pub fn parse_moment(text: &str) -> Result<Timestamp, String> {
    if let Ok(ago) = parse_duration(text) {
        let nanos = i64::try_from(ago.as_nanos()).ok().and_then(|ago| Timestamp::now().nanos().checked_sub(ago));
        return nanos
            .filter(|nanos| *nanos > 0)
            .map(Timestamp::from_nanos)
            .ok_or_else(|| format!("`{text}` ago is before 1970"));
    }
    parse_timestamp(text).map_err(|_| {
        format!("`{text}` is not a time; write how long ago (30m, 2h, 3 days), RFC 3339 (2026-11-20T08:00:00Z), or Unix seconds")
    })
}

/// Writes a duration in its shortest exact form: `500ms`, `30s`, `1m 30s`.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    jiff::SignedDuration::try_from(duration).map_or_else(|_| format!("{}s", duration.as_secs()), |d| format!("{d:#}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_all_three_forms() {
        let expected = Timestamp::from_millis(1_800_000_000_000);
        assert_eq!(parse_timestamp("1800000000"), Ok(expected));
        assert_eq!(parse_timestamp("1800000000000"), Ok(expected));
        assert_eq!(parse_timestamp("2027-01-15T08:00:00Z"), Ok(expected));
        assert!(parse_timestamp("soon").unwrap_err().contains("`soon`"));
    }

    #[test]
    fn durations_need_a_unit_and_refuse_the_past() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5_400)));
        assert_eq!(parse_duration("7d"), parse_duration("168h"));
        assert_eq!(parse_duration("2 days"), Ok(Duration::from_secs(172_800)));
        for bad in ["30", "-3s", "-2d", "1 month"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_time_before_the_epoch_keeps_its_parts_positive() {
        let time = Timestamp::from_nanos(-1);
        assert_eq!((time.seconds(), time.nanos_in_second()), (-1, 999_999_999));
    }

    #[test]
    fn a_moment_is_a_time_or_how_long_ago() {
        let hour = Timestamp::now().nanos() - parse_moment("1h").unwrap().nanos();
        assert!((3_500_000_000_000..=3_600_000_000_000).contains(&hour), "{hour}");
        let days = Timestamp::now().nanos() - parse_moment("3 days").unwrap().nanos();
        assert!((259_100_000_000_000..=259_200_000_000_000).contains(&days), "{days}");
        assert_eq!(parse_moment("1800000000"), Ok(Timestamp::from_millis(1_800_000_000_000)));
        assert_eq!(parse_moment("2027-01-15T08:00:00Z"), Ok(Timestamp::from_millis(1_800_000_000_000)));
        for wrong in ["soon", "", "-2h", "9999999h"] {
            assert!(parse_moment(wrong).is_err(), "{wrong}");
        }
    }
}
