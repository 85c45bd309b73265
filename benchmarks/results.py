"""Measure everything that the documents say, and write it into them: `make results`.

Measuring and writing are apart. Each part runs the command that the documents show beside its figures, leaves all that
it writes in build/results/PART, and keeps one JSON file of it as benchmarks/measured/PART.json. From those files and
nothing else docs/RESULTS.md is written, and in the READMEs what stands between `<!-- results: NAME -->` and
`<!-- end -->`.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import abilities, codecs
from benchmarks.comparison import Spread
from benchmarks.engines import Subject
from benchmarks.report import describe, environment, markdown, missing, short, spread
from features.datasets import spec_of
from features.paths import expanded
from gradio_app.create_index import format_table
from search.backends.base import EngineReport

logger = logging.getLogger("benchmarks.results")

ROOT = Path(__file__).resolve().parent.parent
MEASURED = Path("benchmarks/measured")

Content = dict[str, Any]
Command = list[str]

COLLECTION = Path("collections/caltech101")
GET = './data_download.sh caltech && make index ARGS="--data caltech"'
DOCUMENTS = ("README.md", "ivfpq/README.md", "features/README.md")
MARKED = re.compile(r"(<!-- results: ([a-z0-9]+) -->\n).*?(<!-- end -->)", re.DOTALL)
RECALL = 0.9
"""What an engine has to reach in the short table, if it can"""

PEERS = ("Flat", "IVF100,PQ8", "PCA128,IVF100,PQ8,Refine")
ENGINES = "ivfpq,faiss,hnswlib,annoy,sklearn,usearch,scann"


# --- measuring ------------------------------------------------------------------------------------------------------


def benchmark_command(collection: Path, out: Path, *more: str) -> Command:
    """The benchmark over the collection's vectors."""
    features = ["--features", str(collection / "features.npy")]
    return ["python", "-m", "ivfpq.benchmark", *features, *more, "--out", str(out)]


def peers_command(collection: Path, out: Path) -> Command:
    """All engines, by cosine."""
    what = ["--metric", "cosine", "--factory", *PEERS, "--engines", ENGINES, "--nprobe", "1,8,32"]
    return benchmark_command(collection, out, *what, "--threads", "1,2", "--queries", "500", "--repeats", "3")


def faiss_command(collection: Path, out: Path) -> Command:
    """Ours beside faiss, on these vectors and on a million made ones."""
    return benchmark_command(collection, out, "--study", "fast-table", "--repeats", "2")


def without_avx512(kernel: str) -> Callable[[Path, Path], Command]:
    """The same study once more with one of our kernels, and without AVX-512 in anything: ours, faiss or OpenBLAS."""
    switches = [f"IVFPQ_KERNEL={kernel}", "FAISS_SIMD_LEVEL=AVX2", "NUMBA_CPU_NAME=x86-64-v3"]
    return lambda collection, out: ["env", *switches, "OPENBLAS_CORETYPE=Haswell", *faiss_command(collection, out)]


def scaling_command(collection: Path, out: Path) -> Command:
    """A million made vectors."""
    return ["python", "-m", "ivfpq.benchmark", "--study", "scaling", "--repeats", "3", "--out", str(out)]


def codecs_command(collection: Path, out: Path) -> Command:
    """Codes of equal size, by cosine."""
    return benchmark_command(collection, out, "--study", "codecs", "--metric", "cosine", "--queries", "500")


def abilities_command(collection: Path, out: Path) -> Command:
    """What each library does."""
    return ["python", "-m", "ivfpq.benchmark", "--study", "abilities", "--out", str(out)]


def encoders_command(collection: Path, out: Path) -> Command:
    """Every collection there is of the same images, but for those whose weights come from a file: that may be one which
    was trained on these very images.
    """
    made = json.loads((collection / "manifest.json").read_text())
    same = []
    for path in sorted(collection.parent.glob("*/manifest.json")):
        other = json.loads(path.read_text())
        weights = (other["encoder"].get("weights") or {}).get("argument") or ""
        if all(other[fact] == made[fact] for fact in ("dataset", "count")) and not Path(weights).suffix:
            same.append(path.parent)
    return ["python", "-m", "features.evaluate", *map(str, same), "--json"]


