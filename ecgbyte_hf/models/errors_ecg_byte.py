"""Every refusal of the package, as one family of exceptions.

A message says what was got, what was expected and what to do. All of them are a `ValueError` too, so that code
which knows nothing of this package can catch them, and all of them can be pickled: a worker process hands them
back whole.
"""


class EcgError(ValueError):
    """A recording, a vocabulary or a data set that cannot be used as it is."""


class EcgFileError(EcgError):
    """A file that is missing, cut short, unreadable, corrupt, or that names a file outside its folder."""


class SamplingRateError(EcgError):
    """A sampling rate that is absent, not positive, different between leads, or out of a profile's range."""


class LeadError(EcgError):
    """A lead that is missing, named twice or unknown, or names that do not match the signal."""


class UnitError(LeadError):
    """A channel without a known voltage unit or gain, so that its millivolts are unknown."""


class SignalError(EcgError):
    """Sample values that no result may be based on.

    Attributes:
        problems: short names of what was found: "nan", "flat", "amplitude" (these can be allowed by name with
            `on_problem=`), or "short", "shape" (which cannot).
    """

    def __init__(self, message: str, problems: tuple[str, ...] = ()):
        """Keep the message and the names of the problems."""
        super().__init__(message)
        self.problems = tuple(problems)


class CalibrationError(EcgError):
    """A calibration (the bounds of the amplitude bins) that is absent or unusable."""


class VocabularyError(EcgError):
    """Merges, tokens or ids that do not form a vocabulary."""


class BudgetError(EcgError):
    """An input that cannot fit in the sequence length."""


class EcgDataError(EcgError):
    """A data set whose folder, table or row is not as its layout says."""


class EncoderError(EcgError):
    """A configuration or an input that an encoder of ECGs cannot take."""


class EcgHubError(EcgError):
    """A repository of the Hub that is not there, is not given, or must not be published as it is."""
