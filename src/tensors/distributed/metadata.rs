//! The `.metadata` of a distributed checkpoint: which tensors there are, in which chunks, and where these lie.
//!
//! It is a pickle of `torch.distributed.checkpoint.metadata.Metadata`. Nothing in it is believed: chunks must make up
//! their tensor exactly, and their places must be inside of the files, large enough, and apart from each other, so that
//! no tensor is larger than the files are.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use super::tiles::{Block, make_up, volume};
use crate::tensors::torch::pickle::{self, Element, Global, Object, Pickle, Record, Value};

/// Dimensions of a tensor, those of stacked layers included.
const MAX_DIMENSIONS: usize = 8;
/// Length of a tensor's name.
const MAX_NAME: usize = 1024;

/// A tensor in chunks.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    /// Its name in the checkpoint.
    pub name: String,
    /// Type of its numbers.
    pub element: Element,
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// Its chunks, sorted by their place in it.
    pub chunks: Vec<Chunk>,
}

/// A chunk and where it is.
#[derive(Clone, Debug)]
pub(super) struct Chunk {
    pub block: Block,
    /// Index of its file.
    pub file: usize,
    /// Bytes of that file: a checkpoint of `torch.save`.
    pub range: Range<usize>,
}

/// What stands in `storage_data` for a chunk.
struct Place<'a> {
    file: &'a str,
    offset: Value,
    length: Value,
    transforms: Option<Value>,
}

struct Reader<'a> {
    pickle: &'a Pickle,
    /// Index and size of every file that there is.
    files: &'a HashMap<&'a str, (usize, usize)>,
}

/// Reads the tensors whose names `wanted` accepts; `files` tells index and size of each file beside the metadata.
///
/// # Errors
/// Where it is no such pickle, or says anything that does not fit.
pub(super) fn read(
    bytes: &[u8],
    files: &HashMap<&str, (usize, usize)>,
    wanted: &dyn Fn(&str) -> bool,
) -> Result<Vec<Stored>, String> {
    let pickle = pickle::load_metadata(bytes).map_err(|error| error.to_string())?;
    Reader {
        pickle: &pickle,
        files,
    }
    .tensors(wanted)
}

impl<'a> Reader<'a> {
    /// A field of a record of this class.
    fn field(&self, value: Value, class: Record, name: &str) -> Option<Value> {
        let Some(Object::Record(found, state)) = self.pickle.object(value) else {
            return None;
        };
        if *found != class {
            return None;
        }
        let Some(Object::Dict(fields)) = self.pickle.object(*state) else {
            return None;
        };
        let mut fields = fields.iter().rev();
        let (_, value) = fields.find(|(key, _)| self.text(*key) == Some(name))?;
        Some(*value)
    }

    fn needed(&self, value: Value, class: Record, name: &str) -> Result<Value, String> {
        self.field(value, class, name)
            .ok_or_else(|| format!("its metadata has no {class:?} with `{name}`"))
    }

