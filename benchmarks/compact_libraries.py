"""Networks of torchvision and timm made smaller by `compact`: exact or not, what went, how long it took.

    python benchmarks/compact_libraries.py [--only NAME ...] [--jobs 8] [--rows FILE.jsonl] [--out FILE.md]

Needs torchvision and timm (extra `vision`), each made for the torch that is installed. Weights are the makers' random ones, with biases,
affine terms and running statistics drawn away from their trivial values; nothing is downloaded. Half of the channels of every coupled
group are masked by magnitude (at least one stays), in double precision; compared are the masked network and the compacted one on a batch
of three, relative to the largest output; the spread says how far these three samples' outputs lie apart on the same scale. --rows keeps
a row a network as it is done; --out makes a page of them.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
import warnings
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]
Row = dict[str, Any]
# name -> pixels of a side; small where the network takes any size
TORCHVISION = {
    "resnet18": 64, "resnet50": 64, "resnext50_32x4d": 64, "wide_resnet50_2": 64, "mobilenet_v2": 64, "mobilenet_v3_small": 64,
    "mobilenet_v3_large": 64, "efficientnet_b0": 64, "efficientnet_v2_s": 64, "densenet121": 64, "vgg11_bn": 64, "alexnet": 96,
    "googlenet": 96, "inception_v3": 128, "shufflenet_v2_x0_5": 64, "squeezenet1_0": 64, "mnasnet0_5": 64, "regnet_y_400mf": 64,
    "regnet_x_400mf": 64, "convnext_tiny": 64, "swin_t": 64, "swin_v2_t": 64, "vit_b_16": 224, "maxvit_t": 224, "fcn_resnet50": 64,
    "deeplabv3_mobilenet_v3_large": 64, "lraspp_mobilenet_v3_large": 64,
}  # fmt: skip
TIMM = {
    "resnet18": 64, "resnet10t": 64, "vit_tiny_patch16_224": 224, "deit_tiny_patch16_224": 224, "convnext_atto": 64,
    "mobilenetv3_small_050": 64, "efficientnet_lite0": 64, "mixer_s32_224": 224, "swin_tiny_patch4_window7_224": 224, "regnety_002": 64,
    "poolformer_s12": 64, "edgenext_xx_small": 64, "levit_128s": 224, "ghostnet_050": 64, "repvgg_a0": 64, "resmlp_12_224": 224,
    "fastvit_t8": 64, "mobilevit_xxs": 64, "tf_efficientnet_b0": 64, "seresnet18": 64, "dla34": 64, "hrnet_w18_small": 64,
    "cspresnet50": 64, "dpn48b": 64, "nfnet_f0": 64, "xcit_nano_12_p16_224": 224, "gmlp_ti16_224": 224, "pvt_v2_b0": 64,
    "efficientformer_l1": 224, "mobileone_s0": 64, "vgg11": 64, "res2net50_26w_4s": 64, "skresnet18": 64, "inception_next_atto": 64,
    "twins_svt_small": 64,
}  # fmt: skip
LIBRARIES = {"torchvision": TORCHVISION, "timm": TIMM}


def built(library: str, name: str) -> torch.nn.Module:
    """The network with random weights."""
    if library == "timm":
        import timm

        return timm.create_model(name, pretrained=False)
    import torchvision

    options: Row = {"weights": None}
    options |= {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    options |= {"weights_backbone": None} if name.startswith(("fcn", "deeplab", "lraspp")) else {}
    return torchvision.models.get_model(name, **options)


def row(library: str, name: str, side: int) -> Row:
    """What compact makes of a network, or how it fails."""
    import prunescope as ps
    from zoo import difference, randomised

    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    began = time.perf_counter()
    try:
        with torch.no_grad():
            model = randomised(built(library, name)).eval().double()
        generator = torch.Generator().manual_seed(1)
        x, other = (torch.randn(n, 3, side, side, generator=generator, dtype=torch.float64) for n in (2, 3))
        masks = ps.prune(model, sparsity=0.5, granularity="channel", example_inputs=x, options={"least": 1})
        masked = sum(int((~m).sum()) for m in masks.values())
        pruned = time.perf_counter()
        small, report = ps.compact(model, masks, example_inputs=x)
        seconds = time.perf_counter() - pruned
        error = difference(small, model, (other,))
        with torch.no_grad():
            given = next(t for t in torch.utils._pytree.tree_leaves(model(other)) if t.ndim)
        spread = float((given - given[:1]).abs().max() / given.abs().max())
    except Exception as failed:
        said = " ".join(f"{type(failed).__name__}: {failed}".split())[:300]
        return {"library": library, "name": name, "failed": said, "seconds": time.perf_counter() - began}
    gone = (report.before - report.after) / masked
    return {"library": library, "name": name, "before": report.before, "after": report.after, "error": error, "spread": spread} | {
        "how": report.how, "gone": gone, "prune_seconds": pruned - began, "seconds": seconds,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", help="names of networks")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--rows", type=Path, help="a row a line as JSON: networks that are there already are not done again")
    parser.add_argument("--out", type=Path, help="a Markdown page")
    parser.add_argument("--note", default="", help="a sentence for the page, such as the machine")
    options = parser.parse_args()
    found = [json.loads(line) for line in options.rows.read_text().splitlines()] if options.rows and options.rows.exists() else []
    done = {(r["library"], r["name"]) for r in found}
    jobs = [(library, name, side) for library, sides in LIBRARIES.items() for name, side in sides.items()]
    jobs = [j for j in jobs if j[:2] not in done and (not options.only or j[1] in options.only)]
    with ProcessPoolExecutor(options.jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        for future in as_completed([pool.submit(row, *job) for job in jobs]):
            found.append(made := future.result())
            print(json.dumps(made), flush=True)
            if options.rows:
                with options.rows.open("a") as lines:
                    lines.write(json.dumps(made) + "\n")
    if options.out:
        options.out.write_text(page(found, options.note), encoding="utf-8")


def page(rows: list[Row], note: str) -> str:
    """The page, in the order of the lists above."""
    order = [(library, name) for library, names in LIBRARIES.items() for name in names]
    rows = sorted(rows, key=lambda r: order.index((r["library"], r["name"])))
    good = [r for r in rows if "failed" not in r]
    lost = [f"{library} {name}" for library, name in order if (library, name) not in {(r["library"], r["name"]) for r in rows}]
    worst, times = max(r["error"] for r in good), sorted(r["seconds"] for r in good)
    head = (
        "# Networks of torchvision and timm\n\nMade by `python benchmarks/compact_libraries.py`: half of the channels of every coupled "
        "group masked by magnitude,\nin double precision, then `ps.compact`. The error is the largest difference from the masked network "
        "on three other samples, relative to its largest\noutput; the spread is how far the outputs of these samples lie apart on the same "
        f"scale. Random weights make nearly the same of every sample in some\n({sum(r['spread'] < 1e-9 for r in good)} networks with a "
        "spread below 1e-9): there the error says that constants went where they belong, and little of how the outputs follow the inputs. "
        "No weights are downloaded."
        "\n\n"
        f"{len(good)} of {len(order)} networks: largest error {worst:.1e}; "
        f"{sum(r['gone'] >= 0.999 for r in good)} lose all that the masks cover; median {times[len(times) // 2]:.1f} s, longest "
        f"{times[-1]:.0f} s, one thread each.{' Not done: ' + ', '.join(lost) + '.' if lost else ''}{' ' + note if note else ''}\n\n"
    )
    lines = ["| library | network | parameters | left | of the masked gone | error | spread | how | s |"]
    lines.append("| --- | --- | ---: | ---: | ---: | ---: | ---: | --- | ---: |")
    for r in rows:
        cells = [r["library"], r["name"]]
        if "failed" in r:
            cells += ["", "", "", "", "", f"failed: {r['failed']}", ""]
        else:
            share = f"{100 * r['gone']:.4g} %"
            cells += [f"{r['before']:,}", f"{r['after']:,}", share, f"{r['error']:.0e}", f"{r['spread']:.0e}"]
            cells += [r["how"], f"{r['seconds']:.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return head + "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
