//! One pass that writes a new byte over each occurrence of a pair and closes the gaps.
//!
//! The crate's only `unsafe` code is here: AVX-512 has one instruction that closes gaps (`vpcompressb`).

use super::corpus::{BOUNDARY, PADDING};

/// Write `id` over each `left`, `right`, from left to right. None of them is a boundary.
#[derive(Clone, Copy)]
pub(super) struct Replacement {
    pub left: u8,
    pub right: u8,
    pub id: u8,
}

/// How often each byte stood before and after a replaced pair: before it as it is after the pass, after
/// it as it was before the pass.
#[derive(Clone)]
pub(super) struct Neighbours {
    pub left: [u64; 256],
    pub right: [u64; 256],
}

impl Neighbours {
    pub fn new() -> Self {
        Self {
            left: [0; 256],
            right: [0; 256],
        }
    }

    pub fn add(&mut self, other: &Self) {
        for (sum, own) in self.left.iter_mut().zip(other.left) {
            *sum += own;
        }
        for (sum, own) in self.right.iter_mut().zip(other.right) {
            *sum += own;
        }
    }
}

/// Replaces in `bytes[..len]`, which starts with a boundary and ends with one, and puts the padding
/// behind what is left. Returns its length.
pub(super) fn replace(
    bytes: &mut [u8],
    len: usize,
    replacement: Replacement,
    neighbours: &mut Neighbours,
) -> usize {
    #[cfg(target_arch = "x86_64")]
    if avx512::is_available() {
        return avx512::replace(bytes, len, replacement, neighbours);
    }
    portable(bytes, len, replacement, neighbours)
}

/// What `read` has gone beyond `len` is padding that was copied: it is no part of the result.
fn finish(bytes: &mut [u8], len: usize, read: usize, written: usize) -> usize {
    let new_len = written - (read - len);
    bytes[new_len..new_len + PADDING].fill(BOUNDARY);
    new_len
}

