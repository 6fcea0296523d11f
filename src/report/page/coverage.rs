//! What was read of each account and region, drawn over time: a row for what changes images, a
//! row for pulls. The same is said in words beside it.

use jiff::{SignedDuration, Timestamp};

use super::{
    Level, MESSAGE,
    findings::Shown,
    time::{Moment, span},
};
use crate::{
    event::{EventName, Interval},
    report::{
        evidence::{CHANGES, Evidence, PULLS, Place, PlaceName},
        text::plain,
    },
};

/// Accounts and regions that are shown, those with gaps first.
const PLACES: usize = 30;
/// Gaps that are drawn of one row.
const GAPS: usize = 50;
/// Gaps of one row that are told in words.
const TOLD: usize = 3;
/// Width of the drawing, in its own units.
const WIDTH: i64 = 1000;
/// The narrowest that a gap is drawn, so that it is seen.
const NARROW: i64 = 4;
/// Marks on the axis, both ends included.
const MARKS: i64 = 5;

/// The whole drawing.
pub(super) struct Coverage {
    /// Dates below it, left to right.
    pub marks: Vec<String>,
    pub places: Shown<PlaceView>,
}

/// One account and region.
pub(super) struct PlaceView {
    pub account: String,
    pub region: String,
    pub rows: Vec<Row>,
}

/// One row of it.
pub(super) struct Row {
    pub label: &'static str,
    pub class: &'static str,
    pub bars: Vec<Bar>,
    /// What the drawing shows, in words.
    pub words: String,
    pub gaps: Vec<String>,
}

/// A rectangle of the drawing.
pub(super) struct Bar {
    pub class: &'static str,
    pub x: i64,
    pub width: i64,
}

/// The time that the drawing spans.
struct Axis {
    start: Timestamp,
    end: Timestamp,
}

impl Coverage {
    pub(super) fn new(evidence: &Evidence, now: Timestamp) -> Self {
        let starts = evidence.places().flat_map(|(_, place)| {
            [CHANGES.as_slice(), &PULLS].map(|names| begins(place, names, now))
        });
        let hour = SignedDuration::from_hours(1);
        let latest = now.checked_sub(hour).unwrap_or(Timestamp::MIN);
        let axis = Axis {
            start: starts.min().unwrap_or(latest).min(latest),
            end: now,
        };
        let mut places: Vec<PlaceAndRows> = evidence
            .places()
            .map(|(name, place)| {
                let rows = [("changes", CHANGES.as_slice()), ("pulls", &PULLS)];
                let rows = rows.map(|(label, names)| axis.row(label, names, place, now));
                (name, rows)
            })
            .collect();
        places.sort_by_key(|(name, [changes, pulls])| (changes.0.min(pulls.0), *name));
        Self {
            marks: axis.marks(),
            places: Shown::first(PLACES, places, |((account, region), rows)| PlaceView {
                account: plain(account, 64),
                region: plain(region, 64),
                rows: rows.map(|(_, row)| row).into(),
            }),
        }
    }
}

type PlaceAndRows<'a> = (&'a PlaceName, [(Level, Row); 2]);

/// How far back these names are to be read, or were.
fn begins(place: &Place, names: &[EventName], now: Timestamp) -> Timestamp {
    let read = place.read(names).as_slice().first().map(|run| run.start);
    let target = place.target(names);
    target.into_iter().chain(read).min().unwrap_or(now)
}

impl Axis {
    fn row(
        &self,
        label: &'static str,
        names: &[EventName],
        place: &Place,
        now: Timestamp,
    ) -> (Level, Row) {
        let read = place.read(names);
        let wanted = Interval {
            start: begins(place, names, now),
            end: now,
        };
        // A gap that nothing is about to fill is no back-fill.
        let is_backfilling = place.backfill.is_some() && place.is_backfilling(names);
        let is_fresh = place.is_fresh(names, now);
        let last = read.as_slice().last().map(|run| run.end);
        let mut gaps = read.gaps(wanted);
        // What is only on its way is no gap.
        gaps.retain(|gap| !(is_fresh && Some(gap.start) == last));
        let mut bars: Vec<Bar> = Vec::new();
        for run in read.as_slice().iter().rev().take(GAPS) {
            bars.push(self.bar("read", *run, 1));
        }
        if bars.len() == GAPS
            && let (Some(first), Some(bar)) = (read.as_slice().first(), bars.last_mut())
        {
            // Older pieces are drawn as one, and their gaps over it.
            let x = self.at(first.start);
            bar.width += bar.x - x;
            bar.x = x;
        }
        let kind = if is_backfilling { "todo" } else { "gap" };
        for gap in gaps.iter().rev().take(GAPS) {
            bars.push(self.bar(kind, *gap, NARROW));
        }
        let level = match (last, gaps.is_empty()) {
            (None, _) if is_backfilling => Level::Unknown,
            (Some(_), true) => Level::Good,
            (Some(_), false) if is_backfilling && is_fresh => Level::Unknown,
            _ => Level::Warn,
        };
        let run = read.as_slice().last();
        let words = match run {
            None => "nothing read yet".to_owned(),
            Some(run) => {
                let (since, until) = (Moment::new(run.start, now), Moment::new(run.end, now));
                format!("read since {} until {}", since.text, until.ago)
            }
        };
        let mut told: Vec<String> = gaps
            .iter()
            .rev()
            .take(TOLD)
            .map(|gap| {
                let (from, to) = (Moment::new(gap.start, now), Moment::new(gap.end, now));
                let length = span(gap.end.duration_since(gap.start));
                let what = if is_backfilling {
                    "still to be read"
                } else {
                    "not read"
                };
                format!("{what}: {} to {} ({length})", from.text, to.text)
            })
            .collect();
        let known: Vec<String> = place
            .gaps(names)
            .take(TOLD)
            .map(|gap| plain(&format!("{}: {}", gap.reason, gap.message), MESSAGE))
            .collect();
        if gaps.len() > TOLD {
            told.push(format!("and {} more gaps", gaps.len() - TOLD));
        }
        told.extend(known);
        let row = Row {
            label,
            class: level.class(),
            bars,
            words,
            gaps: told,
        };
        (level, row)
    }

    fn bar(&self, class: &'static str, span: Interval, least: i64) -> Bar {
        let x = self.at(span.start);
        let width = (self.at(span.end) - x).max(least).min(WIDTH);
        Bar {
            class,
            x: x.min(WIDTH - width),
            width,
        }
    }

    /// Where a moment lies in the drawing.
    fn at(&self, time: Timestamp) -> i64 {
        let whole = self.end.duration_since(self.start).as_secs().max(1);
        let part = time.duration_since(self.start).as_secs().clamp(0, whole);
        part * WIDTH / whole
    }

    fn marks(&self) -> Vec<String> {
        let whole = self.end.duration_since(self.start).as_secs();
        let short = whole < 3 * 86400;
        (0..MARKS)
            .map(|mark| {
                let seconds = SignedDuration::from_secs(whole * mark / (MARKS - 1));
                let time = self.start.checked_add(seconds).unwrap_or(self.end);
                if mark == MARKS - 1 {
                    return "now".to_owned();
                }
                time.strftime(if short { "%d %b %H:%M" } else { "%d %b" })
                    .to_string()
            })
            .collect()
    }
}
