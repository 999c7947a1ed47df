//! The Python module. Nothing reads a Python array without the GIL, because another thread could change
//! it meanwhile: symbols are copied before it is released, signals are quantised or laid out, which is as
//! quick.

use std::time::{Duration, Instant};

use numpy::{
    Element, IntoPyArray, PyArray1, PyArray2, PyArrayDescrMethods, PyArrayDyn, PyArrayMethods,
    PyReadonlyArrayDyn, PyUntypedArray, PyUntypedArrayMethods,
};
use pyo3::exceptions::{PyKeyError, PyMemoryError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;

use crate::{
    Algorithm, Cleaning, Corpus, Error, Filter, LeadBoundary, Leads, Pair, Quantizer, Section,
    Shrinkage, SignalEncoding, TrainOptions,
};

/// Time between two looks at Ctrl-C and the progress callback: short for a person, long against the
/// 5 ms for which a busy Python thread may keep the GIL.
const REPORT_INTERVAL: Duration = Duration::from_millis(100);

/// Records taken from a list between two looks at Ctrl-C.
const SIGNAL_CHECK_RECORDS: usize = 1024;

impl From<Error> for PyErr {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        let mut cause = &error;
        while let Error::Item { source, .. } = cause {
            cause = source;
        }
        match cause {
            Error::TokenId { .. } => PyKeyError::new_err(message),
            Error::Memory { .. } => PyMemoryError::new_err(message),
            Error::ThreadPool { .. } => PyRuntimeError::new_err(message),
            _ => PyValueError::new_err(message),
        }
    }
}

/// What the package `rust_bpe` exports.
#[pymodule(name = "_core")]
mod module {
    #[pymodule_export]
    use super::{Bpe, clean, filtfilt, quantize, train};

    #[pymodule_export]
    #[allow(non_upper_case_globals)]
    const __version__: &str = env!("CARGO_PKG_VERSION");
}

/// Learn merges from records of symbols.
///
/// The most frequent adjacent pair (overlapping windows; ties to the smallest left id, then the
/// smallest right id) becomes a token, again and again. Records are boundaries. The result does not
/// depend on the number of threads.
///
/// Args:
///     records: iterable of 1-D uint8 arrays of symbols 0..num_symbols-1; consumed once.
///     num_merges: how many; fewer are returned only when no pair is left.
///     num_symbols: size of the alphabet, 1 to 256.
///     max_token_length: pairs that would make a longer token (in symbols) are never merged.
///     num_threads: None for RAYON_NUM_THREADS or, without it, all cores.
///     progress: called as progress(done_merges, num_merges) at the start, at the end, and at most
///         ten times a second between; an exception in it ends the training.
///
/// Returns:
///     uint32 array (merges, 2): the left and right id of each merge. Merge r makes id num_symbols + r.
///
/// Raises:
///     TypeError: a record is not a uint8 array.
///     ValueError: a record is not 1-D or holds a symbol outside the alphabet; an option is out of range.
#[pyfunction]
#[pyo3(signature = (records, num_merges, *, num_symbols=26, max_token_length=None, num_threads=None, progress=None))]
fn train<'py>(
    py: Python<'py>,
    records: &Bound<'py, PyAny>,
    num_merges: isize,
    num_symbols: isize,
    max_token_length: Option<isize>,
    num_threads: Option<isize>,
    progress: Option<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyArray2<u32>>> {
    let num_merges = count("num_merges", num_merges)?;
    let options = TrainOptions {
        num_merges,
        max_token_length: optional_count("max_token_length", max_token_length)?,
        num_threads: optional_count("num_threads", num_threads)?,
    };
    let mut reporter = Reporter::new(progress, num_merges)?;
    let corpus = corpus_of(records, count("num_symbols", num_symbols)?)?;
    let merges = py.detach(|| crate::train(corpus, &options, |done| reporter.report(done)))?;
    reporter.finish(py, merges.len())?;
    pairs_array(py, merges)
}

