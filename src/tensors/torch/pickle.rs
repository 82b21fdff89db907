//! A pickle machine for state dicts: protocols 2 to 5, an allow-list of globals, and nothing that runs code.
//!
//! Opcodes follow CPython's `pickletools`. Objects stand in one list and name each other by their place in it, so that
//! they can be shared and form circles as in Python, and so that a pickle nested a million deep cannot overflow the
//! stack. What a pickle may make is bounded by its own length: no opcode makes more than one value, and the few that
//! copy values count them.

use std::collections::HashMap;

use super::TorchError;
use super::globals::Vocabulary;
pub use super::globals::{Element, Global, Record};

/// A value on the machine's stack, in its memo, or inside an object.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// `None`, and what no reader needs (a device).
    Null,
    /// `True`, `False`.
    Bool(bool),
    /// A whole number that fits 64 bits.
    Integer(i64),
    /// A float.
    Float(f64),
    /// A class or function of the allow-list.
    Global(Global),
    /// Anything with an identity: an index for [`Pickle::object`].
    Object(usize),
}

/// What a [`Value::Object`] stands for.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// Text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// A tuple or a frozen set.
    Tuple(Vec<Value>),
    /// A list or a set.
    List(Vec<Value>),
    /// A dict or an OrderedDict.
    Dict(Vec<(Value, Value)>),
    /// A storage by its persistent id.
    Storage(Box<StorageRef>),
    /// A tensor over a storage.
    Tensor(Box<TensorRef>),
    /// A buffer of bytes (`io.BytesIO`), filled by its state.
    Buffer(Value),
    /// An object of a record's class with the state it was given: a dict of its fields, or a tuple.
    Record(Record, Value),
    /// What an inert class would have made; whatever is put into it is let go.
    Opaque,
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

/// What a pickle describes.
#[derive(Clone, Debug)]
pub struct Pickle {
    objects: Vec<Object>,
    /// The outermost value.
    pub root: Value,
}

impl Pickle {
    /// What `value` stands for, where it is an object.
    pub fn object(&self, value: Value) -> Option<&Object> {
        match value {
            Value::Object(index) => self.objects.get(index),
            _ => None,
        }
    }
}

/// Dimensions of a tensor.
const MAX_DIMENSIONS: usize = 32;
/// Length of a storage's name.
const MAX_KEY: usize = 255;

/// Runs the pickle in `bytes` and returns what it describes.
///
/// # Errors
/// [`TorchError::Pickle`] with the offset of the opcode that does not fit, [`TorchError::ForbiddenGlobal`].
pub fn load(bytes: &[u8]) -> Result<Pickle, TorchError> {
    run(bytes, Vocabulary::StateDict)
}

/// The same for the `.metadata` of a distributed checkpoint, whose classes become [`Object::Record`]s.
///
/// # Errors
/// As [`load`].
pub fn load_metadata(bytes: &[u8]) -> Result<Pickle, TorchError> {
    run(bytes, Vocabulary::Metadata)
}

fn run(bytes: &[u8], vocabulary: Vocabulary) -> Result<Pickle, TorchError> {
    let mut machine = Machine {
        bytes,
        vocabulary,
        position: 0,
        opcode_at: 0,
        stack: vec![],
        marks: vec![],
        memo: HashMap::new(),
        objects: vec![],
        copied: 0,
    };
    let root = machine.run()?;
    Ok(Pickle {
        objects: machine.objects,
        root,
    })
}

struct Machine<'a> {
    bytes: &'a [u8],
    vocabulary: Vocabulary,
    position: usize,
    opcode_at: usize,
    stack: Vec<Value>,
    marks: Vec<usize>,
    memo: HashMap<usize, Value>,
    objects: Vec<Object>,
    /// Values and bytes copied out of objects so far.
    copied: usize,
}

impl<'a> Machine<'a> {
    fn broken(&self, reason: impl Into<String>) -> TorchError {
        TorchError::Pickle {
            position: self.opcode_at,
            reason: reason.into(),
        }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], TorchError> {
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

    /// A length in `N` little-endian bytes, and as many bytes.
    fn take_counted<const N: usize>(&mut self) -> Result<&'a [u8], TorchError> {
        let mut length = [0; 8];
        length[..N].copy_from_slice(&self.take_array::<N>()?);
        let length = usize::try_from(u64::from_le_bytes(length));
        let length = length.map_err(|_| self.broken("a length is too large"))?;
        self.take(length)
    }

