//! What a machine printed, without escape sequences, and how far it has been searched.

use super::plain::Plain;

/// Kept of a console's text; a Debian boot prints about 100 KiB. The transcript file has everything.
const KEPT: usize = 4 << 20;

/// A place where one of several texts was found.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) index: usize,
    pub(super) line: String,
}

#[derive(Default)]
pub(super) struct Screen {
    filter: Plain,
    text: Vec<u8>,
    /// The next search starts here.
    position: usize,
}

impl Screen {
    /// Adds what the machine printed.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.filter.feed(bytes, &mut self.text);
        if self.text.len() > KEPT {
            let gone = self.text.len() - KEPT / 2;
            self.text.drain(..gone);
            self.position = self.position.saturating_sub(gone);
        }
    }

    /// Everything kept.
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.text).into_owned()
    }

    /// Whether a text is anywhere in what is kept.
    pub(super) fn contains(&self, text: &str) -> bool {
        find(&self.text, text.as_bytes()).is_some()
    }

    /// Finds the text that comes first after the position, and puts the position behind it. Of texts that start at the same
    /// place the first in the list wins.
    pub(super) fn find_next<'a>(&mut self, texts: impl Iterator<Item = &'a str>) -> Option<Found> {
        let unseen = self.text.get(self.position..).unwrap_or_default();
        let places =
            texts.enumerate().filter_map(|(index, text)| Some((find(unseen, text.as_bytes())?, index, text)));
        let (place, index, text) = places.min_by_key(|&(place, index, _)| (place, index))?;
        let start = self.position + place;
        self.position = start + text.len();
        Some(Found { index, line: self.line_around(start) })
    }

    /// Puts the position behind all that is there.
    pub(super) fn skip(&mut self) {
        self.position = self.text.len();
    }

    fn line_around(&self, place: usize) -> String {
        let (before, after) = self.text.split_at_checked(place).unwrap_or((&self.text, &[]));
        let before = before.rsplit(|&byte| byte == b'\n').next().unwrap_or_default();
        let after = after.split(|&byte| byte == b'\n').next().unwrap_or_default();
        String::from_utf8_lossy(&[before, after].concat()).trim().to_owned()
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    let first = *needle.first()?;
    let mut from = 0;
    loop {
        let rest = haystack.get(from..)?;
        let place = from + rest.iter().position(|&byte| byte == first)?;
        if haystack.get(place..)?.starts_with(needle) {
            return Some(place);
        }
        from = place + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_in_the_text_wins() {
        let mut screen = Screen::default();
        screen.feed(b"x one y two\nthree");
        let found = screen.find_next(["two", "one"].into_iter()).unwrap();
        assert_eq!(found, Found { index: 1, line: "x one y two".into() });
        assert_eq!(screen.find_next(["two", "one"].into_iter()).unwrap().index, 0);
        assert_eq!(screen.find_next(["two", "one"].into_iter()), None);
        assert_eq!(screen.find_next(["thr"].into_iter()).unwrap().line, "three");
        assert_eq!(screen.find_next([""].into_iter()), None);
        screen.feed(b" four");
        screen.skip();
        assert_eq!(screen.find_next(["four"].into_iter()), None);
        screen.feed(b" four");
        assert!(screen.find_next(["four"].into_iter()).is_some());
    }

    #[test]
    fn memory_is_bounded() {
        let mut screen = Screen::default();
        for _ in 0..10 {
            screen.feed(&vec![b'x'; KEPT / 4]);
        }
        assert!(screen.text.len() <= KEPT);
        screen.feed(b"needle");
        assert!(screen.find_next(["needle"].into_iter()).is_some());
        assert!(screen.find_next(["x"].into_iter()).is_none());
    }

    #[test]
    fn partial_matches_do_not_confuse() {
        assert_eq!(find(b"aaab", b"aab"), Some(1));
        assert_eq!(find(b"abababc", b"ababc"), Some(2));
        assert_eq!(find(b"", b"a"), None);
        assert_eq!(find(b"a", b"ab"), None);
    }
}
