//! Leads side by side in memory.

use crate::{Error, Result};

/// Leads that are computed at once. For 12 leads of 5000 samples, 6 or 12 at once would take 1.3 ms where 4
/// take 1.4, but a single lead would cost as much. On AVX2 4 take 1.1 ms and 12 take 0.9: not worth the
/// `unsafe` call that choosing it at run time needs.
pub(super) const LANES: usize = 4;

/// One sample of each lead of a group.
pub(super) type Block = [f64; LANES];

/// A recording as groups of leads; the last group is filled up with zeros.
#[derive(Clone, Debug)]
pub struct Leads {
    groups: Vec<Vec<Block>>,
    num_leads: usize,
    num_samples: usize,
}

impl Leads {
    /// From the samples of the first lead, of the second, and so on.
    ///
    /// # Errors
    /// [`Error::Memory`].
    pub fn new<T: Copy + Into<f64>>(signal: &[T], samples_per_lead: usize) -> Result<Self> {
        let rows: Vec<&[T]> = signal.chunks_exact(samples_per_lead.max(1)).collect();
        let group = |rows: &[&[T]]| {
            let mut blocks = vec_of(samples_per_lead)?;
            blocks.resize(samples_per_lead, [0.0; LANES]);
            for (lane, row) in rows.iter().enumerate() {
                for (block, &value) in blocks.iter_mut().zip(*row) {
                    block[lane] = value.into();
                }
            }
            Ok(blocks)
        };
        Ok(Self {
            groups: rows.chunks(LANES).map(group).collect::<Result<_>>()?,
            num_leads: rows.len(),
            num_samples: samples_per_lead,
        })
    }

    #[must_use]
    pub fn num_samples(&self) -> usize {
        self.num_samples
    }

    /// The leads that `apply` makes of each group.
    pub(super) fn map_groups(
        self,
        apply: impl Fn(Vec<Block>) -> Result<Vec<Block>>,
    ) -> Result<Self> {
        let groups: Vec<_> = self.groups.into_iter().map(apply).collect::<Result<_>>()?;
        Ok(Self {
            num_samples: groups.first().map_or(0, Vec::len),
            groups,
            ..self
        })
    }

    pub(super) fn into_rows(self) -> Result<Vec<f64>> {
        let mut signal = vec_of(self.num_leads.saturating_mul(self.num_samples))?;
        for (index, group) in self.groups.iter().enumerate() {
            for lane in 0..LANES.min(self.num_leads - index * LANES) {
                signal.extend(group.iter().map(|block| block[lane]));
            }
        }
        Ok(signal)
    }
}

/// An empty vector with room for so many values: where memory ends, an error and not an abort.
pub(super) fn vec_of<T>(length: usize) -> Result<Vec<T>> {
    let mut values = Vec::new();
    match values.try_reserve_exact(length) {
        Ok(()) => Ok(values),
        Err(_) => Err(Error::Memory {
            bytes: length.saturating_mul(size_of::<T>()),
        }),
    }
}
