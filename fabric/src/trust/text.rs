//! Checks of the words in statements. They end up in scripts, kernel command lines and on terminals, so they are plain.

/// Longest name of a fabric, an image, a loader or an operator: fits on a line with other things.
pub(super) const MAX_NAME: usize = 64;

/// The first part of `text`, for error messages.
pub(super) fn shorten(text: &str) -> String {
    text.chars().take(80).collect()
}

/// Checks a name: lower-case letters, digits, `.`, `_`, `-`, and a letter or digit first. It may name a file.
pub(super) fn check_name(field: &str, name: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let valid = name.len() <= MAX_NAME
        && name.starts_with(plain)
        && name.chars().all(|c| plain(c) || matches!(c, '.' | '_' | '-'));
    if valid {
        return Ok(());
    }
    Err(format!(
        "{field} `{}` must be 1 to {MAX_NAME} of a-z 0-9 . _ - and begin with a letter or digit",
        shorten(name).escape_default()
    ))
}

/// Checks a version: one printable ASCII word of at most [`MAX_NAME`] characters.
pub(super) fn check_word(field: &str, word: &str) -> Result<(), String> {
    if (1..=MAX_NAME).contains(&word.len()) && word.chars().all(|c| c.is_ascii_graphic()) {
        return Ok(());
    }
    Err(format!(
        "{field} `{}` must be 1 to {MAX_NAME} printable ASCII characters without spaces",
        shorten(word).escape_default()
    ))
}

/// Checks a line of at most `max` printable ASCII characters, spaces included; it may be empty.
pub(super) fn check_line(field: &str, line: &str, max: usize) -> Result<(), String> {
    if let Some(bad) = line.chars().find(|&c| c != ' ' && !c.is_ascii_graphic()) {
        return Err(format!("{field} contains `{}`: only printable ASCII is allowed", bad.escape_default()));
    }
    if line.len() > max {
        return Err(format!("{field} has {} characters, at most {max} are allowed", line.len()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_words_and_lines() {
        for good in ["debian", "debian-12.1_x", "0"] {
            assert_eq!(check_name("name", good), Ok(()));
        }
        for bad in ["", ".", "../x", "-rf", "Debian", "a b", "a/b", "ä", &"a".repeat(65)] {
            assert!(check_name("name", bad).is_err(), "{bad}");
        }
        assert!(check_word("version", "1:2.3~rc1+b2").is_ok());
        assert!(check_word("version", "1 2").is_err() && check_word("version", "").is_err());
        assert!(check_line("cmdline", "console=ttyS0 quiet", 64).is_ok());
        assert!(check_line("cmdline", "a\nb", 64).unwrap_err().contains("\\n"));
        assert!(check_line("cmdline", "abc", 2).is_err());
    }
}
