"""What a user has to be told, in one clear line."""


class ScenarioError(ValueError):
    """A scenario cannot be right, or there is none of that name; one clear line."""


class ClusterError(Exception):
    """A node cannot be kept running; one clear line."""
