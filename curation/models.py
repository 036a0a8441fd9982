"""Worker-side loaders of models: by path and sha256, once per Python worker."""

import fcntl
import hashlib
import importlib.util
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from curation.cache import cache_dir
from curation.errors import ArtifactChanged, ArtifactInvalid, ArtifactMissing, ConfigError
from curation.ingest import urls
from curation.quality import contamination
from curation.quality.signals import BadWords, compile_bad_words
from curation.remix import domains

PACKAGE_PREFIX = "package:"


def resolve(path: str) -> Path:
    """Return the file behind a path or `package:<package>/<resource>`.

    The second form finds a file that an installed package ships, without importing it.
    Raises ArtifactMissing.
    """
    file = Path(path)
    if path.startswith(PACKAGE_PREFIX):
        package, _, resource = path.removeprefix(PACKAGE_PREFIX).partition("/")
        try:
            spec = importlib.util.find_spec(package)
        except (ImportError, ValueError):  # no such parent package; no name at all
            spec = None
        if spec is None or not spec.submodule_search_locations:
            raise ArtifactMissing(
                f"{path}: package {package} is not installed; pip install it or name a file"
            )
        file = Path(spec.submodule_search_locations[0]) / resource
    if not file.is_file():
        raise ArtifactMissing(f"no file at {file}; check the path in the configuration")
    return file


def sha256(path: str) -> str:
    """Return the sha256 of an artifact as hex. Cost: one read, remembered by size and time."""
    file = resolve(path)
    stat = file.stat()
    return _sha256(str(file), stat.st_size, stat.st_mtime_ns)


def verified(path: str, digest: str) -> Path:
    """Return the file of an artifact after comparing its digest; raises ArtifactChanged."""
    found = sha256(path)
    if found != digest:
        raise ArtifactChanged(
            f"{path} has sha256 {found}, but {digest} is pinned; restore the file, "
            "or pin the new digest, which recomputes what depends on it"
        )
    return resolve(path)


def card(path: str, digest: str, kind: str = "") -> dict[str, Any]:
    """Return the card of a model after comparing its digest, and that of every file it names.

    A card is JSON: kind, language, files (name -> sha256, beside the card), and how it was made.
    Raises ArtifactMissing, ArtifactChanged, and ArtifactInvalid for a file that is no card, or not
    of `kind` where one is given. Cost: one read of every file, remembered.
    """
    file = verified(path, digest)
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError):
        found = None
    if not isinstance(found, dict) or not {"kind", "language", "files"} <= set(found):
        raise ArtifactInvalid(
            f"{path} is not the card of a model; name the .json that `curation train-quality`, "
            "train-perplexity, train-domains or train-extractor wrote"
        )
    if kind and found["kind"] != kind:
        article = "an" if kind[0] in "aeiou" else "a"
        raise ArtifactInvalid(
            f"{path} is the card of a {found['kind']}, not of {article} {kind}; name one whose "
            f'"kind" is "{kind}"'
        )
    for name, pinned in found["files"].items():
        verified(str(beside(path, name)), pinned)
    return found


def beside(path: str, name: str) -> Path:
    """Return the file that a card names, which lies in the card's folder."""
    return resolve(path).with_name(Path(name).name)


def check_card_name(to: Path) -> None:
    """Raise ConfigError unless a path can be that of a card."""
    if to.suffix != ".json":
        raise ConfigError(f"{to} is to be the card of the model; give it a name that ends in .json")


