//! Tokenised rows of earlier runs, found by what they were made from.
//!
//! A file of the cache is named by a hash of everything that decides what is in it: the bytes of the row files, the
//! templates, the tokenizer, the options, the version of the rules. So it never grows old; it is only no longer asked
//! for. It ends in a hash of itself: one that is not whole is passed over and written anew. Files appear in one step, so
//! ranks may write the same one at the same time.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use sha2::{Digest, Sha256};

use super::dataset::{Dataset, DatasetOptions, Example, SkipReason, SkipReport, Skipped};
use super::jsonl::RowFile;
use crate::prompt::template::TaskTemplate;
use crate::sys::atomic_file;
use crate::sys::hexadecimal;
use crate::tokenize::Tokenizer;

/// Version of the rules by which rows become ids, and of the layout of a file. To be raised with every change of either;
/// a test at the foot reminds of it.
const RULES: u32 = 1;
/// What a file begins with.
const MAGIC: &[u8; 12] = b"ptune rows\n\0";
/// Ending of the names of files.
const EXTENSION: &str = "rows";
/// Length of a hash.
const HASH: usize = 32;

/// A folder of tokenised rows.
#[derive(Clone, Debug)]
pub struct RowCache {
    folder: PathBuf,
    /// Rows that were tokenised faster than this are not worth a file.
    least: Duration,
    /// Bytes that all files together may have; those that were not used for the longest time go first.
    most_bytes: u64,
}

/// The name of a file of the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key(String);

impl RowCache {
    /// The cache in `folder`, which need not exist yet, for rows whose tokenising takes `least` or longer.
    pub fn new(folder: PathBuf, least: Duration, most_bytes: u64) -> Self {
        Self {
            folder,
            least,
            most_bytes,
        }
    }

    /// The name under which the rows of `files` are kept; nothing where one of them cannot be read.
    pub fn key(
        &self,
        files: &[RowFile],
        templates: &[TaskTemplate],
        tokenizer: &Tokenizer,
        options: &DatasetOptions,
    ) -> Result<Option<Key>> {
        let mut hash = Sha256::new();
        hash.update(format!("{RULES} {}\n", env!("CARGO_PKG_VERSION")));
        hash.update(tokenizer.fingerprint()?);
        hash.update(format!("{options:?}\n{templates:?}\n"));
        for file in files {
            let Some(bytes) = file.bytes() else {
                return Ok(None);
            };
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        }
        Ok(Some(Key(hexadecimal(&hash.finalize()))))
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.folder.join(&key.0).with_extension(EXTENSION)
    }

    /// What is kept under `key`, as if it had just been read from `paths`.
    pub fn find(&self, key: &Key, paths: &[PathBuf]) -> Option<Dataset> {
        let path = self.path(key);
        let bytes = match fs_err::read(&path) {
            Ok(bytes) => bytes,
            Err(error) => {
                tracing::debug!("no tokenised rows: {error}");
                return None;
            }
        };
        let Some(dataset) = decode(&bytes, paths) else {
            tracing::warn!(
                "the tokenised rows in {} are damaged; they are made anew",
                path.display()
            );
            return None;
        };
        // Used now, for `prune`.
        let used = fs_err::OpenOptions::new().append(true).open(&path);
        if let Err(error) = used.and_then(|file| file.file().set_modified(SystemTime::now())) {
            tracing::debug!("the tokenised rows go before others do: {error}");
        }
        tracing::info!("tokenised rows from {}", path.display());
        Some(dataset)
    }

    /// Keeps `dataset`, which took `elapsed` to make, under `key`. A cache that cannot be written is none.
    pub fn put(&self, key: &Key, paths: &[PathBuf], dataset: &Dataset, elapsed: Duration) {
        if elapsed < self.least {
            return;
        }
        let Some(bytes) = encode(dataset, paths) else {
            return;
        };
        if bytes.len() as u64 > self.most_bytes {
            return;
        }
        let path = self.path(key);
        self.prune(bytes.len() as u64);
        match atomic_file::write_unflushed(&path, bytes) {
            Ok(()) => tracing::info!("tokenised rows are kept in {}", path.display()),
            Err(error) => tracing::debug!("tokenised rows are not kept: {error}"),
        }
    }

