//! Cleaning a recording: filters forwards and backwards, wavelet shrinkage, a cubic spline to another length.
//!
//! All of it runs along time, where one value waits for the last; so the leads are laid side by side and
//! a block of them is computed at once. Filters and wavelets add and multiply in the order of
//! `scipy.signal.filtfilt` and `PyWavelets`, so that the results are theirs to the last bit wherever those
//! are compiled without fused multiply-add (the x86-64 wheels).

mod filter;
mod leads;
mod spline;
mod wavelet;

pub use filter::{Filter, Section};
pub use leads::Leads;
pub use wavelet::Shrinkage;

use leads::Block;

use crate::{Error, Result};

/// What is done to every lead, in this order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cleaning {
    pub filters: Vec<Filter>,
    pub shrinkage: Option<Shrinkage>,
    /// Length after resampling; `None` leaves it.
    pub num_samples: Option<usize>,
}

impl Cleaning {
    /// The cleaned leads, one after the other.
    ///
    /// # Errors
    /// [`Error::SignalTooShort`] for one of the steps; [`Error::Memory`].
    pub fn apply(&self, leads: Leads) -> Result<Vec<f64>> {
        self.check_length(leads.num_samples())?;
        leads
            .map_groups(|group| self.apply_to_group(group))?
            .into_rows()
    }

    fn check_length(&self, samples: usize) -> Result<()> {
        let filters = self.filters.iter().map(|filter| {
            let padding = filter.padding();
            (
                format!("a filter's padding of {padding}"),
                padding.saturating_add(1),
            )
        });
        let shrinkage = self
            .shrinkage
            .iter()
            .map(|shrinkage| ("the levels of the wavelet".to_owned(), shrinkage.shortest()));
        let spline = self
            .num_samples
            .iter()
            .filter(|&&num_samples| num_samples != samples)
            .map(|_| ("a cubic spline".to_owned(), spline::SHORTEST));
        let steps = filters.chain(shrinkage).chain(spline);
        match steps.max_by_key(|&(_, least)| least) {
            Some((step, least)) if samples < least => Err(Error::SignalTooShort {
                samples,
                least,
                step,
            }),
            _ => Ok(()),
        }
    }

    fn apply_to_group(&self, mut group: Vec<Block>) -> Result<Vec<Block>> {
        for filter in &self.filters {
            filter.apply(&mut group);
        }
        if let Some(shrinkage) = &self.shrinkage {
            shrinkage.apply(&mut group);
        }
        match self.num_samples {
            Some(num_samples) if num_samples != group.len() => {
                spline::resample(&group, num_samples)
            }
            _ => Ok(group),
        }
    }
}