    fn take_line(&mut self) -> Result<&'a str, TorchError> {
        let rest = &self.bytes[self.position..];
        let length = rest
            .iter()
            .position(|byte| *byte == b'\n')
            .ok_or_else(|| self.broken("a line has no end"))?;
        let line = self.take(length)?;
        self.position += 1;
        std::str::from_utf8(line).map_err(|_| self.broken("a name is not text"))
    }

    fn push_object(&mut self, object: Object) {
        self.stack.push(Value::Object(self.objects.len()));
        self.objects.push(object);
    }

    fn push_text(&mut self, bytes: &[u8]) -> Result<(), TorchError> {
        let text = std::str::from_utf8(bytes);
        let text = text.map_err(|_| self.broken("text is not UTF-8"))?;
        self.push_object(Object::Text(text.to_owned()));
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

    fn top(&self) -> Result<Value, TorchError> {
        let top = self.stack.last().copied();
        top.ok_or_else(|| self.broken("it needs a value that is not there"))
    }

    fn object(&self, value: Value) -> Option<&Object> {
        match value {
            Value::Object(index) => self.objects.get(index),
            _ => None,
        }
    }

    fn text(&self, value: Value) -> Result<&str, TorchError> {
        match self.object(value) {
            Some(Object::Text(text)) => Ok(text),
            _ => Err(self.broken("something else stands where text belongs")),
        }
    }

    /// Counts what an opcode copies out of an object: a short pickle must not copy a long object many times.
    fn count_copy(&mut self, count: usize) -> Result<(), TorchError> {
        self.copied = self.copied.saturating_add(count);
        if self.copied > self.bytes.len().saturating_mul(4) {
            return Err(self.broken("it copies more than a checkpoint needs"));
        }
        Ok(())
    }

    fn remember(&mut self, slot: usize) -> Result<(), TorchError> {
        let value = self.top()?;
        self.memo.insert(slot, value);
        Ok(())
    }

    fn recall(&mut self, slot: usize) -> Result<(), TorchError> {
        let value = self.memo.get(&slot).copied();
        let value = value.ok_or_else(|| self.broken(format!("memo slot {slot} is empty")))?;
        self.stack.push(value);
        Ok(())
    }

    fn push_tuple(&mut self, count: usize) -> Result<(), TorchError> {
        let mut items = vec![];
        for _ in 0..count {
            items.push(self.pop()?);
        }
        items.reverse();
        self.push_object(Object::Tuple(items));
        Ok(())
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
                b'N' => self.stack.push(Value::Null),
                0x88 => self.stack.push(Value::Bool(true)),
                0x89 => self.stack.push(Value::Bool(false)),
                b'J' => {
                    let number = i32::from_le_bytes(self.take_array()?);
                    self.stack.push(Value::Integer(number.into()));
                }
                b'K' => {
                    let [number] = self.take_array::<1>()?;
                    self.stack.push(Value::Integer(number.into()));
                }
                b'M' => {
                    let number = u16::from_le_bytes(self.take_array()?);
                    self.stack.push(Value::Integer(number.into()));
                }
                0x8a => self.long()?,
                b'G' => {
                    let number = f64::from_be_bytes(self.take_array()?);
                    self.stack.push(Value::Float(number));
                }
                0x8c | b'U' => {
                    let text = self.take_counted::<1>()?;
                    self.push_text(text)?;
                }
                b'X' => {
                    let text = self.take_counted::<4>()?;
                    self.push_text(text)?;
                }
                0x8d => {
                    let text = self.take_counted::<8>()?;
                    self.push_text(text)?;
                }
                b'C' => {
                    let bytes = self.take_counted::<1>()?;
                    self.push_object(Object::Bytes(bytes.to_vec()));
                }
                b'B' => {
                    let bytes = self.take_counted::<4>()?;
                    self.push_object(Object::Bytes(bytes.to_vec()));
                }
                0x8e | 0x96 => {
                    let bytes = self.take_counted::<8>()?;
                    self.push_object(Object::Bytes(bytes.to_vec()));
                }
                b'}' => self.push_object(Object::Dict(vec![])),
                b']' | 0x8f => self.push_object(Object::List(vec![])),
                b')' => self.push_object(Object::Tuple(vec![])),
                0x85 => self.push_tuple(1)?,
                0x86 => self.push_tuple(2)?,
                0x87 => self.push_tuple(3)?,
                b't' | 0x91 => {
                    let items = self.pop_to_mark()?;
                    self.push_object(Object::Tuple(items));
                }
                b'l' => {
                    let items = self.pop_to_mark()?;
                    self.push_object(Object::List(items));
                }
                b'd' => {
                    let items = self.pop_to_mark()?;
                    let entries = self.pairs(&items)?;
                    self.push_object(Object::Dict(entries));
                }
                b's' => {
                    let (value, key) = (self.pop()?, self.pop()?);
                    self.extend_dict(vec![(key, value)])?;
                }
                b'u' => {
                    let items = self.pop_to_mark()?;
                    let entries = self.pairs(&items)?;
                    self.extend_dict(entries)?;
                }
                b'a' => {
                    let item = self.pop()?;
                    self.extend_list(vec![item])?;
                }
                b'e' | 0x90 => {
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
                    self.stack
                        .push(Value::Global(self.vocabulary.global(module, name)?));
                }
                0x93 => {
                    let (name, module) = (self.pop()?, self.pop()?);
                    let global = self
                        .vocabulary
                        .global(self.text(module)?, self.text(name)?)?;
                    self.stack.push(Value::Global(global));
                }
                b'Q' => self.persistent_load()?,
                b'R' | 0x81 => self.reduce()?,
                0x92 => {
                    // NEWOBJ_EX: with arguments by name, which nothing that is made here has.
                    let (_, _, class) = (self.pop()?, self.pop()?, self.pop()?);
                    if class != Value::Global(Global::Inert) {
                        return Err(self.broken("a call has arguments by name"));
                    }
                    self.push_object(Object::Opaque);
                }
                b'b' => self.build()?,
                other => {
                    return Err(
                        self.broken(format!("opcode {other:#04x} has no place in a checkpoint"))
                    );
                }
            }
        }
    }

    fn long(&mut self) -> Result<(), TorchError> {
        let bytes = self.take_counted::<1>()?;
        if bytes.len() > 8 {
            return Err(self.broken("a number does not fit 64 bits"));
        }
        let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
        let mut extended = [if negative { 0xff } else { 0 }; 8];
        extended[..bytes.len()].copy_from_slice(bytes);
        self.stack
            .push(Value::Integer(i64::from_le_bytes(extended)));
        Ok(())
    }

    fn pairs(&self, items: &[Value]) -> Result<Vec<(Value, Value)>, TorchError> {
        if !items.len().is_multiple_of(2) {
            return Err(self.broken("a key has no value"));
        }
        Ok(items
            .chunks_exact(2)
            .map(|pair| (pair[0], pair[1]))
            .collect())
    }

    fn extend_dict(&mut self, entries: Vec<(Value, Value)>) -> Result<(), TorchError> {
        let top = self.top()?;
        match top {
            Value::Object(index) if matches!(self.objects[index], Object::Dict(_)) => {
                if let Object::Dict(dict) = &mut self.objects[index] {
                    dict.extend(entries);
                }
                Ok(())
            }
            _ if self.object(top) == Some(&Object::Opaque) => Ok(()),
            _ => Err(self.broken("entries are added to something that is no dict")),
        }
    }

    fn extend_list(&mut self, items: Vec<Value>) -> Result<(), TorchError> {
        let top = self.top()?;
        match top {
            Value::Object(index) if matches!(self.objects[index], Object::List(_)) => {
                if let Object::List(list) = &mut self.objects[index] {
                    list.extend(items);
                }
                Ok(())
            }
            _ if self.object(top) == Some(&Object::Opaque) => Ok(()),
            _ => Err(self.broken("items are added to something that is no list")),
        }
    }

    /// `('storage', <class>, key, location, count)`
    fn persistent_load(&mut self) -> Result<(), TorchError> {
        let id = self.pop()?;
        let Some(Object::Tuple(id)) = self.object(id) else {
            return Err(self.broken("a storage's id is no tuple"));
        };
        let &[
            kind,
            Value::Global(Global::Storage(element)),
            key,
            _,
            Value::Integer(count),
        ] = id.as_slice()
        else {
            return Err(self.broken("a storage's id has another form"));
        };
        if self.text(kind)? != "storage" {
            return Err(self.broken("a persistent id is not that of a storage"));
        }
        let key = self.text(key)?;
        if key.len() > MAX_KEY {
            return Err(self.broken("a storage has too long a name"));
        }
        let count =
            usize::try_from(count).map_err(|_| self.broken("a storage has a negative size"))?;
        let storage = StorageRef {
            element,
            key: key.to_owned(),
            count,
        };
        self.push_object(Object::Storage(Box::new(storage)));
        Ok(())
    }

    fn reduce(&mut self) -> Result<(), TorchError> {
        let (arguments, callable) = (self.pop()?, self.pop()?);
        if callable == Value::Global(Global::Inert)
            || self.object(callable) == Some(&Object::Opaque)
        {
            self.push_object(Object::Opaque);
            return Ok(());
        }
        let Value::Global(callable) = callable else {
            return Err(self.broken("a call has another form"));
        };
        if let Global::Record(record) = callable {
            self.push_object(Object::Record(record, Value::Null));
            return Ok(());
        }
        let arguments = match self.object(arguments) {
            // No call of the list has more arguments than this.
            Some(Object::Tuple(arguments)) if arguments.len() <= 16 => arguments.clone(),
            _ => return Err(self.broken("the arguments of a call have another form")),
        };
        match (callable, arguments.as_slice()) {
            (Global::OrderedDict, []) => self.push_object(Object::Dict(vec![])),
            (Global::OrderedDict, &[items]) => self.ordered_dict(items)?,
            (Global::DefaultDict, _) => self.push_object(Object::Dict(vec![])),
            (Global::RebuildTensor, &[storage, Value::Integer(offset), shape, strides, ..]) => {
                let Some(Object::Storage(storage)) = self.object(storage) else {
                    return Err(self.broken("a tensor has no storage"));
                };
                let tensor = TensorRef {
                    storage: (**storage).clone(),
                    offset: self.size(Value::Integer(offset))?,
                    shape: self.sizes(shape)?,
                    strides: self.sizes(strides)?,
                };
                self.push_object(Object::Tensor(Box::new(tensor)));
            }
            (Global::RebuildParameter, &[tensor, ..])
                if matches!(self.object(tensor), Some(Object::Tensor(_))) =>
            {
                self.stack.push(tensor);
            }
            (Global::Size, &[sizes]) => self.stack.push(sizes),
            (Global::Device, _) => self.stack.push(Value::Null),
            (Global::Set, []) => self.push_object(Object::List(vec![])),
            (Global::Set, &[items]) if matches!(self.object(items), Some(Object::List(_))) => {
                self.stack.push(items);
            }
            (Global::Encode, &[text, _]) => self.encode(text)?,
            (Global::ByteArray, []) => self.push_object(Object::Bytes(vec![])),
            (Global::ByteArray, &[bytes, ..]) => self.stack.push(bytes),
            (Global::BytesIo, []) => self.push_object(Object::Buffer(Value::Null)),
            _ => return Err(self.broken(format!("{callable:?} is called with other arguments"))),
        }
        Ok(())
    }

    fn ordered_dict(&mut self, items: Value) -> Result<(), TorchError> {
        let Some(Object::List(items)) = self.object(items) else {
            return Err(self.broken("an OrderedDict is made of something else than pairs"));
        };
        let mut entries = Vec::with_capacity(items.len());
        for item in items {
            match self.object(*item) {
                Some(Object::Tuple(pair) | Object::List(pair)) if pair.len() == 2 => {
                    entries.push((pair[0], pair[1]));
                }
                _ => return Err(self.broken("an OrderedDict is made of something else than pairs")),
            }
        }
        self.count_copy(entries.len())?;
        self.push_object(Object::Dict(entries));
        Ok(())
    }

    /// Bytes that protocol 2 spells as text of the characters 0 to 255.
    fn encode(&mut self, text: Value) -> Result<(), TorchError> {
        let bytes = self
            .text(text)?
            .chars()
            .map(|character| u8::try_from(u32::from(character)));
        let bytes = bytes.collect::<Result<Vec<u8>, _>>();
        let bytes = bytes.map_err(|_| self.broken("bytes are spelt with other characters"))?;
        self.count_copy(bytes.len())?;
        self.push_object(Object::Bytes(bytes));
        Ok(())
    }

    /// The state of an object: of a buffer its bytes, of a record its fields; attributes of a dict are let go, no reader needs them.
    fn build(&mut self) -> Result<(), TorchError> {
        let state = self.pop()?;
        let content = match self.object(state) {
            Some(Object::Tuple(parts)) => parts.first().copied(),
            _ => None,
        };
        if let Value::Object(index) = self.top()? {
            match &mut self.objects[index] {
                Object::Buffer(held) => *held = content.unwrap_or(Value::Null),
                Object::Record(_, held) => *held = state,
                _ => {}
            }
        }
        Ok(())
    }

    fn size(&self, value: Value) -> Result<usize, TorchError> {
        match value {
            Value::Integer(number) => {
                usize::try_from(number).map_err(|_| self.broken("a size is negative"))
            }
            _ => Err(self.broken("a size is no number")),
        }
    }

    fn sizes(&self, value: Value) -> Result<Vec<usize>, TorchError> {
        match self.object(value) {
            Some(Object::Tuple(items)) if items.len() <= MAX_DIMENSIONS => {
                items.iter().map(|item| self.size(*item)).collect()
            }
            _ => Err(self.broken("a shape is no tuple, or too long a one")),
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
    fn a_class_beside_the_weights_is_never_made_and_a_function_beside_it_is_refused() {
        // {"h": DictConfig(…) with items and a state, "x": 1}
        let pickle = load(
            b"\x80\x02}(X\x01\x00\x00\x00hcomegaconf.dictconfig\nDictConfig\n)\x81(K\x01K\x02uK\x03a}b\
              X\x01\x00\x00\x00xK\x01u.",
        )
        .unwrap();
        let Some(Object::Dict(entries)) = pickle.object(pickle.root) else {
            panic!("no dict")
        };
        assert_eq!(pickle.object(entries[0].1), Some(&Object::Opaque));
        assert_eq!(entries[1].1, Value::Integer(1));
        for name in [
            "builtins\ngetattr",
            "builtins\n__import__",
            "operator\nattrgetter",
            "numpy\nload",
            "omegaconfig\nDictConfig",
            "torch\nload",
            "os\npath",
        ] {
            let bytes = format!("c{name}\n.").into_bytes();
            let error = load(&[&b"\x80\x02"[..], &bytes].concat()).unwrap_err();
            let expected = name.replace('\n', ".");
            assert!(
                matches!(&error, TorchError::ForbiddenGlobal(name) if *name == expected),
                "{error}"
            );
        }
    }

    #[test]
    fn a_dict_filled_after_it_was_remembered_is_the_same_dict() {
        // {} in memo 0, filled with {1: 2}, then recalled from the memo
        let pickle = load(b"\x80\x02}q\x00K\x01K\x02s0h\x00.").unwrap();
        let entries = vec![(Value::Integer(1), Value::Integer(2))];
        assert_eq!(pickle.object(pickle.root), Some(&Object::Dict(entries)));
    }

    #[test]
    fn every_cut_of_a_pickle_is_an_error_and_no_panic() {
        let pickle = b"\x80\x02}q\x00(X\x01\x00\x00\x00aK\x01X\x01\x00\x00\x00b\x8a\x01\xffu.";
        assert!(load(pickle).is_ok());
        for end in 0..pickle.len() {
            assert!(load(&pickle[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn a_million_nested_tuples_neither_overflow_the_stack_when_made_nor_when_let_go() {
        let mut bytes = b"\x80\x02)".to_vec();
        bytes.resize(1_000_000, 0x85);
        bytes.push(b'.');
        drop(load(&bytes).unwrap());
    }

    #[test]
    fn copying_a_long_list_again_and_again_is_refused() {
        let mut bytes = b"\x80\x02ccollections\nOrderedDict\nq\x00]q\x01(".to_vec();
        for _ in 0..1000 {
            bytes.extend_from_slice(b"NN\x86");
        }
        bytes.extend_from_slice(b"eq\x020");
        for _ in 0..1000 {
            bytes.extend_from_slice(b"h\x00h\x01\x85R");
        }
        bytes.push(b'.');
        let error = load(&bytes).unwrap_err();
        assert!(error.to_string().contains("copies more"), "{error}");
    }

    #[test]
    fn a_far_memo_slot_costs_no_memory() {
        let pickle = load(b"\x80\x02Nr\xff\xff\xff\xff.").unwrap();
        assert_eq!(pickle.root, Value::Null);
    }

    /// Opcodes of checkpoints, so that random streams get past the first byte.
    const OPCODES: &[u8] =
        b".(0NJKMGXUC}])tlduseaqrhjcQRb\x80\x81\x85\x86\x87\x88\x89\x8a\x8c\x8f\x90\x91\x93\x94";

    proptest::proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            drop(load(&bytes));
        }

        #[test]
        fn random_opcodes_never_panic(
            choices in proptest::collection::vec((0..OPCODES.len(), 0u8..4), 0..300),
        ) {
            let mut bytes = vec![];
            for (opcode, argument) in choices {
                bytes.push(OPCODES[opcode]);
                match OPCODES[opcode] {
                    b'K' | b'q' | b'h' | 0x80 => bytes.push(argument),
                    b'U' | b'C' | 0x8a | 0x8c => bytes.extend_from_slice(&[1, argument]),
                    b'c' => bytes.extend_from_slice([
                        &b"collections\nOrderedDict\n"[..], b"torch\nSize\n", b"torch\nFloatStorage\n",
                        b"torch._utils\n_rebuild_tensor_v2\n",
                    ][usize::from(argument)]),
                    _ => {}
                }
            }
            drop(load(&bytes));
        }
    }
}