/// Symbols of a signal: num_symbols equal bins between low and high, values outside in the outermost.
///
/// x' = (x - low) / (high - low + 1e-6), clipped to [0, 1], in float64; the symbol is
/// min(floor(num_symbols * x'), num_symbols - 1).
///
/// Args:
///     signal: float32 or float64 array, 1-D or 2-D, with any strides.
///     low, high: the range, in the signal's unit; finite, low <= high.
///     num_symbols: size of the alphabet, 1 to 256.
///
/// Returns:
///     uint8 array of the signal's shape.
///
/// Raises:
///     TypeError: the signal is not a float32 or float64 array.
///     ValueError: it holds NaN or infinity, or is not 1-D or 2-D; the range is not one.
#[pyfunction]
#[pyo3(signature = (signal, low, high, *, num_symbols=26))]
fn quantize<'py>(
    signal: &Bound<'py, PyAny>,
    low: f64,
    high: f64,
    num_symbols: isize,
) -> PyResult<Bound<'py, PyArrayDyn<u8>>> {
    let quantizer = Quantizer::new(low, high, count("num_symbols", num_symbols)?)?;
    let array = SignalArray::new(signal)?;
    let shape = match array.shape() {
        shape @ ([_] | [_, _]) => shape.to_vec(),
        shape => return Err(wrong_ndim("the signal", "1-D or 2-D", shape.len())),
    };
    let symbols = match &array {
        SignalArray::Float32(values) => quantizer.quantize(values.as_slice()?),
        SignalArray::Float64(values) => quantizer.quantize(values.as_slice()?),
    };
    let symbols = symbols.map_err(|error| match shape[..] {
        [_, samples] => error.in_rows_of(samples),
        _ => error,
    })?;
    symbols.into_pyarray(signal.py()).reshape(shape)
}

/// A recursive filter over each lead, forwards and backwards: scipy.signal.filtfilt.
///
/// Args:
///     signal: (leads, samples) float32 or float64 array, with any strides; computed in float64.
///     b, a: the filter's coefficients.
///     zi: its state after a constant input of 1, scipy.signal.lfilter_zi(b, a).
///     padding: samples by which each end is continued, point-symmetrically to the last one; filtfilt's
///         default is 3 * max(len(a), len(b)).
///
/// Returns:
///     float64 array of the signal's shape. NaN and infinity spread as in scipy.
///
/// Raises:
///     TypeError: the signal is not a float32 or float64 array, or the filter not numbers.
///     ValueError: the signal is not 2-D or not longer than the padding; b, a and zi do not fit together.
#[pyfunction]
#[pyo3(signature = (signal, b, a, zi, padding))]
fn filtfilt<'py>(
    signal: &Bound<'py, PyAny>,
    b: Vec<f64>,
    a: Vec<f64>,
    zi: Vec<f64>,
    padding: isize,
) -> PyResult<Bound<'py, PyArray2<f64>>> {
    let cleaning = Cleaning {
        filters: vec![filter_of((vec![(b, a, zi)], padding))?],
        ..Cleaning::default()
    };
    cleaned(signal, &cleaning)
}

