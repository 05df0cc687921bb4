//! Dates and times in ISO 8601, in the Gregorian calendar for all years.

pub(super) const MICROS_PER_DAY: i64 = 86_400_000_000;
const MICROS_PER_SECOND: i64 = 1_000_000;

/// Year, month and day of a day, counted from 1970-01-01.
pub(super) fn civil_of(days: i32) -> (i64, u32, u32) {
    // Howard Hinnant, "chrono-compatible low-level date algorithms": eras of 400 years that begin in March.
    let days = i64::from(days) + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, u32::try_from(month).unwrap_or(1), u32::try_from(day).unwrap_or(1))
}

/// Inverse of [`civil_of`]; `None` if there is no such day.
pub(super) fn days_of(year: i64, month: u32, day: u32) -> Option<i32> {
    let (month, day) = (i64::from(month), i64::from(day));
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || !(-1_000_000..=1_000_000).contains(&year) {
        return None;
    }
    let shifted_year = if month <= 2 { year - 1 } else { year };
    let era = shifted_year.div_euclid(400);
    let year_of_era = shifted_year.rem_euclid(400);
    let day_of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = i32::try_from(era * 146_097 + day_of_era - 719_468).ok()?;
    // The 31st of a month that has 30 days is another day.
    let found = civil_of(days);
    (i64::from(found.1) == month && i64::from(found.2) == day).then_some(days)
}

pub(super) fn write_date(days: i32, out: &mut Vec<u8>) {
    match days {
        i32::MAX => out.extend_from_slice(b"infinity"),
        i32::MIN => out.extend_from_slice(b"-infinity"),
        _ => {
            let (year, month, day) = civil_of(days);
            write_year(year, out);
            out.push(b'-');
            write_two(month, out);
            out.push(b'-');
            write_two(day, out);
        }
    }
}

/// `micros` are since midnight, at most one day.
pub(super) fn write_time(micros: i64, out: &mut Vec<u8>) {
    let seconds = u32::try_from(micros / MICROS_PER_SECOND).unwrap_or(0);
    write_two(seconds / 3_600, out);
    out.push(b':');
    write_two(seconds / 60 % 60, out);
    out.push(b':');
    write_two(seconds % 60, out);
    let mut fraction = micros % MICROS_PER_SECOND;
    if fraction > 0 {
        out.push(b'.');
        let mut unit = MICROS_PER_SECOND / 10;
        while fraction > 0 {
            out.push(digit(fraction / unit));
            fraction %= unit;
            unit /= 10;
        }
    }
}

pub(super) fn write_timestamp(micros: i64, is_instant: bool, out: &mut Vec<u8>) {
    match micros {
        i64::MAX => out.extend_from_slice(b"infinity"),
        i64::MIN => out.extend_from_slice(b"-infinity"),
        _ => {
            write_date(i32::try_from(micros.div_euclid(MICROS_PER_DAY)).unwrap_or(i32::MAX), out);
            out.push(b'T');
            write_time(micros.rem_euclid(MICROS_PER_DAY), out);
            if is_instant {
                out.push(b'Z');
            }
        }
    }
}

/// Parses `2026-11-30`.
pub(super) fn parse_date(text: &str) -> Option<i32> {
    let mut rest = text.as_bytes();
    let days = take_date(&mut rest)?;
    rest.is_empty().then_some(days)
}

/// Parses `2026-11-30 10:15`, `2026-11-30T10:15:00.123`, or with a zone: `Z` or `+02:00`. Returns the microseconds, in UTC if
/// there is a zone, and whether there is one.
pub(super) fn parse_timestamp(text: &str) -> Option<(i64, bool)> {
    let mut rest = text.as_bytes();
    let days = take_date(&mut rest)?;
    take(&mut rest, |byte| matches!(byte, b' ' | b'T'))?;
    let (hour, minute) = take_hour_and_minute(&mut rest)?;
    let mut micros = (hour * 3_600 + minute * 60) * MICROS_PER_SECOND;
    if take(&mut rest, |byte| byte == b':').is_some() {
        let second = take_number(&mut rest, 2)?;
        if second > 59 {
            return None;
        }
        micros += second * MICROS_PER_SECOND;
        if take(&mut rest, |byte| byte == b'.').is_some() {
            micros += take_fraction(&mut rest)?;
        }
    }
    let micros = i64::from(days).checked_mul(MICROS_PER_DAY)?.checked_add(micros)?;
    let offset = match rest {
        [] => return Some((micros, false)),
        b"Z" => 0,
        [sign @ (b'+' | b'-'), ..] => {
            let sign = if *sign == b'+' { 1 } else { -1 };
            rest = &rest[1..];
            let (hour, minute) = take_hour_and_minute(&mut rest)?;
            rest.is_empty().then_some(sign * (hour * 3_600 + minute * 60))?
        }
        _ => return None,
    };
    Some((micros - offset * MICROS_PER_SECOND, true))
}

