"""How a collection is to be made: what the form says, refused in a sentence where it makes no sense."""

import json

import pytest

from gradio_app.recipe import ENCODERS, INDEXES, Recipe, RecipeError, encoder_choices, space_choices
from ivfpq import index_factory


def test_what_is_chosen_is_read_back_from_json():
    recipe = Recipe.chosen("efficientnet-lite0", " IVF64,PQ16 ", "fast", False, ["concepts"])
    assert recipe == Recipe("efficientnet-lite0", "IVF64,PQ16", 0.9, ("ivfpq",), ("concepts",))
    assert Recipe.read(json.loads(json.dumps(recipe.written()))) == recipe
    assert Recipe.read(json.loads(json.dumps(Recipe().written()))) == Recipe()
    assert Recipe.chosen("auto", "IVF64,PQ16", "balanced", True, []).target_recall == 0.99


def test_exact_has_no_lists_whatever_index_was_chosen():
    recipe = Recipe.chosen("auto", "nonsense", "exact", True, [])
    assert (recipe.factory, recipe.target_recall, recipe.engines) == ("Flat", None, ("ivfpq", "faiss"))


@pytest.mark.parametrize(
    ("encoder", "index", "quality", "spaces", "says"),
    [
        ("other", "Flat", "fast", [], "There is no encoder other"),
        ("auto", "IVF100", "fast", [], "The index cannot be made: .*must be followed by PQ"),
        ("auto", "", "fast", [], "The index cannot be made"),
        ("auto", "Flat", "slow", [], "A search is one of fast, balanced, exact, and slow is none"),
        ("auto", "Flat", "fast", ["visual"], "There is no space visual"),
    ],
)
def test_what_makes_no_sense_is_refused(encoder, index, quality, spaces, says):
    with pytest.raises(RecipeError, match=says):
        Recipe.chosen(encoder, index, quality, True, spaces)


def test_all_that_is_offered_can_be_chosen():
    for encoder in encoder_choices():
        for index in INDEXES:
            Recipe.chosen(encoder, index, "balanced", True, list(space_choices()))
            index_factory(2048, index, metric="cosine")
    assert "auto" not in ENCODERS
