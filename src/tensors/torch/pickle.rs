//! A pickle machine for state dicts: protocols 2 to 4, an allow-list of globals, and nothing that runs code.
//!
//! Opcodes follow CPython's `pickletools`. Containers are shared by reference, since pickles fill a dict after having
//! put it in the memo.

use std::cell::RefCell;
use std::rc::Rc;

use super::TorchError;

/// Values on the machine's stack and in its memo.
#[derive(Clone, Debug)]
pub enum Value {
    /// `None`, and objects whose state we do not need.
    Null,
    /// `True`, `False`.
    Bool(bool),
    /// A whole number that fits 64 bits.
    Integer(i64),
    /// A float.
    Float(f64),
    /// Text.
    Text(Rc<str>),
    /// A tuple.
    Tuple(Rc<[Value]>),
    /// A list.
    List(Rc<RefCell<Vec<Value>>>),
    /// A dict or an OrderedDict.
    Dict(Rc<RefCell<Vec<(Value, Value)>>>),
    /// A class or function of the allow-list.
    Global(Global),
    /// A storage by its persistent id.
    Storage(Rc<StorageRef>),
    /// A tensor over a storage.
    Tensor(Rc<TensorRef>),
}

/// Classes and functions that a state dict may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Global {
    /// `collections.OrderedDict`
    OrderedDict,
    /// `torch._utils._rebuild_tensor_v2`
    RebuildTensor,
    /// `torch._utils._rebuild_parameter`
    RebuildParameter,
    /// `torch.Size`
    Size,
    /// `torch.device`
    Device,
    /// A storage class of the legacy kind, which names the element type.
    Storage(Element),
    /// `torch.<dtype>` as a value.
    Dtype,
}

/// Element types of storages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// 64-bit float
    F64,
    /// 32-bit float
    F32,
    /// IEEE half
    F16,
    /// bfloat16
    BF16,
    /// signed 64 bits
    I64,
    /// signed 32 bits
    I32,
    /// signed 16 bits
    I16,
    /// signed 8 bits
    I8,
    /// unsigned 8 bits
    U8,
    /// a byte for a truth value
    Bool,
}

impl Element {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::BF16 | Self::I16 => 2,
            Self::I8 | Self::U8 | Self::Bool => 1,
        }
    }
}

/// A storage: an entry of the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageRef {
    /// Type of its elements.
    pub element: Element,
    /// Entry `data/<key>`.
    pub key: String,
    /// Number of elements.
    pub count: usize,
}

/// A view of a storage; all in elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorRef {
    /// Where the elements are.
    pub storage: StorageRef,
    /// First element.
    pub offset: usize,
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// Elements from one index to the next, for each dimension.
    pub strides: Vec<usize>,
}

/// Entries of the stack and of the memo that a pickle may use.
const MAX_ENTRIES: usize = 4_000_000;

fn global(module: &str, name: &str) -> Result<Global, TorchError> {
    let element = |name: &str| {
        Some(match name {
            "DoubleStorage" => Element::F64,
            "FloatStorage" => Element::F32,
            "HalfStorage" => Element::F16,
            "BFloat16Storage" => Element::BF16,
            "LongStorage" => Element::I64,
            "IntStorage" => Element::I32,
            "ShortStorage" => Element::I16,
            "CharStorage" => Element::I8,
            "ByteStorage" => Element::U8,
            "BoolStorage" => Element::Bool,
            _ => return None,
        })
    };
    let found = match (module, name) {
        ("collections", "OrderedDict") => Some(Global::OrderedDict),
        ("torch._utils", "_rebuild_tensor_v2") => Some(Global::RebuildTensor),
        ("torch._utils", "_rebuild_parameter") => Some(Global::RebuildParameter),
        ("torch", "Size") => Some(Global::Size),
        ("torch", "device") => Some(Global::Device),
        (
            "torch",
            "float32" | "float16" | "bfloat16" | "float64" | "int64" | "int32" | "int16" | "int8"
            | "uint8" | "bool",
        ) => Some(Global::Dtype),
        ("torch" | "torch.storage", name) => element(name).map(Global::Storage),
        _ => None,
    };
    found.ok_or_else(|| TorchError::ForbiddenGlobal(format!("{module}.{name}")))
}

/// Runs the pickle in `bytes` and returns the object that it describes.
///
/// # Errors
/// [`TorchError::Pickle`] with the offset of the opcode that does not fit, [`TorchError::ForbiddenGlobal`].
pub fn load(bytes: &[u8]) -> Result<Value, TorchError> {
    let mut machine = Machine {
        bytes,
        position: 0,
        opcode_at: 0,
        stack: vec![],
        marks: vec![],
        memo: vec![],
        entries: 0,
    };
    machine.run()
}

