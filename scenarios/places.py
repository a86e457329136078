"""Where things happen to a cluster: its nodes, and the boundaries within them."""

COORDINATOR, SERVICES, BROKER = "coordinator", "services", "broker"
NODES = (COORDINATOR, SERVICES, BROKER)
BOUNDARIES = ("commit.before", "commit.after", "publish.before", "publish.after", "ack.before", "ack.after")
