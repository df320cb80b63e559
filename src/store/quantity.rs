//! Sizes as Kubernetes writes them: `256Mi`, `1G`, `1.5Gi`.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Suffixes with what they multiply by, longest first.
const SUFFIXES: [(&str, i64); 11] = [
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("Pi", 1 << 50),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
    ("P", 1_000_000_000_000_000),
    ("", 1),
];

/// The size in bytes; `None` if it is no size above zero, or beyond what fits.
pub fn bytes(quantity: &Quantity) -> Option<i64> {
    let text = quantity.0.trim();
    let (number, factor) = SUFFIXES
        .iter()
        .find_map(|(suffix, factor)| Some((text.strip_suffix(suffix)?, *factor)))?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || (number.contains('.') && !digits(fraction)) || fraction.len() > 9 {
        return None;
    }
    let mut bytes = whole.parse::<i64>().ok()?.checked_mul(factor)?;
    if !fraction.is_empty() {
        let scale = 10_i128.pow(u32::try_from(fraction.len()).ok()?);
        let part = fraction.parse::<i128>().ok()? * i128::from(factor) / scale;
        bytes = bytes.checked_add(i64::try_from(part).ok()?)?;
    }
    (bytes > 0).then_some(bytes)
}

/// A size in the largest unit that says it exactly, or in Mi rounded down from there.
pub fn text(bytes: i64) -> String {
    let exact = SUFFIXES
        .iter()
        .take(5)
        .rev()
        .find(|(_, factor)| bytes >= *factor && bytes % factor == 0);
    match exact {
        Some((suffix, factor)) => format!("{}{suffix}", bytes / factor),
        None => bytes.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_kubernetes_does() {
        let cases = [
            ("64Mi", Some(64 << 20)),
            ("1.5Gi", Some(3 << 29)),
            ("1G", Some(1_000_000_000)),
            ("500k", Some(500_000)),
            ("1048576", Some(1 << 20)),
            ("0", None),
            ("-1Gi", None),
            ("1Ei", None),
            ("500m", None),
            ("x", None),
            ("", None),
            ("1.Gi", None),
            ("99999999999Pi", None),
        ];
        for (written, expected) in cases {
            assert_eq!(bytes(&Quantity(written.to_owned())), expected, "{written}");
        }
    }

    #[test]
    fn sizes_are_written_exactly() {
        for written in ["64Mi", "1Gi", "1536Mi", "1000", "0"] {
            let size = bytes(&Quantity(written.to_owned())).unwrap_or_default();
            assert_eq!(text(size), written);
        }
    }
}
