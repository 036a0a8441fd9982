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

Every message names the thing, the value, the rule and the next step; `explained` adds the section
of README.md that has the rest.
"""

SECTIONS = {
    "curation.config": "settings",
    "curation.dedup": "deduplication",
    "curation.engine.ablation": "training",
    "curation.engine.brute_force": "how-good-it-is",
    "curation.engine.capacity": "operation",
    "curation.engine.checks": "every-night",
    "curation.engine.export": "mixture-and-releases",
    "curation.engine.losses": "what-dedup-took-and-the-alarm",
    "curation.engine.query": "asking-the-index",
    "curation.engine.release": "mixture-and-releases",
    "curation.engine.runs": "operation",
    "curation.engine.train_models": "quality",
    "curation.engine.train_tokenizer": "tokenizer",
    "curation.engine.training_texts": "quality",
    "curation.engine.what_if": "quality",
    "curation.explore": "notebooks",
    "curation.ingest.commoncrawl": "common-crawl",
    "curation.ingest.extractor_training": "extraction",
    "curation.ingest.langid": "languages",
    "curation.ingest.listing": "your-own-data",
    "curation.ingest.main_text": "extraction",
    "curation.ingest.ranges": "common-crawl",
    "curation.ingest.remote": "remote-input",
    "curation.ingest.urls": "url-lists-and-takedowns",
    "curation.ingest.warc": "archives",
    "curation.quality": "quality",
    "curation.remix": "domains",
    "curation.remix.mixture": "mixture-and-releases",
    "curation.tokens": "mixture-and-releases",
    "curation.tokens.tokenizer": "tokenizer",
    "curation.train": "training",
    "curation.train.scaling": "scaling-laws",
}
"""By module, or by package for all its modules, the section of README.md on what they do."""


class CurationError(Exception):
    """Base of every error that a user can act on; the command line prints it without a trace."""

    section = ""
    """Of README.md, for errors of one subject; for others see `explained`."""


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

    section = "remote-input"


class InputUnreachable(InputError):
    """A server failed for as long as we tried."""

    section = "remote-input"


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

    section = "your-own-data"


class LakeReadOnly(LakeError):
    """The lake cannot be written."""

    section = "on-a-cluster"


class LakeLocked(LakeError):
    """Another run holds the lake."""

    section = "faults"


class LakeVersion(LakeError):
    """The lake was written by another version of the format."""

    section = "your-own-data"


class LakeCorrupt(LakeError):
    """Files and records of the lake do not agree."""

    section = "faults"


class DumpOrderChanged(LakeError):
    """The configuration lists dumps in another order than the lake has frozen."""

    section = "your-own-data"


class SlicesChanged(LakeError):
    """The configuration cuts a dump that the lake has frozen in other slices."""

    section = "settings"


class NotCommitted(LakeError):
    """A stage needs an input stage that has not run."""


class NotFound(LakeError):
    """The lake holds no such document, table or release."""


class IdentityOverflow(CurationError):
    """More dumps, files or records than a doc_id can name."""

    section = "architecture"


class ConservationError(CurationError):
    """Rows or bytes of a stage do not add up."""

    section = "laws-each-with-a-test"


class DuplicationAlarm(CurationError):
    """Dedup would remove more of a dump, a language or a host than is allowed; not committed."""

    section = "what-dedup-took-and-the-alarm"


class QualityAlarm(CurationError):
    """A dump keeps too little, or one rule takes too much of it, or its texts have changed."""

    section = "every-night"


class MixtureInfeasible(CurationError):
    """A release asks for more tokens of a domain than there are."""

    section = "mixture-and-releases"


class ShardCorrupt(CurationError):
    """A shard differs from its manifest."""

    section = "mixture-and-releases"


class TrainingError(CurationError):
    """A training run cannot go on."""

    section = "training"


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

    section = "two-commands"


class TimeBudgetSpent(CurationError):
    """The time given with --max-minutes is over; everything committed stays."""

    section = "your-own-data"


class StageStopped(CurationError):
    """A task met an error of the system, such as a full disk; its slice was not committed."""

    section = "faults"


def explained(error: CurationError) -> str:
    """Return the message of an error, with the section of README.md on its subject.

    That is its class's, or that of the last module in SECTIONS which it came through.
    """
    section, trace = "your-own-data", error.__traceback__
    while trace is not None:
        module = trace.tb_frame.f_globals.get("__name__", "")
        section = SECTIONS.get(module) or SECTIONS.get(module.rpartition(".")[0]) or section
        trace = trace.tb_next
    return f"{error} (see README.md#{error.section or section})"