    /// Makes room for so many bytes.
    fn prune(&self, needed: u64) {
        let Ok(entries) = fs_err::read_dir(&self.folder) else {
            return;
        };
        let mut files: Vec<(SystemTime, u64, PathBuf)> = entries
            .flatten()
            .filter(|entry| entry.path().extension().is_some_and(|end| end == EXTENSION))
            .filter_map(|entry| {
                let metadata = entry.metadata().ok()?;
                Some((metadata.modified().ok()?, metadata.len(), entry.path()))
            })
            .collect();
        files.sort();
        let mut total: u64 = files.iter().map(|(_, length, _)| length).sum();
        for (_, length, path) in files {
            if total.saturating_add(needed) <= self.most_bytes {
                break;
            }
            total -= length;
            if let Err(error) = fs_err::remove_file(path) {
                tracing::debug!("another rank may have removed it: {error}");
            }
        }
    }
}

/// Numbers are little-endian, lengths and indices `u32`; nothing where one of them does not fit.
fn encode(dataset: &Dataset, paths: &[PathBuf]) -> Option<Vec<u8>> {
    let mut writer = Writer(MAGIC.to_vec());
    let report = &dataset.report;
    for count in [
        report.rows,
        report.read,
        report.kept,
        report.truncated,
        report.cut,
        report.tokens_dropped,
        report.skipped.len(),
        dataset.examples.len(),
    ] {
        writer.0.extend((count as u64).to_le_bytes());
    }
    let file_of = |file: &Path| paths.iter().position(|path| path == file);
    for skipped in &report.skipped {
        writer.number(file_of(&skipped.file)?)?;
        writer.number(skipped.line)?;
        let reason = SkipReason::ALL
            .iter()
            .position(|reason| *reason == skipped.reason)?;
        writer.number(reason)?;
    }
    for example in &dataset.examples {
        writer.number(example.task)?;
        writer.number(file_of(&example.file)?)?;
        writer.number(example.line)?;
        writer.number(example.answer_start.map_or(0, |start| start + 1))?;
        writer.ids(&example.input_ids)?;
        writer.number(usize::from(example.decoder_ids.is_some()))?;
        if let Some(ids) = &example.decoder_ids {
            writer.ids(ids)?;
        }
        writer.number(example.answers.len())?;
        for answer in &example.answers {
            writer.text(answer)?;
        }
        writer.number(usize::from(example.id.is_some()))?;
        if let Some(id) = &example.id {
            writer.text(id)?;
        }
    }
    let hash = Sha256::digest(&writer.0);
    writer.0.extend(hash);
    Some(writer.0)
}

struct Writer(Vec<u8>);

impl Writer {
    fn number(&mut self, number: usize) -> Option<()> {
        let number = u32::try_from(number).ok()?;
        self.0.extend(number.to_le_bytes());
        Some(())
    }

    fn ids(&mut self, ids: &[u32]) -> Option<()> {
        self.number(ids.len())?;
        for id in ids {
            self.0.extend(id.to_le_bytes());
        }
        Some(())
    }

    fn text(&mut self, text: &str) -> Option<()> {
        self.number(text.len())?;
        self.0.extend(text.as_bytes());
        Some(())
    }
}

