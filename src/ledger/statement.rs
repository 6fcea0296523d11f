//! Text of statements with many rows or many parameters.

use std::fmt::Write as _;

/// Row counts of the statements that insert many rows. A few fixed sizes are prepared once and
/// stay prepared; the largest keeps the parameters far below both databases' limits.
const SIZES: [usize; 5] = [256, 64, 16, 4, 1];

/// Cuts rows into slices of the sizes that statements are prepared for.
pub(super) fn slices<T>(mut rows: &[T]) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let size = SIZES.into_iter().find(|size| *size <= rows.len())?;
        let (slice, rest) = rows.split_at(size);
        rows = rest;
        Some(slice)
    })
}

/// `($1,$2),($3,$4)` for two rows of two columns.
pub(super) fn rows(rows: usize, columns: usize) -> String {
    let mut text = String::with_capacity(rows * columns * 6);
    for row in 0..rows {
        text.push_str(if row == 0 { "(" } else { ",(" });
        push_parameters(&mut text, row * columns + 1, columns);
        text.push(')');
    }
    text
}

/// `$3,$4,$5` for three parameters from the third on.
pub(super) fn parameters(first: usize, count: usize) -> String {
    let mut text = String::new();
    push_parameters(&mut text, first, count);
    text
}

fn push_parameters(text: &mut String, first: usize, count: usize) {
    for parameter in first..first + count {
        if parameter > first {
            text.push(',');
        }
        // Writing to a String cannot fail.
        let _ = write!(text, "${parameter}");
    }
}

/// `1,2,3`: integers can stand in a statement as they are.
pub(super) fn integers(ids: impl IntoIterator<Item = i64>) -> String {
    let mut text = String::new();
    for id in ids {
        if !text.is_empty() {
            text.push(',');
        }
        let _ = write!(text, "{id}");
    }
    text
}

/// Text for a column. PostgreSQL stores no NUL, which JSON strings may hold.
pub(super) fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_number_their_parameters_through() {
        assert_eq!(rows(2, 3), "($1,$2,$3),($4,$5,$6)");
        assert_eq!(parameters(3, 2), "$3,$4");
        assert_eq!(integers([7, -1]), "7,-1");
    }

    #[test]
    fn slices_hold_every_row_once_and_in_order() {
        let all: Vec<u32> = (0..347).collect();
        let cut: Vec<&[u32]> = slices(&all).collect();
        assert_eq!(cut.concat(), all);
        assert!(cut.iter().all(|slice| SIZES.contains(&slice.len())));
    }
}
