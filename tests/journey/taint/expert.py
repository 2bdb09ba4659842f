"""A scripted expert at a portal: logs in, reads, decides, leaves notes, tries what fails."""

from __future__ import annotations

import itertools
import re
import time
import uuid

import httpx

from tests.journey.taint.planting import class_of


class Expert:
    """One logged-in person.

    Args:
        address: `http://host:port` of the portal.
        user_name: Who logs in.
        password: With what.
        notes: Markers that go into the notes, in turn.
    """

    def __init__(
        self, address: str, user_name: str, password: str, notes: tuple[str, ...] = ("",)
    ) -> None:
        self._client = httpx.Client(base_url=address, timeout=120)
        self._notes = itertools.cycle(notes)
        self.masked: list[tuple[str, str]] = []
        """Item and placeholder of what this expert was shown."""
        form = self._client.get("/login")
        token = re.search(r'name="csrf_token" value="([^"]+)"', form.text)
        assert token, form.text[:500]
        answer = self._client.post(
            "/login",
            data={"username": user_name, "password": password, "csrf_token": token.group(1)},
        )
        assert answer.status_code == 303, (answer.status_code, answer.text[:300])
        self._csrf = self._client.get("/api/session").json()["csrf_token"]

    def label(self, campaign: str, *, count: int = 20) -> int:
        """Decides what is on the desk and returns how many items were labeled."""
        queue = self._client.get("/api/queue", params={"campaign": campaign, "count": count})
        if queue.status_code != 200:
            return 0
        done = 0
        for number, item in enumerate(queue.json()["items"]):
            for start, end, _ in item["mask_spans"]:
                self.masked.append((item["item_id"], item["text"][start:end]))
            body = {
                "item_id": item["item_id"], "lease_id": item["lease_id"], "seconds": 3.0,
                "client_token": uuid.uuid4().hex, "note": next(self._notes),
                "class_index": None if number % 13 == 12 else class_of(item["text"]),
                "reason_code": "unclear" if number % 13 == 12 else "",
            }  # fmt: skip
            done += self._post("/api/annotations", body).status_code == 200
        return done

    def ask(self, item_id: str, placeholder: str, why: str) -> str:
        """Asks what a placeholder stands for; returns the number of the question."""
        before = self.questions()
        form = {"item_id": item_id, "placeholder": placeholder, "reason_code": "safety"}
        self._submit("/unmask/ask", {**form, "note": why})
        (number,) = set(self.questions()) - set(before)
        return number

    def questions(self) -> list[str]:
        """Numbers of the questions on the page."""
        return re.findall(r'data-unmasking="([0-9a-f]{32})"', self._client.get("/unmask").text)

    def allow(self, campaign: str) -> None:
        """As site lead: switches questions on, and says yes to each."""
        self._submit("/unmask/switch", {"campaign": campaign, "unmasking": "on"})
        for number in self.questions():
            self._submit("/unmask/decide", {"unmasking_id": number, "decision": "approve"})

    def look(self, number: str) -> list[str]:
        """Opens the one viewing of a question and waits for the device's words."""
        state = self._post(f"/api/unmaskings/{number}/open", {}).json()
        while state["state"] == "OPENED":
            time.sleep(0.2)
            state = self._post(f"/api/unmaskings/{number}/view", {}).json()
        assert state["state"] == "SHOWN", state["state"]
        words: list[str] = state["words"]
        return words

    def _submit(self, path: str, form: dict[str, str]) -> None:
        answer = self._client.post(path, data={**form, "csrf_token": self._csrf})
        assert answer.status_code in {303, 409}, (path, answer.status_code)

    def misbehave(self) -> list[int]:
        """Sends what must fail, with secrets in it; returns the status codes."""
        note = next(self._notes)
        return [
            self._post("/api/annotations", {"item_id": note, "class_index": note}).status_code,
            self._post("/api/annotations", {"note": note * 1000}).status_code,
            self._post("/api/flags", {"item_id": "00" * 16, "reason_code": note}).status_code,
            self._post("/api/skips", {note: note}).status_code,
            self._client.post("/api/annotations", content=note.encode()).status_code,
        ]

    def _post(self, path: str, body: object) -> httpx.Response:
        return self._client.post(path, json=body, headers={"x-csrf-token": self._csrf})

    def close(self) -> None:
        """Ends the connection."""
        self._client.close()
