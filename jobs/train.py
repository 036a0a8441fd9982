"""Pretrain: torchrun --nproc-per-node N jobs/train.py --shards DIR --preset P --to DIR."""

from curation.train.command import train

if __name__ == "__main__":
    train()
