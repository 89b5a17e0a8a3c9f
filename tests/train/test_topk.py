"""The top-k beyond the golden cases: always a choice of k, with gradient where it must be."""

from __future__ import annotations

import mlx.core as mx
from hypothesis import given, settings
from hypothesis import strategies as st

from clara_mlx.train.losses import differentiable_topk


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3), st.integers(1, 9), st.data())
def test_forward_is_the_k_best_in_order(rows: int, n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, n))
    # Multiples of a 64th, all different: exact in float32 and without ties.
    numbers = st.lists(st.integers(-64, 64), min_size=n, max_size=n, unique=True)
    scores = [[i / 64 for i in data.draw(numbers)] for _ in range(rows)]
    weights, chosen = differentiable_topk(mx.array(scores), k)
    best = [sorted(range(n), key=lambda i: -row[i])[:k] for row in scores]
    assert chosen.tolist() == best
    hard = (mx.array(best)[..., None] == mx.arange(n)).astype(mx.float32)
    assert mx.abs(weights - hard).max().item() <= 1e-6


def test_places_without_a_document_are_never_chosen_and_get_no_gradient() -> None:
    scores = mx.array([[0.5, -mx.inf, 0.1], [0.2, 0.3, 0.4]])
    weights, chosen = differentiable_topk(scores, 2)
    assert chosen.tolist() == [[0, 2], [2, 1]]
    assert weights[0, :, 1].tolist() == [0, 0]

    def second_slot_first_item(scores: mx.array) -> mx.array:
        return differentiable_topk(scores, 2, 1.0)[0][:, 1, 0].sum()

    gradient = mx.grad(second_slot_first_item)(scores)
    assert mx.isfinite(gradient).all().item()
    assert gradient[0, 1].item() == 0


def test_a_long_lead_keeps_the_second_slots_mass() -> None:
    """The reference's quirk: taken items get -18.42, so a lead above 18.42 T wins again."""

    def mass_on_the_leader(lead: float) -> float:
        def second(scores: mx.array) -> mx.array:
            return differentiable_topk(scores, 2)[0][0, 1, 0]

        # For two items the gradient is p (1 - p) / T, which is largest where they are even.
        return mx.grad(second)(mx.array([[lead, 0.0]]))[0, 0].item() * 0.02

    even = mass_on_the_leader(18.42 * 0.02)
    assert abs(even - 0.25) < 0.01
    assert mass_on_the_leader(0.2) < 0.01
    assert mass_on_the_leader(0.6) < 0.01
