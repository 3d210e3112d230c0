"""Who keeps a connection, decided: strangers before the idle, many before few, old before new, and never who is answered."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from streamer.sidecar.listen import address_of
from streamer.sidecar.places import LINGERING_SECONDS, Places, Standing


class Somebody:
    """A connection that remembers whether it was let go."""

    gone = False

    def let_go(self) -> None:
        self.gone = True


class House:
    """Places, whoever came, and a time that is set."""

    def __init__(self, **bounds: int) -> None:
        self.let_go: list[str] = []
        self.places = Places(self.let_go.append, **{"most": 4, "most_of_one_address": 4, "most_strangers": 4, **bounds})
        self.now = 0.0

    def comes(self, address: str = "a", standing: Standing = "stranger") -> Somebody | None:
        self.now += 0.001
        guest = Somebody()
        if not self.places.enter(guest, address, self.now):
            return None
        self.stands(guest, standing)
        return guest

    def stands(self, guest: Somebody, standing: Standing) -> None:
        self.now += 0.001
        self.places.stand(guest, standing, self.now)


def test_the_oldest_stranger_goes_first() -> None:
    """Then the next; the newcomer never."""
    house = House()
    guests = [house.comes() for _ in range(6)]
    assert [guest.gone for guest in guests if guest] == [True, True, False, False, False, False]
    assert house.let_go == ["stranger", "stranger"] and len(house.places) == 4


def test_strangers_go_before_the_idle_and_those_who_are_answered_stay() -> None:
    """When all that are there are answered, the newcomer is sent away."""
    house = House()
    busy, idle, stranger = house.comes(standing="busy"), house.comes(standing="idle"), house.comes()
    last = house.comes(standing="busy")
    assert busy and idle and stranger and last
    assert house.comes(standing="busy") and stranger.gone and not idle.gone
    assert house.comes(standing="busy") and idle.gone
    assert house.comes() is None and not busy.gone and not last.gone
    assert house.let_go == ["stranger", "idle"]
    house.places.leave(busy)
    house.places.leave(busy)
    assert house.comes()


def test_who_was_idle_longest_goes_first() -> None:
    """Not who came first."""
    house = House()
    first, second, *_ = (house.comes(standing="idle") for _ in range(4))
    assert first and second
    house.stands(first, "busy")
    house.stands(first, "idle")
    house.comes()
    assert second.gone and not first.gone


def test_who_has_many_takes_from_himself() -> None:
    """Whatever an address does, another one's only connection is not what goes."""
    house = House()
    rightful = house.comes("rightful")
    assert rightful
    for _ in range(100):
        house.comes("attacker")
    assert not rightful.gone
    house.stands(rightful, "idle")
    for _ in range(100):
        house.comes("attacker", "idle")
    assert not rightful.gone and house.comes("another")


def test_one_address_never_has_all_places() -> None:
    """At its share it gives up its own, or gets none; others have the rest."""
    house = House(most_of_one_address=3)
    busy = [house.comes("a", "busy") for _ in range(3)]
    assert all(busy) and house.comes("a") is None
    other = house.comes("b")
    assert other and busy[0]
    house.stands(busy[0], "idle")
    assert house.comes("a") and busy[0].gone and not other.gone


def test_strangers_who_linger_are_few() -> None:
    """Many may come at once; who has not asked for anything a second later gives way though there are places."""
    house = House(most=10, most_of_one_address=10, most_strangers=2)
    crowd = [house.comes() for _ in range(5)]
    assert not house.let_go
    house.now += LINGERING_SECONDS
    assert house.comes() and house.let_go == ["stranger"]
    assert crowd[0] and crowd[0].gone


def test_a_place_is_handed_over() -> None:
    """The same one, not a second; and not one that was lost."""
    house = House()
    greeting, speaking = house.comes(), Somebody()
    assert greeting and house.places.hand_over(greeting, speaking, house.now)
    assert len(house.places) == 1 and house.places.enter(speaking, "a", house.now) and len(house.places) == 1
    house.places.leave(greeting)
    assert len(house.places) == 1
    house.places.leave(speaking)
    assert not house.places.hand_over(speaking, Somebody(), house.now) and not len(house.places)
    house.stands(speaking, "idle")
    assert not len(house.places)


