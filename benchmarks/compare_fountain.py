"""A COLMAP model made by plain pycolmap, our result, and the ground truth of fountain-P11, compared with one another.

    python -m benchmarks.compare_fountain DATA/fountain-P11 WORKSPACE [--out FOLDER]

``DATA/fountain-P11`` holds ``images/`` and ``gt/cameras.json``; WORKSPACE is what ``vlm3-recon DATA/fountain-P11/images
--out fountain.ply`` left. COLMAP runs with its defaults and one camera for all photos: SIFT, exhaustive matching,
incremental mapping; and once more with the principal point refined. Writes ``results/compare_fountain.json``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import pycolmap

from pipelines.compare import compare_all, plain_data, text
from pipelines.hardware import hardware
from pipelines.summary import known_numbers, versions
from recon.evaluation.compare import CompareOptions


def colmap_models(images: Path, folder: Path) -> dict[str, Path]:
    """Maps photos with COLMAP's defaults, and once more with the principal point refined; returns the models."""
    database = folder / "database.db"
    pycolmap.extract_features(database, images, camera_mode=pycolmap.CameraMode.SINGLE)
    pycolmap.match_exhaustive(database)
    models = {}
    for name, refine in (("COLMAP", False), ("COLMAP, principal point refined", True)):
        options = pycolmap.IncrementalPipelineOptions()
        options.ba_refine_principal_point = refine
        target = folder / ("sparse-refined" if refine else "sparse")
        target.mkdir(parents=True, exist_ok=True)
        made = pycolmap.incremental_mapping(database, images, target, options)
        best = max(made, key=lambda index: made[index].num_reg_images())
        models[name] = target / str(best)
    return models


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with images/ and gt/cameras.json")
    parser.add_argument("workspace", type=Path, help="what vlm3-recon left of these photos")
    parser.add_argument("--out", type=Path, help="keep COLMAP's model in this folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.out or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        started = time.perf_counter()
        models = colmap_models(options.data / "images", folder)
        seconds = time.perf_counter() - started
        comparisons = compare_all(options.workspace, (*models.values(), options.data), CompareOptions())
    print("\n\n".join(text(comparison) for comparison in comparisons))
    rows = [comparison.as_json() for comparison in comparisons]
    names = {str(options.workspace): "ours", str(options.data): "ground truth"}
    names |= {str(path): name for name, path in models.items()}
    for row in rows:  # paths of one machine mean nothing elsewhere
        row["result"], row["reference"] = names[row["result"]], names[row["reference"]]
        row["notes"] = [_named(note, names) for note in row["notes"]]
    data = {
        "benchmark": "fountain-P11: ours, plain pycolmap, ground truth",
        "command": "python -m benchmarks.compare_fountain DATA/fountain-P11 WORKSPACE",
        "colmap_seconds": round(seconds, 1),
        "hardware": hardware(),
        "versions": versions(),
        "date": time.strftime("%Y-%m-%d"),
        "comparisons": rows,
    }
    path = Path(__file__).parent / "results" / "compare_fountain.json"
    path.write_text(json.dumps(known_numbers(plain_data(data)), indent=1) + "\n")


def _named(note: str, names: dict[str, str]) -> str:
    for path, name in names.items():
        note = note.replace(path, name)
    return note


if __name__ == "__main__":
    main()
