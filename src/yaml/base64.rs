//! The bytes of `!!binary`, as Python's `base64` reads and writes them.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The text of some bytes, in one line.
pub(super) fn encode_base64(bytes: &[u8]) -> String {
    let mut encoded = String::new();
    for group in bytes.chunks(3) {
        let mut bits = 0_u32;
        for index in 0..3 {
            bits = (bits << 8) | u32::from(group.get(index).copied().unwrap_or(0));
        }
        for index in 0..4 {
            if index <= group.len() {
                let digit = (bits >> (18 - 6 * index)) & 63;
                encoded.push(char::from(ALPHABET[digit as usize]));
            } else {
                encoded.push('=');
            }
        }
    }
    encoded
}

/// The bytes of a text. Characters outside of the alphabet are skipped; what follows a complete padding is not read;
/// nothing where the padding is not complete.
pub(super) fn decode_base64(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() {
        return None;
    }
    let mut bytes = vec![];
    let (mut position, mut padding, mut rest) = (0_u8, 0_u8, 0_u8);
    for c in text.bytes() {
        if c == b'=' {
            if position >= 2 {
                padding += 1;
                if position + padding >= 4 {
                    return Some(bytes);
                }
            }
            continue;
        }
        let Some(digit) = ALPHABET.iter().position(|known| *known == c) else {
            continue;
        };
        let digit = digit as u8;
        padding = 0;
        match position {
            0 => {}
            1 => bytes.push((rest << 2) | (digit >> 4)),
            2 => bytes.push((rest << 4) | (digit >> 2)),
            _ => bytes.push((rest << 6) | digit),
        }
        rest = digit;
        position = (position + 1) % 4;
    }
    (position == 0).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_survive_and_padding_must_be_complete() {
        for bytes in [&b""[..], b"a", b"ab", b"abc", b"\xff\x00\x80\x7f"] {
            assert_eq!(decode_base64(&encode_base64(bytes)).as_deref(), Some(bytes));
        }
        assert_eq!(decode_base64("Y Q=\n="), Some(b"a".to_vec()));
        assert_eq!(decode_base64("YQ==x"), Some(b"a".to_vec()));
        assert_eq!(decode_base64("YQ="), None);
        assert_eq!(decode_base64("off"), None);
        assert_eq!(decode_base64("é"), None);
    }
}
