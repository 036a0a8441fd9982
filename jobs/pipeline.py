"""All stages: spark-submit jobs/pipeline.py --config CONFIG [--from STAGE] [--to STAGE].

What is committed is skipped, so the same command serves the first run, a nightly run and a rerun.
"""

from curation.engine.submit import run_pipeline

if __name__ == "__main__":
    run_pipeline()
