//! Times as people read them: the moment in UTC, and how long ago that is.

use jiff::{SignedDuration, Timestamp};

use crate::report::text::counted;

/// A moment, for a `<time>` element.
#[derive(Clone, Debug)]
pub(super) struct Moment {
    /// For machines.
    pub iso: String,
    /// For people.
    pub text: String,
    /// Relative to when the page was made.
    pub ago: String,
}

impl Moment {
    pub(super) fn new(time: Timestamp, now: Timestamp) -> Self {
        let rest = now.duration_since(time);
        let ago = match rest.as_secs() {
            ..=-1 => format!("in {}", span(rest.abs())),
            0 => "now".to_owned(),
            _ => format!("{} ago", span(rest)),
        };
        Self {
            iso: time.to_string(),
            text: time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
            ago,
        }
    }
}

/// How long, in its two largest units at most: `2 days`, `1 h 30 min`.
pub(super) fn span(duration: SignedDuration) -> String {
    let mut rest = usize::try_from(duration.as_secs()).unwrap_or_default();
    let mut parts = Vec::new();
    for (size, unit) in [(86400, "day"), (3600, "h"), (60, "min"), (1, "s")] {
        let number = rest / size;
        rest %= size;
        match (number, unit) {
            (0, _) => {}
            (_, "day") => parts.push(counted(number, unit)),
            _ => parts.push(format!("{number} {unit}")),
        }
        // Beside two days the hours are noise, and beside two hours the minutes.
        if parts.len() == 2 || !parts.is_empty() && (number != 1 || unit == "min") {
            break;
        }
    }
    if parts.is_empty() {
        return "0 s".to_owned();
    }
    parts.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_told_as_people_do() {
        for (seconds, told) in [
            (0, "0 s"),
            (59, "59 s"),
            (90, "1 min"),
            (3600, "1 h"),
            (5400, "1 h 30 min"),
            (3 * 3600 + 60, "3 h"),
            (86400 + 7200, "1 day 2 h"),
            (90 * 86400, "90 days"),
        ] {
            assert_eq!(span(SignedDuration::from_secs(seconds)), told);
        }
    }
}
