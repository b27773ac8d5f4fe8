"""What belongs together, directly or in a chain."""

from typing import Generic, TypeVar

Key = TypeVar("Key", str, int)


class Links(Generic[Key]):
    """Sets of linked keys, each known by its smallest key (a disjoint-set forest)."""

    def __init__(self) -> None:
        self._parent: dict[Key, Key] = {}

    def first(self, key: Key) -> Key:
        """The smallest key that is linked to this one."""
        while self._parent.setdefault(key, key) != key:
            self._parent[key] = self._parent[self._parent[key]]
            key = self._parent[key]
        return key

    def join(self, one: Key, other: Key) -> bool:
        """Links two keys, and says whether they were not linked before."""
        a, b = self.first(one), self.first(other)
        self._parent[max(a, b)] = min(a, b)
        return a != b
