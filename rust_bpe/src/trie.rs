//! The vocabulary as a trie in flat arrays.

use crate::{Error, Result};

/// The root is nobody's child.
const NO_CHILD: u32 = 0;
const NO_TOKEN: u32 = u32::MAX;

/// Cells of the table, 4 bytes each: 1 GiB. A vocabulary that needs more (a million times the
/// alphabet's 256, ten million times 26) comes from a damaged file rather than from ECGs.
const MAX_CELLS: usize = 1 << 28;

pub(crate) struct Trie {
    num_symbols: usize,
    /// One row of `num_symbols` children per node.
    children: Vec<u32>,
    /// The token that ends at each node.
    tokens: Vec<u32>,
}

impl Trie {
    /// A trie that knows every single symbol.
    pub fn new(num_symbols: usize) -> Self {
        let mut trie = Self {
            num_symbols,
            children: vec![NO_CHILD; num_symbols],
            tokens: vec![NO_TOKEN],
        };
        for symbol in 0..num_symbols {
            trie.children[symbol] = trie.tokens.len() as u32;
            trie.add_node();
            trie.tokens[symbol + 1] = symbol as u32;
        }
        trie
    }

    fn add_node(&mut self) {
        let cells = self.children.len() + self.num_symbols;
        self.children.resize(cells, NO_CHILD);
        self.tokens.push(NO_TOKEN);
    }

    /// Adds merge `rank`'s token `id`. No token may be there already, so every token is the longest
    /// match of its own symbols: it encodes to itself.
    pub fn insert(&mut self, symbols: &[u8], id: u32, rank: usize) -> Result<()> {
        let mut node = 0;
        for &symbol in symbols {
            let cell = node * self.num_symbols + usize::from(symbol);
            if self.children[cell] == NO_CHILD {
                if self.children.len() + self.num_symbols > MAX_CELLS {
                    return Err(Error::VocabularyTooLarge {
                        rank,
                        limit: MAX_CELLS / self.num_symbols,
                        unit: "trie nodes",
                    });
                }
                self.children[cell] = self.tokens.len() as u32;
                self.add_node();
            }
            node = self.children[cell] as usize;
        }
        match self.tokens[node] {
            NO_TOKEN => {
                self.tokens[node] = id;
                Ok(())
            }
            first => Err(Error::DuplicateToken { rank, first }),
        }
    }

    /// The longest token that starts `symbols`, with its length; `None` only for no symbols.
    pub fn longest_match(&self, symbols: &[u8]) -> Option<(u32, usize)> {
        let mut node = 0;
        let mut found = None;
        for (&symbol, length) in symbols.iter().zip(1..) {
            let child = self.children[node * self.num_symbols + usize::from(symbol)];
            if child == NO_CHILD {
                break;
            }
            node = child as usize;
            let token = self.tokens[node];
            if token != NO_TOKEN {
                found = Some((token, length));
            }
        }
        found
    }
}
