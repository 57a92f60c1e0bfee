//! Zigzag varints (Kafka: `ByteUtils.readVarint`, `readVarlong`): at most 5 and 10 bytes, bits beyond the type dropped.

/// Reads an `int` at `*at` and moves on; None if it is cut or longer than 5 bytes.
#[inline]
pub(crate) fn read_i32(bytes: &[u8], at: &mut usize) -> Option<i32> {
    let first = *bytes.get(*at)?;
    if first < 0x80 {
        *at += 1;
        return Some(unzigzag_i32(u32::from(first)));
    }
    let second = *bytes.get(*at + 1)?;
    if second < 0x80 {
        *at += 2;
        return Some(unzigzag_i32(u32::from(first & 0x7f) | u32::from(second) << 7));
    }
    let third = *bytes.get(*at + 2)?;
    if third < 0x80 {
        *at += 3;
        let low = u32::from(first & 0x7f) | u32::from(second & 0x7f) << 7;
        return Some(unzigzag_i32(low | u32::from(third) << 14));
    }
    let raw = read_long(bytes, at, 5)?;
    Some(unzigzag_i32(raw as u32))
}

/// Reads a `long` at `*at` and moves on; None if it is cut or longer than 10 bytes.
#[inline]
pub(crate) fn read_i64(bytes: &[u8], at: &mut usize) -> Option<i64> {
    let first = *bytes.get(*at)?;
    if first < 0x80 {
        *at += 1;
        return Some(unzigzag_i64(u64::from(first)));
    }
    let second = *bytes.get(*at + 1)?;
    if second < 0x80 {
        *at += 2;
        return Some(unzigzag_i64(u64::from(first & 0x7f) | u64::from(second) << 7));
    }
    read_long(bytes, at, 10).map(unzigzag_i64)
}

fn read_long(bytes: &[u8], at: &mut usize, bytes_max: usize) -> Option<u64> {
    let mut raw = 0u64;
    for (index, &byte) in bytes.get(*at..)?.iter().take(bytes_max).enumerate() {
        raw |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            *at += index + 1;
            return Some(raw);
        }
    }
    None
}

const fn unzigzag_i32(raw: u32) -> i32 {
    (raw >> 1) as i32 ^ -((raw & 1) as i32)
}

const fn unzigzag_i64(raw: u64) -> i64 {
    (raw >> 1) as i64 ^ -((raw & 1) as i64)
}

/// Appends a value; an `int` and the `long` of the same value have the same bytes.
pub(crate) fn write(value: i64, out: &mut Vec<u8>) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Bytes that `write` takes for a value.
pub(crate) const fn size_bytes(value: i64) -> usize {
    let raw = ((value << 1) ^ (value >> 63)) as u64;
    (70 - (raw | 1).leading_zeros() as usize) / 7
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn written_values_are_read(value: i64, shift in 0u32..64) {
            let value = value >> shift;
            let mut out = vec![0xff];
            write(value, &mut out);
            prop_assert_eq!(out.len() - 1, size_bytes(value));
            let mut at = 1;
            prop_assert_eq!(read_i64(&out, &mut at), Some(value));
            prop_assert_eq!(at, out.len());
            prop_assert_eq!(read_i64(&out[..out.len() - 1], &mut 1), None);
            if let Ok(int) = i32::try_from(value) {
                let mut at = 1;
                prop_assert_eq!(read_i32(&out, &mut at), Some(int));
                prop_assert_eq!(at, out.len());
                prop_assert_eq!(read_i32(&out[..out.len() - 1], &mut 1), None);
            }
        }
    }

    #[test]
    fn too_many_bytes_are_refused() {
        assert_eq!(read_i32(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x01], &mut 0), None);
        assert_eq!(read_i64(&[0xff; 11], &mut 0), None);
        assert_eq!(read_i32(&[], &mut 3), None);
    }
}
