"""Fuzz the extractor `blocks` with pages that were damaged: it must never fail, differ or be slow.

    python tests/bench/fuzz_extraction.py [--minutes 20] [--seed 1] [--to DIR]

Pages of the demo dumps are cut, spliced, doubled, and changed in bytes; tags, references, bytes
that are not UTF-8 and pieces that are costly to parse are put in. Kernels are compiled with a check
of every index, in a cache of their own, so an access out of bounds is an error here. Of each page:
extraction gives no `parser_error`; blocks keep the laws of `tests/ingest/block_laws.py`; features
are finite; the text is the same when the page comes again behind others; and CPU time stays under
BASE_SECONDS + SECONDS_PER_BYTE for each byte. The last line is JSON. A failure writes the page and
exits with 1. Page n of a seed is the same on every machine.
"""

import argparse
import faulthandler
import json
import os
import random
import sys
import time
import traceback
from pathlib import Path

HERE = Path(__file__).parent
BATCH = 16
MAX_BYTES = 200_000  # of a page before hostile pieces
# Measured without checks of indices: 0.8 s for 90,000 blocks inside 500 elements, 0.5 MB.
BASE_SECONDS = 0.5
SECONDS_PER_BYTE = 10e-6
HANGS = 120  # seconds after which a page has hung
PIECES = (
    "<div>", "<ul><li>", "<table><tr><td>", "<a href=/>x", "<p>x", "x<br>", "<x>", "</div>", "</x>",
    "<", "</", "&", "&amp;", "&NotEqualTilde;", "<!--", "<!---->", "<script>", "<pre>\n", "\r",
    "<title>", "<svg>", "<select><option>", "spam ", "<p>one two three four five ", "<b class=nav ",
    "<p class='topAd nav ", "\xa0", "東", "<h1>", "<dd>", "</a>", "</table>", "<template>", "\x00",
    "<td>a</td>x", "<tr><td><td>x<td>", "<pre>a<br></pre>", "<dd>x<dt>y", "<li><p>x<p>y",
)  # fmt: skip
NOT_UTF8 = (b"\xff", b"\xc2", b"\xe6\x9d", b"\xf0\x9f\x98", b"\xed\xa0\x80", b"\xc0\xaf", b"\x80")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--to", type=Path, default=HERE / "corpora" / "fuzz-extraction")
    options = parser.parse_args()
    options.to.mkdir(parents=True, exist_ok=True)
    # numba reads both when it is imported; its cache does not tell checked kernels from others
    os.environ["NUMBA_BOUNDSCHECK"] = "1"
    os.environ["NUMBA_CACHE_DIR"] = str(options.to / "numba")
    sys.path.append(str(HERE.parent / "ingest"))
    faulthandler.enable()
    sys.exit(fuzz(options))


def fuzz(options: argparse.Namespace) -> int:
    from block_laws import demo_payloads

    demo = demo_payloads()
    extracted(demo[:1])  # kernels are compiled, or read
    began = time.monotonic()
    num_pages = num_bytes = 0
    slowest = {"seconds": 0.0}
    failures = []
    while not failures and time.monotonic() < began + options.minutes * 60:
        batch = []
        for number in range(num_pages, num_pages + BATCH):
            page = damaged(demo, random.Random(f"{options.seed}:{number}"))
            (options.to / "current.html").write_bytes(page)  # what a crash leaves
            faulthandler.dump_traceback_later(HANGS, exit=True)
            try:
                text, seconds = checked(page)
            except Exception:
                failures.append(failure(options, number, page, traceback.format_exc()))
                break
            batch.append((page, text))
            num_bytes += len(page)
            if seconds > slowest["seconds"]:
                slowest = {"number": number, "bytes": len(page), "seconds": round(seconds, 3)}
        num_pages += len(batch)
        pages = [page for page, _ in reversed(batch)]
        texts = [text for _, text in reversed(batch)]
        for i, again in enumerate(extracted(pages)):
            if again != texts[i]:
                number = num_pages - 1 - i
                failures.append(failure(options, number, pages[i], f"{texts[i]}\n\n{again}"))
    faulthandler.cancel_dump_traceback_later()
    seconds = round(time.monotonic() - began)
    print(
        json.dumps(
            {"seed": options.seed, "pages": num_pages, "bytes": num_bytes, "seconds": seconds,
             "slowest": slowest, "failures": failures}
        )
    )  # fmt: skip
    return 1 if failures else 0


