"""Which cell is next: longest first, after what it needs, a second try alone."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from terrarium.errors import InputError, did_you_mean
from terrarium.studies.base import Cell


class Schedule:
    """The order in which cells (indices into ``cells``) run; knows nothing of processes.

    Parameters
    ----------
    cells, costs:
        The cells and the seconds each is expected to take.
    done:
        Those whose rows are there already.

    Raises `InputError` for cells of one name, for needs that name no cell, and for circles.
    """

    def __init__(
        self, cells: Sequence[Cell], costs: Sequence[float], done: Collection[int]
    ) -> None:
        self._needs = _needs(cells)
        self._weight = _weights(self._needs, costs, cells)
        self._done = set(done)
        self._open = set(range(len(cells))) - self._done
        self._running: set[int] = set()
        self._tries = [0] * len(cells)
        self._not_before = [0.0] * len(cells)

    @property
    def finished(self) -> bool:
        """Whether nothing runs and nothing is left to run."""
        return not self._open

    def is_done(self, cell: int) -> bool:
        """Return whether the rows of ``cell`` are there."""
        return cell in self._done

    def take(self, now: float) -> int | None:
        """Return the next cell to start at ``now``, None if none may start.

        Of those whose needs are done the one with the most seconds before it and its dependents
        comes first.  A cell whose worker died runs last and alone: what killed it was most
        likely the memory, and alone it may fit.
        """
        ready = [
            cell
            for cell in self._open - self._running
            if self._not_before[cell] <= now and self._needs[cell] <= self._done
        ]
        if any(self._tries[cell] for cell in self._running):
            return None
        fresh = [cell for cell in ready if not self._tries[cell]]
        if fresh:
            chosen = min(fresh, key=lambda cell: (-self._weight[cell], cell))
        elif ready and not self._running:
            chosen = min(ready)
        else:
            return None
        self._running.add(chosen)
        return chosen

    def done(self, cell: int) -> None:
        """Note that the rows of ``cell`` are there."""
        self._running.discard(cell)
        self._open.discard(cell)
        self._done.add(cell)

    def failed(self, cell: int) -> list[int]:
        """Note that ``cell`` failed for good; return the cells that can't run without it."""
        self._running.discard(cell)
        self._open.discard(cell)
        lost: list[int] = []
        without = {cell}
        while new := [other for other in self._open if self._needs[other] & without]:
            self._open.difference_update(new)
            without.update(new)
            lost += new
        return sorted(lost)

    def put_back(self, cell: int, until: float) -> None:
        """Note that another process is at ``cell``; it is looked at again after ``until``."""
        self._running.discard(cell)
        self._not_before[cell] = until

    def died(self, cell: int) -> bool:
        """Note that the worker of ``cell`` died; return whether it will be tried again."""
        self._running.discard(cell)
        self._tries[cell] += 1
        return self._tries[cell] < 2


def _needs(cells: Sequence[Cell]) -> list[set[int]]:
    index: dict[str, int] = {}
    for at, cell in enumerate(cells):
        if index.setdefault(cell.name, at) != at:
            raise InputError(f"Two cells are called '{cell.name}'; give each cell its own name.")
    for cell in cells:
        for name in cell.needs:
            if name not in index:
                known = did_you_mean(name, index)
                raise InputError(f"Cell '{cell.name}' needs '{name}', which is no cell{known}")
    return [{index[name] for name in cell.needs} for cell in cells]


def _weights(
    needs: Sequence[set[int]], costs: Sequence[float], cells: Sequence[Cell]
) -> list[float]:
    """Return the seconds from the start of each cell to the end of its last dependent."""
    followers: list[list[int]] = [[] for _ in needs]
    for cell, needed in enumerate(needs):
        for other in needed:
            followers[other].append(cell)
    open_followers = [len(after) for after in followers]
    weights = [0.0] * len(needs)
    ends = [cell for cell, count in enumerate(open_followers) if count == 0]
    seen = 0
    while ends:
        cell = ends.pop()
        seen += 1
        weights[cell] = costs[cell] + max((weights[a] for a in followers[cell]), default=0.0)
        for other in needs[cell]:
            open_followers[other] -= 1
            if open_followers[other] == 0:
                ends.append(other)
    if seen < len(needs):
        stuck = next(cells[at].name for at, count in enumerate(open_followers) if count)
        raise InputError(f"Cell '{stuck}' needs itself by way of others; break the circle.")
    return weights
