"""Run official navsim's metric caching with a processor of its own for every scene.

    PYTHONPATH=~/navsim:~/nuplan-devkit python tools/fresh_metric_caches.py run_metric_caching.py OVERRIDES...

navsim's own caching uses one processor a worker, which remembers what PDM-Closed has touched in earlier scenes, so
that the caches of scenes with common tracks depend on their order. Imports navsim, so it must not import mtdrive.
"""

import runpy
import sys

from navsim.planning.metric_caching.metric_cache_processor import MetricCacheProcessor


def main() -> None:
    """Replace what navsim's script calls for a scene, and run the script."""
    set_up, compute = MetricCacheProcessor.__init__, MetricCacheProcessor.compute_and_save_metric_cache

    def remember(self, *values, **named):
        self.made_of = values, named
        set_up(self, *values, **named)

    def compute_alone(self, scenario):
        values, named = self.made_of
        return compute(MetricCacheProcessor(*values, **named), scenario)

    MetricCacheProcessor.__init__, MetricCacheProcessor.compute_and_save_metric_cache = remember, compute_alone
    del sys.argv[0]
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