    fn text(&self, value: Value) -> Option<&'a str> {
        match self.pickle.object(value) {
            Some(Object::Text(text)) => Some(text),
            _ => None,
        }
    }

    fn dict(&self, value: Value, what: &str) -> Result<&'a [(Value, Value)], String> {
        match self.pickle.object(value) {
            Some(Object::Dict(entries)) => Ok(entries),
            _ => Err(format!("its {what} is no dict")),
        }
    }

    fn sizes(&self, value: Value) -> Option<Vec<usize>> {
        let Some(Object::Tuple(items) | Object::List(items)) = self.pickle.object(value) else {
            return None;
        };
        if items.len() > MAX_DIMENSIONS {
            return None;
        }
        items.iter().map(|item| number(*item)).collect()
    }

    fn tensors(&self, wanted: &dyn Fn(&str) -> bool) -> Result<Vec<Stored>, String> {
        let root = self.pickle.root;
        let described = self.needed(root, Record::Metadata, "state_dict_metadata")?;
        let places = self.places(self.needed(root, Record::Metadata, "storage_data")?)?;
        let mut tensors = BTreeMap::new();
        // Every chunk has a place of its own: more chunks than places are shared lists, made to be multiplied.
        let mut left = places.len();
        for (name, about) in self.dict(described, "state_dict_metadata")? {
            let Some(name) = self.text(*name).filter(|name| name.len() <= MAX_NAME) else {
                return Err("the name of a tensor is no text, or too long a one".to_owned());
            };
            if !wanted(name) {
                continue;
            }
            if let Some(Object::Record(Record::Tensor, _)) = self.pickle.object(*about) {
                let tensor = self.tensor(name, *about, &places, &mut left)?;
                tensors.insert(name, tensor);
            }
        }
        let tensors: Vec<Stored> = tensors.into_values().collect();
        check_apart(&tensors)?;
        Ok(tensors)
    }

    fn tensor(
        &self,
        name: &str,
        about: Value,
        places: &HashMap<(&str, Vec<usize>), Place<'a>>,
        left: &mut usize,
    ) -> Result<Stored, String> {
        let refuse = |reason: String| format!("tensor `{name}`: {reason}");
        let element = self.element(self.needed(about, Record::Tensor, "properties")?);
        let element = element.map_err(|error| refuse(error.to_owned()))?;
        let shape = self
            .sizes(self.needed(about, Record::Tensor, "size")?)
            .ok_or_else(|| refuse("its shape cannot be read".to_owned()))?;
        let chunks = self.needed(about, Record::Tensor, "chunks")?;
        let Some(Object::List(list) | Object::Tuple(list)) = self.pickle.object(chunks) else {
            return Err(refuse("its chunks are no list".to_owned()));
        };
        let Some(rest) = left.checked_sub(list.len()) else {
            return Err(refuse(
                "it has more chunks than there are places".to_owned(),
            ));
        };
        *left = rest;
        let mut chunks = vec![];
        for chunk in list {
            let side = |name: &str| {
                let sizes = self.field(*chunk, Record::Chunk, name)?;
                self.sizes(sizes).filter(|sizes| sizes.len() == shape.len())
            };
            let (Some(offsets), Some(sizes)) = (side("offsets"), side("sizes")) else {
                return Err(refuse(format!(
                    "a chunk has no place in a tensor of {} dimensions",
                    shape.len()
                )));
            };
            if sizes.contains(&0) {
                continue;
            }
            let place = places.get(&(name, offsets.clone())).or_else(|| {
                // A tensor in one piece may be looked up without a place in it.
                let alone = list.len() == 1;
                alone.then(|| places.get(&(name, vec![])))?
            });
            let place = place.ok_or_else(|| {
                refuse(format!("its chunk at {offsets:?} is in none of the files"))
            })?;
            let (file, range) = self.range(place).map_err(&refuse)?;
            let bytes = volume(&sizes).and_then(|count| count.checked_mul(element.size()));
            if bytes.is_none_or(|bytes| bytes > range.len()) {
                return Err(refuse(format!(
                    "its chunk at {offsets:?} of {sizes:?} numbers has no room in {} bytes",
                    range.len()
                )));
            }
            chunks.push(Chunk {
                block: Block { offsets, sizes },
                file,
                range,
            });
        }
        let mut blocks: Vec<Block> = chunks.iter().map(|chunk| chunk.block.clone()).collect();
        let is_empty = shape.contains(&0);
        if is_empty != blocks.is_empty()
            || !is_empty && !make_up(&mut blocks, &Block::whole(&shape))
        {
            return Err(refuse(format!(
                "its {} chunks do not make up its shape {shape:?}",
                chunks.len()
            )));
        }
        chunks.sort_by(|a, b| a.block.offsets.cmp(&b.block.offsets));
        Ok(Stored {
            name: name.to_owned(),
            element,
            shape,
            chunks,
        })
    }

    /// The type among the properties: their state is a tuple that begins with it, or a dict.
    fn element(&self, properties: Value) -> Result<Element, &'static str> {
        let Some(Object::Record(Record::Properties, state)) = self.pickle.object(properties) else {
            return Err("its properties cannot be read");
        };
        let dtype = match self.pickle.object(*state) {
            Some(Object::Tuple(parts)) => parts.first().copied(),
            _ => self.field(properties, Record::Properties, "dtype"),
        };
        match dtype {
            // Signed bytes are quantised numbers, whose scale stands elsewhere.
            Some(Value::Global(Global::Dtype(Some(element)))) if element != Element::I8 => {
                Ok(element)
            }
            Some(Value::Global(Global::Dtype(_))) => {
                Err("its numbers are of a type that is not supported here")
            }
            _ => Err("its properties name no type"),
        }
    }

    /// Where chunks are, by tensor and offset.
    fn places(&self, value: Value) -> Result<HashMap<(&'a str, Vec<usize>), Place<'a>>, String> {
        let mut places = HashMap::new();
        for (index, info) in self.dict(value, "storage_data")? {
            let name = self.needed(*index, Record::Index, "fqn")?;
            let offsets = match self.field(*index, Record::Index, "offset") {
                None | Some(Value::Null) => Some(vec![]),
                Some(offset) => self.sizes(offset),
            };
            let file = self.needed(*info, Record::Place, "relative_path")?;
            let (Some(name), Some(offsets), Some(file)) =
                (self.text(name), offsets, self.text(file))
            else {
                return Err("its metadata tells a place in another form".to_owned());
            };
            let place = Place {
                file,
                offset: self.needed(*info, Record::Place, "offset")?,
                length: self.needed(*info, Record::Place, "length")?,
                transforms: self.field(*info, Record::Place, "transform_descriptors"),
            };
            places.insert((name, offsets), place);
        }
        Ok(places)
    }

    fn range(&self, place: &Place<'_>) -> Result<(usize, Range<usize>), String> {
        if let Some(transforms) = place.transforms
            && let Some(Object::List(list) | Object::Tuple(list)) = self.pickle.object(transforms)
            && let Some(first) = list.first()
        {
            let name = self.text(*first).unwrap_or_default();
            return Err(format!(
                "it is stored through `{name}`, which is not known here"
            ));
        }
        let &(file, size) = self
            .files
            .get(place.file)
            .ok_or_else(|| format!("its file `{}` is missing", place.file))?;
        let range = number(place.offset)
            .zip(number(place.length))
            .and_then(|(start, length)| Some(start..start.checked_add(length)?))
            .filter(|range| range.end <= size)
            .ok_or_else(|| {
                format!(
                    "it reaches past the end of `{}`, which has {size} bytes",
                    place.file
                )
            })?;
        Ok((file, range))
    }
}

