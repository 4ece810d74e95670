"""The life of requests as a state machine: events in, effects out. Pure; the clock comes with the events."""