/// Several filters, wavelet shrinkage and a cubic spline over each lead, in one go.
///
/// Args:
///     signal: (leads, samples) float32 or float64 array, with any strides; computed in float64.
///     filters: one (sections, padding) for each filter, its sections (b, a, zi) and the padding as in filtfilt.
///         All sections run forwards, then all backwards, as in scipy.signal.sosfiltfilt.
///     wavelet: the low-pass analysis filter of an orthogonal wavelet, pywt.Wavelet(name).dec_lo; None leaves
///         the shrinkage out. The signal is mirrored at its ends (mode "symmetric").
///     levels: of the wavelet. The details of all are moved towards 0 by one threshold for each lead, the
///         median absolute detail of the deepest over 0.6745; those up to 1e-10 become 0.
///     num_samples: length to which the cubic spline through the samples (not-a-knot) is evaluated, the first
///         and the last sample kept; None leaves the length.
///
/// Returns:
///     float64 array (leads, num_samples). NaN and infinity spread as in scipy.
///
/// Raises:
///     TypeError: the signal is not a float32 or float64 array, or another argument of another type.
///     ValueError: the signal is not 2-D or too short for a step; a filter, the wavelet or levels cannot be.
///     MemoryError: so many num_samples do not fit.
#[pyfunction]
#[pyo3(signature = (signal, filters, *, wavelet=None, levels=4, num_samples=None))]
fn clean<'py>(
    signal: &Bound<'py, PyAny>,
    filters: Vec<FilterParts>,
    wavelet: Option<Vec<f64>>,
    levels: isize,
    num_samples: Option<isize>,
) -> PyResult<Bound<'py, PyArray2<f64>>> {
    let levels = count("levels", levels)?;
    let filters = filters.into_iter().enumerate().map(|(index, filter)| {
        filter_of(filter).map_err(|error| in_item(signal, error, "filter", index))
    });
    let cleaning = Cleaning {
        filters: filters.collect::<PyResult<_>>()?,
        shrinkage: wavelet
            .map(|low_pass| Shrinkage::new(&low_pass, levels))
            .transpose()?,
        num_samples: optional_count("num_samples", num_samples)?,
    };
    cleaned(signal, &cleaning)
}

/// The sections (b, a, zi) of a filter, and its padding.
type FilterParts = (Vec<(Vec<f64>, Vec<f64>, Vec<f64>)>, isize);

fn filter_of((sections, padding): FilterParts) -> PyResult<Filter> {
    let padding = count("padding", padding)?;
    let sections = sections
        .iter()
        .map(|(b, a, zi)| Section::new(b, a, zi))
        .collect::<crate::Result<_>>()?;
    Ok(Filter::new(sections, padding))
}

fn cleaned<'py>(
    signal: &Bound<'py, PyAny>,
    cleaning: &Cleaning,
) -> PyResult<Bound<'py, PyArray2<f64>>> {
    let array = SignalArray::new(signal)?;
    let &[num_leads, samples] = array.shape() else {
        let ndim = array.shape().len();
        return Err(wrong_ndim("the signal", "2-D (leads, samples)", ndim));
    };
    let leads = match &array {
        SignalArray::Float32(values) => Leads::new(values.as_slice()?, samples)?,
        SignalArray::Float64(values) => Leads::new(values.as_slice()?, samples)?,
    };
    let py = signal.py();
    let cleaned = py.detach(|| cleaning.apply(leads))?;
    cleaned
        .into_pyarray(py)
        .reshape([num_leads, cleaning.num_samples.unwrap_or(samples)])
}

/// A vocabulary: num_symbols symbols, then one token per merge.
///
/// Args:
///     merges: (merges, 2) integers, the left and right id of each merge, as train returns them.
///     num_symbols: size of the alphabet, 1 to 256.
///
/// Raises:
///     ValueError: a merge joins tokens that are not defined before it, or makes symbols that another
///         token already has. So every token encodes (greedily) to itself.
#[pyclass(frozen, module = "rust_bpe")]
struct Bpe {
    bpe: crate::Bpe,
}

#[pymethods]
impl Bpe {
    #[new]
    #[pyo3(signature = (merges, num_symbols=26))]
    fn new(merges: &Bound<'_, PyAny>, num_symbols: isize) -> PyResult<Self> {
        let num_symbols = count("num_symbols", num_symbols)?;
        let merges = merges_of(merges, num_symbols)?;
        let bpe = crate::Bpe::new(merges, num_symbols)?;
        Ok(Self { bpe })
    }

