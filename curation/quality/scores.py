"""The models of `annotate`: which text is scored by which, and in which columns."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation import models
from curation.errors import ConfigError
from curation.quality import classifier, perplexity
from curation.quality.signals import SCORES
from curation.remix import domain_classifier

SCORE_TYPES = {score.name: score.type for score in SCORES}


def check_models(cards: Sequence[tuple[str, str]]) -> int:
    """Read the cards, (path, pinned sha256 or ""), compare all digests; return how many there are.

    Raises ConfigError for two models of a kind and language, and what `models.card` raises.
    """
    seen: dict[tuple[str, str], str] = {}
    for path, pinned in cards:
        card = models.card(path, pinned or models.sha256(path))
        place = (card["kind"], card["language"])
        if card["kind"] not in _SCORERS:
            raise ConfigError(
                f"annotate.models has {path}, a {card['kind']}; known kinds are "
                f"{', '.join(_SCORERS)}"
            )
        if place in seen:
            raise ConfigError(
                f"annotate.models has two {' models for '.join(place)}: {seen[place]} and {path}; "
                "remove one"
            )
        seen[place] = path
    return len(seen)


def score(text: pa.Array, lang: pa.Array, cards: Mapping[str, str]) -> dict[str, pa.Array]:
    """Return the columns that models give, of the texts of each model's language.

    `cards` are paths with their digests; of two models for a text, one for its language and one for
    any, the first of the list counts. A text without a model, or without a word, has nulls.
    Models are loaded once per process; see `models.card` for errors.
    """
    columns: dict[str, pa.Array] = {}
    for path, digest in cards.items():
        card = models.card(path, digest)
        is_ours = np.asarray(pc.fill_null(pc.equal(lang, card["language"]), False))
        if card["language"] == domain_classifier.ANY_LANGUAGE:
            is_ours = np.ones(len(text), np.bool_)
        place = np.cumsum(is_ours) - 1
        scored = _SCORERS[card["kind"]](text.filter(pa.array(is_ours)), path, digest)
        for name, values in scored.items():
            spread = values.take(pa.array(place, mask=~is_ours))
            columns[name] = pc.coalesce(columns[name], spread) if name in columns else spread
    for name in (name for kind in _COLUMNS.values() for name in kind):
        columns.setdefault(name, pa.nulls(len(text), SCORE_TYPES[name]))
    return columns


def _by_classifier(text: pa.Array, path: str, digest: str) -> dict[str, pa.Array]:
    return {"quality_score": classifier.score(text, classifier.load(path, digest))}


def _by_perplexity(text: pa.Array, path: str, digest: str) -> dict[str, pa.Array]:
    found = perplexity.score(text, perplexity.load(path, digest))
    return {name: found.field(name) for name in _COLUMNS[perplexity.KIND]}


def _by_domains(text: pa.Array, path: str, digest: str) -> dict[str, pa.Array]:
    found = domain_classifier.classify(text, domain_classifier.load(path, digest))
    return {"domain_label": found.label, "domain_score": found.score}


_COLUMNS = {
    classifier.KIND: ("quality_score",),
    perplexity.KIND: ("perplexity", "perplexity_char", "perplexity_bin"),
    domain_classifier.KIND: ("domain_label", "domain_score"),
}
_SCORERS: dict[str, Callable[[pa.Array, str, str], dict[str, pa.Array]]] = {
    classifier.KIND: _by_classifier,
    perplexity.KIND: _by_perplexity,
    domain_classifier.KIND: _by_domains,
}
