"""Our planners as agents of navsim v1.1 and v2.2. Only `agent` imports navsim, which is no requirement of ours."""
