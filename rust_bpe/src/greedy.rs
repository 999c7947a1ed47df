//! The longest token that matches, from left to right, at one table load per symbol.
//!
//! The vocabulary's trie is closed into an automaton. A state is a node of the trie: the symbols read
//! since the last token that is certain. A symbol that has no child there makes tokens certain: the
//! longest token that starts the state's symbols, then the longest that starts what is left, until the
//! rest is a node in which the symbol has a child. All this is known beforehand for each state and
//! symbol, so a symbol is never read twice and repetitive input takes linear time (LinMaxMatch, Song et
//! al. 2021, "Fast WordPiece Tokenization"; here its failure links are followed at construction). Nodes
//! without children need no state: their token is certain at once.
//!
//! Each load waits for the one before, so several sequences are read in turns ([`STREAMS`]). A long
//! sequence is cut into segments, each read as if a token started it. That is right from the first
//! position at which the truth, carried on from the segment before, is in the same state: some tens of
//! symbols in ECGs. Where it never is, as in long flat lines, the segment has been read three times.
//!
//! 3,500 merges of ECGs have 4,500 states: 0.5 MB for `next`, which stays in the L2 cache, and as much
//! for `outputs`, which is read once per token.

use std::collections::VecDeque;

use crate::{Error, Result};

/// Sequences read in turns. On ECGs 1, 2, 4, 6, 8, 12 reach 280, 540, 880, 970, 1010, 840 MB/s, and 6
/// divides twelve leads.
const STREAMS: usize = 6;

/// Shorter sequences are not cut: finding the common state again costs more than it saves.
const MIN_SEGMENT: usize = 256;

/// Symbols between two emptyings of the logs, a power of two.
const BLOCK: usize = 512;

/// Cells of each table, 4 bytes each: 256 MiB. A vocabulary that needs more (260,000 nodes for an
/// alphabet of 256, two million for 26) comes from a damaged file rather than from ECGs.
const MAX_CELLS: usize = 1 << 26;

/// For the limit an alphabet is at least as large as this, because a node costs more than its cells.
const MIN_NODE_CELLS: usize = 16;

/// In `next`: the symbol makes tokens certain.
const CERTAIN: u32 = 1 << 31;

/// In `outputs`: no token is certain.
const NO_OUTPUT: u32 = u32::MAX;

/// In `outputs`: the state's own output, then that of the same symbol in the state that is left.
const CHAIN: u32 = u32::MAX - 1;

/// A state is the index of the first of its cells, one for each symbol; the root is 0.
pub(crate) struct Greedy {
    num_symbols: usize,
    vocab_size: u32,
    /// The state after each symbol, perhaps with [`CERTAIN`].
    next: Vec<u32>,
    /// The tokens that the symbol makes certain: an id (99 times in a hundred), `vocab_size` and more
    /// for one of `lists`, or [`CHAIN`].
    outputs: Vec<u32>,
    /// An output, then that of a cell.
    lists: Vec<(u32, u32)>,
    /// For each state, what becomes of it at the end: an output, and the state that is left.
    ends: Vec<(u32, u32)>,
}

/// What is still to be written of several tokens that become certain at once.
enum Part {
    Output(u32),
    Cell(u32),
}

/// A sequence being read.
#[derive(Default)]
struct Stream {
    state: u32,
    ids: Vec<u32>,
}

impl Greedy {
    /// The ids of a sequence of symbols, all of the alphabet.
    pub fn encode(&self, symbols: &[u8]) -> Vec<u32> {
        let segment = symbols.len() / STREAMS;
        let (stream, rest) = if segment < MIN_SEGMENT {
            (Stream::default(), symbols)
        } else {
            let (segments, rest) = symbols.split_at(segment * STREAMS);
            (self.read_segments(rows(segments, segment)), rest)
        };
        let mut streams = [stream];
        self.read([rest], &mut streams);
        let [stream] = streams;
        self.end(stream)
    }

    fn read_segments(&self, segments: [&[u8]; STREAMS]) -> Stream {
        let mut streams: [Stream; STREAMS] = Default::default();
        self.read(segments, &mut streams);
        let [mut stream, guesses @ ..] = streams;
        for (symbols, guess) in segments[1..].iter().zip(guesses) {
            self.carry_on(&mut stream, symbols, &guess);
        }
        stream
    }