def extracted(pages: list[bytes]) -> list[dict[str, object]]:
    import pyarrow as pa

    from curation.ingest.extract import extract

    nothing = pa.nulls(len(pages), pa.string())
    found: list[dict[str, object]] = extract(
        pa.array(pages, pa.binary()), nothing, nothing, engine="blocks"
    ).to_pylist()
    return found


def checked(page: bytes) -> tuple[dict[str, object], float]:
    """Return what extraction gives and the CPU time it took; raises AssertionError."""
    import numpy as np
    from block_laws import check

    from curation.ingest.block_features import describe
    from curation.ingest.main_text import choose, load, probabilities, written

    began = time.process_time()
    (found,) = extracted([page])
    seconds = time.process_time() - began
    assert not str(found["error"]).startswith("parser_error"), found["error"]
    limit = BASE_SECONDS + SECONDS_PER_BYTE * len(page)
    assert seconds < limit, f"{seconds:.3f} s of CPU time; {limit:.3f} s for {len(page)} bytes"
    blocks = check(page)
    data = np.frombuffer(page, np.uint8)
    features, shape = describe(data, blocks)
    assert np.isfinite(features).all()
    if len(blocks.blocks):
        likely = probabilities(features, shape, load().model)
        assert ((likely >= 0) & (likely <= 1)).all()
        kept, expected = choose(likely, shape.words)
        assert 0 <= expected <= 1 + 1e-9
        for each in (kept, np.ones(len(kept), np.bool_)):
            written(blocks, each)
    return found, seconds


def damaged(demo: list[bytes], rng: random.Random) -> bytes:
    """Return a page of the demo after some damage."""
    from block_laws import PARTS

    page = bytearray(rng.choice(demo)[:MAX_BYTES])
    for _ in range(rng.choice((1, 1, 2, 3, 5, 10, 30))):
        at = rng.randrange(len(page) + 1)
        size = min(int(rng.paretovariate(0.6)), 20_000)
        what = rng.randrange(9)
        if what == 0:  # cut off
            if rng.random() < 0.2:
                del page[at:]
        elif what == 1:
            del page[at : at + size]
        elif what == 2:  # a part of another page
            other = rng.choice(demo)
            start = rng.randrange(len(other))
            page[at:at] = other[start : start + size]
        elif what == 3:  # a part again, somewhere else
            start = rng.randrange(len(page) + 1)
            page[at:at] = page[start : start + size]
        elif what == 4:
            for _ in range(min(size, 200)):
                if page:
                    page[rng.randrange(len(page))] ^= 1 << rng.randrange(8)
        elif what == 5:
            page[at:at] = "".join(rng.choices(PARTS, k=min(size, 50))).encode()
        elif what == 6:
            page[at:at] = rng.choice(NOT_UTF8)
        elif what == 7 and rng.random() < 0.3:
            page[at:at] = (rng.choice(PIECES) * min(size, 5_000)).encode()
        elif what == 8:  # inside a tag
            at = max(page.find(b"<", at), 0)
            page[at + 1 : at + 1] = rng.choice(PARTS).encode()
    return bytes(page)


def failure(options: argparse.Namespace, number: int, page: bytes, why: str) -> dict[str, object]:
    path = options.to / f"failure-{options.seed}-{number}.html"
    path.write_bytes(page)
    print(why, file=sys.stderr)
    return {"number": number, "page": str(path)}


if __name__ == "__main__":
    main()
