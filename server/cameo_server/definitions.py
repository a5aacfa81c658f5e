"""The installed catalogues and labels, as the coordinator reads them to make a plan."""

from __future__ import annotations

from pathlib import Path

from cameo_protocol.confdir import conf_dir
from cameo_protocol.errors import CameoError, OperatorError
from cameo_protocol.facts import Catalogue, LabelDefinition, parse_catalogue, parse_label
from cameo_server.home import read_file


def read_catalogue(name: str) -> Catalogue:
    """conf/facts/NAME.yaml; an unknown name is an `OperatorError` that lists those there are."""
    return parse_catalogue(_read("facts", name), name=f"conf/facts/{name}.yaml")


def read_label(name: str) -> LabelDefinition:
    """conf/labels/NAME.yaml."""
    return parse_label(_read("labels", name), name=f"conf/labels/{name}.yaml")


def _read(kind: str, name: str) -> bytes:
    folder = conf_dir() / kind
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    if name not in known:
        raise OperatorError(
            "definition-missing", what=f"conf/{kind} holds no {name!r}", do=f"choose one of: {', '.join(known)}"
        )
    return read_file(Path(folder / f"{name}.yaml"))


def label_in_words(name: str) -> str:
    """What a model of a label predicts, in words; its name where the definition is no longer installed."""
    try:
        meaning = read_label(name).meaning
    except CameoError:
        return name
    return meaning[:1].lower() + meaning[1:]
