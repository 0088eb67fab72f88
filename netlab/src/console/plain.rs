//! Takes the escape sequences out of a terminal's byte stream (ECMA-48), however it is cut into pieces.

/// Where in a sequence the stream is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum At {
    #[default]
    Text,
    /// After ESC.
    Escape,
    /// In a control sequence, `ESC [ … final`.
    Control,
    /// In a string such as a window title, `ESC ] … BEL` or `ESC ] … ESC \`.
    String,
    /// After an ESC that may end a string.
    StringEscape,
}

/// The filter's state between two pieces.
#[derive(Debug, Default)]
pub(super) struct Plain {
    at: At,
    /// The last byte that was let through.
    last: u8,
}

impl Plain {
    /// Appends what is text to `out`: printing characters, tabs and line ends. A sequence that moves the cursor to a place
    /// becomes a line end, since firmware draws its screen that way.
    pub(super) fn feed(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        for &byte in bytes {
            self.at = match (self.at, byte) {
                (At::Text | At::Escape | At::Control, 0x1b) => At::Escape,
                (At::Text, _) => {
                    self.text(byte, out);
                    At::Text
                }
                (At::Escape, b'[') => At::Control,
                (At::Escape, b']' | b'P' | b'X' | b'^' | b'_') => At::String,
                // Intermediate bytes, as in `ESC ( B`, come before a final byte.
                (At::Escape, 0x20..=0x2f) => At::Escape,
                (At::Escape, _) => At::Text,
                (At::Control, 0x40..=0x7e) => {
                    if matches!(byte, b'H' | b'f') && !matches!(self.last, 0 | b'\n') {
                        self.text(b'\n', out);
                    }
                    At::Text
                }
                (At::Control, _) => At::Control,
                (At::String, 0x07) | (At::StringEscape, b'\\') => At::Text,
                (At::String, 0x1b) => At::StringEscape,
                (At::String | At::StringEscape, _) => At::String,
            };
        }
    }

    fn text(&mut self, byte: u8, out: &mut Vec<u8>) {
        if matches!(byte, b'\n' | b'\t') || (byte >= 0x20 && byte != 0x7f) {
            out.push(byte);
            self.last = byte;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(bytes: &[u8]) -> String {
        let mut out = Vec::new();
        Plain::default().feed(bytes, &mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn sequences_go_and_text_stays() {
        assert_eq!(
            plain(b"\x1bc\x1b[?7l\x1b[2J\x1b[0mSeaBIOS (version 1.16)\r\n"),
            "SeaBIOS (version 1.16)\n"
        );
        assert_eq!(plain(b"\x1b[05;01HPress \x1b[1m\x1b[37mESC\x1b[0m now"), "Press ESC now");
        assert_eq!(plain(b"one\x1b[02;01Htwo\r\n\x1b[3;1Hthree"), "one\ntwo\nthree");
        assert_eq!(plain(b"\x1b]0;title\x07a\x1b]0;b\x1b\\c\x1b(Bd\0\x08e"), "acde");
    }

    #[test]
    fn pieces_make_no_difference() {
        let bytes = b"a\x1b[31mred\x1b[0m\x1b]2;t\x1b\\\r\nb\x1b[4;1Hc\xff\x1b[";
        let mut out = Vec::new();
        let mut filter = Plain::default();
        for byte in bytes {
            filter.feed(&[*byte], &mut out);
        }
        assert_eq!(String::from_utf8_lossy(&out), plain(bytes));
    }
}