    fn __getnewargs__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyArray2<u32>>, usize)> {
        Ok((self.merges(py)?, self.num_symbols()))
    }

    fn __repr__(&self) -> String {
        format!(
            "Bpe(num_symbols={}, num_merges={})",
            self.num_symbols(),
            self.num_merges()
        )
    }

    #[getter]
    fn num_symbols(&self) -> usize {
        self.bpe.num_symbols()
    }

    #[getter]
    fn num_merges(&self) -> usize {
        self.bpe.merges().len()
    }

    /// num_symbols + num_merges.
    #[getter]
    fn vocab_size(&self) -> usize {
        self.bpe.vocab_size()
    }

    /// uint32 array (merges, 2), a copy.
    #[getter]
    fn merges<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray2<u32>>> {
        pairs_array(py, self.bpe.merges().to_vec())
    }

    /// uint32 array (vocab_size,): the symbols in each token, a copy.
    #[getter]
    fn token_lengths<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<u32>> {
        PyArray1::from_slice(py, self.bpe.token_lengths())
    }

    /// The symbols of one token, uint8. KeyError if there is no such token.
    fn token<'py>(&self, py: Python<'py>, id: i64) -> PyResult<Bound<'py, PyArray1<u8>>> {
        let symbols = self.bpe.token(self.token_id(id)?)?;
        Ok(PyArray1::from_slice(py, symbols))
    }

    /// The longest token that matches, from left to right: the ECG-Byte paper's encoding.
    ///
    /// symbols: 1-D uint8 array. Returns a uint32 array of ids.
    fn encode_greedy<'py>(
        &self,
        symbols: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyArray1<u32>>> {
        self.encode(symbols, Algorithm::Greedy)
    }

    /// The merges in the order in which they were learnt, each from left to right.
    ///
    /// symbols: 1-D uint8 array. Returns a uint32 array of ids.
    fn encode_bpe<'py>(&self, symbols: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyArray1<u32>>> {
        self.encode(symbols, Algorithm::Bpe)
    }

    /// encode_greedy of each sequence, in order. num_threads: None for all cores.
    #[pyo3(signature = (sequences, *, num_threads=None))]
    fn encode_greedy_batch<'py>(
        &self,
        sequences: &Bound<'py, PyAny>,
        num_threads: Option<isize>,
    ) -> PyResult<Vec<Bound<'py, PyArray1<u32>>>> {
        self.encode_batch(sequences, Algorithm::Greedy, num_threads)
    }

    /// encode_bpe of each sequence, in order. num_threads: None for all cores.
    #[pyo3(signature = (sequences, *, num_threads=None))]
    fn encode_bpe_batch<'py>(
        &self,
        sequences: &Bound<'py, PyAny>,
        num_threads: Option<isize>,
    ) -> PyResult<Vec<Bound<'py, PyArray1<u32>>>> {
        self.encode_batch(sequences, Algorithm::Bpe, num_threads)
    }

    /// The symbols of the ids, uint8. KeyError for an id outside the vocabulary.
    fn decode<'py>(&self, ids: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyArray1<u8>>> {
        let (py, ids) = (ids.py(), self.token_ids(ids)?);
        let symbols = py.detach(|| self.bpe.decode(&ids))?;
        Ok(symbols.into_pyarray(py))
    }

    /// int64 array (ids, 2): where each token starts and stops in the decoded symbols.
    fn spans<'py>(&self, ids: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyArray2<i64>>> {
        let (py, ids) = (ids.py(), self.token_ids(ids)?);
        let flat: Vec<i64> = self
            .bpe
            .spans(&ids)?
            .into_iter()
            .flat_map(|(start, stop)| [start as i64, stop as i64])
            .collect();
        flat.into_pyarray(py).reshape([ids.len(), 2])
    }

    /// Quantise a signal, flatten it lead-major and encode it.
    ///
    /// signal: (leads, samples) float32 or float64; low, high: as in quantize. algorithm: "greedy" or
    /// "bpe". lead_boundary: "cross" lets a token span two leads (the paper's way), "split" does not.
    /// Returns a uint32 array of ids.
    #[pyo3(signature = (signal, low, high, *, algorithm="greedy", lead_boundary="cross"))]
    fn encode_signal<'py>(
        &self,
        signal: &Bound<'py, PyAny>,
        low: f64,
        high: f64,
        algorithm: &str,
        lead_boundary: &str,
    ) -> PyResult<Bound<'py, PyArray1<u32>>> {
        let encoding = signal_encoding(algorithm, lead_boundary)?;
        let py = signal.py();
        let signal = Signal::new(signal, &self.bpe, (low, high))??;
        let ids = py.detach(|| signal.encode(&self.bpe, encoding))?;
        Ok(ids.into_pyarray(py))
    }

    /// encode_signal of each signal, in order. low, high: numbers, or one number per signal.
    #[pyo3(signature = (signals, low, high, *, algorithm="greedy", lead_boundary="cross", num_threads=None))]
    #[allow(clippy::too_many_arguments)]
    fn encode_signal_batch<'py>(
        &self,
        signals: &Bound<'py, PyAny>,
        low: &Bound<'py, PyAny>,
        high: &Bound<'py, PyAny>,
        algorithm: &str,
        lead_boundary: &str,
        num_threads: Option<isize>,
    ) -> PyResult<Vec<Bound<'py, PyArray1<u32>>>> {
        let py = signals.py();
        let encoding = signal_encoding(algorithm, lead_boundary)?;
        let num_threads = optional_count("num_threads", num_threads)?;
        let signals: Vec<_> = signals.try_iter()?.collect::<PyResult<_>>()?;
        let low = bounds("low", low, signals.len())?;
        let high = bounds("high", high, signals.len())?;
        let quantized = |(index, signal): (usize, &Bound<'py, PyAny>)| {
            let quantized = Signal::new(signal, &self.bpe, (low[index], high[index]))
                .map_err(|error| in_item(signal, error, "signal", index))?;
            Ok(quantized.map_err(|error| error.in_item("signal", index))?)
        };
        let signals: Vec<Signal> = signals
            .iter()
            .enumerate()
            .map(quantized)
            .collect::<PyResult<_>>()?;
        let batch = py.detach(|| {
            crate::threads::map(&signals, num_threads, |index, signal| {
                signal
                    .encode(&self.bpe, encoding)
                    .map_err(|error| error.in_item("signal", index))
            })
        })?;
        Ok(arrays(py, batch))
    }
}

