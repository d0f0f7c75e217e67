"""The arithmetic of agreement, held to what is known of it and to brute force."""

from __future__ import annotations

import numpy as np
import pytest

from prefect_mlops.tasks._agreement import agrees, histograms, slices, wilson


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("rows", [30, 500])
def test_the_interval_covers_the_truth_as_often_as_it_says(share: float, rows: int) -> None:
    drawn = np.random.default_rng(1).binomial(rows, share, 4000)
    covered = [low <= share <= high for low, high in (wilson(int(one), rows) for one in drawn)]
    assert 0.92 < np.mean(covered) < 0.985


@pytest.mark.parametrize(("agreed", "rows"), [(0, 1), (1, 1), (0, 400), (400, 400)])
def test_the_interval_stays_within_what_a_share_can_be(agreed: int, rows: int) -> None:
    low, high = wilson(agreed, rows)
    assert 0 <= low <= agreed / rows <= high <= 1
    assert low < high


def test_classes_agree_where_the_largest_is_the_same() -> None:
    champion = np.array([[0.6, 0.4], [0.2, 0.8], [0.5, 0.5]])
    challenger = np.array([[0.51, 0.49], [0.9, 0.1], [0.4, 0.6]])
    assert agrees(champion, challenger).tolist() == [True, False, False]


def test_numbers_agree_within_a_tenth_of_their_spread() -> None:
    champion = np.array([[0.0], [10.0], [20.0]])
    off = np.array([[0.5], [-0.5], [1.0]], dtype=np.float64)
    assert agrees(champion, np.add(champion, off)).tolist() == [True, True, False]
    constant = np.full((3, 1), 7.0)
    assert agrees(constant, constant).all()


def test_every_answer_is_in_the_histograms() -> None:
    rng = np.random.default_rng(2)
    for champion, challenger in (
        (rng.dirichlet((1, 1), 300), rng.dirichlet((1, 1), 300)),
        (rng.normal(0, 50, (300, 1)), rng.normal(20, 5, (300, 1))),
        (np.full((300, 1), 3.0), np.full((300, 1), 3.0)),
    ):
        assert {name: sum(counts) for name, counts in histograms(champion, challenger).items()} == {
            "champion": 300,
            "challenger": 300,
        }


def test_slices_are_of_columns_with_few_values_and_enough_rows() -> None:
    inputs = [
        [number, "ab"[number % 2], None if number < 40 else True, "rare" if number < 5 else "x"]
        for number in range(100)
    ]
    agreed = [number % 2 == 0 or number < 10 for number in range(100)]
    assert slices(("id", "kind", "flag", "tail"), inputs, agreed) == [
        ("kind", "b", 50, 5),
        ("flag", "True", 60, 30),
        ("tail", "x", 95, 50),
        ("flag", "None", 40, 25),
        ("kind", "a", 50, 50),
    ]
