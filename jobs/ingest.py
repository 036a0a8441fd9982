"""The ingest stage: spark-submit jobs/ingest.py --config C [--dump D] [--slice S].

Declared in curation/engine/stages.py. `curation run CONFIG --from ingest --to ingest`
does the same in local mode.
"""

from curation.engine.submit import run_stage

if __name__ == "__main__":
    run_stage("ingest")
