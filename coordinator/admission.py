"""The way into the coordinator: one thread for all handlers, who may call, and how a "no" is sent.

All handlers run on one thread (`Desk`), so that the ledger and the store are touched by one caller
at a time while thousands of calls wait cheaply in the event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NoReturn, TypeVar

import grpc
from google.protobuf.message import Message

from coordinator.access import authenticate, check_role
from coordinator.core.refusals import Reason, Refusal
from coordinator.errors import StoreError, WireInvalid
from coordinator.handlers import RequestKey
from coordinator.identity import Caller
from coordinator.observation import BYTES_RECEIVED, MESSAGES_RECEIVED
from coordinator.office import Office
from coordinator.wire import request_digest

REASON_KEY = "perimeter-reason"
_LOG = logging.getLogger("coordinator.service")
_T = TypeVar("_T")
Context = grpc.aio.ServicerContext[Any, Any]

_CODES: dict[Reason, grpc.StatusCode] = {
    Reason.BATCH_SEQUENCE_FORK: grpc.StatusCode.ABORTED,
    Reason.BUDGET_EXHAUSTED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.BUNDLE_UNKNOWN: grpc.StatusCode.NOT_FOUND,
    Reason.CAMPAIGN_UNKNOWN: grpc.StatusCode.NOT_FOUND,
    Reason.CANDIDATE_GRANTED: grpc.StatusCode.ALREADY_EXISTS,
    Reason.CERTIFICATE_EXPIRED: grpc.StatusCode.UNAUTHENTICATED,
    Reason.CERTIFICATE_REVOKED: grpc.StatusCode.UNAUTHENTICATED,
    Reason.CERTIFICATE_UNKNOWN: grpc.StatusCode.UNAUTHENTICATED,
    Reason.CSR_INVALID: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.EGRESS_MODE: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.GRANT_OF_OTHER_SITE: grpc.StatusCode.PERMISSION_DENIED,
    Reason.JOIN_TOKEN_EXPIRED: grpc.StatusCode.UNAUTHENTICATED,
    Reason.JOIN_TOKEN_UNKNOWN: grpc.StatusCode.UNAUTHENTICATED,
    Reason.JOIN_TOKEN_USED: grpc.StatusCode.UNAUTHENTICATED,
    Reason.LABEL_SCHEMA_MISMATCH: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.MODEL_VERSION_UNKNOWN: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.OUTCOME_NOT_YOURS: grpc.StatusCode.PERMISSION_DENIED,
    Reason.REQUEST_ID_REUSED: grpc.StatusCode.ALREADY_EXISTS,
    Reason.ROLE_FORBIDDEN: grpc.StatusCode.PERMISSION_DENIED,
    Reason.SITE_BUDGET_EXHAUSTED: grpc.StatusCode.RESOURCE_EXHAUSTED,
}


class Desk:
    """Runs functions that touch the office on its one thread."""

    def __init__(self, office: Office) -> None:
        self.office = office
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="office")
        self.grants_made = asyncio.Event()

    async def ask(self, question: Callable[..., _T], *args: Any) -> _T:
        """Runs `question(office, *args)` and returns what it returns."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, partial(question, self.office, *args))

    def ask_from_thread(self, question: Callable[..., _T], *args: Any) -> _T:
        """As `ask`, for callers outside the event loop."""
        return self._thread.submit(question, self.office, *args).result()

    def announce_grants(self) -> None:
        """Wakes the agents that wait for grants."""
        self.grants_made.set()
        self.grants_made = asyncio.Event()

    def close(self) -> None:
        """Waits for the running function and stops the thread."""
        self._thread.shutdown()


async def refuse(context: Context, refusal: Refusal) -> NoReturn:
    """Ends a call with the status of a refusal and its reason in the trailing metadata."""
    code = _CODES.get(refusal.reason, grpc.StatusCode.FAILED_PRECONDITION)
    await context.abort(code, refusal.sentence, ((REASON_KEY, refusal.reason.value),))
    raise AssertionError("abort raises")


async def guarded(context: Context, answer: Callable[[], Any]) -> Any:
    """Awaits an answer and turns our own errors into a status with a reason."""
    try:
        return await answer()
    except WireInvalid as error:
        code, reason = grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID"
        await context.abort(code, str(error), ((REASON_KEY, reason),))
    except StoreError:
        _LOG.exception("the store failed")
        sentence = "the coordinator cannot store at the moment; try again"
        code, reason = grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE"
        await context.abort(code, sentence, ((REASON_KEY, reason),))


def _peer_certificate(context: Context) -> bytes | None:
    certificates = context.auth_context().get("x509_pem_cert")
    return next(iter(certificates), None) if certificates else None


def _admit(office: Office, certificate: bytes | None, roles: tuple[str, ...]) -> Caller | Refusal:
    """Says who calls and whether that role may."""
    caller = authenticate(office, certificate)
    if isinstance(caller, Refusal):
        return caller
    return check_role(caller, roles) or caller


def count_message(office: Office, message: Message) -> None:
    """Adds a received message to the counters that the operator sees."""
    office.count(MESSAGES_RECEIVED, 1)
    office.count(BYTES_RECEIVED, message.ByteSize())


class Service:
    """Base of the services behind mutual TLS."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    async def serve(
        self,
        context: Context,
        roles: tuple[str, ...],
        handle: Callable[[Office, Caller], Any],
        *,
        message: Message | None,
    ) -> Any:
        """Admits the caller, runs `handle` on the desk, and aborts on a refusal.

        Args:
            context: The call.
            roles: Who may make this call.
            handle: Decides and records; its answer is returned.
            message: What was received, to be counted; None for a further look in the same call.
        """
        certificate = _peer_certificate(context)

        def admit_and_handle(office: Office) -> Any:
            # Counted here, on the desk's thread, so that no count is lost to another one.
            if message is not None:
                count_message(office, message)
            caller = _admit(office, certificate, roles)
            return caller if isinstance(caller, Refusal) else handle(office, caller)

        answer = await guarded(context, lambda: self.desk.ask(admit_and_handle))
        if isinstance(answer, Refusal):
            await refuse(context, answer)
        return answer


def key_of_request(caller: Caller, message: Any) -> RequestKey:
    """Returns what tells a repeat of this message from a new one."""
    return RequestKey(caller.label, message.request_id, request_digest(message))
