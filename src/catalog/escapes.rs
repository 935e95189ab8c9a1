//! Escapes in paths (`%2F`).

use std::borrow::Cow;

/// The path with its escapes decoded, except for `%2F`.
pub(super) fn decode(path: &str) -> Cow<'_, str> {
    decode_if(path, |byte| byte != b'/')
}

/// The path with those escapes decoded that it cannot be written without (RFC 3986, section 3.3).
pub(super) fn decode_needed(path: &str) -> Cow<'_, str> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/%".contains(&byte);
    decode_if(path, |byte| !plain(byte))
}

/// The path with the escapes of these bytes decoded.
pub(super) fn decode_if(path: &str, decoded: impl Fn(u8) -> bool) -> Cow<'_, str> {
    if !path.contains('%') {
        return Cow::Borrowed(path);
    }
    let mut rest = path.as_bytes();
    let mut bytes = Vec::with_capacity(rest.len());
    while let Some((first, after)) = rest.split_first() {
        match escape(rest) {
            Some(byte) if decoded(byte) => {
                bytes.push(byte);
                rest = &rest[3..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    match String::from_utf8(bytes) {
        Ok(text) => Cow::Owned(text),
        Err(error) => Cow::Owned(String::from_utf8_lossy(error.as_bytes()).into_owned()),
    }
}

/// The byte of the escape at the start of `bytes`.
fn escape(bytes: &[u8]) -> Option<u8> {
    let [b'%', high, low, ..] = bytes else {
        return None;
    };
    let digit = |b: u8| (b as char).to_digit(16).and_then(|d| u8::try_from(d).ok());
    Some(digit(*high)? * 16 + digit(*low)?)
}
