"""Packs to shards: what is kept, which split it goes to, and the manifests.

The bytes depend on the packs and the configuration alone. ``dataset.json`` is removed first and written last: a folder
that has one is whole.
"""

import dataclasses
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from itertools import groupby
from typing import Any

from talkface.clip import ScoreSpec
from talkface.config import Build, Ingest, Threshold
from talkface.datasets.build.card import card
from talkface.datasets.build.packs import Candidate, PackReader, PackUse, Plan, labelled_members, read_packs
from talkface.datasets.format import schema
from talkface.datasets.selection import Selection
from talkface.datasets.split import read_splitting
from talkface.errors import ConfigError, DatasetError, RunError
from talkface.store import PACKS, Folder, TarWriter, read_pack_index, read_table, sha256_of, table_bytes

PLAN = f"{PACKS}/plan.json"
"""What the last build was made from, so that it can be made again without the inputs."""

Measured = Mapping[str, Mapping[str, float]]
"""Scores that packs do not hold, by name and key."""

MANIFESTS = ("sources", "clips", "rejects", "shards", "members")


def build(folder: Folder, plan: Plan) -> schema.DatasetInfo:
    """Write shards, manifests, the card and ``dataset.json`` into ``folder`` from its ``packs/``.

    Raises DamagedPack if a pack is missing or not what it was.
    """
    candidates, rejects, made_with = read_packs(folder, plan)
    folder.write(PLAN, _plan_bytes(plan))
    folder.remove("dataset.json")
    failures = {c.key: _failures(c, plan) for c in candidates}
    rejects += [row for rows in failures.values() for row in rows]
    kept = [c for c in candidates if not failures[c.key]]
    splitting = read_splitting(folder, plan.build)
    groups = {c.key: splitting.group(c.source["speaker"], c.source["sha256"]) for c in kept}
    splits = {key: splitting.split_of(group) for key, group in groups.items()}
    kept.sort(key=lambda c: (schema.SPLITS.index(splits[c.key]), c.key))
    shards, members = _write_shards(folder, plan, kept, splits)
    _remove_other_shards(folder, {s["shard"] for s in shards})
    clips = _clip_rows(kept, splits, members, plan)
    info = _info(plan, clips, shards, made_with)
    tables = {
        "sources": table_bytes(_source_rows(plan, clips, rejects), schema.SOURCES),
        "clips": table_bytes(clips, schema.clips_schema(plan.scores)),
        "rejects": table_bytes(sorted(rejects, key=_reject_order), schema.REJECTS),
        "shards": table_bytes(shards, schema.SHARDS),
        "members": table_bytes(members, schema.MEMBERS),
    }
    for name in MANIFESTS:
        folder.write(f"manifest/{name}.parquet", tables[name])
    folder.write("README.md", card(info, clips).encode())
    folder.write("dataset.json", json.dumps(info.model_dump(mode="json"), indent=1, sort_keys=True).encode() + b"\n")
    _remove_other_packs(folder, {use.name for use in plan.packs})
    return info


def rebuild(folder: Folder, selection: Selection | None = None, measured: Measured | None = None) -> schema.DatasetInfo:
    """Build again from the packs and the plan of the last build, with a selection made part of it (see `planned`).

    Raises DatasetError if these are gone or damaged; nothing has been changed then.
    """
    plan = planned(folder, selection, measured)
    packs = Folder(f"{folder.url}/{PACKS}")
    for name in {use.name for use in plan.packs}:
        index = read_pack_index(packs, name)
        if index is not None:
            with packs.open(f"{name}.tar") as file:
                if sha256_of(file) != index["sha256"]:
                    raise DatasetError(f"{packs.path(name)}.tar: damaged too. Remove it and run the ingest again.")
    return build(folder, plan)


