//! Heads of responses, and the date in them.
//!
//! Appends to the caller's buffer; knows nothing of bodies, requests or which header belongs where.
//! Invariant: whatever is put in, a head has exactly the lines that were written, because no
//! control byte gets into one. RFC 9112 4, RFC 9110 5.5, 5.6.7, 6.6.1.

use super::is_token_byte;
use crate::cursor::Cursor;
use crate::text::{write_cursor, write_decimal};

/// The interim answer to `Expect: 100-continue`, whole.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Starts a head: status line and `Date`. Then any number of [`header`], then [`finish_head`].
pub fn start_response(out: &mut Vec<u8>, status: u16, date: &Date) {
    debug_assert!((100..600).contains(&status), "{status} is no status");
    match status_line(status) {
        Some(line) => out.extend_from_slice(line.as_bytes()),
        None => {
            out.extend_from_slice(b"HTTP/1.1 ");
            write_decimal(out, u64::from(status));
            // RFC 9112 4: the reason may be empty, the space before it stays.
            out.extend_from_slice(b" \r\n");
        }
    }
    out.extend_from_slice(&date.0);
}

/// Appends header lines that are the same in every answer.
pub fn fixed_lines(out: &mut Vec<u8>, lines: &'static str) {
    debug_assert!(lines.ends_with("\r\n") && lines.split_terminator("\r\n").all(|line| line.contains(": ")));
    out.extend_from_slice(lines.as_bytes());
}

/// Appends a header line. A control byte in `value` is our own mistake: a panic in debug builds,
/// otherwise a `?`, so that no value can ever end the line.
pub fn header(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    start_line(out, name);
    let start = out.len();
    out.extend_from_slice(value);
    finish_line(out, start);
}

/// Appends a header line whose value is a number.
pub fn header_number(out: &mut Vec<u8>, name: &str, value: u64) {
    start_line(out, name);
    write_decimal(out, value);
    out.extend_from_slice(b"\r\n");
}

/// Appends `Content-Length`, which nearly every head has.
pub fn content_length(out: &mut Vec<u8>, bytes: usize) {
    out.extend_from_slice(b"Content-Length: ");
    write_decimal(out, bytes as u64);
    out.extend_from_slice(b"\r\n");
}

/// Appends a header line whose value is a cursor, or an id.
pub fn header_cursor(out: &mut Vec<u8>, name: &str, value: Cursor) {
    start_line(out, name);
    write_cursor(out, value);
    out.extend_from_slice(b"\r\n");
}

fn start_line(out: &mut Vec<u8>, name: &str) {
    debug_assert!(!name.is_empty() && name.bytes().all(is_token_byte), "{name:?} is no field name");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
}