impl Bpe {
    fn encode<'py>(
        &self,
        symbols: &Bound<'py, PyAny>,
        algorithm: Algorithm,
    ) -> PyResult<Bound<'py, PyArray1<u32>>> {
        let (py, symbols) = (symbols.py(), symbols_of(symbols)?);
        let ids = py.detach(|| self.bpe.encode(&symbols, algorithm))?;
        Ok(ids.into_pyarray(py))
    }

    fn encode_batch<'py>(
        &self,
        sequences: &Bound<'py, PyAny>,
        algorithm: Algorithm,
        num_threads: Option<isize>,
    ) -> PyResult<Vec<Bound<'py, PyArray1<u32>>>> {
        let py = sequences.py();
        let num_threads = optional_count("num_threads", num_threads)?;
        let sequences = items_of(sequences, "sequence", symbols_of)?;
        let batch = py.detach(|| self.bpe.encode_batch(&sequences, algorithm, num_threads))?;
        Ok(arrays(py, batch))
    }

    fn token_id(&self, id: i64) -> crate::Result<u32> {
        u32::try_from(id).map_err(|_| Error::TokenId {
            id,
            vocab_size: self.bpe.vocab_size(),
        })
    }

    fn token_ids(&self, ids: &Bound<'_, PyAny>) -> PyResult<Vec<u32>> {
        if let Ok(array) = ids.cast::<PyArray1<u32>>() {
            return Ok(array.try_readonly()?.as_array().to_vec());
        }
        let (ids, shape) = integers_of("ids", ids)?;
        if shape.len() != 1 {
            return Err(wrong_ndim("ids", "1-D", shape.len()));
        }
        let ids = ids.into_iter().enumerate().map(|(position, id)| {
            self.token_id(id)
                .map_err(|error| error.in_item("position", position))
        });
        Ok(ids.collect::<crate::Result<_>>()?)
    }
}

