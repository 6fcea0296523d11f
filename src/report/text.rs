//! Text of others, made fit for one line of bounded length.

/// At most `most` bytes of a text, on one line: what would end the line, or steer a terminal,
/// becomes a blank; what is cut off is marked.
#[must_use]
pub fn plain(text: &str, most: usize) -> String {
    let mut line = String::with_capacity(text.len().min(most));
    for character in text.chars() {
        let character = if character.is_control() || is_invisible(character) {
            ' '
        } else {
            character
        };
        if line.len() + character.len_utf8() > most {
            let mark = '…';
            while line.len() + mark.len_utf8() > most && line.pop().is_some() {}
            if line.len() + mark.len_utf8() <= most {
                line.push(mark);
            }
            break;
        }
        line.push(character);
    }
    line
}

/// Separators that end lines, marks that turn the direction of text, and what hides in it.
fn is_invisible(character: char) -> bool {
    matches!(
        character,
        '\u{2028}' | '\u{2029}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{61c}' | '\u{ad}'
            | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
    )
}

/// A number with its noun: `1 image`, `3 images`.
#[must_use]
pub fn counted(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_text_becomes_one_bounded_line() {
        assert_eq!(plain("a\nb\u{1b}[31mc\u{202e}d", 100), "a b [31mc d");
        assert_eq!(plain(&"x".repeat(100), 10), format!("{}…", "x".repeat(7)));
        assert_eq!(plain("éé", 4), "éé");
        assert_eq!(plain("ééé", 5), "é…");
        assert_eq!(plain("abc", 2), "");
    }
}
