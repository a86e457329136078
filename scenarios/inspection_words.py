"""What `inspect` can be asked for: sagas in a state, and a form to show them in."""

from actors.state import Phase

PARKED, STALLED, ACTIVE, FINISHED, UNREADABLE = "parked", "stalled", "active", "finished", "unreadable"
STATES = (*(phase.name.lower() for phase in Phase), PARKED, STALLED, ACTIVE, FINISHED, UNREADABLE)
TEXT, JSON, MERMAID = "text", "json", "mermaid"