def write_card(path: Path, contents: Mapping[str, Any]) -> None:
    """Write a card; it appears whole, by a rename."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_text(
        json.dumps(contents, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    unfinished.replace(path)


def fasttext_model(path: str) -> Any:
    """Return a fastText model of a file, loaded anew: keep it."""
    import fasttext

    try:
        return fasttext.load_model(path)
    except ValueError as error:
        raise ArtifactInvalid(f"{path} is no fastText model ({error}); name another file") from None


def language_model(path: str, digest: str) -> Any:
    """Return a fastText language model, loaded once per Python worker (1 MB for lid.176.ftz)."""
    return _fasttext(str(verified(path, digest)), digest)


def url_lists(
    lists: Sequence[urls.UrlList],
    digests: Mapping[str, str],
    suffix_file: str = "",
    min_soft_words: int = 2,
) -> urls.CompiledLists:
    """Return URL lists compiled: once per node for lists in files, which workers map and share.

    `digests` are the sha256 of the files by path. The compiled form lies in the cache folder under
    the digest of all that it depends on; it appears there whole, by a rename. Raises
    ArtifactChanged, and what `urls.compile_lists` raises.
    """
    return _url_lists(
        tuple((each, digests.get(each.path, "")) for each in lists),
        (suffix_file, digests.get(suffix_file, "")),
        min_soft_words,
        str(cache_dir("urls")),
    )


def bad_words(lists: Mapping[str, tuple[str, str]]) -> BadWords:
    """Return lists of bad words by language, compiled once per process; files are (path, sha256).

    A term a line, as in LDNOOBW. Raises ArtifactInvalid for a file that is not UTF-8 or empty.
    """
    return _bad_words(tuple(sorted((language, *file) for language, file in lists.items())))


@lru_cache(maxsize=16)
def host_list(path: str, digest: str) -> tuple[str, ...]:
    """Return the hosts of a file, read once per process; see `domains.read_hosts` for errors."""
    return domains.read_hosts(verified(path, digest).read_bytes(), path)


def contamination_index(
    benchmarks: Sequence[tuple[str, tuple[str, ...], tuple[tuple[str, str], ...]]],
    ngram: int,
    min_ngram: int,
) -> contamination.Index:
    """Return the index of benchmarks: name, fields, files as (path, sha256). Once per process.

    Raises ArtifactChanged, and what `contamination.read_texts` raises.
    """
    return _contamination_index(tuple(benchmarks), ngram, min_ngram)


@lru_cache(maxsize=4)
def _url_lists(
    lists: tuple[tuple[urls.UrlList, str], ...],
    suffixes: tuple[str, str],
    min_soft_words: int,
    cache: str,
) -> urls.CompiledLists:
    plain = [each for each, _ in lists]
    if not any(each.path for each in plain):
        return urls.compile_lists(plain, min_soft_words=min_soft_words)
    about = [
        urls.COMPILED_VERSION,
        version("idna"),
        min_soft_words,
        suffixes[1],
        [[each.name, each.format, each.entries, digest] for each, digest in lists],
    ]
    name = hashlib.sha256(json.dumps(about).encode()).hexdigest()
    folder = Path(cache, name)
    if not folder.is_dir():
        with Path(cache, f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # one worker of a node compiles, the others wait
            if not folder.is_dir():
                _compile_into(folder, lists, suffixes, min_soft_words)
    return urls.load(folder)


def _compile_into(
    folder: Path,
    lists: tuple[tuple[urls.UrlList, str], ...],
    suffixes: tuple[str, str],
    min_soft_words: int,
) -> None:
    for each, digest in lists:
        if each.path:
            verified(each.path, digest)
    suffix_file = verified(*suffixes) if suffixes[1] else None
    compiled = urls.compile_lists([each for each, _ in lists], suffix_file, min_soft_words)
    unfinished = Path(tempfile.mkdtemp(prefix="unfinished-", dir=folder.parent))
    try:
        urls.save(compiled, unfinished)
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


@lru_cache(maxsize=2)
def _bad_words(files: tuple[tuple[str, str, str], ...]) -> BadWords:
    lists = {}
    for language, path, digest in files:
        try:
            text = verified(path, digest).read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise ArtifactInvalid(f"{path} is not UTF-8 ({error}); convert it") from None
        lists[language] = [line.strip() for line in text.splitlines() if line.strip()]
        if not lists[language]:
            raise ArtifactInvalid(f"{path} holds no bad word; write one a line, or drop the list")
    return compile_bad_words(lists)


@lru_cache(maxsize=2)
def _contamination_index(
    benchmarks: tuple[tuple[str, tuple[str, ...], tuple[tuple[str, str], ...]], ...],
    ngram: int,
    min_ngram: int,
) -> contamination.Index:
    read = [
        contamination.Benchmark(
            name,
            [
                text
                for path, digest in files
                for text in contamination.read_texts(str(verified(path, digest)), fields)
            ],
        )
        for name, fields, files in benchmarks
    ]
    return contamination.compile_index(read, ngram, min_ngram)


@lru_cache(maxsize=64)
def _sha256(path: str, size: int, mtime_ns: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@lru_cache(maxsize=4)
def _fasttext(path: str, digest: str) -> Any:
    return fasttext_model(path)
