//! Bytes of a text file to a string: UTF-8, or UTF-16 when a byte order mark says so.

/// Decodes, without the mark. The error names the first byte that is not text.
pub(crate) fn decode(bytes: &[u8]) -> Result<String, String> {
    match bytes {
        [0xEF, 0xBB, 0xBF, rest @ ..] => utf8(rest),
        [0xFF, 0xFE, rest @ ..] => utf16(rest, u16::from_le_bytes),
        [0xFE, 0xFF, rest @ ..] => utf16(rest, u16::from_be_bytes),
        _ => utf8(bytes),
    }
}

fn utf8(bytes: &[u8]) -> Result<String, String> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(String::from(text)),
        Err(error) => Err(format!("not UTF-8 text: byte {} is no character", error.valid_up_to())),
    }
}

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Result<String, String> {
    let (pairs, rest) = bytes.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(String::from("not UTF-16 text: an odd number of bytes"));
    }
    char::decode_utf16(pairs.iter().map(|pair| unit(*pair))).collect::<Result<String, _>>().map_err(
        |error| format!("not UTF-16 text: lone surrogate {:#06x}", error.unpaired_surrogate()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mark_is_understood() {
        let text = "FROM \u{1f999}";
        let le: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let be: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
        for bytes in [
            text.as_bytes().to_vec(),
            [&[0xEF, 0xBB, 0xBF], text.as_bytes()].concat(),
            [&[0xFF, 0xFE], &le[..]].concat(),
            [&[0xFE, 0xFF], &be[..]].concat(),
        ] {
            assert_eq!(decode(&bytes).as_deref(), Ok(text));
        }
    }

    #[test]
    fn other_bytes_are_refused_with_their_place() {
        assert!(decode(b"FROM \xff").unwrap_err().contains("byte 5"));
        assert!(decode(&[0xFF, 0xFE, 0x41]).unwrap_err().contains("odd"));
        assert!(decode(&[0xFF, 0xFE, 0x00, 0xD8]).unwrap_err().contains("0xd800"));
    }
}
