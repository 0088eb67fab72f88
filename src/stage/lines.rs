//! Lines out of a byte stream that arrives in pieces.

/// Longest line that is kept; an event line has a few hundred bytes, one with many sources a few thousand.
const MAX_LINE: usize = 64 << 10;

/// Bytes of a line that has not ended yet.
#[derive(Debug, Default)]
pub(super) struct LineBuffer {
    partial: Vec<u8>,
    /// The current line grew too long: what is left of it is thrown away.
    overlong: bool,
}

impl LineBuffer {
    /// Takes the next bytes; returns the lines they complete, without their ends. Lines that are too long or no UTF-8
    /// are left out.
    pub(super) fn push(&mut self, mut bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            let (head, tail) = bytes.split_at(end);
            self.keep(head);
            let line = std::mem::take(&mut self.partial);
            if !std::mem::take(&mut self.overlong)
                && let Ok(line) = String::from_utf8(line)
            {
                lines.push(line);
            }
            bytes = tail.get(1..).unwrap_or(&[]);
        }
        self.keep(bytes);
        lines
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.partial.len() + bytes.len() > MAX_LINE {
            self.overlong = true;
            self.partial.clear();
        }
        if !self.overlong {
            self.partial.extend_from_slice(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_that_is_too_long_costs_only_itself() {
        let mut buffer = LineBuffer::default();
        for _ in 0..100 {
            assert!(buffer.push(&[b'x'; 4096]).is_empty());
            assert!(buffer.partial.len() <= MAX_LINE);
        }
        assert_eq!(buffer.push(b"rest\nnext\n"), ["next"]);
    }

    #[test]
    fn what_is_no_text_is_left_out() {
        assert_eq!(LineBuffer::default().push(b"a\n\xff\nb\n\n"), ["a", "b", ""]);
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(lines in proptest::collection::vec("[a-z]{0,20}", 0..20), piece in 1_usize..30) {
            let whole = lines.iter().fold(String::new(), |text, line| text + line + "\n");
            let mut buffer = LineBuffer::default();
            let read: Vec<String> = whole.as_bytes().chunks(piece).flat_map(|piece| buffer.push(piece)).collect();
            prop_assert_eq!(read, lines);
        }
    }
}
