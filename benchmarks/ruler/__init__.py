"""RULER-Bench: export the clips of finished runs, have them judged, report the aggregates."""