/// What [`encode`] wrote; nothing where it is not that to the last byte.
fn decode(bytes: &[u8], paths: &[PathBuf]) -> Option<Dataset> {
    let (body, hash) = bytes.split_at_checked(bytes.len().checked_sub(HASH)?)?;
    if Sha256::digest(body)[..] != *hash {
        return None;
    }
    let mut reader = Reader(body.strip_prefix(MAGIC)?);
    let mut counts = [0usize; 8];
    for count in &mut counts {
        *count = usize::try_from(u64::from_le_bytes(*reader.take()?)).ok()?;
    }
    let [
        rows,
        read,
        kept,
        truncated,
        cut,
        tokens_dropped,
        skipped,
        examples,
    ] = counts;
    let files: Vec<Arc<Path>> = paths.iter().map(|path| Arc::from(path.as_path())).collect();
    let mut dataset = Dataset {
        // A length is bounded by what is there: each takes at least some bytes.
        examples: Vec::with_capacity(examples.min(body.len() / 24)),
        report: SkipReport {
            rows,
            read,
            kept,
            truncated,
            cut,
            tokens_dropped,
            skipped: vec![],
        },
    };
    for _ in 0..skipped {
        dataset.report.skipped.push(Skipped {
            file: Arc::clone(files.get(reader.number()?)?),
            line: reader.number()?,
            reason: *SkipReason::ALL.get(reader.number()?)?,
        });
    }
    for _ in 0..examples {
        let task = reader.number()?;
        let file = Arc::clone(files.get(reader.number()?)?);
        let line = reader.number()?;
        let answer_start = reader.number()?.checked_sub(1);
        let input_ids = reader.ids()?;
        let decoder_ids = match reader.number()? {
            0 => None,
            _ => Some(reader.ids()?),
        };
        let answers = (0..reader.number()?)
            .map(|_| reader.text())
            .collect::<Option<Vec<String>>>()?;
        let id = match reader.number()? {
            0 => None,
            _ => Some(reader.text()?),
        };
        dataset.examples.push(Example {
            task,
            input_ids,
            answer_start,
            decoder_ids,
            answers,
            id,
            file,
            line,
        });
    }
    reader.0.is_empty().then_some(dataset)
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<usize> {
        usize::try_from(u32::from_le_bytes(*self.take()?)).ok()
    }

    fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn ids(&mut self) -> Option<Vec<u32>> {
        let length = self.number()?.checked_mul(4)?;
        let (ids, _) = self.bytes(length)?.as_chunks::<4>();
        Some(ids.iter().map(|id| u32::from_le_bytes(*id)).collect())
    }

    fn text(&mut self) -> Option<String> {
        let length = self.number()?;
        String::from_utf8(self.bytes(length)?.to_vec()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::super::dataset::Architecture;
    use super::super::jsonl::Purpose;
    use super::super::jsonl::tests::squad_template;
    use super::*;
    use crate::tokenize::tests::toy_tokenizer;

    struct Case {
        folder: tempfile::TempDir,
        tokenizer: Tokenizer,
        templates: Vec<TaskTemplate>,
        options: DatasetOptions,
    }

    impl Case {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let case = Self {
                tokenizer: toy_tokenizer(&["red", " red", " green", " blue"]),
                templates: vec![squad_template()],
                options: DatasetOptions::new(Architecture::T5, Purpose::Learn, 14, 1000),
                folder,
            };
            let row = |context: &str, answer: &str, more: &str| {
                format!(
                    "{{\"taskname\":\"squad\",\"context\":\"{context}\",\"question\":\"red green\",\"answer\":\"{answer}\"{more}}}\n"
                )
            };
            case.write(
                &[
                    row(
                        "red blue",
                        "blue",
                        ",\"id\":\"ä7\",\"answers\":[\"blue\",\"\"]",
                    ),
                    row("red green blue red green blue red green blue", " green", ""),
                    row("red", "red", "").replace("red green", &"red ".repeat(30)),
                ]
                .concat(),
            );
            case
        }

        fn rows(&self) -> Vec<PathBuf> {
            vec![self.folder.path().join("rows.jsonl")]
        }

        fn write(&self, rows: &str) {
            fs_err::write(&self.rows()[0], rows).unwrap();
        }

        fn cache(&self) -> RowCache {
            RowCache::new(self.folder.path().join("cache"), Duration::ZERO, 1 << 20)
        }

        fn load(&self) -> Dataset {
            let (tokenizer, options) = (&self.tokenizer, &self.options);
            Dataset::load_cached(
                &self.rows(),
                &self.templates,
                tokenizer,
                options,
                &self.cache(),
            )
            .unwrap()
        }

        fn files(&self) -> Vec<PathBuf> {
            let Ok(entries) = fs_err::read_dir(self.folder.path().join("cache")) else {
                return vec![];
            };
            entries.map(|entry| entry.unwrap().path()).collect()
        }
    }

    #[test]
    fn what_is_found_equals_what_was_tokenised_and_other_rows_are_others() {
        let mut case = Case::new();
        let plain = Dataset::load(
            &case.rows(),
            &case.templates,
            &case.tokenizer,
            &case.options,
        )
        .unwrap();
        assert_eq!((plain.report.truncated, plain.report.skipped.len()), (1, 1));
        let check = |loaded: Dataset| {
            assert_eq!(loaded.examples, plain.examples);
            assert_eq!(loaded.report, plain.report);
        };
        check(case.load());
        assert_eq!(case.files().len(), 1);
        check(case.load());
        assert_eq!(case.files().len(), 1, "it was not found again");

        // Another option, another template, another tokenizer, another letter in the rows: another name each.
        case.options.add_eos = false;
        assert_ne!(case.load().examples, plain.examples);
        case.templates[0].truncate_field = None;
        case.load();
        case.tokenizer = toy_tokenizer(&["red", " red", " blue", " green"]);
        case.load();
        let text = fs_err::read_to_string(&case.rows()[0]).unwrap();
        case.write(&text.replacen("red blue", "red blua", 1));
        case.load();
        assert_eq!(case.files().len(), 5);
    }

    #[test]
    fn a_file_that_is_not_whole_is_passed_over_and_written_anew() {
        let case = Case::new();
        let plain = case.load();
        let path = case.files().remove(0);
        let whole = fs_err::read(&path).unwrap();
        for cut in 0..whole.len() {
            assert!(
                decode(&whole[..cut], &case.rows()).is_none(),
                "cut at {cut}"
            );
            let mut flipped = whole.clone();
            flipped[cut] ^= 16;
            assert!(decode(&flipped, &case.rows()).is_none(), "flipped at {cut}");
        }
        fs_err::write(&path, &whole[..whole.len() / 2]).unwrap();
        assert_eq!(case.load().examples, plain.examples);
        assert!(fs_err::read(&path).unwrap() == whole, "it was not mended");
        // A hash that fits makes no sense of nonsense.
        let mut nonsense = MAGIC.to_vec();
        nonsense.extend([0xff; 64]);
        let hash = Sha256::digest(&nonsense);
        nonsense.extend(hash);
        assert!(decode(&nonsense, &case.rows()).is_none());
    }

    #[test]
    fn the_files_unused_for_longest_make_room_and_quick_rows_need_none() {
        let case = Case::new();
        let cache = RowCache::new(case.folder.path().join("cache"), Duration::ZERO, 1000);
        fs_err::create_dir_all(&cache.folder).unwrap();
        for (name, age) in [("old.rows", 200), ("new.rows", 100), ("other.txt", 300)] {
            let path = cache.folder.join(name);
            fs_err::write(&path, [0; 400]).unwrap();
            let file = fs_err::OpenOptions::new().append(true).open(&path).unwrap();
            let time = SystemTime::now() - Duration::from_secs(age);
            file.file().set_modified(time).unwrap();
        }
        cache.prune(500);
        let mut left: Vec<_> = case.files();
        left.sort();
        assert_eq!(
            left,
            [
                cache.folder.join("new.rows"),
                cache.folder.join("other.txt")
            ]
        );

        let slow = RowCache::new(
            case.folder.path().join("none"),
            Duration::from_secs(60),
            1000,
        );
        let dataset = case.load();
        slow.put(
            &Key("a".into()),
            &case.rows(),
            &dataset,
            Duration::from_secs(59),
        );
        assert!(!slow.folder.exists());
    }

    #[test]
    fn where_the_rules_change_their_version_is_raised() {
        let case = Case::new();
        let bytes = encode(&case.load(), &case.rows()).unwrap();
        let hash = hexadecimal(&bytes[bytes.len() - HASH..][..8]);
        assert_eq!(
            (RULES, hash.as_str()),
            (1, "d78361e1b4619597"),
            "raise RULES, then mend this line"
        );
    }
}
