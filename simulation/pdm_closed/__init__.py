"""PDM-Closed, the rule-based planner whose progress normalises the ego progress of every candidate.

Dauner et al., "Parting with Misconceptions about Learning-based Vehicle Motion Planning" (CoRL 2023), as
navsim runs it in `MetricCacheProcessor` (branches v1.1 and v2.2). It plans in the UTM frame of the map, as
the official code does, so that ties fall the same way.
"""
