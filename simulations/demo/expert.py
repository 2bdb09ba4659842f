"""The simulated expert of one site: a process that labels through the portal's real HTTP interface.

    python -m simulations.demo.expert --portal http://127.0.0.1:8080 --knowledge FOLDER

It logs in as a person does, leases items, looks each one up in what it knows of its own site, and
answers. It ends when it is told to.
"""

from __future__ import annotations

import argparse
import base64
import sys
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from simulations.demo.errors import PortalRefused
from simulations.demo.truth import SiteTruth, read_truth

USER_NAME = "expert"
PASSWORD_FILE = "password"  # noqa: S105 - the name of the file, not a password
QUEUE_COUNT = 20
PAUSE_SECONDS = 0.7


class PortalSession:
    """A logged-in expert's connection to one portal."""

    def __init__(self, address: str, password: str) -> None:
        self._client = httpx.Client(base_url=address, timeout=30)
        token: str = self._json(self._client.get("/api/session"))["csrf_token"]
        form = {"username": USER_NAME, "password": password, "csrf_token": token}
        answer = self._client.post("/login", data=form)
        if answer.status_code != 303:
            raise PortalRefused(f"the login was refused with {answer.status_code}")
        token = self._json(self._client.get("/api/session"))["csrf_token"]
        self._client.headers["X-CSRF-Token"] = token

    def campaigns(self) -> list[dict[str, Any]]:
        """Returns the site's campaigns."""
        campaigns: list[dict[str, Any]] = self._json(self._client.get("/api/campaigns"))
        return campaigns

    def lease(self, campaign: str) -> list[dict[str, Any]]:
        """Leases up to twenty items."""
        query: dict[str, str | int] = {"campaign": campaign, "count": QUEUE_COUNT}
        answer = self._client.get("/api/queue", params=query)
        if answer.status_code in {404, 409}:
            return []
        items: list[dict[str, Any]] = self._json(answer)["items"]
        return items

    def annotate(self, item: Mapping[str, Any], class_index: int | None) -> None:
        """Sends one decision; None is an abstention."""
        body = {
            "item_id": item["item_id"],
            "lease_id": item["lease_id"],
            "class_index": class_index,
            "reason_code": "" if class_index is not None else "unclear",
            "seconds": 1.0,
            "client_token": uuid.uuid4().hex,
            "suggestion_shown": True,
        }
        answer = self._client.post("/api/annotations", json=body)
        # Another answer came first, or the lease ended: the item will come again if it is open.
        if answer.status_code not in {200, 409}:
            raise PortalRefused(f"an annotation was refused with {answer.status_code}")

    @staticmethod
    def _json(answer: httpx.Response) -> Any:
        if answer.status_code != 200:
            raise PortalRefused(f"{answer.url.path} was refused with {answer.status_code}")
        return answer.json()


class Expert:
    """Answers from what a person at the site would know, with a set share of mistakes."""

    def __init__(self, knowledge: Path, *, accuracy: float, seed: int) -> None:
        self._knowledge = knowledge
        self._accuracy = accuracy
        self._rng = np.random.default_rng(seed)
        self._truths: dict[str, SiteTruth] = {}

    def answer(self, campaign: Mapping[str, Any], item: Mapping[str, Any]) -> int | None:
        """Returns the class index for an item, None for "can't tell"."""
        truth = self._truth(campaign["name"])
        if item.get("text") is not None:
            name = truth.class_of_text(item["text"])
        else:
            name = truth.class_of_image(base64.b64decode(item["image_png"]))
        if name is None:
            return None
        classes = [c["name"] if isinstance(c, dict) else c for c in campaign["classes"]]
        index = classes.index(name)
        if self._rng.random() >= self._accuracy:
            index = (index + 1 + int(self._rng.integers(len(classes) - 1))) % len(classes)
        return index

    def _truth(self, campaign: str) -> SiteTruth:
        if campaign not in self._truths:
            self._truths[campaign] = read_truth(self._knowledge / f"{campaign}-truth.jsonl")
        return self._truths[campaign]


def work(session: PortalSession, expert: Expert) -> int:
    """Answers everything that is open now and returns how many decisions it took."""
    count = 0
    for campaign in session.campaigns():
        for item in session.lease(campaign["name"]):
            session.annotate(item, expert.answer(campaign, item))
            count += 1
    return count


def run(portal: str, knowledge: Path, *, accuracy: float, seed: int) -> None:
    """Labels until the process is ended; a portal that is away is tried again."""
    password = (knowledge / PASSWORD_FILE).read_text().strip()
    expert = Expert(knowledge, accuracy=accuracy, seed=seed)
    session: PortalSession | None = None
    while True:
        try:
            session = session or PortalSession(portal, password)
            count = work(session, expert)
        except (httpx.HTTPError, PortalRefused) as error:
            sys.stderr.write(f"{error}\n")
            session, count = None, 0
        time.sleep(0.05 if count else PAUSE_SECONDS)


def main() -> int:
    """Reads the arguments and labels."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--portal", required=True, help="address of the portal's pages")
    parser.add_argument("--knowledge", required=True, type=Path, help="the expert's folder")
    parser.add_argument("--accuracy", type=float, default=1.0, help="share of right answers")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    run(chosen.portal, chosen.knowledge, accuracy=chosen.accuracy, seed=chosen.seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
