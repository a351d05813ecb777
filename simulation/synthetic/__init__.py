"""The synthetic world: seeded road sites and traffic scenes, written in NAVSIM's on-disk format.

Everything is built in a *site frame* [m, rad] with right-hand traffic; `placement.Placement` carries it to
the map's UTM coordinates and mirrors it where traffic keeps left. Time runs on the grid `agents.TIMES`
(10 Hz, t0 = 0), of which a log keeps every fifth moment.
"""