/// Passes the core's progress on to Python, now and then.
struct Reporter {
    callback: Option<Py<PyAny>>,
    num_merges: usize,
    last: Option<(Instant, usize)>,
}

impl Reporter {
    fn new(callback: Option<Bound<'_, PyAny>>, num_merges: usize) -> PyResult<Self> {
        if let Some(callback) = &callback
            && !callback.is_callable()
        {
            return Err(PyTypeError::new_err(format!(
                "progress is {}: expected a function of (done_merges, num_merges), or None",
                type_name(callback)
            )));
        }
        Ok(Self {
            callback: callback.map(Bound::unbind),
            num_merges,
            last: None,
        })
    }

    fn report(&mut self, done: usize) -> PyResult<()> {
        let is_due = self
            .last
            .is_none_or(|(time, _)| time.elapsed() >= REPORT_INTERVAL);
        if is_due {
            Python::attach(|py| self.call(py, done))?;
            self.last = Some((Instant::now(), done));
        }
        Ok(())
    }

    fn finish(&self, py: Python<'_>, done: usize) -> PyResult<()> {
        match self.last {
            Some((_, last)) if last == done => Ok(()),
            _ => self.call(py, done),
        }
    }

    fn call(&self, py: Python<'_>, done: usize) -> PyResult<()> {
        py.check_signals()?;
        if let Some(callback) = &self.callback {
            callback.call1(py, (done, self.num_merges))?;
        }
        Ok(())
    }
}

/// A C-contiguous, aligned array of one of the two types.
enum SignalArray<'py> {
    Float32(PyReadonlyArrayDyn<'py, f32>),
    Float64(PyReadonlyArrayDyn<'py, f64>),
}

impl<'py> SignalArray<'py> {
    fn new(signal: &Bound<'py, PyAny>) -> PyResult<Self> {
        if let Ok(array) = signal.cast::<PyArrayDyn<f32>>() {
            Ok(Self::Float32(contiguous(array)?))
        } else if let Ok(array) = signal.cast::<PyArrayDyn<f64>>() {
            Ok(Self::Float64(contiguous(array)?))
        } else {
            Err(wrong_type(signal, "a float32 or float64 array"))
        }
    }

    fn shape(&self) -> &[usize] {
        match self {
            Self::Float32(array) => array.shape(),
            Self::Float64(array) => array.shape(),
        }
    }
}

fn contiguous<'py, T: Element>(
    array: &Bound<'py, PyArrayDyn<T>>,
) -> PyResult<PyReadonlyArrayDyn<'py, T>> {
    let readonly = array.try_readonly()?;
    // `as_slice` alone is not enough: it also takes Fortran order, and gives it in memory order.
    if array.is_c_contiguous() && readonly.as_slice().is_ok() {
        return Ok(readonly);
    }
    let numpy = array.py().import("numpy")?;
    let copy = numpy.call_method1("require", (array, array.dtype(), ["C", "A"]))?;
    Ok(copy.cast_into::<PyArrayDyn<T>>()?.try_readonly()?)
}

/// A (leads, samples) array, quantised.
struct Signal {
    symbols: Vec<u8>,
    samples_per_lead: usize,
}

