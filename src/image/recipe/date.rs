//! The date of a recipe.

use toml::value::{Date, Datetime, Offset};

const SECONDS_OF_DAY: i64 = 24 * 60 * 60;

/// Seconds since 1970 of a date, which begins at midnight UTC, or of a date with time and offset (RFC 3339); `None` for all else
/// and for what was before.
pub(super) fn seconds(written: &Datetime) -> Option<i64> {
    let days = days(written.date.as_ref()?);
    let of_day = match (&written.time, &written.offset) {
        (None, None) => 0,
        (Some(time), Some(offset)) => {
            let minutes = match offset {
                Offset::Z => 0,
                Offset::Custom { minutes } => i64::from(*minutes),
            };
            let (hour, minute) = (i64::from(time.hour), i64::from(time.minute));
            (hour * 60 + minute - minutes) * 60 + i64::from(time.second.unwrap_or(0))
        }
        _ => return None,
    };
    Some(days * SECONDS_OF_DAY + of_day).filter(|seconds| *seconds >= 0)
}

/// Days since 1970: those of the years before, which begin in March here so that a leap day is the last, and those of the year.
fn days(date: &Date) -> i64 {
    /// Days from the first of March of year 0 to 1970.
    const TO_1970: i64 = 719_468;
    let month = i64::from(date.month);
    let year = i64::from(date.year) - i64::from(month < 3);
    let months = (month + 9) % 12;
    let leap_days = year / 4 - year / 100 + year / 400;
    year * 365 + leap_days + (months * 153 + 2) / 5 + i64::from(date.day) - 1 - TO_1970
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_coreutils() {
        for text in ["1970-01-01", "1999-12-31", "2000-02-29", "2026-11-27", "2100-03-01"] {
            let output = std::process::Command::new("date").args(["-u", "-d", text, "+%s"]).output().unwrap();
            let known: i64 = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
            assert_eq!(seconds(&text.parse().unwrap()), Some(known), "{text}");
        }
        let zoned = |text: &str| seconds(&text.parse().unwrap());
        assert_eq!(zoned("1970-01-02T01:00:05+01:00"), Some(SECONDS_OF_DAY + 5));
        assert_eq!(zoned("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(zoned("1970-01-01T00:00:00"), None);
        assert_eq!(zoned("1969-12-31"), None);
        assert_eq!(zoned("12:00:00"), None);
    }
}
