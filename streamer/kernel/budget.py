"""How many descriptors may be held open."""

from __future__ import annotations


class DescriptorBudget:
    """What all readers together may hold open; above it they open, read and close. The limit may be moved at any time.

    `starved` counts files that could not be opened because the process had no descriptor left at all.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self.starved = 0

    @property
    def over(self) -> bool:
        """Whether more is held than may be: the limit was lowered. Who holds some is to give it back."""
        return self.used > self.limit

    def take(self, count: int) -> bool:
        """Ask for `count` more: all or none."""
        if self.used + count > self.limit:
            return False
        self.used += count
        return True

    def give(self, count: int) -> None:
        """Hand `count` back."""
        self.used -= count
