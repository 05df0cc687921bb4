//! Reads the caller's deadline from the `grpc-timeout` header.

use std::time::Duration;

use tokio::time::Instant;
use tonic::codegen::http::HeaderMap;

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
    async fn an_invalid_header_is_ignored() {
        let mut headers = HeaderMap::new();
        assert_eq!(deadline(&headers), None);
        headers.insert("grpc-timeout", "soon".parse().unwrap());
        assert_eq!(deadline(&headers), None);
        headers.insert("grpc-timeout", "2S".parse().unwrap());
        assert_eq!(deadline(&headers), Some(Instant::now() + Duration::from_secs(2)));
    }
}
