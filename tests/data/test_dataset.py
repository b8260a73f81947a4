"""Dataset: what is refused, that batches lose nothing, and that a split is a fixed partition."""

import pytest
import torch

from sfumato.data import Dataset, check_finite, dataset, split
from sfumato.errors import ArgumentError, DataError


def events(n, *shape, seed=0):
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed))


def test_batches_hold_every_training_sample_in_order_in_every_pass():
    data = Dataset("d", events(10, 2), events(3, 2))
    batches = data.batches(4)
    assert len(batches) == 3
    for _ in range(2):
        assert [len(b) for b in batches] == [4, 4, 2]
        assert torch.equal(torch.cat(list(batches)), data.train)
    with pytest.raises(ArgumentError, match="size"):
        data.batches(0)


def test_nan_and_infinities_are_counted_and_the_first_is_located_across_blocks(monkeypatch):
    monkeypatch.setattr(dataset, "_BLOCK", 6)
    x = events(20, 2, 3)
    x[7, 1, 2], x[13, 0, 0], x[13, 0, 1] = torch.nan, torch.inf, -torch.inf
    with pytest.raises(DataError, match=r"3 NaN or infinite values, the first at index \(7, 1, 2\)"):
        check_finite(x, "x")
    with pytest.raises(DataError, match=r"d: test: .* 1 NaN or infinite value, the first at index \(7, 1, 2\)"):
        Dataset("d", events(20, 2, 3), torch.where(torch.isinf(x), 0.0, x))


def test_constant_data_are_refused_also_where_a_sample_itself_varies(monkeypatch):
    monkeypatch.setattr(dataset, "_BLOCK", 6)
    same = events(1, 3).expand(9, 3).clone()
    with pytest.raises(DataError, match="9 samples that are all the same"):
        Dataset("d", same, events(2, 3))
    same[8, 2] += 1
    Dataset("d", same, events(2, 3))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"train": events(1, 3)}, "at least 2 samples"),
        ({"test": events(0, 3)}, "at least 1 samples"),
        ({"test": events(2, 4)}, r"events shaped as in train, \(3,\)"),
        ({"train": events(5, 3).double()}, "float32"),
        ({"train": events(5)}, "float32 samples"),
        ({"train": events(5, 0), "test": events(5, 0)}, "at least one number"),
        ({"train_labels": torch.zeros(5, dtype=torch.int64)}, "labels of both parts and classes, or neither"),
        ({"classes": 2}, "labels of both parts and classes, or neither"),
        (
            {"train_labels": torch.zeros(4, dtype=torch.int64), "test_labels": torch.zeros(2, dtype=torch.int64), "classes": 1},
            "one label per",
        ),
        ({"train_labels": torch.full((5,), 2), "test_labels": torch.zeros(2, dtype=torch.int64), "classes": 2}, "labels from 2 to 2"),
    ],
)
def test_parts_that_do_not_fit_together_are_refused_by_name(parts, message):
    with pytest.raises(DataError, match=message):
        Dataset("d", **{"train": events(5, 3), "test": events(2, 3)} | parts)


def test_split_is_a_partition_that_depends_on_the_number_of_samples_alone():
    x = torch.arange(60, dtype=torch.float32).reshape(60, 1)
    labels = torch.arange(60) % 7
    data = split("d", x, labels, 7)
    assert (len(data.train), len(data.test)) == (50, 10)
    assert sorted(torch.cat([data.train, data.test]).flatten().tolist()) == list(range(60))
    assert torch.equal(data.train_labels, data.train[:, 0].long() % 7)
    assert torch.equal(data.test_labels, data.test[:, 0].long() % 7)
    assert torch.equal(split("d", -x).train, -data.train)
    with pytest.raises(DataError, match="at least 3"):
        split("d", x[:2])


def test_permutation_is_pinned_so_that_the_bundled_splits_never_move():
    assert dataset.permutation(8).tolist() == [0, 2, 1, 5, 4, 3, 6, 7]
    assert dataset.permutation(8, seed=1).tolist() != dataset.permutation(8).tolist()
