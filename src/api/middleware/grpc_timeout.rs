//! The header `grpc-timeout`: the caller's deadline.

use std::time::Duration;

use tokio::time::Instant;
use tonic::codegen::http::{HeaderMap, HeaderValue};

/// `None` without the header, or if it is invalid.
pub fn deadline(headers: &HeaderMap) -> Option<Instant> {
    let timeout = headers.get("grpc-timeout")?.to_str().ok().and_then(parse)?;
    Instant::now().checked_add(timeout)
}

/// At most eight digits and a unit, as the gRPC protocol specifies.
fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3_600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

/// The remaining time as a `grpc-timeout` value: at most eight digits and a unit.
pub fn remaining(deadline: Instant) -> HeaderValue {
    let remaining = deadline.saturating_duration_since(Instant::now());
    let (number, unit) = match remaining.as_millis() {
        millis @ 0..=99_999_999 => (millis, 'm'),
        millis => ((millis / 1_000).min(99_999_999), 'S'),
    };
    HeaderValue::try_from(format!("{number}{unit}")).unwrap_or(HeaderValue::from_static("0m"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_digits_and_a_unit() {
        assert_eq!(parse("300m"), Some(Duration::from_millis(300)));
        assert_eq!(parse("2H"), Some(Duration::from_hours(2)));
        assert_eq!(parse("99999999H"), Some(Duration::from_hours(99_999_999)));
        for garbage in ["", "m", "5", "5x", "-5m", "+5m", "123456789S", "5\u{e4}", "5 S"] {
            assert_eq!(parse(garbage), None, "{garbage:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_remaining_time_has_at_most_eight_digits() {
        for (remaining, expected) in [
            (Duration::ZERO, "0m"),
            (Duration::from_millis(1_500), "1500m"),
            (Duration::from_secs(100_000), "100000S"),
            (Duration::from_secs(9_999_999_999), "99999999S"),
        ] {
            assert_eq!(super::remaining(Instant::now() + remaining), expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_invalid_header_is_ignored() {
        let mut headers = HeaderMap::new();
        assert_eq!(deadline(&headers), None);
        headers.insert("grpc-timeout", "soon".parse().unwrap());
        assert_eq!(deadline(&headers), None);
        headers.insert("grpc-timeout", "2S".parse().unwrap());
        assert_eq!(deadline(&headers), Some(Instant::now() + Duration::from_secs(2)));
    }
}
