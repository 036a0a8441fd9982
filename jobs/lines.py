"""The lines stage: spark-submit jobs/lines.py --config CONFIG [--dump DUMP].

Declared in curation/engine/stages.py. `curation run CONFIG --from lines --to lines`
does the same in local mode.
"""

from curation.engine.submit import run_stage

if __name__ == "__main__":
    run_stage("lines")
