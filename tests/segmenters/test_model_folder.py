"""Folders of transformers' models: only exact float32 weights are loaded, and no code is run."""

import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from conftest import tiny_sam
from safetensors.torch import load_file, save_file
from server import error_of

transformers = pytest.importorskip("transformers")

from hf_models import as_transformers, build  # noqa: E402

from sam_lungs.segmenters.model_folder import (  # noqa: E402
    INDEX,
    family_of_folder,
    files_of,
    load_folder,
    load_original,
)

KEY = "mask_decoder.iou_token.weight"


@pytest.fixture(scope="session")
def saved_models(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture
def folder(saved_models, tmp_path):
    """Return a copy of the folder of a family's small model."""

    def copy(family: str) -> Path:
        saved = saved_models / family
        if not saved.exists():
            build(family).save_pretrained(saved)
        return Path(shutil.copytree(saved, tmp_path / family))

    return copy


def change_weights(folder: Path, change) -> None:
    path = folder / "model.safetensors"
    weights = {key: weight.clone() for key, weight in load_file(path).items()}
    change(weights)
    save_file(weights, path, metadata={"format": "pt"})


def change_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | changes))


def assert_equal(loaded: torch.nn.Module, weights: dict[str, torch.Tensor]) -> None:
    state = loaded.state_dict()
    assert state.keys() == weights.keys()
    assert all(torch.equal(state[key], weights[key]) for key in state)
    assert {weight.dtype for weight in state.values() if weight.is_floating_point()} == {
        torch.float32
    }
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


# --- Good folders -------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["sam", "sam_hq", "sam2", "sam3", "edgetam"])
def test_every_parameter_is_loaded(folder, family):
    path, model = folder(family), build(family)
    loaded = load_folder(path)
    assert type(loaded) is type(model)
    assert_equal(loaded, model.state_dict())
    assert loaded.config._attn_implementation == "sdpa"
    assert family_of_folder(path) == family
    assert [each.name for each in files_of(path)] == ["config.json", "model.safetensors"]


def test_shards(tmp_path):
    model = build("sam")
    model.save_pretrained(tmp_path, max_shard_size="50KB")
    names = [path.name for path in files_of(tmp_path)]
    assert names[:2] == ["config.json", INDEX]
    assert len(names) > 4
    assert_equal(load_folder(tmp_path), model.state_dict())
    (tmp_path / names[-1]).unlink()
    assert error_of(load_folder, tmp_path).startswith(f"{tmp_path / names[-1]}: no such file")


@pytest.mark.parametrize("map", [{}, None, {"a": "../other.safetensors"}, {"a": 1}])
def test_an_index_names_files_of_the_folder(folder, map):
    path = folder("sam")
    (path / "model.safetensors").unlink()
    (path / INDEX).write_text(json.dumps({"weight_map": map}))
    assert "does not name the files of weights" in error_of(load_folder, path)


def test_a_folder_for_videos_gives_the_model_for_images(folder):
    path = folder("sam2")
    change_config(path, model_type="sam2_video")
    change_weights(path, lambda weights: weights.update({"memory_attention.x": torch.zeros(1)}))
    loaded = load_folder(path)
    assert type(loaded) is transformers.Sam2Model
    assert_equal(loaded, build("sam2").state_dict())


def test_the_dtype_in_the_configuration_is_ignored(folder):
    path = folder("sam")
    change_config(path, dtype="float16", torch_dtype="float16")
    assert_equal(load_folder(path), build("sam").state_dict())


# --- Bad folders --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda weights: weights.pop(KEY), KEY),
        (lambda weights: weights.update(extra=torch.zeros(1)), "extra"),
        (lambda weights: weights.update({KEY: torch.zeros(2, 32)}), KEY),
    ],
    ids=["missing", "unexpected", "another shape"],
)
@pytest.mark.parametrize("family", ["sam", "sam2"])
def test_exactly_the_parameters_of_the_model(folder, family, change, named, capfd):
    path = folder(family)
    change_weights(path, change)
    message = error_of(load_folder, path)
    assert f"1 parameters are missing, unexpected or of another shape, such as '{named}'" in message
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_refused(folder, dtype):
    path = folder("sam")
    change_weights(path, lambda weights: weights.update({KEY: weights[KEY].to(dtype)}))
    assert f"holds {str(dtype)[6:]} weights, not float32" in error_of(load_folder, path)


def test_weights_that_are_not_finite_are_refused(folder):
    path = folder("sam")

    def damage(weights: dict[str, torch.Tensor]) -> None:
        weights["prompt_encoder.no_mask_embed.weight"][0, 0] = float("nan")

    change_weights(path, damage)
    message = error_of(load_folder, path)
    assert message.startswith(f"{path}: 1 of ")
    assert "have NaN or infinity, such as 'prompt_encoder.no_mask_embed.weight'" in message


