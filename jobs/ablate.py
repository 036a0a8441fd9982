"""What curation is worth to a model: jobs/ablate.py --config TOML --release NAME --to DIR.

Spark writes the arms of a lake (curation/engine/ablation.py), then the same small model is trained
on each (curation/train/ablation.py).
"""

import sys
from pathlib import Path

from curation.config import load
from curation.engine import session
from curation.engine.ablation import ARMS, HELD_OUT, make_arms
from curation.train.command import ablation, guarded


def main() -> None:
    """Make the arms, train on them and print the report."""
    config = ablation()

    def act() -> None:
        seeds = range(config.num_seeds)
        lake = load(Path(config.config))
        made = make_arms(lake, config.release, Path(config.to), config.num_tokens, seeds)
        session.stop()  # training needs no executors

        from curation.train.ablation import ablate, report

        runs = ablate(
            config,
            {arm: [made.arm(arm, seed) for seed in seeds] for arm in ARMS},
            {name: made.held_out(name) for name in HELD_OUT},
            tell=lambda line: print(line, file=sys.stderr),
        )
        sys.stdout.write(report(runs))

    guarded(act)


if __name__ == "__main__":
    main()
