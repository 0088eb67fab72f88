//! The console's text: one line a phase, a line that is written over while a download runs, and failures in full.
//!
//! Pure: takes what happened, gives the bytes to write. Plain ASCII without escape sequences, because the console may be a
//! serial line into a log, a screen without the font, or a management card's window; the only control used is the
//! carriage return.

use std::time::Duration;

use super::phase::Report;

/// Shortest time between two versions of a line that is written over: at 115200 baud a line takes 8 ms.
const REFRESH: Duration = Duration::from_millis(400);

/// Columns a rewritten line may fill: more, and an 80-column terminal would wrap it and never overwrite it.
const COLUMNS: usize = 79;

/// Width of the phases' names.
const NAMES: usize = 11;

/// What is on the console's current line.
#[derive(Debug, Default)]
pub(super) struct Screen {
    /// Characters of the line that is being written over; 0 if there is none.
    open: usize,
    refreshed: Option<Duration>,
}

impl Screen {
    /// Lines of their own.
    pub(super) fn lines(&mut self, text: &str) -> String {
        let mut out = self.clear();
        for line in text.lines() {
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }

    /// The new text of the line that is written over. Nothing if it was refreshed just before `now`.
    pub(super) fn rewrite(&mut self, now: Duration, phase: &str, text: &str) -> Option<String> {
        if self.refreshed.is_some_and(|last| now.saturating_sub(last) < REFRESH) {
            return None;
        }
        self.refreshed = Some(now);
        let mut line: String = format!("[    ] {phase:NAMES$} {text}").chars().take(COLUMNS).collect();
        let length = line.chars().count();
        let stale = self.open.saturating_sub(length);
        line.extend(std::iter::repeat_n(' ', stale));
        self.open = length;
        Some(format!("\r{line}"))
    }

    /// What the runner of phases says.
    pub(super) fn report(&mut self, phase: &str, report: &Report<'_>) -> String {
        match report {
            // The line appears when there is something on it: progress, or the outcome.
            Report::Started => {
                self.refreshed = None;
                String::new()
            }
            Report::Done { took, note } => {
                self.lines(&format!("[ ok ] {phase:NAMES$} {:6.1} s  {note}", took.as_secs_f64()))
            }
            Report::Failed { took, error, remedy, retry_in } => self.lines(&format!(
                "[fail] {phase:NAMES$} {:6.1} s  {error}\n       what to do: {remedy}\n       retrying in {} s",
                took.as_secs_f64(),
                retry_in.as_secs_f64().ceil(),
            )),
        }
    }

    /// Takes the unfinished line away.
    fn clear(&mut self) -> String {
        let stale = std::mem::take(&mut self.open);
        if stale == 0 { String::new() } else { format!("\r{}\r", " ".repeat(stale)) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a terminal shows after `text`: lines, of which `\r` writes over the last.
    fn shown(text: &str) -> Vec<String> {
        let mut lines = vec![String::new()];
        let mut column = 0;
        for c in text.chars() {
            let last = lines.last_mut().unwrap();
            match c {
                '\r' => column = 0,
                '\n' => {
                    lines.push(String::new());
                    column = 0;
                }
                c => {
                    let mut cells: Vec<char> = last.chars().collect();
                    cells.resize(cells.len().max(column + 1), ' ');
                    cells[column] = c;
                    *last = cells.into_iter().collect();
                    column += 1;
                }
            }
        }
        lines.into_iter().map(|line| line.trim_end().to_owned()).collect()
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_download_ends_as_one_line() {
        let mut screen = Screen::default();
        let mut out = screen.report("root", &Report::Started);
        out += &screen.rewrite(SECOND, "root", "[####----] a long text here").unwrap();
        out += &screen.rewrite(2 * SECOND, "root", "[######--]").unwrap();
        assert_eq!(shown(&out), ["[    ] root        [######--]"]);
        out += &screen.report("root", &Report::Done { took: 3 * SECOND, note: "56.0 MiB" });
        assert_eq!(shown(&out), ["[ ok ] root           3.0 s  56.0 MiB", ""]);
    }

    #[test]
    fn a_failure_is_told_in_full() {
        let mut screen = Screen::default();
        let report = Report::Failed {
            took: SECOND,
            error: "no link on eth0",
            remedy: "check the cable",
            retry_in: Duration::from_millis(1500),
        };
        assert_eq!(
            shown(&screen.report("link", &report)),
            [
                "[fail] link           1.0 s  no link on eth0",
                "       what to do: check the cable",
                "       retrying in 2 s",
                ""
            ]
        );
    }

    #[test]
    fn a_line_is_not_refreshed_too_often() {
        let mut screen = Screen::default();
        assert!(screen.rewrite(SECOND, "root", "1").is_some());
        assert!(screen.rewrite(SECOND + REFRESH / 2, "root", "2").is_none());
        assert!(screen.rewrite(SECOND + REFRESH, "root", "3").is_some());
    }

    proptest! {
        #[test]
        fn nothing_of_a_rewritten_line_stays(texts in proptest::collection::vec("[a-z ]{0,120}", 1..8)) {
            let mut screen = Screen::default();
            let mut out = String::new();
            for (n, text) in texts.iter().enumerate() {
                out += &screen.rewrite(REFRESH * u32::try_from(n).unwrap(), "p", text).unwrap();
            }
            out += &screen.lines("end");
            prop_assert_eq!(shown(&out), ["end", ""]);
        }
    }
}
