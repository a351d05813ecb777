"""Reactive traffic: vehicles that follow their lanes and keep a safe distance, also to the ego (navsim v2.2
`NavsimIDMTrafficAgents`, configuration `navsim_IDM_traffic_agents.yaml`)."""
