"""The model's shape, its labels and its loss."""

import math
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'curation[train]'")
pytest.importorskip("transformers", reason="needs transformers: pip install 'curation[train]'")

from torch.nn import functional  # noqa: E402

from curation.train import model as models  # noqa: E402
from curation.train.presets import PRESETS, preset  # noqa: E402


@pytest.mark.parametrize("name", PRESETS)
def test_a_model_has_the_parameters_of_its_preset(name):
    built = models.build(preset(name), device="meta")
    assert sum(p.numel() for p in built.parameters()) == preset(name).num_parameters


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    return models.build(replace(preset("tiny"), vocab_size=512, sequence_length=64))


@pytest.fixture
def ids():
    return torch.randint(0, 512, (3, 64), generator=torch.Generator().manual_seed(1))


def test_weights_begin_as_the_paper_says(tiny):
    for name, weight in tiny.named_parameters():
        if weight.dim() > 1:
            assert weight.std().item() == pytest.approx(0.006, rel=0.05), name
        else:
            assert (weight == 1).all()


def test_the_first_loss_is_that_of_guessing(tiny, ids):
    labels = models.labels_of(ids, torch.tensor([64, 64, 64]))
    loss = models.summed_loss(tiny, ids, labels) / (3 * 63)
    assert loss.item() == pytest.approx(math.log(512), abs=0.05)


def test_labels_are_the_next_tokens_before_the_padding(ids):
    labels = models.labels_of(ids, torch.tensor([64, 10, 1]))
    assert labels[0].tolist() == [*ids[0, 1:].tolist(), models.IGNORED]
    assert labels[1].tolist() == [*ids[1, 1:10].tolist(), *[models.IGNORED] * 55]
    assert labels[2].tolist() == [models.IGNORED] * 64


@pytest.mark.parametrize("chunk", [1, 50, 10_000])
def test_the_loss_in_chunks_and_its_gradient_are_those_of_all_logits(tiny, ids, chunk, monkeypatch):
    monkeypatch.setattr(models, "CHUNK_TOKENS", chunk)
    labels = models.labels_of(ids, torch.tensor([64, 40, 64]))
    tiny.zero_grad()
    loss = models.summed_loss(tiny, ids, labels)
    loss.backward()
    found = [p.grad.clone() for p in tiny.parameters()]
    tiny.zero_grad()
    logits = tiny(ids).logits.flatten(0, 1)
    expected = functional.cross_entropy(logits, labels.flatten(), reduction="sum")
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    for own, parameter in zip(found, tiny.parameters(), strict=True):
        torch.testing.assert_close(own, parameter.grad, rtol=1e-3, atol=1e-4)


def test_with_a_mask_a_document_is_computed_as_if_it_were_alone(tiny, ids):
    documents = torch.zeros(3, 64, dtype=torch.int32)
    documents[:, 20:] = 1
    documents[:, 50:] = -1
    labels = models.labels_of(ids, torch.tensor([50, 50, 50]))
    labels[:, 19] = models.IGNORED  # the end of a document predicts another one
    together = models.summed_loss(tiny, ids, labels, documents)
    parts = [
        models.summed_loss(tiny, ids[:, a:b], labels[:, a:b].contiguous())
        for a, b in ((0, 20), (20, 50))
    ]
    assert together.item() == pytest.approx(sum(part.item() for part in parts), rel=1e-5)
    assert together.item() != pytest.approx(models.summed_loss(tiny, ids, labels).item(), rel=1e-6)


def test_positions_begin_anew_in_every_document():
    documents = torch.tensor([[0, 0, 1, 1, 1, 2, -1, -1]])
    assert models.document_positions(documents).tolist() == [[0, 1, 0, 1, 2, 0, 0, 1]]
