"""The sub-metrics of the PDM score, one per module, and the registry of score versions."""