    /// The ids of sequences of equal length, each by itself, one after the other.
    pub fn encode_rows(&self, symbols: &[u8], length: usize) -> Vec<u32> {
        let mut ids = Vec::new();
        let mut groups = symbols.chunks_exact((length * STREAMS).max(1));
        for group in groups.by_ref() {
            let mut streams: [Stream; STREAMS] = Default::default();
            self.read(rows(group, length), &mut streams);
            for stream in streams {
                ids.extend(self.end(stream));
            }
        }
        for row in groups.remainder().chunks(length.max(1)) {
            ids.extend(self.encode(row));
        }
        ids
    }

    /// Reads on in sequences of equal length.
    #[allow(clippy::needless_range_loop)] // Over several arrays at once.
    fn read<const N: usize>(&self, sequences: [&[u8]; N], streams: &mut [Stream; N]) {
        // The cells that made tokens certain. Logging them, at first for every symbol, takes no branch,
        // where every second one would be mispredicted.
        let mut logs = [[0; BLOCK]; N];
        let length = sequences[0].len();
        for start in (0..length).step_by(BLOCK) {
            let stop = length.min(start + BLOCK);
            let blocks = sequences.map(|symbols| &symbols[start..stop]);
            let mut states: [u32; N] = std::array::from_fn(|index| streams[index].state);
            let mut logged = [0; N];
            for position in 0..stop - start {
                for index in 0..N {
                    let cell = states[index] + u32::from(blocks[index][position]);
                    let next = self.next[cell as usize];
                    // Never above BLOCK - 1; the mask spares a check.
                    logs[index][logged[index] & (BLOCK - 1)] = cell;
                    logged[index] += (next / CERTAIN) as usize;
                    states[index] = next % CERTAIN;
                }
            }
            for index in 0..N {
                streams[index].state = states[index];
                let log = &logs[index][..logged[index]];
                streams[index].ids.reserve(log.len());
                for &cell in log {
                    self.push(cell, &mut streams[index].ids);
                }
            }
        }
    }

    /// Reads on in `symbols`, of which `guess` is what they give from the root.
    fn carry_on(&self, stream: &mut Stream, symbols: &[u8], guess: &Stream) {
        let mut replay = Stream::default();
        for &symbol in symbols {
            if stream.state == replay.state {
                stream.state = guess.state;
                stream.ids.extend(&guess.ids[replay.ids.len()..]);
                return;
            }
            self.step(stream, symbol);
            self.step(&mut replay, symbol);
        }
    }

    fn step(&self, stream: &mut Stream, symbol: u8) {
        let cell = stream.state + u32::from(symbol);
        let next = self.next[cell as usize];
        stream.state = next % CERTAIN;
        if next >= CERTAIN {
            self.push(cell, &mut stream.ids);
        }
    }

    fn end(&self, Stream { mut state, mut ids }: Stream) -> Vec<u32> {
        while state != 0 {
            let (output, left) = self.ends[state as usize / self.num_symbols];
            self.push_parts(Part::Output(output), &mut ids);
            state = left;
        }
        ids
    }

    fn push(&self, cell: u32, ids: &mut Vec<u32>) {
        let output = self.outputs[cell as usize];
        if output < self.vocab_size {
            ids.push(output);
        } else {
            self.push_parts(Part::Cell(cell), ids);
        }
    }

    /// The output that has that of the cell `then` after `first`.
    fn list(&mut self, first: u32, then: usize) -> u32 {
        if self.outputs[then] == NO_OUTPUT {
            return first;
        }
        self.lists.push((first, then as u32));
        self.vocab_size + self.lists.len() as u32 - 1
    }

    #[cold]
    fn push_parts(&self, part: Part, ids: &mut Vec<u32>) {
        let num_symbols = self.num_symbols as u32;
        let mut parts = vec![part];
        while let Some(part) = parts.pop() {
            let output = match part {
                Part::Output(output) => output,
                Part::Cell(cell) => match self.outputs[cell as usize] {
                    NO_OUTPUT => continue,
                    CHAIN => {
                        let (output, left) = self.ends[(cell / num_symbols) as usize];
                        parts.push(Part::Cell(left + cell % num_symbols));
                        output
                    }
                    output => output,
                },
            };
            match output.checked_sub(self.vocab_size) {
                None => ids.push(output),
                Some(index) => {
                    let (first, cell) = self.lists[index as usize];
                    parts.extend([Part::Cell(cell), Part::Output(first)]);
                }
            }
        }
    }
}

