"""Every error that a user can cause, as one tree.

CurationError
 +- ConfigError             a value in the configuration file or on the command line
 +- InputError              something about the input files
 |   +- InputMissing        no such file, or nothing to read where the configuration points
 |   +- InputVanished       a file frozen in the lake is gone
 |   +- InputChanged        a file frozen in the lake has another size, time or ETag
 |   +- InputInvalid        a source file without the columns or the form it must have
 |   +- InputRefused        a server does not let us read a file
 |   +- InputUnreachable    a server failed for as long as we tried
 +- ArtifactError           a model, tokenizer or list that the configuration pins
 |   +- ArtifactMissing     no such file
 |   +- ArtifactChanged     its sha256 is not the pinned one
 |   +- ArtifactInvalid     it does not have the form it must have
 +- LakeError               the state of the lake
 |   +- LakeMissing         there is no lake at this path
 |   +- LakeReadOnly        the lake cannot be written
 |   +- LakeLocked          another run holds it
 |   +- LakeVersion         it was written by another version of the format
 |   +- LakeCorrupt         files and records do not agree
 |   +- DumpOrderChanged    dumps were reordered; only appending is allowed
 |   +- SlicesChanged       a frozen dump would be cut in other slices
 |   +- NotCommitted        an input stage has not run
 |   +- NotFound            no such document, table or release in the lake
 +- IdentityOverflow        more dumps, files or records than a doc_id can name
 +- ConservationError       rows or bytes of a stage do not add up (a defect of ours: please report)
 +- DuplicationAlarm        dedup would take nearly all of a dump, a language or a host
 +- QualityAlarm            what is committed of a dump is not what a bound asks for
 +- MixtureInfeasible       a release asks for more tokens of a domain than there are
 +- ShardCorrupt            a shard differs from its manifest
 +- TrainingError           something about a training run
 |   +- DatasetChanged      the run was begun on another release
 |   +- LossDiverged        the loss or the gradient is no number
 |   +- OutOfMemory         the device's memory does not hold a step
 |   +- CheckpointFailed    a checkpoint could not be written; the last good one stays
 +- PrerequisiteMissing     Java, a compiler or a package that must be installed first
 +- TimeBudgetSpent         --max-minutes is over; what is committed stays
 +- StageStopped            a task met an error of the system: a full disk, no memory, a lost file

Every message names the thing, the value, the rule and the next step.
"""


class CurationError(Exception):
    """Base of every error that a user can act on; the command line prints it without a trace."""


class ConfigError(CurationError):
    """A value in the configuration is unknown, of the wrong type or out of range."""


class InputError(CurationError):
    """Something is wrong with the input files."""


class InputMissing(InputError):
    """The configuration points at files that do not exist."""


class InputVanished(InputError):
    """A file frozen in the lake is gone."""


class InputChanged(InputError):
    """A file frozen in the lake has another size, modification time or ETag."""


class InputInvalid(InputError):
    """A source file does not have the columns or the form it must have."""


class InputRefused(InputError):
    """A server does not let us read a file (401, 403, no credentials, no trust)."""


class InputUnreachable(InputError):
    """A server failed for as long as we tried."""


class ArtifactError(CurationError):
    """Something is wrong with a pinned model, tokenizer or list."""


class ArtifactMissing(ArtifactError):
    """The pinned artifact does not exist."""


class ArtifactChanged(ArtifactError):
    """The artifact's sha256 is not the pinned one."""


class ArtifactInvalid(ArtifactError):
    """The artifact does not have the form it must have."""


class LakeError(CurationError):
    """The lake is not in a state that allows the request."""


class LakeMissing(LakeError):
    """There is no lake at this path."""


class LakeReadOnly(LakeError):
    """The lake cannot be written."""


class LakeLocked(LakeError):
    """Another run holds the lake."""


class LakeVersion(LakeError):
    """The lake was written by another version of the format."""


class LakeCorrupt(LakeError):
    """Files and records of the lake do not agree."""


class DumpOrderChanged(LakeError):
    """The configuration lists dumps in another order than the lake has frozen."""


class SlicesChanged(LakeError):
    """The configuration cuts a dump that the lake has frozen in other slices."""


class NotCommitted(LakeError):
    """A stage needs an input stage that has not run."""


class NotFound(LakeError):
    """The lake holds no such document, table or release."""


class IdentityOverflow(CurationError):
    """More dumps, files or records than a doc_id can name."""


class ConservationError(CurationError):
    """Rows or bytes of a stage do not add up."""


class DuplicationAlarm(CurationError):
    """Dedup would remove more of a dump, a language or a host than is allowed; not committed."""


class QualityAlarm(CurationError):
    """A dump keeps too little, or one rule takes too much of it, or its texts have changed."""


class MixtureInfeasible(CurationError):
    """A release asks for more tokens of a domain than there are."""


class ShardCorrupt(CurationError):
    """A shard differs from its manifest."""


class TrainingError(CurationError):
    """A training run cannot go on."""


class DatasetChanged(TrainingError):
    """The run was begun on a release with another fingerprint."""


class LossDiverged(TrainingError):
    """The loss or the gradient of a step is no number."""


class OutOfMemory(TrainingError):
    """The device's memory does not hold a step."""


class CheckpointFailed(TrainingError):
    """A checkpoint could not be written; the last good one stays."""


class PrerequisiteMissing(CurationError):
    """A program or package must be installed first."""


class TimeBudgetSpent(CurationError):
    """The time given with --max-minutes is over; everything committed stays."""


class StageStopped(CurationError):
    """A task met an error of the system, such as a full disk; its slice was not committed."""
