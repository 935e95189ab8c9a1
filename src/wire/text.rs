//! Instants and bytes as text.

use std::fmt;

/// An instant in UTC as RFC 3339 text: `2026-11-21T10:23:56Z`, with a fraction only if there is
/// one. Years outside RFC 3339's range are clamped.
pub(crate) fn rfc3339(unix_ms: i64) -> String {
    let clamped = unix_ms.clamp(YEAR_0_MS, YEAR_9999_MS);
    jiff::Timestamp::from_millisecond(clamped)
        .expect("the clamp lies within the range of the calendar")
        .to_string()
}

/// 0000-01-01T00:00:00Z.
const YEAR_0_MS: i64 = -62_167_219_200_000;
/// 9999-12-30T00:00:00Z: the calendar library keeps a day of room for offsets.
const YEAR_9999_MS: i64 = 253_402_128_000_000;

/// Standard base64 with padding (RFC 4648, section 4), for short values.
pub(crate) fn base64(bytes: &[u8], out: &mut impl fmt::Write) -> fmt::Result {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for chunk in bytes.chunks(3) {
        let word =
            chunk.iter().enumerate().fold(0_u32, |w, (i, b)| w | u32::from(*b) << (16 - 8 * i));
        for i in 0..4 {
            let digit = (word >> (18 - 6 * i)) & 63;
            let symbol = if i <= chunk.len() { ALPHABET[digit as usize] } else { b'=' };
            out.write_char(char::from(symbol))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_instants() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(1_795_256_636_000), "2026-11-21T10:23:56Z");
        assert_eq!(rfc3339(1_500), "1970-01-01T00:00:01.5Z");
        assert_eq!(rfc3339(i64::MAX), "9999-12-30T00:00:00Z");
        assert_eq!(rfc3339(i64::MIN), "0000-01-01T00:00:00Z");
    }

    #[test]
    fn writes_base64() {
        let of = |bytes: &[u8]| {
            let mut out = String::new();
            base64(bytes, &mut out).unwrap();
            out
        };
        for (plain, coded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(of(plain.as_bytes()), coded);
        }
    }
}
