"""Who goes into the engine, and when."""

import asyncio
from collections.abc import Sequence

from services.inference.admission import Admission
from services.inference.prefixes import Place, token_bytes

BLOCK, ROWS, STEP = 4, 64, 8


class Crowd:
    """Rows at an admission; `order` has those that were let in."""

    def __init__(self, admission: Admission) -> None:
        self.admission = admission
        self.order: list[str] = []
        self.refused: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.places: dict[str, Place] = {}

    async def come(self, *rows: tuple[str, Sequence[int]], group: str = "g") -> None:
        for name, tokens in rows:
            self.places[name] = Place(group, token_bytes(tokens), len(tokens))
            self.tasks[name] = asyncio.create_task(self._enter(name))
        await turn()

    async def _enter(self, name: str) -> None:
        let_in = await self.admission.enter(self.places[name])
        (self.order if let_in else self.refused).append(name)

    async def go(self, *names: str) -> None:
        for name in names:
            self.admission.leave(self.places[name])
        await turn()


async def turn() -> None:
    for _ in range(4):
        await asyncio.sleep(0)


def family(number: int, count: int, name: str = "") -> list[tuple[str, list[int]]]:
    return [(f"{name}{number}.{row}", [number] * BLOCK + [100 + row] * BLOCK) for row in range(count)]


async def test_rows_of_a_call_are_sorted_before_the_first_goes_in() -> None:
    crowd = Crowd(Admission(BLOCK, ROWS, STEP))
    mixed = [row for pair in zip(family(1, 3), family(2, 3), strict=True) for row in pair]
    await crowd.come(*mixed)
    assert [name[0] for name in crowd.order] == ["1", "1", "1", "2", "2", "2"]


async def test_the_engine_gets_no_more_than_it_can_soon_run() -> None:
    crowd = Crowd(Admission(BLOCK, ROWS, STEP))
    await crowd.come(*family(1, 200))
    assert len(crowd.order) == 32, "what it needs to begin"
    crowd.admission.stepped(20)
    await turn()
    assert len(crowd.order) == 2 * 20 + 32
    crowd.admission.stepped(ROWS)
    await turn()
    assert len(crowd.order) == 2 * ROWS
    await crowd.go(*crowd.order[:10])
    assert len(crowd.order) == 2 * ROWS + 10


async def test_many_short_rows_go_in_at_once() -> None:
    crowd = Crowd(Admission(BLOCK, ROWS, 10_000))
    await crowd.come(*family(1, 100))
    assert len(crowd.order) == 100


async def test_who_comes_during_a_sweep_belongs_to_the_next() -> None:
    crowd = Crowd(Admission(BLOCK, 16, STEP))
    await crowd.come(*family(1, 34), *family(5, 10))
    await crowd.come(*family(1, 10, "late "))
    await crowd.come(*family(3, 10))
    crowd.admission.stepped(16)
    while len(crowd.order) < 64:
        await crowd.go(crowd.order[len(crowd.order) - 32])
    assert [name for name in crowd.order if "late" in name or name[0] == "3"] == crowd.order[44:]
    assert [name[0] for name in crowd.order[34:44]] == ["5"] * 10


async def test_a_withdrawn_group_goes_nowhere() -> None:
    crowd = Crowd(Admission(BLOCK, 16, STEP))
    await crowd.come(*family(1, 32))
    await crowd.come(*family(1, 5, "gone "), group="gone")
    await crowd.come(*family(2, 5))
    crowd.admission.withdraw("gone")
    await turn()
    assert len(crowd.refused) == 5
    await crowd.go(*crowd.order[:10])
    assert [name[0] for name in crowd.order[32:]] == ["2"] * 5
    assert crowd.admission.waiting == 0


async def test_a_cancelled_row_leaves_its_place_to_others() -> None:
    crowd = Crowd(Admission(BLOCK, 16, STEP))
    await crowd.come(*family(1, 33))
    last = next(name for name in crowd.tasks if name not in crowd.order)
    crowd.tasks[last].cancel()
    await turn()
    await crowd.come(*family(2, 1))
    await crowd.go(crowd.order[0])
    assert crowd.order[-1] == "2.0"
    await crowd.go(*crowd.order[1:])
    await crowd.come(*family(3, 40))
    assert len(crowd.order) == 33 + 32, "nobody who left is still counted"


async def test_a_row_cancelled_in_the_moment_of_going_in_is_out_again() -> None:
    admission = Admission(BLOCK, 16, STEP)
    place = Place("g", token_bytes([1]), 1)
    tasks = [asyncio.create_task(admission.enter(place)) for _ in range(32)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    crowd = Crowd(admission)
    await crowd.come(*family(1, 40))
    assert len(crowd.order) == 32


async def test_unsorted_rows_all_go_in_as_they_come() -> None:
    crowd = Crowd(Admission(0, 1, 1))
    mixed = [row for pair in zip(family(1, 30), family(2, 30), strict=True) for row in pair]
    await crowd.come(*mixed)
    assert crowd.order == [name for name, _ in mixed]
