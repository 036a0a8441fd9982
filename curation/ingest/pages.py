"""Pages of strangers -> text: what they cost is bounded before, during and after extraction.

1. `limits`: bytes, tags, depth and attributes are counted; the verdict is the same everywhere.
2. `sandbox`: the page is extracted in a child process, within CPU time and memory. A page that
   these stop is the one exception to invariance, and its reject says so: `sandbox_...`.
3. `limits` again: the length of the text.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.ingest import extract, sandbox
from curation.ingest.limits import PageLimits, check_pages, check_texts

PAGE_TYPE = pa.struct([*extract.TEXT_TYPE, ("value", pa.string()), ("threshold", pa.string())])
OUT_OF_MEMORY = "parser_error:MemoryError"  # how an extractor reports that its allocation failed


def extract_pages(
    payload: pa.Array,
    charset: pa.Array,
    content_type: pa.Array,
    *,
    engine: str,
    limits: PageLimits,
    net: sandbox.Net,
    options: Mapping[str, Any] | None = None,
) -> pa.StructArray:
    """Return `extract.extract` of HTML payloads within bounds, with value and threshold of errors.

    options: what else `extract.extract` takes.

    The type is PAGE_TYPE; null gives null. error is one of `extract`'s, a rule of `limits`, or
    `sandbox_cpu_time`, `sandbox_wall_time`, `sandbox_memory`, `sandbox_crash` (value: the signal or
    exit status). Never raises for a payload; raises SandboxBroken if no child process starts.
    """
    verdict = check_pages(payload, limits)
    sound = verdict.field("rule").is_null()
    found, failures = sandbox.run(
        "curation.ingest.extract:extract",
        [column.filter(sound) for column in (payload, charset, content_type)],
        {"engine": engine, "max_html_bytes": limits.max_html_bytes, **(options or {})},
        net,
        extract.TEXT_TYPE,
    )
    failed = pa.array(
        [failures.get(row) for row in range(len(found))] if failures else pa.nulls(len(found)),
        pa.list_(pa.string(), 3),
    )
    is_sound = sound.to_numpy(zero_copy_only=False)
    places = pa.array(np.cumsum(is_sound) - 1, mask=~is_sound)
    rule, value, threshold = (
        pc.coalesce(verdict.field(name), pc.list_element(failed, i).take(places))
        for i, name in enumerate(("rule", "value", "threshold"))
    )
    found = found.take(places)
    exhausted = pc.fill_null(pc.equal(found.field("error"), OUT_OF_MEMORY), False)
    rule = pc.if_else(exhausted, "sandbox_memory", pc.coalesce(rule, found.field("error")))
    threshold = pc.if_else(exhausted, str(net.page_memory_bytes), threshold)
    return _within_length(found, rule, value, threshold, limits, payload.is_null())


def plain_text(payload: pa.Array, *, limits: PageLimits) -> pa.StructArray:
    """Return `extract.plain_text` of payloads, within `max_chars`, as PAGE_TYPE."""
    found = extract.plain_text(payload)
    nothing = pa.nulls(len(found), pa.string())
    error = found.field("error")
    return _within_length(found, error, nothing, nothing, limits, payload.is_null())


def _within_length(
    found: pa.StructArray,
    rule: pa.Array,
    value: pa.Array,
    threshold: pa.Array,
    limits: PageLimits,
    is_null: pa.Array,
) -> pa.StructArray:
    columns = {field.name: found.field(i) for i, field in enumerate(found.type)}
    verdict = check_texts(columns["text"], limits)
    is_short = verdict.field("rule").is_null()
    columns["text"] = pc.if_else(is_short, columns["text"], None)
    columns["error"] = pc.coalesce(rule, verdict.field("rule"))
    columns["value"] = pc.coalesce(value, verdict.field("value"))
    columns["threshold"] = pc.coalesce(threshold, verdict.field("threshold"))
    return pa.StructArray.from_arrays(
        [columns[field.name] for field in PAGE_TYPE], fields=list(PAGE_TYPE), mask=is_null
    )
