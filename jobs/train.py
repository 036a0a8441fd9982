"""Pretrain: torchrun --nproc-per-node N jobs/train.py --shards DIR --preset P --to DIR."""

from curation.train.command import main

if __name__ == "__main__":
    main()