/// For processors without the instructions that [`avx512`] needs: half as fast as it.
fn portable(
    bytes: &mut [u8],
    len: usize,
    Replacement { left, right, id }: Replacement,
    neighbours: &mut Neighbours,
) -> usize {
    // As long as the vectors of a plain x86-64 or AArch64; 32 and 64 were slower.
    const BLOCK: usize = 16;
    let mut read = 0;
    let mut written = 0;
    let mut before = BOUNDARY;
    while read < len {
        let end = read + BLOCK;
        let pairs = bytes[read..end].iter().zip(&bytes[read + 1..=end]);
        // No early exit: the loop is to become vector code.
        if pairs.fold(true, |none, (&a, &b)| none & !((a == left) & (b == right))) {
            before = bytes[end - 1];
            bytes.copy_within(read..end, written);
            read = end;
            written += BLOCK;
            continue;
        }
        while read < end {
            let byte = bytes[read];
            if byte == left && bytes[read + 1] == right {
                neighbours.left[usize::from(before)] += 1;
                neighbours.right[usize::from(bytes[read + 2])] += 1;
                before = id;
                read += 2;
            } else {
                before = byte;
                read += 1;
            }
            bytes[written] = before;
            written += 1;
        }
    }
    finish(bytes, len, read, written)
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::{
        __m512i, _mm512_cmpeq_epi8_mask, _mm512_loadu_si512, _mm512_mask_mov_epi8,
        _mm512_maskz_compress_epi8, _mm512_set1_epi8, _mm512_storeu_si512,
    };

    use super::{Neighbours, Replacement, finish};
    use crate::train::corpus::BOUNDARY;

    /// Bytes of a vector.
    const BLOCK: usize = 64;

    pub fn is_available() -> bool {
        is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vbmi2")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("popcnt")
    }

    /// As `portable`. Only where `is_available`.
    pub fn replace(
        bytes: &mut [u8],
        len: usize,
        replacement: Replacement,
        neighbours: &mut Neighbours,
    ) -> usize {
        debug_assert!(is_available());
        // SAFETY: the caller has asked `is_available`, which names every feature of both functions.
        unsafe {
            if replacement.left == replacement.right {
                replace_with::<true>(bytes, len, replacement, neighbours)
            } else {
                replace_with::<false>(bytes, len, replacement, neighbours)
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi2,bmi1,popcnt")]
    fn replace_with<const DOUBLE: bool>(
        bytes: &mut [u8],
        len: usize,
        Replacement { left, right, id }: Replacement,
        neighbours: &mut Neighbours,
    ) -> usize {
        let lefts = _mm512_set1_epi8(left as i8);
        let rights = _mm512_set1_epi8(right as i8);
        let ids = _mm512_set1_epi8(id as i8);
        let mut read = 0;
        let mut written = 0;
        // The last token before the block, then the block's.
        let mut tokens = [BOUNDARY; BLOCK + 1];
        // Bit 0 is set when the last block ended inside a pair, whose second half is not to be kept.
        let mut carry = 0_u64;
        while read < len {
            let block = load(bytes, read);
            let next = load(bytes, read + 1);
            let mut pairs = _mm512_cmpeq_epi8_mask(block, lefts)
                & _mm512_cmpeq_epi8_mask(next, rights)
                & !carry;
            if DOUBLE {
                pairs = every_other(pairs);
            }
            let dropped = pairs << 1 | carry;
            if pairs | carry == 0 {
                store(bytes, written, block);
                tokens[0] = bytes[read + BLOCK - 1];
                read += BLOCK;
                written += BLOCK;
                continue;
            }
            let replaced = _mm512_mask_mov_epi8(block, pairs | dropped, ids);
            store(&mut tokens, 1, replaced);
            let mut rest = pairs;
            while rest != 0 {
                let position = rest.trailing_zeros() as usize;
                neighbours.left[usize::from(tokens[position])] += 1;
                neighbours.right[usize::from(bytes[read + position + 2])] += 1;
                rest &= rest - 1;
            }
            store(
                bytes,
                written,
                _mm512_maskz_compress_epi8(!dropped, replaced),
            );
            tokens[0] = tokens[BLOCK];
            carry = pairs >> 63;
            read += BLOCK;
            written += BLOCK - dropped.count_ones() as usize;
        }
        finish(bytes, len, read, written)
    }

    /// The first, third, fifth ... bit of each run of ones.
    fn every_other(bits: u64) -> u64 {
        const EVEN: u64 = 0x5555_5555_5555_5555;
        let starts = bits & !(bits << 1);
        // Adding a run's first bit clears the run: what changes belongs to runs that start at an even bit.
        let from_even = bits & !bits.wrapping_add(starts & EVEN);
        (from_even & EVEN) | (bits & !from_even & !EVEN)
    }

    #[target_feature(enable = "avx512f")]
    fn load(bytes: &[u8], start: usize) -> __m512i {
        let block = &bytes[start..start + BLOCK];
        // SAFETY: `block` is 64 readable bytes, and the load needs no alignment.
        unsafe { _mm512_loadu_si512(block.as_ptr().cast()) }
    }

    #[target_feature(enable = "avx512f")]
    fn store(bytes: &mut [u8], start: usize, block: __m512i) {
        let bytes = &mut bytes[start..start + BLOCK];
        // SAFETY: `bytes` is 64 writable bytes, and the store needs no alignment.
        unsafe { _mm512_storeu_si512(bytes.as_mut_ptr().cast(), block) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn plain(tokens: &[u8], replacement: Replacement, neighbours: &mut Neighbours) -> Vec<u8> {
        let mut replaced = Vec::new();
        let mut position = 0;
        while position < tokens.len() {
            let pair = tokens.get(position..position + 2);
            if pair == Some(&[replacement.left, replacement.right]) {
                let before = *replaced.last().unwrap();
                neighbours.left[usize::from(before)] += 1;
                neighbours.right[usize::from(tokens[position + 2])] += 1;
                replaced.push(replacement.id);
                position += 2;
            } else {
                replaced.push(tokens[position]);
                position += 1;
            }
        }
        replaced
    }

    type Way = fn(&mut [u8], usize, Replacement, &mut Neighbours) -> usize;

    proptest! {
        #[test]
        fn every_way_equals_the_plain_one(
            runs in prop::collection::vec((prop_oneof![0_u8..4, Just(BOUNDARY)], 1_usize..90), 0..20),
            left in 0_u8..4,
            right in 0_u8..4,
        ) {
            let mut bytes = vec![BOUNDARY];
            bytes.extend(runs.into_iter().flat_map(|(byte, length)| {
                // Runs and alternations.
                (0..length).map(move |i| if length % 2 == 0 { byte } else { byte ^ (i as u8 & 1) })
            }));
            bytes.push(BOUNDARY);
            let replacement = Replacement { left, right, id: 4 };
            let mut expected_neighbours = Neighbours::new();
            let mut expected = plain(&bytes, replacement, &mut expected_neighbours);
            let expected_len = expected.len();
            expected.resize(expected_len + PADDING, BOUNDARY);

            let len = bytes.len();
            bytes.resize(len + PADDING, BOUNDARY);
            for way in [portable as Way, replace] {
                let mut bytes = bytes.clone();
                let mut neighbours = Neighbours::new();
                let new_len = way(&mut bytes, len, replacement, &mut neighbours);
                prop_assert_eq!(new_len, expected_len);
                prop_assert_eq!(&bytes[..new_len + PADDING], &expected[..]);
                prop_assert_eq!(neighbours.left, expected_neighbours.left);
                prop_assert_eq!(neighbours.right, expected_neighbours.right);
            }
        }
    }
}