def create_command(collection: Path, out: Path) -> Command:
    """The command that makes a collection, over a copy: the indexes of the one in use may be others."""
    copy = out / "collections" / collection.name
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(collection, copy)
    made = json.loads((collection / "manifest.json").read_text())
    data = spec_of(made["dataset"], made["root"])
    where = ["--name", collection.name, "--collections", str(copy.parent)]
    return ["python", "gradio_app/create_index.py", "--data", data, *where, "--json"]


def run(command: Command, out: Path) -> str:
    """Standard output of a command; what it says meanwhile goes to standard error.

    Raises
    ------
    subprocess.CalledProcessError
    """
    logger.info("%s", shlex.join(command))
    words = [sys.executable if word == "python" else word for word in command]
    done = subprocess.run(words, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    (out / "output.txt").write_text(done.stdout, encoding="utf-8")
    return done.stdout


def measure(part: Part, collection: Path, results: Path, root: Path) -> None:
    """Run a part's command; its JSON goes to MEASURED of the project `root`, its figure, if it draws one, to docs/."""
    out = results / part.name
    out.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    command = part.command(collection, out)
    printed = run(command, out)
    if part.written:
        content = json.loads((out / part.written).read_text(encoding="utf-8"))
        content["environment"]["command"] = shlex.join(command)
    else:
        content = {"environment": environment(0, command), "printed": json.loads(printed)}
    content["environment"]["seconds"] = round(time.perf_counter() - started)
    measured = root / MEASURED
    measured.mkdir(parents=True, exist_ok=True)
    new = measured / f"{part.name}.json.new"
    new.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    if part.figure:
        shutil.copy(out / part.figure, root / "docs" / f"{part.name}.png")
    new.replace(measured / f"{part.name}.json")


# --- tables ---------------------------------------------------------------------------------------------------------


def with_best(
    rows: Sequence[Sequence[str]], values: Sequence[Sequence[float | None]], better: Sequence[int]
) -> list[list[str]]:
    """The rows with the best value of each column in bold.

    Parameters
    ----------
    rows : the cells
    values : for each row, what the cells of the columns stand for, None where that is unknown
    better : for each column 1 if more is better, -1 if less is, 0 if neither
    """
    marked = [list(row) for row in rows]
    for column, sign in enumerate(better):
        known = {i: sign * value for i, row in enumerate(values) if (value := row[column]) is not None}
        for i, value in known.items():
            if sign and value == max(known.values()):
                marked[i][column] = f"**{marked[i][column]}**"
    return marked


def label(row: Content) -> str:
    """As people write it; ours by that word."""
    return re.sub("^ivfpq", "ours", Subject(row["engine"], row["factory"], row["variant"]).label)


def peers_header(content: Content) -> str:
    """What the figures of `peers` have in common."""
    data = content["data"]
    return (
        f"{data['n']:,} vectors of {data['d']} dimensions ({data['name']}, cosine), {data['queries']} other ones as "
        f"queries, k = {data['k']}. Medians of {content['repeats']} rounds in which the engines took turns, and the "
        "smallest and largest; the best of each column is bold."
    )


def peers_short(content: Content) -> str:
    """One line an index: its quickest setting that reaches RECALL, or the one that finds most."""
    best: dict[str, Content] = {}
    for row in content["results"]:
        if row["threads"] == 1:
            rank = (row["recall"] >= RECALL, -row["single_p50_us"] if row["recall"] >= RECALL else row["recall"])
            if label(row) not in best or rank > best[label(row)]["rank"]:
                best[label(row)] = {**row, "rank": rank}
    rows = list(best.values())
    names = ("recall", "single_p50_us", "batch_us", "memory_bytes")
    values = [[None, None, *(row[name] for name in names), row["train_s"] + row["add_s"]] for row in rows]
    cells = [
        [
            label(row),
            row["query"],
            f"{row['recall']:.3f}",
            short(row["single_p50_us"]),
            short(row["batch_us"]),
            short(row["memory_bytes"], 1e6),
            short(row["train_s"] + row["add_s"]),
        ]
        for row in rows
    ]
    k = content["data"]["k"]
    header = f"index|asked with|recall@{k}|us, one query|us/query in a batch|memory MB|build s"
    data = content["data"]
    return "\n\n".join(
        [
            markdown(header, with_best(cells, values, [0, 0, 1, -1, -1, -1, -1]), left=2),
            f"{data['n']:,} vectors of {data['d']} dimensions ({data['name']}, cosine), {data['queries']} held-out "
            f"queries, one thread, of each index the quickest setting that reaches recall {RECALL}, else the best",
        ]
    )


def peers_tables(content: Content) -> str:
    """Every setting, and what building took."""
    parts = [peers_header(content)]
    header = f"engine|query|recall@{content['data']['k']}|one query, p50 us|p95|p99|batch us/query|queries/s|cores"
    names = ("recall", "single_p50_us", "single_p95_us", "single_p99_us", "batch_us", "batch_queries_per_s")
    for threads in sorted({row["threads"] for row in content["results"]}):
        rows = [row for row in content["results"] if row["threads"] == threads]
        cells = [
            [
                label(row),
                row["query"],
                f"{row['recall']:.4f}",
                ranged(row, "single_p50_us"),
                short(row["single_p95_us"]),
                short(row["single_p99_us"]),
                ranged(row, "batch_us"),
                short(row["batch_queries_per_s"]),
                f"{row['cores_in_batch']:.2f}",
            ]
            for row in rows
        ]
        values = [[None, None, *(row[name] for name in names), None] for row in rows]
        parts += [
            f"{threads} thread{'s' if threads > 1 else ''}:",
            markdown(header, with_best(cells, values, [0, 0, 1, -1, -1, -1, -1, 1, 0]), left=2),
        ]
    built = list({label(row): row for row in content["results"]}.values())
    sizes = ("train_s", "add_s", "memory_bytes", "file_bytes")
    cells = [
        [
            label(row),
            row["build"],
            short(row["train_s"]),
            short(row["add_s"]),
            short(row["memory_bytes"], 1e6),
            short(row["file_bytes"], 1e6),
        ]
        for row in built
    ]
    values = [[None, None, *(row[name] for name in sizes)] for row in built]
    parts += [
        "Building, with as many threads as the most above, once:",
        markdown(
            "engine|built with|train s|add s|memory MB|file MB", with_best(cells, values, [0, 0, 0, 0, -1, -1]), 2
        ),
        "`cores`: CPU time divided by wall time, which shows who took more threads than there should be. `memory`: "
        "what the process holds more than before it built the index.",
        *missing(content["unavailable"]),
    ]
    return "\n\n".join(parts)


def ranged(row: Content, name: str) -> str:
    return spread(Spread(row[name], row[f"{name}_low"], row[f"{name}_high"]))


def faiss_table(content: Content, *, short_one: bool = False) -> str:
    """Ours beside faiss: the better one of each line is bold. The short one has fewer lines, and no notes."""
    rows = [row for row in content["rows"] if not short_one or shown_first(row["what"])]
    notes = [] if short_one else list(dict.fromkeys(row["note"] for row in rows if row["note"]))
    cells = []
    for row in rows:
        unit = f" {row['unit']}" if row["unit"] else ""
        pair = [Spread(*row[side]) if row[side] else None for side in ("theirs", "ours")]
        texts = [spread(value, unit) if value else "-" for value in pair]
        if pair[0] and pair[1]:
            lower = row["better"] == "lower"
            winner = (pair[0].median > pair[1].median) if lower else (pair[0].median < pair[1].median)
            texts[winner] = f"**{texts[winner]}**"
        recalls = [f"{recall:.3f}" for recall in (row["their_recall"], row["our_recall"]) if recall is not None]
        cells.append(
            [
                row["what"] + (f" [{notes.index(row['note']) + 1}]" if row["note"] in notes else ""),
                *texts,
                spread(Spread(*row["ratio"]), "x") if row["ratio"] else "-",
                " / ".join(recalls) or "-",
            ]
        )
    listed = "\n".join(f"[{number}] {note}  " for number, note in enumerate(notes, 1))
    return "\n\n".join(filter(None, [markdown("what|faiss|ours|faiss / ours|recall faiss / ours", cells, 1), listed]))


def shown_first(what: str) -> bool:
    """Whether a line of faiss_table is one of the few for a README."""
    return not any(
        word in what for word in ("2 threads", "x4fs", "nprobe 64", "polysemous codes that", "import", "recall@10 at")
    )


def faiss_header(content: Content) -> str:
    sets = [f"{data['n']:,} x {data['d']} (`{data['name']}`, {data['queries']} queries)" for data in content["data"]]
    return (
        f"Vectors: {', '.join(sets)}; queries are other ones, k = {content['k']}. "
        f"Medians of {content['repeats']} rounds of searches and 3 of training in which the two took turns, and the "
        "smallest and largest; the better one of a line is bold. The same vectors, training vectors, thread counts "
        "and, unless a line says otherwise, factory string and nprobe. faiss trains without polysemous codes, "
        "which plain search does not use, unless a line says otherwise. `synthetic` and `mixture` are two sets of "
        "made vectors: the first fills inverted lists evenly, the second does not (see `benchmarks/data.py`)."
    )


def faiss_tables(content: Content) -> str:
    return "\n\n".join([faiss_header(content), faiss_table(content)])


def faiss_short(content: Content) -> str:
    return "\n\n".join(
        [
            faiss_table(content, short_one=True),
            "Medians (and ranges) of rounds in which the two took turns, over held-out queries, k = 10, equal threads, "
            "training vectors and nprobe",
        ]
    )


def scaling_header(content: Content) -> str:
    return (
        f"Fixed unless varied: {content['fixed']}; {content['varied_m']}. Made vectors (`synthetic`), "
        f"{content['queries']} other ones as queries, k = {content['k']}. Medians of {content['repeats']} rounds "
        "in which the two took turns, and the smallest and largest; the figure shades the range."
    )


def scaling_table(content: Content) -> str:
    """What a query takes, by what is varied."""
    points = {(p["curve"], p["value"], p["engine"]): p for p in content["points"]}
    lines = list(dict.fromkeys((curve, value) for curve, value, _ in points))
    cells = []
    for curve, value in lines:
        both = [points.get((curve, value, engine)) for engine in ("ivfpq", "faiss")]
        pairs = [(p and Spread(*p["batch_us"]), p and Spread(*p["single_us"])) for p in both]
        cells.append([curve, f"{value:,}", *(spread(s) if s else "-" for way in zip(*pairs, strict=True) for s in way)])
    header = "varied|value|batch us/query, ours|faiss|one query us, ours|faiss"
    return "\n\n".join(
        [
            scaling_header(content),
            markdown(header, cells, left=1),
            *missing(content["unavailable"]),
        ]
    )


def scaling_short(content: Content) -> str:
    """The figure, for a README that lies in a folder."""
    figure = "![Microseconds a query against vectors, lists probed, threads and bytes of a code](../docs/scaling.png)"
    return f"{figure}\n\nFixed unless varied: {content['fixed']}; made vectors, k = {content['k']}"


def encoded(content: Content) -> list[codecs.Encoded]:
    return [codecs.Encoded(**row) for row in content["rows"]]


def codecs_table(content: Content) -> str:
    """Recall in equal bytes, then all that was measured."""
    rows = encoded(content)
    k = content["data"]["k"]
    return "\n\n".join(
        [
            codecs.describe_data(content["data"]),
            codecs.recalls(rows, k),
            f"Each index by itself: recall@{k}; the share of queries whose nearest vector is among the first 1, 10 and "
            "100 found; training; encoding.",
            codecs.costs(rows),
            *missing(content["unavailable"]),
        ]
    )


def codecs_short(content: Content) -> str:
    return "\n\n".join(
        [
            codecs.recalls(encoded(content), content["data"]["k"]),
            f"Recall@{content['data']['k']} in equal bytes of a code, {content['data']['n']:,} vectors of "
            f"{content['data']['d']} dimensions ({content['data']['name']}, cosine); what is missing would take "
            "minutes to train",
        ]
    )


def abilities_table(content: Content) -> str:
    """What each does."""
    rows = [abilities.Found(**row) for row in content["rows"]]
    return "\n\n".join(
        [
            "Each line is a small program that was run with both; an error is a no. (Not among them: what needs "
            "another build of faiss, such as its GPU side.)",
            abilities.table(rows),
        ]
    )


def encoder_rows(content: Content) -> str:
    """How well the features of each encoder retrieve."""
    rows = content["printed"]
    names = ("mean_average_precision", "nearest_neighbor", "precision_at_5")
    cells = [[f"`{row['encoder']}`", row["weights"] or "", *(f"{row[name]:.3f}" for name in names)] for row in rows]
    values = [[None, None, *(round(row[name], 3) for name in names)] for row in rows]
    return markdown("encoder|weights|mAP|1-NN|P@5", with_best(cells, values, [0, 0, 1, 1, 1]), left=2)


def encoders_short(content: Content) -> str:
    first = content["printed"][0]
    return (
        f"{encoder_rows(content)}\n\nEach of {first['queries']:,} images of {first['dataset']} as the query among the "
        f"others, by cosine; a hit is right if it shares one of the {first['labels']} labels"
    )


def encoders_table(content: Content) -> str:
    """The same, and how it was measured."""
    first = content["printed"][0]
    return "\n\n".join(
        [
            encoder_rows(content),
            f"{first['queries']:,} queries, each image of {first['dataset']} among the {first['images'] - 1:,} others, "
            f"by cosine over {first['dim']} dimensions; a hit is right if it shares one of the {first['labels']} "
            "labels. Exact search, so there is no spread. An encoder that is missing here has no collection of these "
            "images; one is made by `python -m features.extract --data caltech --encoder resnet50 "
            "--out collections/resnet50`, for example.",
        ]
    )


def create_table(content: Content) -> str:
    """What create_index prints."""
    printed = content["printed"]
    return "\n\n".join(
        [
            format_table([EngineReport(**engine) for engine in printed["engines"]]),
            f"{printed['images']:,} images, `{printed['encoder']}`, {printed['metric']}, {printed['queries']} of them "
            "held out of training and asked one at a time before they are added, nprobe 8, all cores, once, compiling "
            "left out; times of a query are medians. Recall@10: the share of the ten nearest by exact search among the "
            "ten found, ties counted.",
        ]
    )


def machine(content: Content) -> str:
    """Where it was measured, the end of a caption."""
    about = content["environment"]
    return f"kernel `{about['kernel']}`, {about['cpu']}, {about['cores']} cores, {about['date'][:10]}"


# --- documents ------------------------------------------------------------------------------------------------------


class Part(NamedTuple):
    """What is measured by one command."""

    name: str
    title: str
    command: Callable[[Path, Path], Command]
    written: str
    """The JSON file that the command writes; empty if it prints it"""
    figure: str
    """The figure that it draws, if any"""
    table: Callable[[Content], str]
    short: Callable[[Content], str] | None = None
    """What READMEs show, where that is less"""


PARTS = (
    Part("peers", "Ours and its peers", peers_command, "results.json", "pareto.png", peers_tables, peers_short),
    Part("faiss", "Speed and size beside faiss", faiss_command, "fast-table.json", "", faiss_tables, faiss_short),
    *(
        Part(
            name,
            f"Without AVX-512: kernel {name}",
            without_avx512(name),
            "fast-table.json",
            "",
            faiss_tables,
            faiss_short,
        )
        for name in ("avx2", "portable")
    ),
    Part("scaling", "How the cost grows", scaling_command, "scaling.json", "scaling.png", scaling_table, scaling_short),
    Part("codecs", "Accuracy in equal bytes", codecs_command, "codecs.json", "codecs.png", codecs_table, codecs_short),
    Part("abilities", "What each library does", abilities_command, "abilities.json", "", abilities_table),
    Part("encoders", "How well the features retrieve", encoders_command, "", "", encoders_table, encoders_short),
    Part("create", "Making a collection", create_command, "", "", create_table),
)

INTRODUCTION = """\
# Results

Written by `make results` from what its commands measured ([`benchmarks/measured/`](../benchmarks/measured)); nothing
here is typed in. One part is measured again by `make results ARGS="--only codecs"`, and all is written again, without
measuring, by `make results ARGS="--render"`.

In all of it: queries are vectors that were held out, so they are neither among the vectors searched nor among those
that anything was trained on, and no query finds itself (the encoders' table searches with each image and leaves it out
of its own answer). True neighbours are those of exact search. Recall counts ties: an answer as near as the k-th true
neighbour is right, whichever of several equally near vectors it is; distances are computed again from the vectors and
not taken from the engine. Engines are asked in turns, each in a process of its own, with equal thread counts, after
every one has answered all queries once; compiling is in no time but where a line says so."""


def load(measured: Path) -> dict[str, Content]:
    """What has been measured, by part."""
    files = {part.name: measured / f"{part.name}.json" for part in PARTS}
    return {name: json.loads(file.read_text(encoding="utf-8")) for name, file in files.items() if file.is_file()}


def results_page(contents: dict[str, Content]) -> str:
    """docs/RESULTS.md."""
    sections = [INTRODUCTION]
    for part in PARTS:
        sections.append(f"## {part.title}")
        if (content := contents.get(part.name)) is None:
            sections.append(f'Not measured yet: `make results ARGS="--only {part.name}"`.')
            continue
        figure = [f"![{part.title}]({part.name}.png)"] if part.figure else []
        seconds = content["environment"]["seconds"]
        sections += [*figure, part.table(content), f"Measured in {seconds} s on:", describe(content["environment"])]
    return "\n\n".join(sections) + "\n"


def filled(text: str, contents: dict[str, Content]) -> str:
    """A document with its marked tables written anew; those that were never measured stay.

    Raises
    ------
    ValueError
        If a mark names no part.
    """
    by_name = {part.name: part for part in PARTS}

    def table(match: re.Match[str]) -> str:
        if match[2] not in by_name:
            raise ValueError(f"<!-- results: {match[2]} --> is none of {', '.join(by_name)}")
        part, content = by_name[match[2]], contents.get(match[2])
        if content is None:
            return match[0]
        return f"{match[1]}\n{(part.short or part.table)(content)}; {machine(content)}.\n\n{match[3]}"

    return MARKED.sub(table, text)


def render(root: Path) -> None:
    """Write docs/RESULTS.md and the tables of the READMEs of a project."""
    contents = load(root / MEASURED)
    pages = {"docs/RESULTS.md": results_page(contents)}
    pages |= {name: filled((root / name).read_text(encoding="utf-8"), contents) for name in DOCUMENTS}
    for name, text in pages.items():
        (root / name).write_text(text, encoding="utf-8")


# --- command line ---------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    names = [part.name for part in PARTS]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.results", description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--only", nargs="+", choices=names, default=names, metavar="PART", help=f"of {', '.join(names)}"
    )
    parser.add_argument("--collection", type=expanded, default=COLLECTION, metavar="DIR", help="(%(default)s)")
    parser.add_argument("--render", action="store_true", help="only write the documents")
    args = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    os.chdir(ROOT)
    failed = [] if args.render else list(measured_parts(args.only, args.collection))
    if failed == args.only:
        return 2
    render(ROOT)
    return 1 if failed else 0


def measured_parts(names: Iterable[str], collection: Path) -> Iterable[str]:
    """Measure parts, and name those that failed; what they were before stays."""
    if not (ROOT / collection / "manifest.json").is_file():
        sys.stderr.write(f"error: there is no collection in {collection}; to make one: {GET}\n")
        yield from names
        return
    for part in PARTS:
        if part.name in names:
            try:
                measure(part, collection, Path("build/results"), ROOT)
            except (subprocess.CalledProcessError, OSError, ValueError) as error:
                logger.error("%s: %s", part.name, error)
                yield part.name


if __name__ == "__main__":
    sys.exit(main())
