//! Just enough of protobuf's wire format to read a message field by field: numbers, floats, bytes, no schema.
//!
//! Format: <https://protobuf.dev/programming-guides/encoding>. A field borrows from the message, so nothing a file says
//! can make this allocate.

/// What a field holds; its meaning is the schema's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value<'a> {
    /// A number of one to ten bytes: `int32`, `uint64`, `bool`, an enum.
    Varint(u64),
    /// Eight bytes.
    Fixed64(u64),
    /// Text, bytes, a message or packed numbers.
    Bytes(&'a [u8]),
    /// Four bytes: a `float`.
    Fixed32(u32),
}

impl<'a> Value<'a> {
    pub(super) fn bytes(self) -> Option<&'a [u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    pub(super) fn text(self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    pub(super) fn number(self) -> Option<u64> {
        match self {
            Self::Varint(number) => Some(number),
            _ => None,
        }
    }

    pub(super) fn flag(self) -> Option<bool> {
        self.number().map(|number| number != 0)
    }

    pub(super) fn float(self) -> Option<f32> {
        match self {
            Self::Fixed32(bits) => Some(f32::from_bits(bits)),
            _ => None,
        }
    }
}

/// The fields of a message in the order of the file: field number and value. A broken message ends with an error.
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) fn of(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], &'static str> {
        let (head, tail) = self
            .rest
            .split_at_checked(count)
            .ok_or("it ends in the middle of a field")?;
        self.rest = tail;
        Ok(head)
    }

    fn varint(&mut self) -> Result<u64, &'static str> {
        let mut number = 0u64;
        for position in 0..10 {
            let byte = self.take(1)?[0];
            number |= u64::from(byte & 0x7f) << (7 * position);
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err("a number has more than ten bytes")
    }

    fn field(&mut self) -> Result<(u64, Value<'a>), &'static str> {
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => {
                let bytes = self.take(8)?.try_into().expect("eight bytes were taken");
                Value::Fixed64(u64::from_le_bytes(bytes))
            }
            2 => {
                let length = self.varint()?;
                let length = usize::try_from(length).map_err(|_| "a field is too long")?;
                Value::Bytes(self.take(length)?)
            }
            5 => {
                let bytes = self.take(4)?.try_into().expect("four bytes were taken");
                Value::Fixed32(u32::from_le_bytes(bytes))
            }
            _ => return Err("a field is of no type that protobuf has"),
        };
        match tag >> 3 {
            0 => Err("a field has the number 0"),
            number => Ok((number, value)),
        }
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_every_type_are_read_in_order() {
        // 1: 300, 2: "ab", 3: 1.0f32, 4: eight bytes; bytes from the format's own documentation and by hand.
        let message = [
            0x08, 0xac, 0x02, 0x12, 2, b'a', b'b', 0x1d, 0, 0, 0x80, 0x3f, 0x21, 7, 0, 0, 0, 0, 0,
            0, 0,
        ];
        let fields: Vec<_> = Fields::of(&message).map(Result::unwrap).collect();
        assert_eq!(fields[0], (1, Value::Varint(300)));
        assert_eq!(fields[1].1.text(), Some("ab"));
        assert_eq!(fields[2].1.float(), Some(1.0));
        assert_eq!(fields[3], (4, Value::Fixed64(7)));
        assert_eq!(fields.len(), 4);
    }

    #[test]
    fn broken_messages_end_in_one_error() {
        for message in [
            &[0x08][..],      // no value
            &[0x12, 5, b'a'], // shorter than it says
            &[
                0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1,
            ], // longer than memory
            &[
                0x08, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80,
            ], // endless number
            &[0x0b],          // a group
            &[0x00, 0x00],    // field 0
        ] {
            let fields: Vec<_> = Fields::of(message).collect();
            assert_eq!(fields.len(), 1, "{message:?}");
            assert!(fields[0].is_err(), "{message:?}");
        }
    }
}
