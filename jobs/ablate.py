"""What curation is worth to a model: jobs/ablate.py --config TOML --release NAME --to DIR.

Spark writes the arms of a lake (curation/engine/ablation.py), then the same small model is trained
on each (curation/train/ablation.py).
"""

from curation.engine.ablation import releases
from curation.train.command import ablate

if __name__ == "__main__":
    ablate(releases)
