//! Decimal numbers of any size, exactly as the database has them.

/// A decimal number that borrows its digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decimal<'a> {
    /// A checked text: a sign, digits, and digits after a point.
    Text(&'a str),
    /// The binary format of PostgreSQL.
    Binary(Binary<'a>),
}

/// Groups of four decimal digits, as two bytes each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Binary<'a> {
    groups: &'a [u8],
    /// Power of 10,000 of the first group.
    weight: i16,
    sign: u16,
    /// Digits after the point.
    scale: u16,
}

const NEGATIVE: u16 = 0x4000;
const NAN: u16 = 0xC000;
const INFINITY: u16 = 0xD000;
const NEGATIVE_INFINITY: u16 = 0xF000;

impl<'a> Decimal<'a> {
    /// `None` if the text is not a decimal number in digits.
    pub fn parse(text: &'a str) -> Option<Self> {
        let digits = text.strip_prefix('-').unwrap_or(text);
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
        let is_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        (is_digits(whole) && is_digits(fraction)).then_some(Self::Text(text))
    }

    /// Reads the binary format of the type `numeric`.
    pub fn from_postgres(bytes: &'a [u8]) -> Option<Self> {
        let (header, groups) = bytes.split_at_checked(8)?;
        let field = |index: usize| u16::from_be_bytes([header[index * 2], header[index * 2 + 1]]);
        let (count, weight, sign, scale) = (field(0), field(1).cast_signed(), field(2), field(3));
        (groups.len() == usize::from(count) * 2).then_some(Self::Binary(Binary { groups, weight, sign, scale }))
    }

    pub fn write_text(&self, out: &mut Vec<u8>) {
        match self {
            Self::Text(text) => out.extend_from_slice(text.as_bytes()),
            Self::Binary(binary) => binary.write_text(out),
        }
    }
}

impl Binary<'_> {
    fn group(&self, index: i32) -> u16 {
        let place = usize::try_from(index).ok().and_then(|index| self.groups.get(index * 2..index * 2 + 2));
        place.map_or(0, |bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn write_text(&self, out: &mut Vec<u8>) {
        match self.sign {
            NAN => return out.extend_from_slice(b"NaN"),
            INFINITY => return out.extend_from_slice(b"Infinity"),
            NEGATIVE_INFINITY => return out.extend_from_slice(b"-Infinity"),
            NEGATIVE => out.push(b'-'),
            _ => {}
        }
        let weight = i32::from(self.weight);
        if weight < 0 {
            out.push(b'0');
        }
        for index in 0..=weight {
            let digits = digits_of(self.group(index));
            let leading =
                if index == 0 { digits.iter().take(3).take_while(|digit| **digit == b'0').count() } else { 0 };
            out.extend_from_slice(&digits[leading..]);
        }
        let mut missing = usize::from(self.scale);
        if missing == 0 {
            return;
        }
        out.push(b'.');
        let mut index = weight + 1;
        while missing > 0 {
            let digits = digits_of(if index < 0 { 0 } else { self.group(index) });
            let taken = missing.min(4);
            out.extend_from_slice(&digits[..taken]);
            missing -= taken;
            index += 1;
        }
    }
}

fn digits_of(group: u16) -> [u8; 4] {
    let digit = |unit: u16| b'0' + u8::try_from(group / unit % 10).unwrap_or(0);
    [digit(1_000), digit(100), digit(10), digit(1)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binary(weight: i16, sign: u16, scale: u16, groups: &[u16]) -> String {
        let count = u16::try_from(groups.len()).unwrap();
        let header = [count, weight.cast_unsigned(), sign, scale];
        let bytes: Vec<u8> = header.iter().chain(groups).flat_map(|field| field.to_be_bytes()).collect();
        let mut out = Vec::new();
        Decimal::from_postgres(&bytes).unwrap().write_text(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_binary_format_of_postgresql_is_written_exactly() {
        for (weight, sign, scale, groups, text) in [
            (0, 0, 0, &[][..], "0"),
            (0, 0, 2, &[], "0.00"),
            (0, 0, 2, &[1250, 5000], "1250.50"),
            (1, NEGATIVE, 0, &[12, 3456], "-123456"),
            (1, 0, 0, &[1], "10000"),
            (-1, 0, 4, &[12], "0.0012"),
            (-2, 0, 8, &[12], "0.00000012"),
            (2, 0, 3, &[1, 0, 1, 10], "100000001.001"),
            (0, NAN, 0, &[], "NaN"),
            (0, NEGATIVE_INFINITY, 0, &[], "-Infinity"),
        ] {
            assert_eq!(binary(weight, sign, scale, groups), text);
        }
        for bad in [&b""[..], &[0; 7], &[0, 1, 0, 0, 0, 0, 0, 0]] {
            assert_eq!(Decimal::from_postgres(bad), None);
        }
    }

    #[test]
    fn a_text_is_a_decimal_if_it_has_only_digits_a_sign_and_a_point() {
        for good in ["0", "-1.50", "123456789012345678901234567890.1"] {
            assert!(Decimal::parse(good).is_some());
        }
        for bad in ["", "-", ".5", "1.", "1e5", "+1", "1,5", "0x1", " 1"] {
            assert!(Decimal::parse(bad).is_none(), "{bad}");
        }
    }
}
