"""A corpus of hostile models through a whole service: does each end in its class, and fast?

`python -m benchmarks.hostile_corpus FOLDER [KIND...] [--limit S]`: FOLDER holds manifest.json and
hostile.tar.gz; kinds such as 01_container narrow it down; the limit is that of an inspection and of
an analysis, 20 s of a quiet machine. Exits 1 where a case ends elsewhere.
"""

import argparse
import io
import json
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import Counter
from pathlib import Path

from tests.service import serving

LIMIT_S = 20.0
PATIENCE_S = 3600.0
# What else will do, by expected class (see the corpus's own rules).
ALSO = {
    "failed_with_clear_error": {"limit_exceeded", "inconclusive", "rejected_at_upload"},
    "limit_exceeded": {"inconclusive"},
    "analysed_with_warning": {"analysed"},
    "analysed": {"analysed_with_warning"},
}
# Ops the corpus takes for unknown, and we have (FusedMatMul): an analysis will do.
KNOWN = {"contrib_op"}


def main(folder, kinds, limit_s):
    cases = json.loads((folder / "manifest.json").read_text())["cases"]
    cases = [case for case in cases if not kinds or case["kind"] in kinds]
    wrong, tally, classes, slowest, told = 0, Counter(), Counter(), 0.0, ""
    with (
        tempfile.TemporaryDirectory() as unpacked,
        serving(
            analysis_time_limit_s=limit_s, inspection_time_limit_s=limit_s, max_deaths=1
        ) as service,
    ):
        subprocess.run(["tar", "xzf", folder / "hostile.tar.gz", "-C", unpacked], check=True)
        root = next(Path(unpacked).rglob(cases[0]["kind"])).parent
        for case in cases:
            began = time.monotonic()
            ended, words = outcome(service, content(root / case["path"], case["format"]), case)
            took = time.monotonic() - began
            told += words
            slowest = max(slowest, took)
            good = ended == case["expected"] or ended in ALSO.get(case["expected"], ())
            good = good or (case["name"] in KNOWN and ended.startswith("analysed"))
            wrong += not good
            tally[(case["kind"], good)] += 1
            classes[(case["expected"], ended)] += 1
            if not good or took > 5:
                print(
                    f"{'ok   ' if good else 'WRONG'} {took:5.1f} s {case['kind']}/{case['name']}: "
                    f"{ended}, expected {case['expected']}: {words[:160]}"
                )
        log = service.log.read_text()
        secrets = [file.read_text() for file in root.rglob("SECRET_canary.bin")]
    for kind in sorted({kind for kind, _ in tally}):
        print(f"{kind}: {tally[kind, True]} as expected, {tally[kind, False]} not")
    for (expected, ended), count in sorted(classes.items()):
        print(f"expected {expected}, got {ended}: {count}")
    leaked = sum(secret.strip() in log + told for secret in secrets)
    failures = log.count('"status": 5')
    print(
        f"slowest {slowest:.1f} s; answers of 5xx: {failures}; canaries leaked: {leaked} of "
        f"{len(secrets)}; paths of the server told: {told.count(str(service.folder))}"
    )
    return 1 if wrong else 0


def content(path, form):
    """The file, or a zip of a folder's regular files with one link, without its neighbour's."""
    if path.is_dir() or form == "onnx_dir":
        folder = path if path.is_dir() else path.parent
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            for file in sorted(folder.rglob("*")):
                plain = file.is_file() and not file.is_symlink() and file.stat().st_nlink == 1
                if plain and file.name != "neighbour.bin":
                    archive.write(file, file.relative_to(folder))
        return packed.getvalue()
    return path.read_bytes()


def outcome(service, data, case):
    """(class, message) of one case, after whatever the service makes of it has ended."""
    answer = service.client.post(
        "/v1/models", params={"name": f"{case['name']}.onnx"}, content=data
    )
    if answer.status_code >= 400:
        return ("rejected_at_upload" if answer.status_code < 500 else "5xx"), answer.json()[
            "detail"
        ]
    model = answer.json()
    while model["state"] == "inspecting":
        time.sleep(0.02)
        model = service.client.get(f"/v1/models/{model['id']}").json()
    if model["state"] == "rejected":
        problem = model["problem"]
        kind = (
            "limit_exceeded"
            if problem["limit"] and case["expected"] == "limit_exceeded"
            else "rejected_at_upload"
        )
        return (
            "died" if problem["code"].endswith("_died") else kind
        ), f"{problem['code']}: {problem['message']}"
    asked = {"model_id": model["id"], "options": {"profile": "quick", "remediate": False}}
    analysis = service.until(
        service.client.post("/v1/analyses", json=asked).json()["id"], limit_s=PATIENCE_S
    )
    if analysis["state"] == "failed":
        error = analysis["error"]
        died = error["code"].endswith("_died")
        kind = "limit_exceeded" if error["limit"] else "failed_with_clear_error"
        return ("died" if died else kind), f"{error['code']}: {error['message']}"
    report = service.client.get(f"/v1/analyses/{analysis['id']}/report").json()
    if report["coverage"]["unsupported_ops"] and case["expected"] not in {
        "analysed",
        "analysed_with_warning",
    }:
        return "inconclusive", str(report["coverage"]["unsupported_ops"])
    return ("analysed_with_warning" if report["warnings"] else "analysed"), report["summary"][
        "headline"
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("kinds", nargs="*")
    parser.add_argument("--limit", type=float, default=LIMIT_S)
    given = parser.parse_args()
    sys.exit(main(given.folder, set(given.kinds), given.limit))