def planned(folder: Folder, selection: Selection | None = None, measured: Measured | None = None) -> Plan:
    """The plan of the last build; with a selection, what a build by that would be made from.

    ``measured`` are those of such scores that the selection bounds. Raises DatasetError if the plan is gone, or of
    another version.
    """
    try:
        raw = json.loads(folder.read(PLAN))
    except (FileNotFoundError, ValueError) as error:
        raise DatasetError(
            f"{folder.url}: its packs are gone, so nothing can be rebuilt. Run the ingest again."
        ) from error
    try:
        plan = _plan_from(raw)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DatasetError(
            f"{folder.path(PLAN)}: written by another version of talkface. Run the ingest again."
        ) from error
    if selection is None:
        return plan
    known = {name: {**plan.measured.get(name, {}), **(measured or {}).get(name, {})} for name in selection.thresholds}
    outside = {name: _outside(values, selection.thresholds[name]) for name, values in known.items()}
    chosen = dataclasses.replace(
        plan, marks=selection.marks, thresholds=selection.thresholds, measured={n: v for n, v in outside.items() if v}
    )
    return dataclasses.replace(chosen, info=_built_with(chosen))


def _outside(values: Mapping[str, float], bounds: Threshold) -> dict[str, float]:
    return {key: value for key, value in values.items() if _missed(value, bounds)}


def _missed(value: float | None, bounds: Threshold) -> list[tuple[str, float, float]]:
    """The side on which a score lies outside its bounds, with score and bound; one that is missing passes."""
    if value is None or schema.is_missing(value):
        return []
    low = [("min", value, bounds.min)] if bounds.min is not None and value < bounds.min else []
    high = [("max", value, bounds.max)] if bounds.max is not None and value > bounds.max else []
    return low + high


def _built_with(plan: Plan) -> Mapping[str, Any]:
    """What dataset.json says, with the thresholds that decide."""
    if "build" not in plan.info["config"]:
        return plan.info
    settings = plan.build.model_copy(update={"thresholds": plan.bounds})
    config = {**plan.info["config"], "build": settings.model_dump(mode="json")}
    return {**plan.info, "config": config, "config_hash": Ingest.model_validate(config).hash()}


def kept_keys(folder: Folder, plan: Plan) -> set[str]:
    """Keys of the clips that a build by this plan would keep. Raises DatasetError if a pack is missing or damaged."""
    return {c.key for c in read_packs(folder, plan)[0] if not _failures(c, plan)}


def refuse_foreign(folder: Folder) -> None:
    """Raise ConfigError if ``folder`` holds anything but what an earlier ingest left there: a build overwrites."""
    if folder.exists("dataset.json") or folder.exists(PACKS):
        return
    if held := [n for n in folder.names() if not n.startswith(".")]:
        raise ConfigError(
            f"{folder.url} is neither empty nor a dataset of talkface (it holds {held[0]}). Choose another --out."
        )


def refuse_to_lose(
    folder: Folder, names: Set[str], fingerprint: str, *, replace: bool, unread: Mapping[str, str] | None = None
) -> None:
    """Keep what is there, unless ``replace``.

    Raises ConfigError if the dataset in ``folder`` holds sources that are not among ``names``, or was made with other
    models, settings or annotators than ``fingerprint`` stands for; RunError if one of them is among ``unread``, which
    says of sources that cannot be read now why.
    """
    if replace or not folder.exists("dataset.json"):
        return
    info = schema.DatasetInfo.parse(folder.read("dataset.json"), folder.path("dataset.json"))
    if info.fingerprint != fingerprint:
        used = sorted(
            {w["name"] for a in info.annotators.values() for w in a.weights} | {w["name"] for w in info.faces}
        )
        raise ConfigError(
            f"{folder.url} was made with other settings or models ({', '.join(used)}). Give the same --config and "
            "--models, choose another --out, or say --replace to make it all anew."
        )
    held = set(read_table(folder, "manifest/sources.parquet").column("name").to_pylist())
    if out_of_reach := sorted(held & (unread or {}).keys()):
        raise RunError(f"{(unread or {})[out_of_reach[0]]} The dataset holds it, and was left as it is.")
    if lost := sorted(held - names):
        raise ConfigError(
            f"{folder.url} holds {len(lost)} sources that are not among the inputs ({lost[0]} ...). Name their folder "
            "too, choose another --out, or say --replace to let them go."
        )


def _plan_bytes(plan: Plan) -> bytes:
    thresholds = {name: bounds.model_dump() for name, bounds in plan.thresholds.items()}
    raw = dataclasses.asdict(plan) | {"build": plan.build.model_dump(mode="json"), "thresholds": thresholds}
    return json.dumps(raw, sort_keys=True, indent=1).encode()


