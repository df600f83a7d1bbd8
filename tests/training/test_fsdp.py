"""The settings for many GPUs that docs offer: accelerate reads them, and the layers they name are the model's."""

from __future__ import annotations

from pathlib import Path

from accelerate.commands.config.config_args import load_config_from_file

from recon.training.export import build_parts

SETTINGS = Path(__file__).resolve().parents[2] / "docs" / "fsdp.yaml"


def test_accelerate_reads_the_settings_and_the_model_has_the_layers() -> None:
    config = load_config_from_file(str(SETTINGS))
    assert str(config.distributed_type) in ("FSDP", "DistributedType.FSDP")
    assert config.fsdp_config["fsdp_version"] == 2
    assert config.fsdp_config["fsdp_state_dict_type"] == "FULL_STATE_DICT"
    wrapped = set(config.fsdp_config["fsdp_transformer_layer_cls_to_wrap"].split(","))
    model = build_parts("tiny", 0).model
    layers = {type(model.model.language_model.layers[0]).__name__, type(model.model.visual.blocks[0]).__name__}
    assert wrapped == layers