def test_the_remedy_for_half_precision(folder, tmp_path):
    path = folder("sam")
    model = transformers.SamModel.from_pretrained(path).half()
    model.save_pretrained(path)
    assert "model.float().save_pretrained(FOLDER)" in error_of(load_folder, path)
    transformers.SamModel.from_pretrained(path).float().save_pretrained(tmp_path / "again")
    load_folder(tmp_path / "again")


def test_pickled_weights_are_refused(folder):
    path = folder("sam")
    (path / "model.safetensors").unlink()
    (path / "pytorch_model.bin").write_bytes(pickle.dumps(None))
    assert "holds pickled weights, which may run code" in error_of(load_folder, path)


def test_pickled_weights_under_another_name_are_refused(folder):
    path = folder("sam")
    (path / "model.safetensors").write_bytes(pickle.dumps({}))
    assert "not a complete file of weights" in error_of(load_folder, path)


@pytest.mark.parametrize("kept", [0, 7, 8, 100, 10_000, -1])
def test_cut_weights_are_refused(folder, kept):
    path = folder("sam") / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    assert error_of(load_folder, path.parent).startswith(f"{path}: not a complete file of weights")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_missing_files(folder, name):
    path = folder("sam") / name
    path.unlink()
    assert error_of(load_folder, path.parent).startswith(f"{path}: no such file")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_something_else_than_a_file(folder, name):
    path = folder("sam") / name
    path.unlink()
    os.mkfifo(path)
    assert f"{path}: not a regular file" in error_of(load_folder, path.parent)


def test_no_folder(tmp_path):
    assert error_of(load_folder, tmp_path / "a").startswith(f"{tmp_path / 'a'}: no such folder")


@pytest.mark.parametrize(
    "changes",
    [
        {"auto_map": {"AutoModel": "code.Model"}},
        {"vision_config": {"auto_map": {"AutoModel": "code.Model"}}},
        {"a": [{"quantization_config": {"load_in_8bit": True}}]},
        {"attn_implementation": "owner/kernel"},
        {"_attn_implementation": "owner/kernel"},
    ],
    ids=repr,
)
def test_configurations_that_load_code_are_refused(folder, changes):
    path = folder("sam")
    change_config(path, **changes)
    assert "would load other code or other numbers" in error_of(load_folder, path)


@pytest.mark.parametrize(
    "changes",
    [
        {"model_type": "bert"},
        {"model_type": ["sam"]},
        {"model_type": None},
        {"vision_config": {"hidden_size": "a\nb"}},
        {"vision_config": {"hidden_size": 7}},
        {"mask_decoder_config": [1]},
    ],
    ids=repr,
)
def test_wrong_configurations_give_one_line(folder, changes):
    path = folder("sam")
    change_config(path, **changes)
    assert error_of(load_folder, path).startswith(f"{path}")


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '{"a": NaN', "\xff"])
def test_what_is_no_configuration_gives_one_line(folder, text):
    path = folder("sam") / "config.json"
    path.write_bytes(text.encode("latin-1"))
    message = error_of(load_folder, path.parent)
    assert message.startswith(f"{path}: ")


# --- One file -----------------------------------------------------------------------------------


def config_of(family: str) -> dict:
    return build(family).config.to_dict()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("level", ["", "model"])
def test_weights_with_the_names_of_transformers(tmp_path, suffix, level):
    path = tmp_path / f"weights{suffix}"
    weights = {key: weight.clone() for key, weight in build("sam2").state_dict().items()}
    if suffix == ".safetensors":
        save_file(weights, path)
    else:
        torch.save({level: weights, "epoch": 1} if level else weights, path)
    assert_equal(load_original("sam2.1_hiera_tiny", config_of("sam2"), path), weights)


def test_half_precision_weights_of_one_file_become_float32(tmp_path):
    path = tmp_path / "weights.pth"
    weights = {key: weight.half() for key, weight in build("sam2").state_dict().items()}
    torch.save(weights, path)
    loaded = load_original("sam2.1_hiera_tiny", config_of("sam2"), path)
    assert_equal(loaded, {key: weight.float() for key, weight in weights.items()})


def test_a_training_file_of_medsam(tmp_path):
    """The authors write the model, the optimizer and the epoch."""
    sam = tiny_sam()
    expected = as_transformers(sam)
    optimizer = {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-4}]}
    path = tmp_path / "medsam_model_best.pth"
    torch.save({"model": sam.state_dict(), "optimizer": optimizer, "epoch": 3}, path)
    loaded = load_original("medsam", expected.config.to_dict(), path)
    assert_equal(loaded, expected.state_dict())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"net": {}, "optimizer": {}}, "holds no medsam weights, only net, optimizer; write those"),
        ({"image_encoder.pos_embed": torch.zeros(1)}, "does not fit SamModel: "),
        ([1], "holds no medsam weights, only a list"),
    ],
    ids=["no weights", "a part", "a list"],
)
def test_other_files_are_refused(tmp_path, content, words):
    path = tmp_path / "weights.pth"
    torch.save(content, path)
    message = error_of(load_original, "medsam", config_of("sam"), path)
    assert message.startswith(f"{path}: ")
    assert words in message
