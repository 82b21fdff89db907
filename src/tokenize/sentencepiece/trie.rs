//! A dictionary of byte strings that finds every entry a text begins with.

/// Stands for "no entry ends here".
const NONE: u32 = u32::MAX;

/// Entries and their ids. Nodes are numbered level by level, so that the children of a node stand side by side, sorted
/// by their byte: three flat arrays and no pointers.
pub(super) struct Trie {
    /// Node `n`'s children are the nodes `first_child[n] .. first_child[n + 1]`.
    first_child: Vec<u32>,
    /// The byte that leads to a node.
    byte: Vec<u8>,
    /// Id of the entry that ends at a node, or [`NONE`].
    id: Vec<u32>,
}

impl Trie {
    /// Builds it from `entries`. Of two equal entries the one with the higher id stays; empty ones match nothing.
    pub(super) fn new(mut entries: Vec<(&[u8], u32)>) -> Self {
        entries.sort_unstable();
        let mut trie = Self {
            first_child: vec![],
            byte: vec![0],
            id: vec![NONE],
        };
        // For each node in order: the entries below it, and how many of their bytes lead to it.
        let mut open = vec![(0, entries.len(), 0)];
        let mut node = 0;
        while let Some(&(mut low, high, depth)) = open.get(node) {
            trie.first_child.push(open.len() as u32);
            while low < high && entries[low].0.len() == depth {
                trie.id[node] = entries[low].1;
                low += 1;
            }
            while low < high {
                let byte = entries[low].0[depth];
                let same = entries[low..high].partition_point(|(text, _)| text[depth] == byte);
                trie.byte.push(byte);
                trie.id.push(NONE);
                open.push((low, low + same, depth + 1));
                low += same;
            }
            node += 1;
        }
        trie.first_child.push(open.len() as u32);
        trie
    }

    /// Every entry that `text` begins with, shortest first: its length and id.
    pub(super) fn prefixes<'a>(
        &'a self,
        text: &'a [u8],
    ) -> impl Iterator<Item = (usize, u32)> + 'a {
        let mut node = 0;
        let mut length = 0;
        std::iter::from_fn(move || {
            while let Some(&byte) = text.get(length) {
                let children = self.first_child[node] as usize..self.first_child[node + 1] as usize;
                let place = self.byte[children.clone()].binary_search(&byte).ok()?;
                node = children.start + place;
                length += 1;
                if self.id[node] != NONE {
                    return Some((length, self.id[node]));
                }
            }
            None
        })
    }

    /// The id of exactly this entry.
    pub(super) fn get(&self, text: &[u8]) -> Option<u32> {
        let (length, id) = self.prefixes(text).last()?;
        (length == text.len()).then_some(id)
    }

    /// Length of the longest entry that `text` begins with.
    pub(super) fn longest_prefix(&self, text: &[u8]) -> Option<usize> {
        self.prefixes(text).last().map(|(length, _)| length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_that_a_text_begins_with_is_found_shortest_first() {
        let entries: Vec<(&[u8], u32)> = vec![(b"ab", 3), (b"a", 1), (b"abcd", 2), (b"b", 4)];
        let trie = Trie::new(entries);
        assert_eq!(
            trie.prefixes(b"abcde").collect::<Vec<_>>(),
            [(1, 1), (2, 3), (4, 2)]
        );
        assert_eq!(trie.prefixes(b"bab").collect::<Vec<_>>(), [(1, 4)]);
        assert_eq!(trie.prefixes(b"x").count(), 0);
        assert_eq!(trie.get(b"ab"), Some(3));
        assert_eq!(trie.get(b"abc"), None);
        assert_eq!(trie.longest_prefix(b"abcx"), Some(2));
    }

    #[test]
    fn a_trie_of_nothing_finds_nothing() {
        assert_eq!(Trie::new(vec![]).prefixes(b"abc").count(), 0);
        assert_eq!(Trie::new(vec![(b"", 1)]).prefixes(b"abc").count(), 0);
    }
}
