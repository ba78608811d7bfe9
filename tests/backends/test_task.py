"""The choice among candidates by a task's loss, and values near the outputs."""

from __future__ import annotations

from onnxlint.backends.outputs import near_outputs
from onnxlint.backends.task import Loss, facts_of, least_loss, lengths


def test_a_larger_budget_has_the_candidates_of_a_smaller_one() -> None:
    for count in range(60):
        some, more = lengths(count), lengths(count + 1)
        assert set(some) <= set(more)
        assert some == sorted(some, reverse=True)
        assert some[-1] == 0
        assert count <= 1 or some[0] > count // 2


def test_the_least_loss_is_taken_however_many_layers_it_keeps() -> None:
    missed = {9: 3.0, 6: 1.0, 4: 2.0, 3: 1.0, 2: 4.0, 1: 5.0, 0: 9.0}
    for count in range(14):
        length, made, tried = least_loss(
            count, lambda n: (str(n), Loss((missed.get(n, 8.0),), {"found": 1 - missed.get(n, 8.0) / 10}))
        )
        allowed = [n for n in missed if n <= count]
        assert missed[length] == min(missed[n] for n in allowed)
        assert made == str(length)
        assert [n for n, _ in tried][: len(allowed)] == allowed
        assert facts_of(tried)[0] == {"layers": allowed[0], "found": round(1 - missed[allowed[0]] / 10, 4)}


def test_nothing_is_tried_after_a_candidate_that_loses_nothing() -> None:
    made = []

    def make(n: int) -> tuple[int, Loss]:
        made.append(n)
        return n, Loss((0.0 if n <= 4 else 1.0,))

    assert least_loss(10, make)[0] == 4
    assert made == [9, 6, 4, 10, 8, 7, 5]


def test_more_layers_are_kept_where_they_lose_no_more_answers() -> None:
    lost = {9: (1.0, 0.0, 0.1), 6: (0.0, 1.0, 0.1), 12: (0.0, 2.0, 0.0), 11: (0.0, 1.0, 0.3)}
    length, made, tried = least_loss(12, lambda n: (n, Loss(lost[n])))
    assert (length, made) == (11, 11)
    assert [n for n, _ in tried] == [9, 6, 12, 11]


def test_values_near_the_outputs() -> None:
    layers = [
        (["x"], ["a"], True),
        (["a"], ["b"], True),
        (["b"], ["c"], True),
        (["c"], ["d"], False),
        (["d"], ["e"], True),
        (["b"], ["f"], True),
        (["e", "f"], ["y"], False),
        (["x"], ["dead"], True),
    ]
    assert near_outputs(layers, ["y"]) == {"y", "e", "f", "d", "c", "b"}
    assert near_outputs(layers[:5], ["e"]) == {"e", "d", "c", "b"}
    deep = [([f"v{i}"], [f"v{i + 1}"], True) for i in range(24)]
    assert near_outputs(deep, ["v24"]) == {"v24", "v23", "v22"}
    assert near_outputs(deep, ["v24"], 6) == {"v24", "v23", "v22", "v21", "v20"}