def _plan_from(raw: dict[str, Any]) -> Plan:
    """The plan that ``_plan_bytes`` wrote; some error of Python's or pydantic's if a build would miss something."""
    columns = [schema.column_from(c) for c in raw["columns"]]
    scores = [ScoreSpec(**s) for s in raw["scores"]]
    packs = [PackUse(**use) for use in raw["packs"]]
    marks = dict(raw.get("marks", {}))
    thresholds = {name: Threshold.model_validate(bounds) for name, bounds in raw.get("thresholds", {}).items()}
    known = {"columns": columns, "scores": scores, "packs": packs, "marks": marks, "thresholds": thresholds}
    plan = Plan(**raw | known | {"build": Build.model_validate(raw["build"])})
    _info(plan, (), (), {})
    _source_rows(plan, (), [dict(r) for r in plan.rejects])
    for source in plan.sources:
        labelled_members(source, plan)
    return plan


def _remove_other_shards(folder: Folder, shards: Set[str]) -> None:
    for split in schema.SPLITS:
        for name in folder.names(split, ".tar"):
            if f"{split}/{name}" not in shards:
                folder.remove(f"{split}/{name}")


def _remove_other_packs(folder: Folder, kept: Set[str]) -> None:
    """Packs of an older configuration, or of sources that were let go, only take room."""
    for ending in (".json", ".tar"):
        for name in folder.names(PACKS, ending):
            if name.removesuffix(ending) not in kept and f"{PACKS}/{name}" != PLAN:
                folder.remove(f"{PACKS}/{name}")


def clips_in_packs(folder: Folder) -> dict[str, Candidate]:
    """Every clip in the packs of the last build by key. Raises DatasetError if a pack is missing or damaged."""
    return {c.key: c for c in read_packs(folder, planned(folder))[0]}


def _failures(clip: Candidate, plan: Plan) -> list[dict[str, Any]]:
    """A reject row for each threshold that the clip misses. A score that is missing passes, and marks decide first."""
    mark = plan.marks.get(clip.key)
    if mark is not None:
        return [] if mark == "keep" else [_dropped(clip)]
    failed = []
    for name, bounds in plan.bounds.items():
        failed += [_threshold_reject(clip, name, *missed) for missed in _missed(plan.score(clip, name), bounds)]
    return failed


def _dropped(clip: Candidate) -> dict[str, Any]:
    unknown = dict.fromkeys(("value", "threshold"))
    span = {k: clip.record[k] for k in ("key", "start_ns", "end_ns")}
    about = {"stage": "filter", "reason": "dropped", "source": clip.source["name"], "message": "marked by hand"}
    return {**about, **span, **unknown}


def _threshold_reject(clip: Candidate, name: str, side: str, value: float, bound: float) -> dict[str, Any]:
    return {
        "stage": "filter",
        "reason": f"{name}_{'low' if side == 'min' else 'high'}",
        "source": clip.source["name"],
        "key": clip.key,
        "start_ns": clip.record["start_ns"],
        "end_ns": clip.record["end_ns"],
        "value": value,
        "threshold": bound,
        "message": f"{name} {value:.4g} is {'below' if side == 'min' else 'above'} {bound:.4g}",
    }


