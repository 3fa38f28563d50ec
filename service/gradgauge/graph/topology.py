"""The order nodes can run in: as written if that works, sorted if another does, none in a cycle."""

from collections import deque
from collections.abc import Collection, Sequence


class Cycle(Exception):
    """No order exists; `node` is the index of a node on a cycle."""

    def __init__(self, node: int) -> None:
        super().__init__(node)
        self.node = node


def order(reads: Sequence[Collection[str]], writes: Sequence[Collection[str]]) -> list[int] | None:
    """Indices in an order that defines every value before it is read; None where 0, 1, 2... does.

    Of several orders the one nearest to the given: Kahn's algorithm, first come first served.

    Raises:
        Cycle: there is none.
    """
    maker = {name: i for i, names in enumerate(writes) for name in names}
    after = [{maker[name] for name in names if name in maker} for names in reads]
    if all(max(needed, default=-1) < i for i, needed in enumerate(after)):
        return None
    users: list[list[int]] = [[] for _ in after]
    for i, needed in enumerate(after):
        for other in needed:
            users[other].append(i)
    waiting = [len(needed) for needed in after]
    ready = deque(i for i, count in enumerate(waiting) if not count)
    done = []
    while ready:
        node = ready.popleft()
        done.append(node)
        for user in users[node]:
            waiting[user] -= 1
            if not waiting[user]:
                ready.append(user)
    if len(done) < len(after):
        raise Cycle(_on_cycle(after, waiting))
    return done


def _on_cycle(after: list[set[int]], waiting: list[int]) -> int:
    """Walk from one unfinished node to what it waits for until one comes back."""
    node = next(i for i, count in enumerate(waiting) if count)
    seen: set[int] = set()
    while node not in seen:
        seen.add(node)
        node = next(other for other in after[node] if waiting[other])
    return node