fn number(value: Value) -> Option<usize> {
    match value {
        Value::Integer(number) => usize::try_from(number).ok(),
        _ => None,
    }
}

/// No two chunks share bytes of a file.
fn check_apart(tensors: &[Stored]) -> Result<(), String> {
    let mut all: Vec<(usize, &Range<usize>, &str)> = tensors
        .iter()
        .flat_map(|tensor| tensor.chunks.iter().map(|chunk| (chunk, &tensor.name)))
        .map(|(chunk, name)| (chunk.file, &chunk.range, name.as_str()))
        .collect();
    all.sort_by_key(|(file, range, _)| (*file, range.start, range.end));
    for pair in all.windows(2) {
        let ((file, range, name), (next_file, next, other)) = (pair[0], pair[1]);
        if file == next_file && next.start < range.end {
            return Err(format!(
                "chunks of `{name}` and `{other}` lie in the same place of a file"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const METADATA: &str = "torch.distributed.checkpoint.metadata";

    /// An object of a class with its fields, which are pickled already.
    fn record(module: &str, class: &str, fields: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = format!("c{module}\n{class}\n)").into_bytes();
        bytes.extend_from_slice(b"\x81");
        bytes.extend(dict(
            fields
                .iter()
                .map(|(name, value)| (text(name), value.clone())),
        ));
        bytes.push(b'b');
        bytes
    }

    fn dict(entries: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>) -> Vec<u8> {
        let mut bytes = b"}(".to_vec();
        for (key, value) in entries {
            bytes.extend(key);
            bytes.extend(value);
        }
        bytes.push(b'u');
        bytes
    }

    fn text(text: &str) -> Vec<u8> {
        let mut bytes = vec![b'X'];
        bytes.extend((text.len() as u32).to_le_bytes());
        bytes.extend(text.as_bytes());
        bytes
    }

    fn integer(number: i64) -> Vec<u8> {
        let mut bytes = b"\x8a\x08".to_vec();
        bytes.extend(number.to_le_bytes());
        bytes
    }

    fn size(sizes: &[i64]) -> Vec<u8> {
        let mut bytes = b"ctorch\nSize\n(".to_vec();
        bytes.extend(sizes.iter().flat_map(|size| integer(*size)));
        bytes.extend(b"t\x85R");
        bytes
    }

    /// A chunk: offsets, sizes, and where it is.
    type Given<'a> = (&'a [i64], &'a [i64], &'a str, i64, i64);

    /// Metadata of one tensor `a`.
    fn metadata(dtype: &str, shape: &[i64], chunks: &[Given<'_>], repeated: usize) -> Vec<u8> {
        let mut properties = format!("c{METADATA}\nTensorProperties\n)").into_bytes();
        properties.extend(b"\x81(ctorch\n");
        properties.extend(dtype.as_bytes());
        properties.extend(b"\nNtb");
        let mut list = b"](".to_vec();
        for (offsets, sizes, ..) in chunks {
            for _ in 0..repeated {
                let fields = [("offsets", size(offsets)), ("sizes", size(sizes))];
                list.extend(record(METADATA, "ChunkStorageMetadata", &fields));
            }
        }
        list.push(b'e');
        let tensor = [
            ("properties", properties),
            ("size", size(shape)),
            ("chunks", list),
        ];
        let tensor = record(METADATA, "TensorStorageMetadata", &tensor);
        let bytes = record(METADATA, "BytesStorageMetadata", &[]);
        let places = chunks.iter().map(|(offsets, _, file, start, length)| {
            let index = [("fqn", text("a")), ("offset", size(offsets))];
            let info = [
                ("relative_path", text(file)),
                ("offset", integer(*start)),
                ("length", integer(*length)),
            ];
            (
                record(METADATA, "MetadataIndex", &index),
                record(
                    "torch.distributed.checkpoint.filesystem",
                    "_StorageInfo",
                    &info,
                ),
            )
        });
        let root = [
            (
                "state_dict_metadata",
                dict([(text("a"), tensor), (text("x"), bytes)]),
            ),
            ("storage_data", dict(places)),
        ];
        let mut pickle = b"\x80\x02".to_vec();
        pickle.extend(record(METADATA, "Metadata", &root));
        pickle.push(b'.');
        pickle
    }

    fn read_one(bytes: &[u8]) -> Result<Vec<Stored>, String> {
        let files = HashMap::from([("__0_0.distcp", (0, 100)), ("__1_0.distcp", (1, 100))]);
        read(bytes, &files, &|_| true)
    }

    const FIRST: Given<'_> = (&[0, 0], &[2, 3], "__0_0.distcp", 0, 50);
    const SECOND: Given<'_> = (&[2, 0], &[2, 3], "__1_0.distcp", 10, 50);

    #[test]
    fn chunks_are_found_in_their_files_in_the_order_of_their_tensor() {
        let bytes = metadata("float32", &[4, 3], &[SECOND, FIRST], 1);
        let [tensor] = read_one(&bytes).unwrap().try_into().unwrap();
        assert_eq!((tensor.name.as_str(), tensor.element), ("a", Element::F32));
        assert_eq!(tensor.shape, [4, 3]);
        let places: Vec<_> = tensor.chunks.iter().map(|chunk| chunk.file).collect();
        assert_eq!(places, [0, 1]);
        assert_eq!(tensor.chunks[1].range, 10..60);
        for end in 0..bytes.len() {
            assert!(read_one(&bytes[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn whatever_does_not_fit_is_refused_for_its_reason() {
        let max = i64::MAX;
        let all: [(&str, &[i64], &[Given<'_>], &str); 15] = [
            ("float32", &[4, 3], &[FIRST], "do not make up its shape"),
            (
                "float32",
                &[2, 3],
                &[FIRST, SECOND],
                "do not make up its shape",
            ),
            (
                "float32",
                &[4, 3],
                &[FIRST, (&[1, 0], &[3, 3], "__1_0.distcp", 0, 50)],
                "do not make up",
            ),
            (
                "float32",
                &[max, max],
                &[(&[0, 0], &[max, max], "__0_0.distcp", 0, 50)],
                "has no room in 50 bytes",
            ),
            (
                "float32",
                &[1 << 31, 1 << 31],
                &[(&[0, 0], &[1 << 31, 1 << 31], "__0_0.distcp", 0, 50)],
                "has no room",
            ),
            ("float64", &[4, 3], &[FIRST, SECOND], ""),
            (
                "float64",
                &[2, 6],
                &[(&[0, 0], &[2, 6], "__0_0.distcp", 0, 50)],
                "has no room in 50 bytes",
            ),
            ("float8_e4m3fn", &[2, 3], &[FIRST], "not supported here"),
            ("int8", &[2, 3], &[FIRST], "not supported here"),
            (
                "float32",
                &[2, 3],
                &[(&[0, 0], &[2, 3], "__0_0.distcp", 51, 50)],
                "past the end of `__0_0.distcp`",
            ),
            (
                "float32",
                &[2, 3],
                &[(&[0, 0], &[2, 3], "__0_0.distcp", max, max)],
                "past the end of `__0_0.distcp`",
            ),
            (
                "float32",
                &[2, 3],
                &[(&[0, 0], &[2, 3], "__0_0.distcp", -1, 50)],
                "past the end of `__0_0.distcp`",
            ),
            (
                "float32",
                &[2, 3],
                &[(&[0, 0], &[2, 3], "../../etc/passwd", 0, 50)],
                "`../../etc/passwd` is missing",
            ),
            (
                "float32",
                &[4, 3],
                &[FIRST, (&[2, 0], &[2, 3], "__0_0.distcp", 49, 50)],
                "the same place of a file",
            ),
            (
                "float32",
                &[2, 3],
                &[(&[0], &[6], "__0_0.distcp", 0, 50)],
                "in a tensor of 2 dimensions",
            ),
        ];
        for (dtype, shape, chunks, reason) in all {
            match read_one(&metadata(dtype, shape, chunks, 1)) {
                Ok(_) => assert_eq!(reason, "", "{dtype} {shape:?} {chunks:?} was read"),
                Err(error) => assert!(!reason.is_empty() && error.contains(reason), "{error}"),
            }
        }
        let error = read_one(&metadata("float32", &[2, 3], &[FIRST], 2)).unwrap_err();
        assert!(
            error.contains("more chunks than there are places"),
            "{error}"
        );
        let nine = [1; 9];
        let chunk: Given<'_> = (&[0; 9], &[1; 9], "__0_0.distcp", 0, 50);
        let error = read_one(&metadata("float32", &nine, &[chunk], 1)).unwrap_err();
        assert!(
            error.contains("another form") || error.contains("shape"),
            "{error}"
        );
    }

    #[test]
    fn the_classes_of_metadata_are_no_part_of_a_state_dict_and_functions_no_part_of_either() {
        let bytes = metadata("float32", &[2, 3], &[FIRST], 1);
        assert!(pickle::load(&bytes).is_err());
        for name in [
            "builtins\ngetattr",
            "posix\nsystem",
            "torch.serialization\nload",
        ] {
            let bytes = [b"\x80\x02c", name.as_bytes(), b"\n."].concat();
            let error = read_one(&bytes).unwrap_err();
            assert!(error.contains(&name.replace('\n', ".")), "{error}");
        }
    }
}
