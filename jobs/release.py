"""Make a release: spark-submit jobs/release.py NAME --config CONFIG [--set key=value]."""

from curation.engine.submit import release

if __name__ == "__main__":
    release()
