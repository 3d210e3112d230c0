"""Who keeps a connection when there are too few, and who is let go. Pure; connections say what they are doing.

A connection is a `stranger` until it has shown a right credential (where nobody is asked for one: until it has asked for
anything), then `idle` between two requests, and `busy` while it is answered and takes it. A stranger stays one while it is answered: what needs no
credential is asked for in a row at no cost. A stranger who lingers goes when there are many,
and strangers, then the idle, go when a place is wanted: the one that was so longest, of the address that has most of them.
So who holds many takes them from himself, and nobody who is known is cut off while he is answered. One address never has all places.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal, NamedTuple, Protocol

MOST_CONNECTIONS: Final = 384
"""TLS connections count from their first byte on. More than there may be endless answers, which leave room for scrapes and probes."""
MOST_OF_ONE_ADDRESS: Final = 320
"""As many as a proxy with all endless answers and some more: others have the rest."""
MOST_STRANGERS: Final = 64
LINGERING_SECONDS: Final = 1.0
"""Long enough for a first request, whatever comes at once; a stranger of this age counts against `MOST_STRANGERS`."""

Standing = Literal["stranger", "idle", "busy"]
Address = bytes | str | int
"""Whose share a place counts in, see `listen.address_of`."""


class Guest(Protocol):
    """A connection, as far as its place matters."""

    def let_go(self) -> None:
        """Close it now. Its place is given away already."""
        ...


class Entered(NamedTuple):
    """A place that is taken, and how its guest stands."""

    address: Address
    standing: Standing


class _Crowd:
    """Those who stand alike, by address; of each address those that came first are first."""

    def __init__(self) -> None:
        self._of: dict[Address, dict[Guest, float]] = {}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, guest: Guest, address: Address, now_seconds: float) -> None:
        self._of.setdefault(address, {})[guest] = now_seconds
        self._size += 1

    def remove(self, guest: Guest, address: Address) -> None:
        of_address = self._of[address]
        del of_address[guest]
        self._size -= 1
        if not of_address:
            del self._of[address]

    def first(self, address: Address | None = None) -> tuple[Guest, float] | None:
        """Who goes first, of this address or of the one with most, and since when he stands so."""
        of_address = self._of.get(address, {}) if address is not None else max(self._of.values(), key=len, default={})
        return next(iter(of_address.items()), None)


class Places:
    """The places of one server."""

    def __init__(
        self,
        on_let_go: Callable[[str], None],
        *,
        most: int = MOST_CONNECTIONS,
        most_of_one_address: int = MOST_OF_ONE_ADDRESS,
        most_strangers: int = MOST_STRANGERS,
    ) -> None:
        """`on_let_go`: told how each stood that was let go."""
        self._on_let_go = on_let_go
        self._most, self._most_of_one_address, self._most_strangers = most, most_of_one_address, most_strangers
        self._entered: dict[Guest, Entered] = {}
        self._crowds: dict[Standing, _Crowd] = {"stranger": _Crowd(), "idle": _Crowd(), "busy": _Crowd()}
        self._of_address: dict[Address, int] = {}

    def __len__(self) -> int:
        """How many places are taken."""
        return len(self._entered)

    def enter(self, guest: Guest, address: Address, now_seconds: float) -> bool:
        """Take a place, as a stranger; who has one keeps it. False: there is none, and nobody can be asked to go."""
        if guest in self._entered:
            return True
        if self._of_address.get(address, 0) >= self._most_of_one_address:
            if not self._make_room(address):
                return False
        elif len(self) >= self._most:
            if not self._make_room():
                return False
        elif (lingering := self._lingering(now_seconds)) is not None:
            self._let_go(lingering)
        self._of_address[address] = self._of_address.get(address, 0) + 1
        self._put(guest, Entered(address, "stranger"), now_seconds)
        return True

    def stand(self, guest: Guest, standing: Standing, now_seconds: float) -> None:
        """Say how a guest stands from now on; one who has no place has gone already."""
        if (entered := self._entered.get(guest)) is not None and (entered.standing != standing or standing == "idle"):
            self._crowds[entered.standing].remove(guest, entered.address)
            self._put(guest, Entered(entered.address, standing), now_seconds)

    def hand_over(self, guest: Guest, successor: Guest, now_seconds: float) -> bool:
        """The same place for another object that speaks for the same client. False: it is lost."""
        entered = self._entered.pop(guest, None)
        if entered is None:
            return False
        self._crowds[entered.standing].remove(guest, entered.address)
        self._put(successor, entered, now_seconds)
        return True

    def leave(self, guest: Guest) -> None:
        """Give the place back; twice is fine."""
        entered = self._entered.pop(guest, None)
        if entered is None:
            return
        self._crowds[entered.standing].remove(guest, entered.address)
        self._of_address[entered.address] -= 1
        if not self._of_address[entered.address]:
            del self._of_address[entered.address]

    def _put(self, guest: Guest, entered: Entered, now_seconds: float) -> None:
        self._entered[guest] = entered
        self._crowds[entered.standing].add(guest, entered.address, now_seconds)

    def _make_room(self, address: Address | None = None) -> bool:
        first = self._crowds["stranger"].first(address) or self._crowds["idle"].first(address)
        if first is None:
            return False
        self._let_go(first[0])
        return True

    def _lingering(self, now_seconds: float) -> Guest | None:
        strangers = self._crowds["stranger"]
        if len(strangers) < self._most_strangers or (first := strangers.first()) is None:
            return None
        guest, since_seconds = first
        return guest if now_seconds - since_seconds >= LINGERING_SECONDS else None

    def _let_go(self, guest: Guest) -> None:
        standing = self._entered[guest].standing
        self.leave(guest)
        self._on_let_go(standing)
        guest.let_go()