impl Signal {
    /// The outer error is about the array, the inner one about its values.
    fn new(
        signal: &Bound<'_, PyAny>,
        bpe: &crate::Bpe,
        range: (f64, f64),
    ) -> PyResult<crate::Result<Self>> {
        let array = SignalArray::new(signal)?;
        let &[_, samples_per_lead] = array.shape() else {
            let ndim = array.shape().len();
            return Err(wrong_ndim("the signal", "2-D (leads, samples)", ndim));
        };
        let symbols = match &array {
            SignalArray::Float32(array) => {
                bpe.quantize_signal(array.as_slice()?, samples_per_lead, range)
            }
            SignalArray::Float64(array) => {
                bpe.quantize_signal(array.as_slice()?, samples_per_lead, range)
            }
        };
        Ok(symbols.map(|symbols| Self {
            symbols,
            samples_per_lead,
        }))
    }

    fn encode(&self, bpe: &crate::Bpe, encoding: SignalEncoding) -> crate::Result<Vec<u32>> {
        bpe.encode_quantized(&self.symbols, self.samples_per_lead, encoding)
    }
}

fn signal_encoding(algorithm: &str, lead_boundary: &str) -> crate::Result<SignalEncoding> {
    Ok(SignalEncoding {
        algorithm: algorithm.parse::<Algorithm>()?,
        lead_boundary: lead_boundary.parse::<LeadBoundary>()?,
    })
}

fn corpus_of(records: &Bound<'_, PyAny>, num_symbols: usize) -> PyResult<Corpus> {
    let mut corpus = Corpus::new(num_symbols)?;
    for (index, record) in records.try_iter()?.enumerate() {
        if index % SIGNAL_CHECK_RECORDS == 0 {
            records.py().check_signals()?;
        }
        let record = record?;
        let array =
            symbol_array(&record).map_err(|error| in_item(&record, error, "record", index))?;
        let array = array.try_readonly()?;
        match array.as_slice() {
            Ok(symbols) => corpus.push_record(symbols)?,
            Err(_) => corpus.push_record(&array.as_array().to_vec())?,
        }
    }
    Ok(corpus)
}

/// What `convert` makes of each item of an iterable; errors name the item.
fn items_of<'py, T>(
    items: &Bound<'py, PyAny>,
    what: &'static str,
    convert: impl Fn(&Bound<'py, PyAny>) -> PyResult<T>,
) -> PyResult<Vec<T>> {
    items
        .try_iter()?
        .enumerate()
        .map(|(index, item)| {
            let item = item?;
            convert(&item).map_err(|error| in_item(&item, error, what, index))
        })
        .collect()
}

fn symbol_array<'a, 'py>(symbols: &'a Bound<'py, PyAny>) -> PyResult<&'a Bound<'py, PyArray1<u8>>> {
    symbols
        .cast::<PyArray1<u8>>()
        .map_err(|_| match symbols.cast::<PyArrayDyn<u8>>() {
            Ok(array) => wrong_ndim("the uint8 array", "1-D", array.ndim()),
            Err(_) => wrong_type(symbols, "a 1-D uint8 array of symbols"),
        })
}

fn symbols_of(symbols: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
    Ok(symbol_array(symbols)?.try_readonly()?.as_array().to_vec())
}

/// One bound per signal, from a number or a sequence.
fn bounds(name: &str, bounds: &Bound<'_, PyAny>, num_signals: usize) -> PyResult<Vec<f64>> {
    if bounds.len().is_err() {
        return Ok(vec![bounds.extract()?; num_signals]);
    }
    let bounds: Vec<f64> = bounds
        .try_iter()?
        .map(|bound| bound?.extract())
        .collect::<PyResult<_>>()?;
    if bounds.len() == num_signals {
        return Ok(bounds);
    }
    Err(PyValueError::new_err(format!(
        "{name} has {} values for {num_signals} signals: expected one number, or one per signal",
        bounds.len()
    )))
}

