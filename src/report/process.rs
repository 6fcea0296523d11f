//! What this process takes of the machine, as Linux's `/proc/self` tells it. Read when Prometheus
//! scrapes; where there is no `/proc`, nothing is told.

use std::fs;

/// Clock ticks of a second in `/proc`: a part of Linux's interface, whatever the kernel's own.
const TICKS: f64 = 100.0;

/// What the process takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Figures {
    /// Seconds of a processor, in the program and in the kernel for it.
    pub(super) cpu_seconds: f64,
    /// Resident memory.
    pub(super) resident_bytes: i64,
    /// Open file descriptors.
    pub(super) open_fds: i64,
}

/// The figures of this process, now.
pub(super) fn figures() -> Option<Figures> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let status = fs::read_to_string("/proc/self/status").ok()?;
    // The one that reads the folder is not counted.
    let fds = fs::read_dir("/proc/self/fd")
        .ok()?
        .count()
        .saturating_sub(1);
    Some(Figures {
        cpu_seconds: cpu_seconds(&stat)?,
        resident_bytes: resident_bytes(&status)?,
        open_fds: i64::try_from(fds).ok()?,
    })
}

/// `utime` and `stime`, the 14th and 15th field. The second is the program's name in parentheses,
/// which may hold anything.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS)
}

fn resident_bytes(status: &str) -> Option<i64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: i64 = line.split_whitespace().next()?.parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_blanks_and_parentheses_does_not_move_the_fields() {
        let stat = "7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!(cpu_seconds("7 (cut off) S 1"), None);
    }

    #[test]
    fn this_process_takes_something() {
        let figures = figures().unwrap();
        assert!(figures.resident_bytes > 1_000_000, "{figures:?}");
        assert!(figures.open_fds > 2, "{figures:?}");
    }
}