def _reject_order(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["source"], row["start_ns"] or 0, row["stage"], row["reason"], row["key"] or ""


def _write_shards(
    folder: Folder, plan: Plan, kept: Sequence[Candidate], splits: Mapping[str, str]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Copy samples from packs to shards of bounded size, one split after the other."""
    shards: list[dict[str, Any]] = []
    members: list[dict[str, Any]] = []
    order = schema.member_order(plan.columns, has_video=plan.has_video)
    with PackReader(folder) as packs:
        for split, of_split in groupby(kept, key=lambda c: splits[c.key]):
            for number, group in enumerate(_shard_groups(of_split, plan.build.shard_megabytes)):
                shard = f"{split}/{number:06d}.tar"
                rows, made = _write_shard(folder, shard, group, order, packs)
                shards.append({"shard": shard, "split": split, "count": len(group), **made})
                members += rows
    return shards, members


def _shard_groups(clips: Iterator[Candidate], megabytes: float) -> Iterator[list[Candidate]]:
    group: list[Candidate] = []
    size = 0
    for clip in clips:
        group.append(clip)
        size += sum(n for _, n in clip.members.values())
        if size >= megabytes * 1e6:
            yield group
            group, size = [], 0
    if group:
        yield group


def _write_shard(
    folder: Folder, shard: str, clips: Sequence[Candidate], order: Sequence[str], packs: "PackReader"
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    rows = []
    with folder.create(shard) as file:
        tar = TarWriter(file)
        for clip in clips:
            for ext in order:
                data = schema.json_bytes(sample_json(clip)) if ext == "json" else packs.member(clip, ext)
                placed = tar.add(f"{clip.key}.{ext}", data)
                rows.append({"key": clip.key, "member": ext, "shard": shard, **placed.place()})
        tar.close()
    return rows, {"bytes": tar.bytes, "sha256": tar.sha256}


def sample_json(clip: Candidate) -> dict[str, Any]:
    """The ``json`` member: the same keys and the same types in every sample."""
    record, source = clip.record, clip.source
    return {
        **{k: record[k] for k in ("key", "track", "shot", "start_ns", "end_ns", "frames", "is_vfr", "crop_size")},
        **{k: _number(record[k]) for k in schema.JSON_NUMBERS},
        "source": source["name"],
        "source_sha256": source["sha256"],
        "labels": {
            **{k: source[k] or "" for k in ("speaker", "emotion", "camera", "language", "licence")},
            "intensity": source["intensity"] or 0,
        },
        "crop": [[float(v) for v in row] for row in record["crop"]],
        "scores": {k: _number(v) for k, v in record["scores"].items()},
        "share": {k: _number(v) for k, v in record["share"].items()},
        "status": dict(record["status"]),
    }


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def _clip_rows(
    kept: Sequence[Candidate],
    splits: Mapping[str, str],
    members: Sequence[Mapping[str, Any]],
    plan: Plan,
) -> list[dict[str, Any]]:
    shard_of = {m["key"]: m["shard"] for m in members}
    names = [name for name, _ in schema.CLIP_FIELDS]
    rows = []
    for clip in kept:
        facts = {**clip.source, **clip.record, "source": clip.source["name"], "source_sha256": clip.source["sha256"]}
        row = {name: facts.get(name) for name in names}
        row |= {"split": splits[clip.key], "shard": shard_of[clip.key]}
        rows.append(row | {s.name: clip.record["scores"].get(s.name) for s in plan.scores})
    return rows


def _source_rows(
    plan: Plan, clips: Sequence[Mapping[str, Any]], rejects: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    counts = Counter(c["source"] for c in clips)
    seconds: dict[str, float] = defaultdict(float)
    for clip in clips:
        seconds[clip["source"]] += clip["duration"]
    rejected = {r["source"] for r in rejects}
    rows = []
    for source in sorted(plan.sources, key=lambda s: str(s["name"])):
        name = source["name"]
        status = "clips" if counts[name] else "rejected" if name in rejected else "no_clips"
        rows.append({**source, "status": status, "clips": counts[name], "clip_seconds": seconds[name]})
    return rows


def _info(
    plan: Plan,
    clips: Sequence[Mapping[str, Any]],
    shards: Sequence[Mapping[str, Any]],
    made_with: Mapping[str, list[str]],
) -> schema.DatasetInfo:
    splits = {
        split: {
            "clips": float(sum(c["split"] == split for c in clips)),
            "seconds": float(sum(c["duration"] for c in clips if c["split"] == split)),
            "shards": float(sum(s["split"] == split for s in shards)),
        }
        for split in schema.SPLITS
    }
    return schema.DatasetInfo(
        **plan.info,
        columns=tuple(schema.spec_dict(c) for c in plan.columns),
        scores=tuple(schema.spec_dict(s) for s in plan.scores),
        has_video=plan.has_video,
        splits=splits,
        made_with={name: tuple(made_with[name]) for name in sorted(made_with)},
    )