fn take_date(rest: &mut &[u8]) -> Option<i32> {
    let year = take_number(rest, 4)?;
    take(rest, |byte| byte == b'-')?;
    let month = take_number(rest, 2)?;
    take(rest, |byte| byte == b'-')?;
    let day = take_number(rest, 2)?;
    days_of(year, u32::try_from(month).ok()?, u32::try_from(day).ok()?)
}

fn take_hour_and_minute(rest: &mut &[u8]) -> Option<(i64, i64)> {
    let hour = take_number(rest, 2)?;
    take(rest, |byte| byte == b':')?;
    let minute = take_number(rest, 2)?;
    (hour < 24 && minute < 60).then_some((hour, minute))
}

/// Digits after the decimal point, in microseconds. `None` if there are more than six or none.
fn take_fraction(rest: &mut &[u8]) -> Option<i64> {
    let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let missing = 6_u32.checked_sub(u32::try_from(count).ok()?)?;
    if count == 0 {
        return None;
    }
    Some(take_number(rest, count)? * 10_i64.pow(missing))
}

fn take_number(rest: &mut &[u8], digits: usize) -> Option<i64> {
    let (number, after) = rest.split_at_checked(digits)?;
    *rest = after;
    number.iter().try_fold(0, |value, byte| byte.is_ascii_digit().then(|| value * 10 + i64::from(byte - b'0')))
}

fn take(rest: &mut &[u8], is_wanted: impl Fn(u8) -> bool) -> Option<u8> {
    let (first, after) = rest.split_first()?;
    is_wanted(*first).then(|| *rest = after)?;
    Some(*first)
}

/// Four digits at least. The year before 1 is 0, as in ISO 8601.
fn write_year(year: i64, out: &mut Vec<u8>) {
    if year < 0 {
        out.push(b'-');
    }
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(year.unsigned_abs()).as_bytes();
    out.extend(std::iter::repeat_n(b'0', 4_usize.saturating_sub(digits.len())));
    out.extend_from_slice(digits);
}

fn write_two(number: u32, out: &mut Vec<u8>) {
    out.push(digit(i64::from(number / 10)));
    out.push(digit(i64::from(number % 10)));
}

/// `number` is 0 to 9.
fn digit(number: i64) -> u8 {
    b'0' + u8::try_from(number).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn days_and_dates_are_inverse() {
        for (days, text) in [
            (0, "1970-01-01"),
            (-1, "1969-12-31"),
            (11_016, "2000-02-29"),
            (20_787, "2026-11-30"),
            (-719_528, "0000-01-01"),
            (-719_529, "-0001-12-31"),
            (2_932_897, "10000-01-01"),
            (i32::MAX, "infinity"),
            (i32::MIN, "-infinity"),
        ] {
            assert_eq!(written(|out| write_date(days, out)), text);
        }
        for days in (-1_000_000..3_000_000).step_by(97) {
            let (year, month, day) = civil_of(days);
            assert_eq!(days_of(year, month, day), Some(days));
        }
        for (year, month, day) in [(2026, 2, 29), (2026, 4, 31), (2026, 0, 1), (2026, 13, 1), (2026, 1, 0)] {
            assert_eq!(days_of(year, month, day), None);
        }
    }

    #[test]
    fn a_timestamp_with_a_zone_is_written_in_utc() {
        for (text, expected) in [
            ("2026-11-30 10:15", "2026-11-30T10:15:00"),
            ("2026-11-30T10:15:09.5", "2026-11-30T10:15:09.5"),
            ("2026-11-30T10:15:09.000001Z", "2026-11-30T10:15:09.000001Z"),
            ("2026-11-30T00:15:00+02:00", "2026-11-29T22:15:00Z"),
            ("1969-12-31T23:00:00-01:30", "1970-01-01T00:30:00Z"),
        ] {
            let (micros, is_instant) = parse_timestamp(text).unwrap();
            assert_eq!(written(|out| write_timestamp(micros, is_instant, out)), expected);
        }
        for bad in
            ["", "2026-11-30", "2026-11-30 24:00", "2026-11-30 10:15:60", "2026-11-30 10:15:00.", "2026-11-30 10:15 x"]
        {
            assert_eq!(parse_timestamp(bad), None, "{bad}");
        }
        assert_eq!(parse_date("2026-11-30"), Some(20_787));
        assert_eq!(parse_date("2026-11-3"), None);
        assert_eq!(written(|out| write_time(MICROS_PER_DAY, out)), "24:00:00");
    }
}
