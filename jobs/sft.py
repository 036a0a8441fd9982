"""Fine-tune on conversations: python jobs/sft.py --model DIR --data FILE --to DIR."""

from curation.train.command import sft

if __name__ == "__main__":
    sft()
