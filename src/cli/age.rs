//! Spans of time for people, as kubectl writes them.

use jiff::{SignedDuration, Timestamp};

/// How long ago something was.
pub(super) fn since(then: Timestamp, now: Timestamp) -> String {
    short(now.duration_since(then))
}

/// A span in one or two units, the finer one only while it matters.
fn short(span: SignedDuration) -> String {
    let seconds = span.as_secs().max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let two = |a: i64, unit: &str, b: i64, finer: &str| match b {
        0 => format!("{a}{unit}"),
        b => format!("{a}{unit}{b}{finer}"),
    };
    if seconds < 120 {
        format!("{seconds}s")
    } else if minutes < 10 {
        two(minutes, "m", seconds % 60, "s")
    } else if hours < 3 {
        format!("{minutes}m")
    } else if hours < 8 {
        two(hours, "h", minutes % 60, "m")
    } else if hours < 48 {
        format!("{hours}h")
    } else if days < 8 {
        two(days, "d", hours % 24, "h")
    } else {
        format!("{days}d")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_fit_the_span() {
        let of = |seconds| short(SignedDuration::from_secs(seconds));
        assert_eq!(of(-3), "0s");
        assert_eq!(of(119), "119s");
        assert_eq!(of(125), "2m5s");
        assert_eq!(of(180), "3m");
        assert_eq!(of(3600), "60m");
        assert_eq!(of(4 * 3600 + 60), "4h1m");
        assert_eq!(of(26 * 3600), "26h");
        assert_eq!(of(3 * 86_400), "3d");
        assert_eq!(of(40 * 86_400), "40d");
    }
}