class AnyOrder(RuleBasedStateMachine):
    """Whatever they do in whatever order."""

    guests: Bundle[Any] = Bundle("guests")

    @initialize(most=st.integers(1, 8), share=st.integers(1, 8), strangers=st.integers(1, 8))
    def opens(self, most: int, share: int, strangers: int) -> None:
        self.house = House(most=most, most_of_one_address=share, most_strangers=strangers)
        self.most, self.share = most, share
        self.here: dict[Somebody, tuple[str, Standing]] = {}

    @rule(target=guests, address=st.sampled_from("abc"))
    def comes(self, address: str) -> Somebody:
        before = dict(self.here)
        counted = [each for each, _ in before.values()].count(address)
        yielding = [guest for guest, (of, standing) in before.items() if standing != "busy" and of == address]
        could = bool(yielding) if counted >= self.share else len(before) < self.most or any(s != "busy" for _, s in before.values())
        guest = Somebody()
        assert self.house.places.enter(guest, address, self.house.now) == could
        gone = [each for each in before if each.gone]
        assert len(gone) <= 1 and all(before[each][1] != "busy" for each in gone)
        self.here = {each: stands for each, stands in before.items() if not each.gone}
        if could:
            self.here[guest] = (address, "stranger")
        return guest

    @rule(guest=guests, standing=st.sampled_from(["stranger", "idle", "busy"]), later=st.sampled_from([0.0, LINGERING_SECONDS]))
    def stands(self, guest: Somebody, standing: Standing, later: float) -> None:
        self.house.now += later
        self.house.places.stand(guest, standing, self.house.now)
        if guest in self.here:
            self.here[guest] = (self.here[guest][0], standing)

    @rule(guest=consumes(guests))
    def leaves(self, guest: Somebody) -> None:
        self.house.places.leave(guest)
        self.here.pop(guest, None)

    @rule(target=guests, guest=consumes(guests))
    def hands_over(self, guest: Somebody) -> Somebody:
        successor = Somebody()
        assert self.house.places.hand_over(guest, successor, self.house.now) == (guest in self.here)
        if guest in self.here:
            self.here[successor] = self.here.pop(guest)
        return successor

    @invariant()
    def adds_up(self) -> None:
        assert len(self.house.places) == len(self.here) <= self.most


TestAnyOrder = AnyOrder.TestCase


@pytest.mark.parametrize(
    ("family", "first", "second", "same"),
    [
        (socket.AF_INET, "127.0.0.1", "127.0.0.1", True),
        (socket.AF_INET, "127.0.0.1", "127.0.0.2", False),
        (socket.AF_INET6, "127.0.0.1", "127.0.0.2", False),
    ],
)
def test_whose_share_it_is(family: socket.AddressFamily, first: str, second: str, same: bool) -> None:
    """Of IPv4 the address, over a socket for both kinds of addresses, too."""
    with socket.socket(family) as listening:
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listening.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", 0))
        listening.listen()
        where = ("127.0.0.1", listening.getsockname()[1])
        with (
            socket.create_connection(where, source_address=(first, 0)),
            listening.accept()[0] as one,
            socket.create_connection(where, source_address=(second, 0)),
            listening.accept()[0] as two,
        ):
            assert (address_of(one) == address_of(two)) == same


class Peer:
    """A connected socket, by what it says of its peer."""

    family = socket.AF_INET6

    def __init__(self, host: str) -> None:
        self._host = host

    def getpeername(self) -> tuple[str, int, int, int]:
        return self._host, 1, 0, 0


def test_an_ipv6_network_is_one() -> None:
    """A host may take any address of its /64."""
    of = {
        host: address_of(Peer(host))
        for host in ("2001:db8::1", "2001:db8::ffff:2", "2001:db8:0:1::1", "fe80::1%eth0", "fe80::2%eth1")
    }  # type: ignore[arg-type]
    assert of["2001:db8::1"] == of["2001:db8::ffff:2"] != of["2001:db8:0:1::1"]
    assert of["fe80::1%eth0"] == of["fe80::2%eth1"]


def test_of_a_unix_socket_it_is_the_user(tmp_path: Path) -> None:
    """As the kernel tells it."""
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as client:
        listening.bind(str(tmp_path / "s"))
        listening.listen()
        client.connect(str(tmp_path / "s"))
        with listening.accept()[0] as accepted:
            assert address_of(accepted) == tmp_path.stat().st_uid
