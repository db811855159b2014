"""Control, pure: the SLO, the latency model, the choice of level, feedback, admission. Time and data are arguments."""
