"""The one tree of errors: each message says what was wanted, what was found and what to do.

LyraError
├── SeedError            a seed image or its manifest row cannot be used (permanent: the seed is rejected)
│   └── ManifestError    the manifest itself cannot be read or has a wrong column, type or path
├── CameraPathError      a camera path is malformed, non-rigid, of a wrong length or unknown
├── FrameError           frames or images of a wrong size, count or range
├── DepthError           depth that is not finite, or has no valid pixel
├── GaussiansError       Gaussians that are empty, not finite or of inconsistent shapes
│   └── ReconstructionError  a video that cannot be lifted to Gaussians
├── FormatError          a file of a known format is malformed or cannot represent the value
├── WeightsError         weight files: missing, tampered, truncated, unknown format
│   ├── StateDictError   missing, unexpected or wrong-shape keys, all listed
│   ├── UnsafePickleError  a pickle asked for something outside the allow-list
│   └── LicenseError     restricted weights without --accept-license
├── RecipeError          unknown recipe or field, or a value out of range
├── PromptError          captions missing or of a wrong count
├── StoreError           storage: unwritable, full, unreachable, a torn object
│   ├── StoreRefusedError  storage answered, and waiting does not change the answer (permission, no bucket)
│   ├── TornObjectError  stored bytes are not those that were written
│   ├── CatalogError     a commit, reject or snapshot that cannot be written or read
│   └── SourceError      the storage a seed lies on: no answer, no access (the seed is tried again by the next run)
├── WorkerError          a worker process died, hung or could not load its models
│   ├── WorkerLoadError  the models could not be loaded (never blamed on a seed)
│   └── PoolBrokenError  workers keep dying: the circuit breaker stopped the batch
├── TrainingError        a training diverged: a loss or gradient is not finite
├── OutOfMemoryError     the smallest budget still does not fit
├── MissingExtraError    an optional dependency is not installed
└── ConfigError          lyra.toml, environment, flags or hyper-parameters are wrong

LyraWarning              the one warning category of the project
"""

from __future__ import annotations


class LyraError(Exception):
    """Base of every error this project raises on purpose."""


class SeedError(LyraError):
    """A seed image cannot be used; retrying cannot help."""


class ManifestError(SeedError):
    """A manifest cannot be read, or a row of it is wrong."""


class CameraPathError(LyraError):
    """A camera path is malformed, non-rigid, of a wrong length, or unknown."""


class FrameError(LyraError):
    """Frames or images have a wrong size, count or range."""


class DepthError(LyraError):
    """Depth is not finite, or has no valid pixel."""


class GaussiansError(LyraError):
    """Gaussians are empty, not finite, or of inconsistent shapes."""


class ReconstructionError(GaussiansError):
    """A video cannot be lifted to Gaussians."""


class FormatError(LyraError):
    """A file of a known format is malformed, or cannot represent the value."""


class WeightsError(LyraError):
    """A weight file is missing, tampered with, truncated or of an unknown format."""


class StateDictError(WeightsError):
    """Keys are missing, unexpected or of a wrong shape; the message lists them."""


class UnsafePickleError(WeightsError):
    """A pickled file asked for a name outside the allow-list."""


class LicenseError(WeightsError):
    """Restricted weights were asked for without accepting their license."""


class RecipeError(LyraError):
    """A recipe or one of its fields is unknown, or a value is out of range."""


class PromptError(LyraError):
    """Captions are missing or of a wrong count."""


class StoreError(LyraError):
    """Storage is unwritable, full, unreachable, or returned a torn object."""


class StoreRefusedError(StoreError):
    """Storage answered no: credentials, permissions, a missing bucket or object, a read-only disk."""


class TornObjectError(StoreError):
    """Stored bytes are damaged or incomplete: they have to be made again."""


class CatalogError(StoreError):
    """A commit, reject or snapshot cannot be written or read."""


class SourceError(StoreError):
    """The storage of a seed does not answer, refuses or breaks off; no seed is to blame, the next run asks again."""


class WorkerError(LyraError):
    """A worker process died, hung, or could not load its models."""


class WorkerLoadError(WorkerError):
    """The models could not be loaded; no seed is to blame."""


class PoolBrokenError(WorkerError):
    """Workers keep dying without finishing anything; the batch was stopped."""


class TrainingError(LyraError):
    """A training diverged: a loss or a gradient is NaN or infinite; the last checkpoint is as it was."""


class OutOfMemoryError(LyraError):
    """The smallest budget still does not fit into memory."""


class MissingExtraError(LyraError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package '{package}', which is not installed; "
            f"install it with: pip install 'lyra-worlds[{extra}]'"
        )


class ConfigError(LyraError):
    """lyra.toml, the environment, a flag or a hyper-parameter holds a value that cannot be used."""


class LyraWarning(UserWarning):
    """Something works, but not as well as its user may expect."""
