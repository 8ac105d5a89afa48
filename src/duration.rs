//! Durations as Go and Kubernetes write them: decimal numbers with units, as in
//! `24h` or `1h30m`. Whatever is written, reading it neither overflows nor
//! panics, as the sum of floating-point numbers would.

use jiff::SignedDuration;

/// Why a text cannot be used as a duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DurationError {
    /// It is not a sequence of numbers with units. A sign is none.
    Malformed,
    /// It is longer than a duration of Go's can be, about 292 years.
    TooLong,
}

/// Digits of a fraction that are read: more change nothing, as this many of an
/// hour are less than a nanosecond.
const FRACTION: usize = 18;

/// Reads a duration as Go's `time.ParseDuration`, which takes `ns`, `us`, `µs`,
/// `ms`, `s`, `m` and `h`; but never a negative one.
///
/// # Errors
/// [`DurationError`] where there is none in the text.
pub(crate) fn parse(text: &str) -> Result<SignedDuration, DurationError> {
    if text == "0" {
        return Ok(SignedDuration::ZERO);
    }
    if text.is_empty() {
        return Err(DurationError::Malformed);
    }
    let mut total: u128 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let (nanoseconds, after) = term(rest).ok_or(DurationError::Malformed)?;
        total = total.saturating_add(nanoseconds);
        rest = after;
    }
    i64::try_from(total)
        .map(SignedDuration::from_nanos)
        .map_err(|_| DurationError::TooLong)
}

/// The first number with its unit, in nanoseconds and saturating, and what
/// comes after it.
fn term(text: &str) -> Option<(u128, &str)> {
    let (whole, after) = digits(text);
    let (fraction, after) = after.strip_prefix('.').map_or(("", after), digits);
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let end = after.find(|c: char| c == '.' || c.is_ascii_digit());
    let (name, after) = after.split_at(end.unwrap_or(after.len()));
    let unit = unit(name)?;
    let whole = number(whole).saturating_mul(unit);
    let fraction = &fraction[..fraction.len().min(FRACTION)];
    // At most eighteen digits, times less than 2^42: no overflow.
    let scale = 10_u128.pow(u32::try_from(fraction.len()).unwrap_or_default());
    let part = number(fraction).saturating_mul(unit) / scale;
    Some((whole.saturating_add(part), after))
}

fn digits(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit());
    text.split_at(end.unwrap_or(text.len()))
}

/// The number that some digits are; the largest one where they are too many.
fn number(digits: &str) -> u128 {
    if digits.is_empty() {
        return 0;
    }
    digits.parse().unwrap_or(u128::MAX)
}

/// Nanoseconds of a unit. The micro sign is written in two ways.
fn unit(name: &str) -> Option<u128> {
    Some(match name {
        "ns" => 1,
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_go_reads() {
        for (text, nanoseconds) in [
            ("0", 0),
            ("0s", 0),
            ("24h", 86_400_000_000_000),
            ("1h30m", 5_400_000_000_000),
            ("1.5h30m", 7_200_000_000_000),
            ("100ms", 100_000_000),
            ("1us", 1_000),
            ("1\u{b5}s", 1_000),
            ("1\u{3bc}s", 1_000),
            ("7ns", 7),
            (".5s", 500_000_000),
            ("5.s", 5_000_000_000),
            ("0.3333333333333333333h", 1_200_000_000_000 - 1),
            ("1s1s", 2_000_000_000),
            ("9223372036854775807ns", i64::MAX),
        ] {
            let read = parse(text);
            assert_eq!(read, Ok(SignedDuration::from_nanos(nanoseconds)), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_none() {
        for text in [
            "", " ", "h", ".h", ".", "1", "1.5", "1d", "1 h", " 1h", "1h ", "-1h", "+1h", "--1h",
            "1h-1h", "1h+1h", "1e3h", "infh", "nanh", "1h1", "1.2.3h", "1\u{3bc}", "\u{661}h",
            "1H",
        ] {
            assert_eq!(parse(text), Err(DurationError::Malformed), "{text}");
        }
    }

    #[test]
    fn what_is_too_long_is_said_to_be() {
        for text in [
            "99999999999999999h".to_owned(),
            "9223372036854775808ns".to_owned(),
            "9999999999h".repeat(3),
            format!("{}h", "9".repeat(400)),
            format!("0.{}h{}s", "9".repeat(400), "9".repeat(400)),
        ] {
            assert_eq!(parse(&text), Err(DurationError::TooLong), "{text}");
        }
        let long = format!("0.{}h", "9".repeat(400));
        assert!(parse(&long).is_ok_and(|d| d < SignedDuration::from_hours(1)));
    }
}
