"""The report's section on rates and cost: what the committed work took, by stage."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from curation.config import Config
from curation.engine.capacity import Work, scales_with, work_of
from curation.engine.lake import Lake, RunRecord
from curation.engine.ledger import Funnel
from curation.engine.stages import STAGES

BILLION = 10**9


@dataclass(frozen=True)
class StageRate:
    """What a stage took for all slices that say so."""

    stage: str
    work: Work
    share: float  # of the CPU seconds of all stages

    @property
    def scales_with(self) -> str:
        """What the work grows with."""
        return scales_with(self.stage)

    @property
    def rate(self) -> float | None:
        """The quantity by CPU second."""
        return self.work.quantity / self.work.cpu_seconds if self.work.cpu_seconds else None


def rates_section(lake: Lake, flow: Funnel, config: Config) -> Mapping[str, Any] | None:
    """Return what the section shows; None where no run record says what its work took."""
    measured: dict[str, list[RunRecord]] = {}
    num_unmeasured = 0
    for record in lake.records():
        if record.stage not in STAGES:
            continue
        if "cpu_seconds" in record.resources:
            measured.setdefault(record.stage, []).append(record)
        else:
            num_unmeasured += 1
    if not measured:
        return None
    work = {s: work_of(s, measured[s], 0) for s in STAGES if s in measured}
    used = sum(each.cpu_seconds for each in work.values())
    held = sum(each.core_seconds_held for each in work.values())
    encode = flow.total("encode")
    tokens = sum(encode.counts.get("tokens", {}).values()) if encode else 0
    parts = {"in all": 1.0}
    if not num_unmeasured:
        parts["per dump"] = 1 / max(len(flow.dumps), 1)
    if tokens and not num_unmeasured:
        parts["per billion tokens"] = BILLION / tokens
    return {
        "rows": [
            StageRate(stage, each, each.cpu_seconds / used if used else 0.0)
            for stage, each in work.items()
        ],
        "busy_share": used / held if held else None,
        "totals": [(name, used * part / 3600, held * part / 3600) for name, part in parts.items()],
        "price": config.engine.core_hour_price,
        "num_unmeasured": num_unmeasured,
    }
