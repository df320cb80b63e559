//! Numbers in strings, by Redis' rules.

/// A decimal integer as Redis writes it: no sign but `-`, no leading zeros, no blanks.
pub(super) fn parse_int(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let canonical = match digits {
        [b'0'] => digits.len() == text.len(),
        [] | [b'0', ..] => false,
        _ => digits.iter().all(u8::is_ascii_digit),
    };
    if !canonical {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// A finite or infinite number, without blanks; not NaN.
pub(super) fn parse_float(text: &[u8]) -> Option<f64> {
    let number: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    (!number.is_nan()).then_some(number)
}

/// The shortest text that reads back as the same number, without exponent.
pub(super) fn format_float(number: f64) -> String {
    format!("{number}")
}

/// A sorted set's score as it is kept.
pub(super) fn score_bytes(score: f64) -> [u8; 8] {
    score.to_le_bytes()
}

/// A sorted set's score from what is kept.
pub(super) fn score(bytes: &[u8]) -> f64 {
    bytes
        .first_chunk::<8>()
        .map_or(0.0, |bytes| f64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_read_as_strictly_as_redis_does() {
        for (text, value) in [
            ("0", Some(0)),
            ("-1", Some(-1)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("+1", None),
            ("01", None),
            ("-0", None),
            (" 1", None),
            ("", None),
            ("-", None),
            ("1a", None),
        ] {
            assert_eq!(parse_int(text.as_bytes()), value, "{text:?}");
        }
    }

    #[test]
    fn floats_keep_their_value() {
        assert_eq!(parse_float(b"3.0e3"), Some(3000.0));
        assert_eq!(parse_float(b"nan"), None);
        assert_eq!(format_float(3000.0), "3000");
        assert_eq!(format_float(10.6), "10.6");
        assert!((score(&score_bytes(1.5)) - 1.5).abs() < f64::EPSILON);
    }
}
