"""What a model file says of itself is read whole, or refused with one sentence."""

import json
from dataclasses import replace

import pytest

from vit_edge.runtime import Classifier, Label, Labels, Metadata, ModelError, Preprocessing

from .onnx_writer import METADATA, colour_model

AGAIN = "make it with `vit-edge export`"


def refused(model: bytes) -> str:
    with pytest.raises(ModelError) as caught:
        Classifier(model)
    text = str(caught.value)
    assert "\n" not in text
    assert "the model" in text
    return text


def test_entries_are_read_back_as_they_were_written() -> None:
    """The file is the only source of all of these."""
    metadata = Metadata(
        labels=Labels((Label("crêpe 🥞", "n1"), Label('say "a", b\n'), Label("red", "n3"))),
        preprocessing=Preprocessing.parse("resize=9x10,crop=8,interpolation=box,mean=0.1/0.2/0.3,std=1"),
        source={"name": "a.safetensors", "sha256": "00", "network": {"depth": 12}},
        recipe={"precision": "int8", "steps": ["Trace"]},
        proof={"check": {"agreement": 0.98}},
        scores={"temperature": 1.25, "threshold": 0.5},
    )
    properties = metadata.to_properties()
    assert Metadata.from_properties(properties, "a.onnx") == metadata
    assert all(key.startswith("vit_edge.") and json.loads(value) for key, value in properties.items())
    # And through a real file.
    assert Classifier(colour_model(metadata)).metadata == metadata


def test_ids_are_written_only_where_there_are_any() -> None:
    """Labels of one's own have none."""
    plain = replace(METADATA, labels=Labels.of(["red", "green", "blue"]))
    assert "vit_edge.label_ids" not in plain.to_properties()
    assert plain.to_properties()["vit_edge.classes"] == str(len(plain.labels))
    assert Classifier(colour_model(plain)).labels == plain.labels


def test_entries_of_other_programs_are_left_alone() -> None:
    """Any tool may add its own."""
    assert Classifier(colour_model(changed={"author": "me", "vit_edge.later": "{"})).metadata == METADATA


@pytest.mark.parametrize(
    ("without", "sentence"),
    [
        (("labels", "label_ids"), f"the model carries no labels; {AGAIN}"),
        (("preprocess",), f"the model carries no preprocessing; {AGAIN}"),
        (("schema",), f"the model carries no vit-edge schema; {AGAIN}"),
        (("schema", "labels", "preprocess"), f"the model carries no labels and preprocessing; {AGAIN}"),
    ],
)
def test_a_file_without_labels_or_preprocessing_is_refused(without: tuple[str, ...], sentence: str) -> None:
    """No default stands in for them: a wrong mean or name costs the answers without a word."""
    assert refused(colour_model(without=without)) == sentence


def test_a_file_without_origin_recipe_and_proof_is_read() -> None:
    """Answers do not depend on them."""
    metadata = Classifier(colour_model(without=("source", "recipe", "proof", "label_ids"))).metadata
    assert (metadata.source, metadata.recipe, metadata.proof, metadata.scores) == ({}, {}, {}, {})
    assert metadata.labels[0] == Label("red")


def test_a_file_of_a_newer_schema_is_refused_with_the_way_out() -> None:
    """What it holds cannot be known here."""
    assert refused(colour_model(changed={"vit_edge.schema": "2"})) == (
        "the model was made with schema 2, and this vit-edge reads up to 1; "
        "update it with `pip install --upgrade vit-edge`"
    )


@pytest.mark.parametrize("schema", ['"1"', "true", "0", "-1", "1.0", "null", "[1]"])
def test_a_schema_that_is_no_number_is_refused(schema: str) -> None:
    """A newer vit-edge would not help here, so the sentence does not send for one."""
    text = refused(colour_model(changed={"vit_edge.schema": schema}))
    assert "schema" in text
    assert "upgrade" not in text
    assert AGAIN in text


@pytest.mark.parametrize(
    "key", ["schema", "labels", "label_ids", "preprocess", "source", "recipe", "proof", "scores"]
)
@pytest.mark.parametrize("text", ["{", "", "red", "[" * 100_000])
def test_an_entry_that_is_no_json_is_named(key: str, text: str) -> None:
    """The sentence names the entry; a parser's own error names neither file nor entry."""
    found = refused(colour_model(changed={f"vit_edge.{key}": text}))
    assert f"the entry vit_edge.{key} of the model is no JSON" in found
    assert "make the file anew with `vit-edge export`" in found


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("labels", 3),
        ("labels", "rgb"),
        ("labels", {"red": 0, "green": 1, "blue": 2}),
        ("labels", ["red", "green", 3]),
        ("labels", ["red", "", "blue"]),
        ("labels", ["red", "green"]),
        ("label_ids", ["n1", "n2"]),
        ("label_ids", "abc"),
        ("label_ids", ["n1", "n2", 3]),
        ("preprocess", 3),
        ("preprocess", ["resize", "crop", "interpolation", "mean", "std"]),
        ("preprocess", {"resize": 8}),
        ("preprocess", METADATA.preprocessing.to_dict() | {"std": [0, 0, 0]}),
        ("preprocess", METADATA.preprocessing.to_dict() | {"crop": "8"}),
        ("preprocess", METADATA.preprocessing.to_dict() | {"gamma": 2}),
        ("source", ["a"]),
        ("recipe", "int8"),
        ("proof", 1),
        ("scores", [1]),
        ("scores", {"temperature": 0}),
        ("scores", {"temperature": "1"}),
        ("scores", {"temperature": True}),
        ("scores", {"temperature": float("nan")}),
        ("scores", {"temperature": 10**400}),
        ("scores", {"threshold": 50}),
        ("scores", {"threshold": -0.1}),
    ],
)
def test_an_entry_of_another_shape_is_refused(key: str, value: object) -> None:
    """What another program wrote must not become a traceback, or three labels `r`, `g` and `b`."""
    text = refused(colour_model(changed={f"vit_edge.{key}": json.dumps(value)}))
    assert text.startswith("the metadata of the model is malformed (")
    assert text.endswith(f"{AGAIN} anew")
