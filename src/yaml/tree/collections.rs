//! Lists and mappings, in blocks and in brackets.

use super::parser::{Parse, Parser};
use super::{Content, Tag};
use crate::yaml::scanner::{Mark, TokenKind};

impl Parser {
    pub(super) fn indentless_sequence(&mut self, node: usize) -> Parse<()> {
        use TokenKind::{BlockEnd, BlockEntry, Key, Value};
        while self.is(&[BlockEntry])? {
            let entry = self.next()?;
            let item = if self.is(&[BlockEntry, Key, Value, BlockEnd])? {
                self.empty_scalar(entry.end)
            } else {
                self.node(true, false)?
            };
            self.push_item(node, item);
        }
        Ok(())
    }

    pub(super) fn block_sequence(&mut self, node: usize) -> Parse<()> {
        use TokenKind::{BlockEnd, BlockEntry};
        let start = self.next()?.start;
        while self.is(&[BlockEntry])? {
            let entry = self.next()?;
            let item = if self.is(&[BlockEntry, BlockEnd])? {
                self.empty_scalar(entry.end)
            } else {
                self.node(true, false)?
            };
            self.push_item(node, item);
        }
        if !self.is(&[BlockEnd])? {
            return self.unexpected(
                "the next `-` of this list or its end",
                Some(("the list begins here", start)),
            );
        }
        self.next()?;
        Ok(())
    }

    pub(super) fn block_mapping(&mut self, node: usize) -> Parse<()> {
        use TokenKind::{BlockEnd, Key, Value};
        let start = self.next()?.start;
        // PyYAML accepts a value without a key after a value without a key: both keys are null.
        loop {
            if self.is(&[Key])? {
                let token = self.next()?;
                let key = if self.is(&[Key, Value, BlockEnd])? {
                    self.empty_scalar(token.end)
                } else {
                    self.node(true, true)?
                };
                let value = self.block_mapping_value()?;
                self.push_pair(node, key, value);
            } else if self.is(&[BlockEnd])? {
                self.next()?;
                return Ok(());
            } else {
                return self.unexpected(
                    "the next key of this mapping or its end",
                    Some(("the mapping begins here", start)),
                );
            }
        }
    }

    fn block_mapping_value(&mut self) -> Parse<usize> {
        use TokenKind::{BlockEnd, Key, Value};
        if self.is(&[Value])? {
            let token = self.next()?;
            if self.is(&[Key, Value, BlockEnd])? {
                return Ok(self.empty_scalar(token.end));
            }
            return self.node(true, true);
        }
        let mark = self.peek()?.start;
        Ok(self.empty_scalar(mark))
    }

    pub(super) fn flow_sequence(&mut self, node: usize) -> Parse<()> {
        use TokenKind::{FlowEntry, FlowSequenceEnd, Key};
        let start = self.next()?.start;
        let mut first = true;
        while !self.is(&[FlowSequenceEnd])? {
            if !first {
                if !self.is(&[FlowEntry])? {
                    return self.unexpected("`,` or `]`", Some(("the list begins here", start)));
                }
                self.next()?;
            }
            first = false;
            if self.is(&[Key])? {
                let token = self.peek()?;
                let (from, to) = (token.start, token.end);
                let mapping = self.add(Tag::Mapping, Content::Mapping(vec![]), from, to);
                let token = self.next()?;
                let (key, value) = self.flow_pair(token.end, &FlowSequenceEnd)?;
                self.push_pair(mapping, key, value);
                self.push_item(node, mapping);
            } else if !self.is(&[FlowSequenceEnd])? {
                let item = self.node(false, false)?;
                self.push_item(node, item);
            }
        }
        self.next()?;
        Ok(())
    }

    /// A key and its value after `?` or a key mark, up to `,` or the closing bracket.
    fn flow_pair(&mut self, after_key: Mark, closing: &TokenKind) -> Parse<(usize, usize)> {
        use TokenKind::{FlowEntry, Value};
        let key = if self.is(&[Value, FlowEntry, closing.clone()])? {
            self.empty_scalar(after_key)
        } else {
            self.node(false, false)?
        };
        let value = if self.is(&[Value])? {
            let token = self.next()?;
            if self.is(&[FlowEntry, closing.clone()])? {
                self.empty_scalar(token.end)
            } else {
                self.node(false, false)?
            }
        } else {
            let mark = self.peek()?.start;
            self.empty_scalar(mark)
        };
        Ok((key, value))
    }

    pub(super) fn flow_mapping(&mut self, node: usize) -> Parse<()> {
        use TokenKind::{FlowEntry, FlowMappingEnd, Key};
        let start = self.next()?.start;
        let mut first = true;
        while !self.is(&[FlowMappingEnd])? {
            if !first {
                if !self.is(&[FlowEntry])? {
                    return self.unexpected("`,` or `}`", Some(("the mapping begins here", start)));
                }
                self.next()?;
            }
            first = false;
            if self.is(&[Key])? {
                let token = self.next()?;
                let (key, value) = self.flow_pair(token.end, &FlowMappingEnd)?;
                self.push_pair(node, key, value);
            } else if !self.is(&[FlowMappingEnd])? {
                let key = self.node(false, false)?;
                let mark = self.peek()?.start;
                let value = self.empty_scalar(mark);
                self.push_pair(node, key, value);
            }
        }
        self.next()?;
        Ok(())
    }
}
