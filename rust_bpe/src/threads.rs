//! How many threads, and where they live.

use rayon::iter::{
    IndexedParallelIterator, IntoParallelRefIterator, IntoParallelRefMutIterator, ParallelIterator,
};
use rayon::slice::ParallelSliceMut;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::{Error, Result};

/// More than any machine has cores; a mistyped number must not start as many threads.
pub(crate) const MAX_THREADS: usize = 1024;

/// A pool of its own for one call; `None` where one thread is enough.
///
/// `num_threads`: `None` for `RAYON_NUM_THREADS` or, without it, all cores. Rayon's global pool is not
/// used: a process forked after its first use (a `DataLoader` worker, `multiprocessing`) inherits the
/// pool without its threads and waits for them for ever. Starting a pool of two threads takes 60 us.
pub(crate) fn pool(num_threads: Option<usize>) -> Result<Option<ThreadPool>> {
    match num_threads {
        Some(num_threads) if !(1..=MAX_THREADS).contains(&num_threads) => {
            Err(Error::NumThreads { num_threads })
        }
        Some(1) => Ok(None),
        _ => {
            let pool = ThreadPoolBuilder::new()
                .num_threads(num_threads.unwrap_or(0))
                .build()
                .map_err(|error| Error::ThreadPool {
                    reason: error.to_string(),
                })?;
            Ok((pool.current_num_threads() > 1).then_some(pool))
        }
    }
}

/// `apply` to each item and its index, in the items' order; of several errors the first item's.
pub(crate) fn map<T: Sync, R: Send>(
    items: &[T],
    num_threads: Option<usize>,
    apply: impl Fn(usize, &T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let num_threads = match (items.len(), num_threads) {
        (0 | 1, Some(1..=MAX_THREADS) | None) => Some(1),
        _ => num_threads,
    };
    let serial = |(index, item)| apply(index, item);
    match pool(num_threads)? {
        None => items.iter().enumerate().map(serial).collect(),
        Some(pool) => {
            let results: Vec<Result<R>> =
                pool.install(|| items.par_iter().enumerate().map(serial).collect());
            results.into_iter().collect()
        }
    }
}

/// Threads that stay for many small pieces of work; none beside the calling one where that is enough.
pub(crate) struct Workers(Option<ThreadPool>);

impl Workers {
    pub fn new(num_threads: Option<usize>) -> Result<Self> {
        Ok(Self(pool(num_threads)?))
    }

    pub fn num_threads(&self) -> usize {
        self.0.as_ref().map_or(1, ThreadPool::current_num_threads)
    }

    /// What `apply` makes of each item, in the items' order.
    pub fn map<T: Sync, R: Send>(&self, items: &[T], apply: impl Fn(&T) -> R + Sync) -> Vec<R> {
        match &self.0 {
            None => items.iter().map(apply).collect(),
            Some(pool) => pool.install(|| items.par_iter().map(&apply).collect()),
        }
    }

    /// As `map`, of items that `apply` may change.
    pub fn map_mut<T: Send, R: Send>(
        &self,
        items: &mut [T],
        apply: impl Fn(&mut T) -> R + Sync,
    ) -> Vec<R> {
        match &self.0 {
            None => items.iter_mut().map(apply).collect(),
            Some(pool) => pool.install(|| items.par_iter_mut().map(&apply).collect()),
        }
    }

    /// `apply` to each item: on the threads, or one after the other where that is quicker.
    pub fn for_each_mut<T: Send>(
        &self,
        items: &mut [T],
        in_parallel: bool,
        apply: impl Fn(&mut T) + Sync,
    ) {
        match &self.0 {
            Some(pool) if in_parallel => pool.install(|| items.par_iter_mut().for_each(&apply)),
            _ => items.iter_mut().for_each(apply),
        }
    }

    /// All items folded into one value, by parts whose values are then merged.
    pub fn fold_mut<T: Send, R: Send>(
        &self,
        items: &mut [T],
        start: impl Fn() -> R + Sync,
        fold: impl Fn(&mut R, &mut T) + Sync,
        merge: impl Fn(&mut R, &R),
    ) -> R {
        let fold_part = |part: &mut [T]| {
            let mut value = start();
            part.iter_mut().for_each(|item| fold(&mut value, item));
            value
        };
        let Some(pool) = &self.0 else {
            return fold_part(items);
        };
        // Two parts for each thread: one that is held up leaves work to the others.
        let part = items.len().div_ceil(2 * pool.current_num_threads()).max(1);
        let parts: Vec<R> = pool.install(|| items.par_chunks_mut(part).map(fold_part).collect());
        parts.iter().fold(start(), |mut value, part| {
            merge(&mut value, part);
            value
        })
    }
}