fn rows(symbols: &[u8], length: usize) -> [&[u8]; STREAMS] {
    std::array::from_fn(|index| &symbols[index * length..][..length])
}

const NO_CHILD: u32 = u32::MAX;
const NO_TOKEN: u32 = u32::MAX;

/// In `children`: a child without children, as its token.
const LEAF: u32 = 1 << 31;

/// The trie of a vocabulary, before it is closed.
pub(crate) struct Trie {
    num_symbols: usize,
    /// Of each node that has children, by symbol: the child's first cell, or its token with [`LEAF`].
    children: Vec<u32>,
    /// The token that ends at each node that has children.
    tokens: Vec<u32>,
    /// The cell of each token.
    cells: Vec<usize>,
}

impl Trie {
    /// A trie that knows every single symbol.
    pub fn new(num_symbols: usize) -> Self {
        Self {
            num_symbols,
            children: (0..num_symbols as u32).map(|id| LEAF | id).collect(),
            tokens: vec![NO_TOKEN],
            cells: (0..num_symbols).collect(),
        }
    }

    /// Adds the token that merge `rank` makes of token `left` and the symbols of the right one. No token
    /// may be there already, so every token is the longest match of its own symbols: it encodes to
    /// itself.
    pub fn insert(&mut self, left: u32, right: &[u8], rank: usize) -> Result<()> {
        let mut cell = self.cells[left as usize];
        for &symbol in right {
            cell = self.node(cell, rank)? + usize::from(symbol);
        }
        let id = self.cells.len() as u32;
        let first = match self.children[cell] {
            NO_CHILD => std::mem::replace(&mut self.children[cell], LEAF | id),
            child if child >= LEAF => child - LEAF,
            child => {
                let token = &mut self.tokens[child as usize / self.num_symbols];
                match *token {
                    NO_TOKEN => std::mem::replace(token, id),
                    first => first,
                }
            }
        };
        self.cells.push(cell);
        match first {
            NO_TOKEN => Ok(()),
            first => Err(Error::DuplicateToken { rank, first }),
        }
    }

    /// The first cell of the node at `cell`, which is given children if it has none.
    fn node(&mut self, cell: usize, rank: usize) -> Result<usize> {
        let child = self.children[cell];
        if child < LEAF {
            return Ok(child as usize);
        }
        let limit = MAX_CELLS / self.num_symbols.max(MIN_NODE_CELLS);
        if self.tokens.len() == limit {
            let unit = "trie nodes";
            return Err(Error::VocabularyTooLarge { rank, limit, unit });
        }
        let node = self.children.len();
        self.children.resize(node + self.num_symbols, NO_CHILD);
        self.children[cell] = node as u32;
        self.tokens.push(match child {
            NO_CHILD => NO_TOKEN,
            leaf => leaf - LEAF,
        });
        Ok(node)
    }

    /// The automaton. A node's links lead to nodes nearer to the root, which are closed before it.
    pub fn close(self) -> Greedy {
        let num_symbols = self.num_symbols;
        let mut greedy = Greedy {
            num_symbols,
            vocab_size: self.cells.len() as u32,
            outputs: vec![NO_OUTPUT; self.children.len()],
            next: self.children,
            lists: Vec::new(),
            ends: vec![(NO_OUTPUT, 0); self.tokens.len()],
        };
        // Breadth first.
        let mut nodes = VecDeque::from([0]);
        while let Some(node) = nodes.pop_front() {
            let (output, left) = greedy.ends[node / num_symbols];
            for symbol in 0..num_symbols {
                let (cell, after) = (node + symbol, left as usize + symbol);
                match greedy.next[cell] {
                    NO_CHILD => {
                        greedy.next[cell] = greedy.next[after] | CERTAIN;
                        greedy.outputs[cell] = match greedy.outputs[after] {
                            NO_OUTPUT => output,
                            _ => CHAIN,
                        };
                    }
                    child if child >= LEAF => {
                        greedy.next[cell] = CERTAIN;
                        greedy.outputs[cell] = child - LEAF;
                    }
                    child => {
                        let index = child as usize / num_symbols;
                        greedy.ends[index] = match self.tokens[index] {
                            NO_TOKEN => {
                                let left = greedy.next[after] % CERTAIN;
                                (greedy.list(output, after), left)
                            }
                            token => (token, 0),
                        };
                        nodes.push_back(child as usize);
                    }
                }
            }
        }
        greedy
    }
}