fn finish_line(out: &mut Vec<u8>, value_start: usize) {
    for byte in &mut out[value_start..] {
        // RFC 9110 5.5: a tab may stand in a value.
        if byte.is_ascii_control() && *byte != b'\t' {
            debug_assert!(false, "a control byte in a header value");
            *byte = b'?';
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// Ends the head.
pub fn finish_head(out: &mut Vec<u8>) {
    out.extend_from_slice(b"\r\n");
}

macro_rules! status_lines {
    ($($status:literal $reason:literal,)*) => {
        /// The status line with the reason phrase of RFC 9110 15, which is for people; `None` for a
        /// status unknown here.
        fn status_line(status: u16) -> Option<&'static str> {
            match status {
                $($status => Some(concat!("HTTP/1.1 ", $status, " ", $reason, "\r\n")),)*
                _ => None,
            }
        }
    };
}

status_lines! {
    100 "Continue",
    101 "Switching Protocols",
    200 "OK",
    201 "Created",
    202 "Accepted",
    204 "No Content",
    301 "Moved Permanently",
    302 "Found",
    303 "See Other",
    304 "Not Modified",
    307 "Temporary Redirect",
    308 "Permanent Redirect",
    400 "Bad Request",
    401 "Unauthorized",
    403 "Forbidden",
    404 "Not Found",
    405 "Method Not Allowed",
    408 "Request Timeout",
    409 "Conflict",
    412 "Precondition Failed",
    413 "Content Too Large",
    415 "Unsupported Media Type",
    417 "Expectation Failed",
    421 "Misdirected Request",
    422 "Unprocessable Content",
    426 "Upgrade Required",
    429 "Too Many Requests",
    431 "Request Header Fields Too Large",
    500 "Internal Server Error",
    501 "Not Implemented",
    503 "Service Unavailable",
    505 "HTTP Version Not Supported",
}

/// The line `Date: Sun, 06 Nov 1994 08:49:37 GMT`, an IMF-fixdate: made once a second, for every answer.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Date([u8; 37]);

impl Date {
    /// The date of this moment, in Unix milliseconds. The form ends with the year 9999, and there
    /// the date stays.
    pub fn from_unix_ms(unix_ms: u64) -> Date {
        const WEEKDAYS: &[u8; 21] = b"ThuFriSatSunMonTueWed"; // 1 January 1970 was a Thursday
        const MONTHS: &[u8; 36] = b"JanFebMarAprMayJunJulAugSepOctNovDec";
        const LAST_SECOND: u64 = 253_402_300_799; // 9999-12-31T23:59:59Z

        let seconds = (unix_ms / 1000).min(LAST_SECOND);
        let (days, second_of_day) = (seconds / 86_400, seconds % 86_400);
        let (year, month, day) = civil_date(days);
        let weekday = (days % 7) as usize;

        let mut line = *b"Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n";
        let text = &mut line[6..35];
        text[0..3].copy_from_slice(&WEEKDAYS[3 * weekday..][..3]);
        write_two_digits(&mut text[5..7], day);
        text[8..11].copy_from_slice(&MONTHS[3 * (month as usize - 1)..][..3]);
        write_two_digits(&mut text[12..14], year / 100);
        write_two_digits(&mut text[14..16], year % 100);
        write_two_digits(&mut text[17..19], second_of_day / 3600);
        write_two_digits(&mut text[20..22], second_of_day / 60 % 60);
        write_two_digits(&mut text[23..25], second_of_day % 60);
        Date(line)
    }
}

/// Year, month (1 to 12) and day (1 to 31) of a day counted from 1 January 1970.
///
/// Years here begin in March, so that the leap day is the last one, and repeat every 400 years
/// (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`).
fn civil_date(days_since_1970: u64) -> (u64, u64, u64) {
    const DAYS_PER_400_YEARS: u64 = 146_097;
    const MARCH_OF_YEAR_0_TO_1970: u64 = 719_468;
    let days = days_since_1970 + MARCH_OF_YEAR_0_TO_1970;
    let (era, day_of_era) = (days / DAYS_PER_400_YEARS, days % DAYS_PER_400_YEARS);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let months_since_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * months_since_march + 2) / 5 + 1;
    let month = if months_since_march < 10 { months_since_march + 3 } else { months_since_march - 9 };
    let year = 400 * era + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

fn write_two_digits(out: &mut [u8], number: u64) {
    out[0] = b'0' + (number / 10) as u8;
    out[1] = b'0' + (number % 10) as u8;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    #[test]
    fn a_head() {
        let mut out = Vec::new();
        start_response(&mut out, 200, &Date::from_unix_ms(784_111_777_000));
        header(&mut out, "Content-Type", b"application/json");
        content_length(&mut out, 2);
        finish_head(&mut out);
        let want = "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Type: application/json\r\n\
                    Content-Length: 2\r\n\r\n";
        assert_eq!(out.escape_ascii().to_string(), want.as_bytes().escape_ascii().to_string());
    }

    #[test]
    fn each_line_stands_for_itself() {
        let mut out = Vec::new();
        fixed_lines(&mut out, "A: b\r\nC: d\r\n");
        header_number(&mut out, "Age", 1200);
        content_length(&mut out, 0);
        let place = Cursor { epoch: crate::cursor::Epoch::new(7).unwrap(), seq: 42 };
        header_cursor(&mut out, "Tidings-Cursor", place);
        let lines = "A: b\r\nC: d\r\nAge: 1200\r\nContent-Length: 0\r\nTidings-Cursor: 7-42\r\n";
        assert_eq!(String::from_utf8_lossy(&out), lines);
    }

    #[test]
    fn an_unknown_status_keeps_its_space() {
        let mut out = Vec::new();
        start_response(&mut out, 299, &Date::from_unix_ms(0));
        assert!(out.starts_with(b"HTTP/1.1 299 \r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n"));
    }

    #[test]
    fn no_value_ends_its_line() {
        for evil in ["a\r\nSet-Cookie: x", "a\nb", "a\rb", "\0", "\x7f"] {
            let mut out = Vec::new();
            let write = std::panic::AssertUnwindSafe(|| header(&mut out, "X", evil.as_bytes()));
            let result = std::panic::catch_unwind(write);
            if cfg!(debug_assertions) {
                assert!(result.is_err(), "{evil:?} is our own mistake");
            } else {
                let controls = out.iter().filter(|byte| byte.is_ascii_control()).count();
                assert_eq!((controls, out.ends_with(b"\r\n")), (2, true), "{evil:?}");
            }
        }
    }

    /// RFC 9110 15 and RFC 6585, word for word.
    #[test]
    fn reasons() {
        for (status, want) in [
            (100, "Continue"),
            (101, "Switching Protocols"),
            (200, "OK"),
            (201, "Created"),
            (202, "Accepted"),
            (204, "No Content"),
            (301, "Moved Permanently"),
            (302, "Found"),
            (303, "See Other"),
            (304, "Not Modified"),
            (307, "Temporary Redirect"),
            (308, "Permanent Redirect"),
            (400, "Bad Request"),
            (401, "Unauthorized"),
            (403, "Forbidden"),
            (404, "Not Found"),
            (405, "Method Not Allowed"),
            (408, "Request Timeout"),
            (409, "Conflict"),
            (412, "Precondition Failed"),
            (413, "Content Too Large"),
            (415, "Unsupported Media Type"),
            (417, "Expectation Failed"),
            (421, "Misdirected Request"),
            (422, "Unprocessable Content"),
            (426, "Upgrade Required"),
            (429, "Too Many Requests"),
            (431, "Request Header Fields Too Large"),
            (500, "Internal Server Error"),
            (501, "Not Implemented"),
            (503, "Service Unavailable"),
            (505, "HTTP Version Not Supported"),
            (299, ""),
        ] {
            let mut out = Vec::new();
            start_response(&mut out, status, &Date::from_unix_ms(0));
            assert!(out.starts_with(format!("HTTP/1.1 {status} {want}\r\nDate: ").as_bytes()), "{status}");
        }
    }

    #[test]
    fn every_code_has_a_reason() {
        for code in Code::ALL {
            assert!(status_line(code.status()).is_some(), "{code:?}");
        }
    }

    #[test]
    fn dates() {
        for (seconds, want) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"), // RFC 9110 5.6.7
            (951_782_399, "Mon, 28 Feb 2000 23:59:59 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (951_868_800, "Wed, 01 Mar 2000 00:00:00 GMT"),
            (1_709_164_800, "Thu, 29 Feb 2024 00:00:00 GMT"),
            (1_767_225_599, "Wed, 31 Dec 2025 23:59:59 GMT"),
            (1_767_225_600, "Thu, 01 Jan 2026 00:00:00 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
            (253_402_300_799, "Fri, 31 Dec 9999 23:59:59 GMT"),
            (253_402_300_800, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ] {
            let date = Date::from_unix_ms(seconds * 1000 + 999);
            assert_eq!(date.0, format!("Date: {want}\r\n").as_bytes());
        }
        assert_eq!(Date::from_unix_ms(u64::MAX), Date::from_unix_ms(253_402_300_799_000));
    }

    /// Against a calendar that counts day by day.
    #[test]
    fn every_day_of_four_centuries() {
        let (mut year, mut month, mut day) = (1970, 1, 1);
        let end = 146_097 / crate::stride(100) as u64;
        for days in 0..end {
            assert_eq!(civil_date(days), (year, month, day));
            let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let length = match month {
                2 if is_leap => 29,
                2 => 28,
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            day += 1;
            if day > length {
                (month, day) = (month + 1, 1);
            }
            if month > 12 {
                (year, month) = (year + 1, 1);
            }
        }
        assert_eq!(civil_date(end), (year, month, day));
        assert!(cfg!(miri) || (year, month, day) == (2370, 1, 1));
    }
}