fn merges_of(merges: &Bound<'_, PyAny>, num_symbols: usize) -> PyResult<Vec<Pair>> {
    let (ids, shape) = integers_of("merges", merges)?;
    if !ids.is_empty() && !matches!(shape[..], [_, 2]) {
        return Err(PyValueError::new_err(format!(
            "merges has shape {shape:?}: expected (merges, 2), the left and right id of each merge"
        )));
    }
    let pairs = ids.chunks_exact(2).enumerate().map(|(rank, pair)| {
        let id = |id: i64| {
            u32::try_from(id).map_err(|_| Error::UndefinedToken {
                rank,
                id,
                defined: num_symbols + rank,
            })
        };
        Ok((id(pair[0])?, id(pair[1])?))
    });
    Ok(pairs.collect::<crate::Result<_>>()?)
}

/// The flattened values and the shape of anything that numpy takes for an array of integers.
fn integers_of(name: &str, values: &Bound<'_, PyAny>) -> PyResult<(Vec<i64>, Vec<usize>)> {
    let numpy = values.py().import("numpy")?;
    let array = numpy.call_method1("asarray", (values,))?;
    let array = array.cast::<PyUntypedArray>()?;
    // numpy makes an empty list an array of float64.
    if !array.is_empty() && !matches!(array.dtype().kind(), b'i' | b'u') {
        return Err(PyTypeError::new_err(format!(
            "{name} has dtype {}: expected integers",
            array.dtype()
        )));
    }
    let shape = array.shape().to_vec();
    // One value that is not aligned passes for contiguous: ascontiguousarray would not copy it.
    let array = numpy.call_method1(
        "require",
        (array, numpy::dtype::<i64>(values.py()), ["C", "A"]),
    )?;
    let array = array.cast::<PyArrayDyn<i64>>()?.try_readonly()?;
    Ok((array.as_slice()?.to_vec(), shape))
}

fn count(name: &str, value: isize) -> PyResult<usize> {
    usize::try_from(value).map_err(|_| {
        PyValueError::new_err(format!(
            "{name} is {value}: expected a number that is not negative"
        ))
    })
}

fn optional_count(name: &str, value: Option<isize>) -> PyResult<Option<usize>> {
    value.map(|value| count(name, value)).transpose()
}

fn pairs_array(py: Python<'_>, pairs: Vec<Pair>) -> PyResult<Bound<'_, PyArray2<u32>>> {
    let shape = [pairs.len(), 2];
    let flat: Vec<u32> = pairs
        .into_iter()
        .flat_map(|pair| [pair.0, pair.1])
        .collect();
    flat.into_pyarray(py).reshape(shape)
}

fn arrays(py: Python<'_>, batch: Vec<Vec<u32>>) -> Vec<Bound<'_, PyArray1<u32>>> {
    batch.into_iter().map(|ids| ids.into_pyarray(py)).collect()
}

fn wrong_type(got: &Bound<'_, PyAny>, expected: &str) -> PyErr {
    let got = match got.cast::<PyUntypedArray>() {
        Ok(array) => format!("an array of dtype {}", array.dtype()),
        Err(_) => type_name(got),
    };
    PyTypeError::new_err(format!(
        "got {got}: expected {expected}; convert it with numpy first"
    ))
}

fn wrong_ndim(what: &str, expected: &str, got: usize) -> PyErr {
    PyValueError::new_err(format!(
        "{what} is {got}-D: expected {expected}; reshape it first"
    ))
}

/// The same exception, saying which item of several it concerns.
fn in_item(item: &Bound<'_, PyAny>, error: PyErr, what: &str, index: usize) -> PyErr {
    let py = item.py();
    let message = format!("{what} {index}: {}", error.value(py));
    PyErr::from_type(error.get_type(py), message)
}

fn type_name(value: &Bound<'_, PyAny>) -> String {
    match value.get_type().fully_qualified_name() {
        Ok(name) => name.to_string(),
        Err(_) => "value of an unknown type".to_owned(),
    }
}
