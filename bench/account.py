"""Compares what the vendors made, what is in the bucket, and which URLs callers received.

A picture of `tools.rig.vendors` contains its prompt, and is compared byte for byte.
"""

import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from tools.rig.cloud import Cloud
from tools.rig.gateways import Gateway
from tools.rig.labelled import drawn, label_of, prompt_of
from tools.rig.report import Row
from tools.rig.vendors import Made


@dataclass
class Account:
    """What became of the pictures of a run. Each list must be empty."""

    due: int = 0
    """Pictures that must be in the bucket."""
    lost: list[str] = field(default_factory=list)
    """Labels of pictures that are due, and neither in the bucket nor on the spool."""
    left_on_spool: list[str] = field(default_factory=list)
    """Labels of pictures that are on the spool and not in the bucket, although storage works."""
    twice: list[str] = field(default_factory=list)
    """Labels of pictures that are stored under two names."""
    broken: list[str] = field(default_factory=list)
    """Objects with other bytes than the vendor's picture."""
    nowhere: list[str] = field(default_factory=list)
    """URLs that callers received and that lead to no picture, or to another caller's."""
    urls: int = 0

    def rows(self) -> "list[Row]":
        return [
            Row("pictures that must be kept", self.due),
            Row("... lost", len(self.lost), 0),
            Row("... still on the spool in the end", len(self.left_on_spool), 0),
            Row("stored under two names", len(self.twice), 0),
            Row("stored objects that are broken", len(self.broken), 0),
            Row("URLs that callers received, also pending", self.urls),
            Row("... that lead nowhere", len(self.nowhere), 0),
        ]


def account(cloud: Cloud, due: Callable[[Made], bool], received: Mapping[str, Iterable[str]]) -> Account:
    """Returns the account of a run.

    `due` returns whether a picture must be kept. `received`: the URLs that callers received, by prompt.
    """
    result = Account()
    names: dict[str, list[str]] = defaultdict(list)
    prompts: dict[str, str] = {}
    for path, data in cloud.objects():
        label = label_of(data[:1000])
        if label is None or data != drawn(label):
            result.broken.append(path)
            continue
        names[label].append(path)
        prompts[path] = prompt_of(label)
    spooled = _on_spool(cloud)
    for one in cloud.state().pictures:
        if due(one):
            result.due += 1
            if one.label not in names:
                (result.left_on_spool if one.label in spooled else result.lost).append(one.label)
    result.twice = [label for label, paths in names.items() if len(paths) > 1]
    for prompt, urls in received.items():
        for url in urls:
            result.urls += 1
            if prompts.get(unquote(urlsplit(url).path.lstrip("/"))) != prompt:
                result.nowhere.append(url)
    return result


def _on_spool(cloud: Cloud) -> set[str]:
    """The labels of the whole pictures there."""
    found = set()
    for path in cloud.kept():
        with contextlib.suppress(FileNotFoundError):
            data = path.read_bytes()
            picture = data[max(data.find(b"\x89PNG"), 0) :]
            label = label_of(picture[:1000])
            if label and picture.startswith(drawn(label)):
                found.add(label)
    return found


def drain(cloud: Cloud, seconds: float = 120) -> float:
    """Start a gateway and wait until it has uploaded what is on the spool, but not longer than `seconds`.

    Returns the seconds that it took; 0, without a gateway, if the spool is empty.
    """
    if not cloud.kept():
        return 0
    started = time.monotonic()
    with Gateway(cloud) as gateway:
        while cloud.kept() and time.monotonic() - started < seconds:
            time.sleep(0.05)
        gateway.stop()
    return time.monotonic() - started
