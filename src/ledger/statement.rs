//! Text of statements with many rows or many parameters.

use std::fmt::Write as _;

use super::Backend;

/// Row counts of the statements that insert many rows. A few fixed sizes are prepared once and
/// stay prepared; the largest keeps the parameters far below both databases' limits.
const SIZES: [usize; 6] = [1024, 256, 64, 16, 4, 1];

/// Cuts rows into slices of the sizes that statements are prepared for.
pub(super) fn slices<T>(mut rows: &[T]) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let size = SIZES.into_iter().find(|size| *size <= rows.len())?;
        let (slice, rest) = rows.split_at(size);
        rows = rest;
        Some(slice)
    })
}

/// `($1,$2),($3,$4)` for two rows of two columns, which are all of the statement's parameters.
///
/// For SQLite `(?,?),(?,?)`: it looks a parameter's name up among all of the statement's names, one
/// after the other, each time that it is bound; of a thousand named ones that is most of the work.
pub(super) fn rows(backend: Backend, rows: usize, columns: usize) -> String {
    let mut text = String::with_capacity(rows * columns * 6);
    for row in 0..rows {
        text.push_str(if row == 0 { "(" } else { ",(" });
        push_parameters(backend, &mut text, row * columns + 1, columns);
        text.push(')');
    }
    text
}

/// `$1,$2,$3` for three parameters, which are all that the statement has.
pub(super) fn parameters(backend: Backend, count: usize) -> String {
    let mut text = String::new();
    push_parameters(backend, &mut text, 1, count);
    text
}

fn push_parameters(backend: Backend, text: &mut String, first: usize, count: usize) {
    for parameter in first..first + count {
        if parameter > first {
            text.push(',');
        }
        match backend {
            Backend::Sqlite => text.push('?'),
            // Writing to a String cannot fail.
            Backend::Postgres => drop(write!(text, "${parameter}")),
        }
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
        let (sqlite, postgres) = (Backend::Sqlite, Backend::Postgres);
        assert_eq!(rows(postgres, 2, 3), "($1,$2,$3),($4,$5,$6)");
        assert_eq!(rows(sqlite, 2, 3), "(?,?,?),(?,?,?)");
        assert_eq!(parameters(postgres, 2), "$1,$2");
        assert_eq!(parameters(sqlite, 2), "?,?");
        assert_eq!(integers([7, -1]), "7,-1");
    }

    #[test]
    fn slices_hold_every_row_once_and_in_order() {
        let all: Vec<u32> = (0..1500).collect();
        let cut: Vec<&[u32]> = slices(&all).collect();
        assert_eq!(cut.concat(), all);
        assert!(cut.iter().all(|slice| SIZES.contains(&slice.len())));
    }
}