struct Machine<'a> {
    bytes: &'a [u8],
    position: usize,
    opcode_at: usize,
    stack: Vec<Value>,
    marks: Vec<usize>,
    memo: Vec<Option<Value>>,
    entries: usize,
}

impl Machine<'_> {
    fn broken(&self, reason: impl Into<String>) -> TorchError {
        TorchError::Pickle {
            position: self.opcode_at,
            reason: reason.into(),
        }
    }

    fn take(&mut self, count: usize) -> Result<&[u8], TorchError> {
        let end = self
            .position
            .checked_add(count)
            .filter(|end| *end <= self.bytes.len());
        let end = end.ok_or_else(|| self.broken("it ends in the middle of a value"))?;
        let taken = &self.bytes[self.position..end];
        self.position = end;
        Ok(taken)
    }

    fn take_array<const N: usize>(&mut self) -> Result<[u8; N], TorchError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn take_line(&mut self) -> Result<String, TorchError> {
        let rest = &self.bytes[self.position..];
        let length = rest
            .iter()
            .position(|byte| *byte == b'\n')
            .ok_or_else(|| self.broken("a line has no end"))?;
        let line = self.take(length)?.to_vec();
        self.position += 1;
        String::from_utf8(line).map_err(|_| self.broken("a name is not text"))
    }

    fn take_text(&mut self, length: usize) -> Result<(), TorchError> {
        let text = std::str::from_utf8(self.take(length)?).map(Rc::from);
        let text = text.map_err(|_| self.broken("text is not UTF-8"))?;
        self.push(Value::Text(text))
    }

    fn push(&mut self, value: Value) -> Result<(), TorchError> {
        self.entries += 1;
        if self.entries > MAX_ENTRIES {
            return Err(self.broken(format!("it makes more than {MAX_ENTRIES} values")));
        }
        self.stack.push(value);
        Ok(())
    }

    fn pop(&mut self) -> Result<Value, TorchError> {
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor {
            return Err(self.broken("it takes a value that is not there"));
        }
        self.stack
            .pop()
            .ok_or_else(|| self.broken("it takes a value that is not there"))
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Value>, TorchError> {
        let mark = self
            .marks
            .pop()
            .ok_or_else(|| self.broken("a mark is missing"))?;
        Ok(self.stack.split_off(mark))
    }

    fn top(&self) -> Result<&Value, TorchError> {
        self.stack
            .last()
            .ok_or_else(|| self.broken("it needs a value that is not there"))
    }

    fn remember(&mut self, slot: usize) -> Result<(), TorchError> {
        let value = self.top()?.clone();
        if slot > MAX_ENTRIES {
            return Err(self.broken(format!("memo slot {slot} is out of bounds")));
        }
        if self.memo.len() <= slot {
            self.memo.resize(slot + 1, None);
        }
        self.memo[slot] = Some(value);
        Ok(())
    }

    fn recall(&mut self, slot: usize) -> Result<(), TorchError> {
        let value = self.memo.get(slot).cloned().flatten();
        let value = value.ok_or_else(|| self.broken(format!("memo slot {slot} is empty")))?;
        self.push(value)
    }

    fn push_tuple(&mut self, count: usize) -> Result<(), TorchError> {
        let mut items = vec![];
        for _ in 0..count {
            items.push(self.pop()?);
        }
        items.reverse();
        self.push(Value::Tuple(items.into()))
    }

    fn run(&mut self) -> Result<Value, TorchError> {
        loop {
            self.opcode_at = self.position;
            let [opcode] = self.take_array::<1>()?;
            match opcode {
                0x80 => {
                    let [protocol] = self.take_array::<1>()?;
                    if protocol > 5 {
                        return Err(self.broken(format!("protocol {protocol} is not known")));
                    }
                }
                0x95 => drop(self.take(8)?), // FRAME
                b'.' => return self.pop(),
                b'(' => self.marks.push(self.stack.len()),
                b'0' => drop(self.pop()?),
                b'N' => self.push(Value::Null)?,
                0x88 => self.push(Value::Bool(true))?,
                0x89 => self.push(Value::Bool(false))?,
                b'J' => {
                    let number = i32::from_le_bytes(self.take_array()?);
                    self.push(Value::Integer(number.into()))?;
                }
                b'K' => {
                    let [number] = self.take_array::<1>()?;
                    self.push(Value::Integer(number.into()))?;
                }
                b'M' => {
                    let number = u16::from_le_bytes(self.take_array()?);
                    self.push(Value::Integer(number.into()))?;
                }
                0x8a => self.long()?,
                b'G' => {
                    let number = f64::from_be_bytes(self.take_array()?);
                    self.push(Value::Float(number))?;
                }
                b'X' => {
                    let length = u32::from_le_bytes(self.take_array()?) as usize;
                    self.take_text(length)?;
                }
                0x8c | b'U' => {
                    let [length] = self.take_array::<1>()?;
                    self.take_text(length.into())?;
                }
                b'}' => self.push(Value::Dict(Rc::default()))?,
                b']' => self.push(Value::List(Rc::default()))?,
                b')' => self.push(Value::Tuple(Rc::from([])))?,
                0x85 => self.push_tuple(1)?,
                0x86 => self.push_tuple(2)?,
                0x87 => self.push_tuple(3)?,
                b't' => {
                    let items = self.pop_to_mark()?;
                    self.push(Value::Tuple(items.into()))?;
                }
                b'l' => {
                    let items = self.pop_to_mark()?;
                    self.push(Value::List(Rc::new(RefCell::new(items))))?;
                }
                b'd' => {
                    let items = self.pop_to_mark()?;
                    let entries = self.pairs(items)?;
                    self.push(Value::Dict(Rc::new(RefCell::new(entries))))?;
                }
                b's' => {
                    let (value, key) = (self.pop()?, self.pop()?);
                    self.extend_dict(vec![(key, value)])?;
                }
                b'u' => {
                    let items = self.pop_to_mark()?;
                    let entries = self.pairs(items)?;
                    self.extend_dict(entries)?;
                }
                b'a' => {
                    let item = self.pop()?;
                    self.extend_list(vec![item])?;
                }
                b'e' => {
                    let items = self.pop_to_mark()?;
                    self.extend_list(items)?;
                }
                b'q' => {
                    let [slot] = self.take_array::<1>()?;
                    self.remember(slot.into())?;
                }
                b'r' => {
                    let slot = u32::from_le_bytes(self.take_array()?) as usize;
                    self.remember(slot)?;
                }
                0x94 => self.remember(self.memo.len())?, // MEMOIZE
                b'h' => {
                    let [slot] = self.take_array::<1>()?;
                    self.recall(slot.into())?;
                }
                b'j' => {
                    let slot = u32::from_le_bytes(self.take_array()?) as usize;
                    self.recall(slot)?;
                }
                b'c' => {
                    let (module, name) = (self.take_line()?, self.take_line()?);
                    self.push(Value::Global(global(&module, &name)?))?;
                }
                0x93 => {
                    let (name, module) = (self.pop()?, self.pop()?);
                    let (Value::Text(name), Value::Text(module)) = (name, module) else {
                        return Err(self.broken("a global's name is not text"));
                    };
                    self.push(Value::Global(global(&module, &name)?))?;
                }
                b'Q' => self.persistent_load()?,
                b'R' | 0x81 => self.reduce()?,
                b'b' => drop(self.pop()?), // BUILD: attributes of an OrderedDict, which no reader needs
                other => {
                    return Err(
                        self.broken(format!("opcode {other:#04x} has no place in a checkpoint"))
                    );
                }
            }
        }
    }

    fn long(&mut self) -> Result<(), TorchError> {
        let [length] = self.take_array::<1>()?;
        if length > 8 {
            return Err(self.broken("a number does not fit 64 bits"));
        }
        let bytes = self.take(length.into())?.to_vec();
        let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
        let mut extended = [if negative { 0xff } else { 0 }; 8];
        extended[..bytes.len()].copy_from_slice(&bytes);
        self.push(Value::Integer(i64::from_le_bytes(extended)))
    }

    fn pairs(&self, items: Vec<Value>) -> Result<Vec<(Value, Value)>, TorchError> {
        if !items.len().is_multiple_of(2) {
            return Err(self.broken("a key has no value"));
        }
        let mut items = items.into_iter();
        let mut pairs = vec![];
        while let (Some(key), Some(value)) = (items.next(), items.next()) {
            pairs.push((key, value));
        }
        Ok(pairs)
    }

    fn extend_dict(&mut self, entries: Vec<(Value, Value)>) -> Result<(), TorchError> {
        match self.top()? {
            Value::Dict(dict) => dict.borrow_mut().extend(entries),
            Value::Null => {} // the state of an object that was let go
            _ => return Err(self.broken("entries are added to something that is no dict")),
        }
        Ok(())
    }

    fn extend_list(&mut self, items: Vec<Value>) -> Result<(), TorchError> {
        match self.top()? {
            Value::List(list) => list.borrow_mut().extend(items),
            _ => return Err(self.broken("items are added to something that is no list")),
        }
        Ok(())
    }

    /// `('storage', <class>, key, location, count)`
    fn persistent_load(&mut self) -> Result<(), TorchError> {
        let Value::Tuple(id) = self.pop()? else {
            return Err(self.broken("a storage's id is no tuple"));
        };
        let [
            Value::Text(kind),
            Value::Global(Global::Storage(element)),
            Value::Text(key),
            Value::Text(_),
            Value::Integer(count),
        ] = &*id
        else {
            return Err(self.broken("a storage's id has another form"));
        };
        let count =
            usize::try_from(*count).map_err(|_| self.broken("a storage has a negative size"))?;
        if &**kind != "storage" {
            return Err(self.broken(format!("persistent id `{kind}` is not known")));
        }
        let storage = StorageRef {
            element: *element,
            key: key.to_string(),
            count,
        };
        self.push(Value::Storage(Rc::new(storage)))
    }

    fn reduce(&mut self) -> Result<(), TorchError> {
        let (arguments, callable) = (self.pop()?, self.pop()?);
        let (Value::Tuple(arguments), Value::Global(callable)) = (arguments, callable) else {
            return Err(self.broken("a call has another form"));
        };
        let result = match (callable, &*arguments) {
            (Global::OrderedDict, []) => Value::Dict(Rc::default()),
            (Global::OrderedDict, [Value::List(items)]) => {
                let mut entries = vec![];
                for item in items.borrow().iter() {
                    match item {
                        Value::Tuple(pair) if pair.len() == 2 => {
                            entries.push((pair[0].clone(), pair[1].clone()))
                        }
                        _ => {
                            return Err(
                                self.broken("an OrderedDict is made of something else than pairs")
                            );
                        }
                    }
                }
                Value::Dict(Rc::new(RefCell::new(entries)))
            }
            (
                Global::RebuildTensor,
                [
                    Value::Storage(storage),
                    Value::Integer(offset),
                    shape,
                    strides,
                    ..,
                ],
            ) => Value::Tensor(Rc::new(TensorRef {
                storage: (**storage).clone(),
                offset: self.size(&Value::Integer(*offset))?,
                shape: self.sizes(shape)?,
                strides: self.sizes(strides)?,
            })),
            (Global::RebuildParameter, [tensor @ Value::Tensor(_), ..]) => tensor.clone(),
            (Global::Size, [sizes]) => sizes.clone(),
            (Global::Device, _) => Value::Null,
            _ => return Err(self.broken(format!("{callable:?} is called with other arguments"))),
        };
        self.push(result)
    }

    fn size(&self, value: &Value) -> Result<usize, TorchError> {
        match value {
            Value::Integer(number) => {
                usize::try_from(*number).map_err(|_| self.broken("a size is negative"))
            }
            _ => Err(self.broken("a size is no number")),
        }
    }

    fn sizes(&self, value: &Value) -> Result<Vec<usize>, TorchError> {
        match value {
            Value::Tuple(items) => items.iter().map(|item| self.size(item)).collect(),
            _ => Err(self.broken("a shape is no tuple")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_global_outside_the_allow_list_is_refused_by_name() {
        // c posix\nsystem\n, the usual way to run a command from a pickle
        let error = load(b"\x80\x02cposix\nsystem\nX\x02\x00\x00\x00id\x85R.").unwrap_err();
        assert!(
            matches!(&error, TorchError::ForbiddenGlobal(name) if name == "posix.system"),
            "{error}"
        );
    }

    #[test]
    fn a_dict_filled_after_it_was_remembered_is_the_same_dict() {
        // {} in memo 0, filled with {1: 2}, then recalled from the memo
        let value = load(b"\x80\x02}q\x00K\x01K\x02s0h\x00.").unwrap();
        let Value::Dict(entries) = value else {
            panic!("{value:?}")
        };
        assert_eq!(entries.borrow().len(), 1);
    }

    #[test]
    fn every_cut_of_a_pickle_is_an_error_and_no_panic() {
        let pickle = b"\x80\x02}q\x00(X\x01\x00\x00\x00aK\x01X\x01\x00\x00\x00b\x8a\x01\xffu.";
        assert!(load(pickle).is_ok());
        for end in 0..pickle.len() {
            assert!(load(&pickle[..end]).is_err(), "cut at {end}");
        }
    }

    proptest::proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            drop(load(&bytes));
        }
    }
}
