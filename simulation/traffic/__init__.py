"""Reactive traffic: vehicles that follow their lanes and keep their distance, to the ego as well (navsim v2.2
`NavsimIDMTrafficAgents`, configuration `navsim_IDM_traffic_agents.yaml`)."""
