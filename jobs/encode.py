"""The encode stage: spark-submit jobs/encode.py --config C [--dump D] [--slice S].

Declared in curation/engine/stages.py. `curation run CONFIG --from encode --to encode`
does the same in local mode.
"""

from curation.engine.submit import run_stage

if __name__ == "__main__":
    run_stage("encode")
