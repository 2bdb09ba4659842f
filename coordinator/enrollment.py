"""Enrolment: join tokens, first certificates, renewals, revocation, and the node keys' folder."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from coordinator.access import machine_of
from coordinator.core.campaign import SLUG
from coordinator.core.records import (
    AnswerRecord,
    CertificateRecord,
    JoinTokenRecord,
    MachineRecord,
)
from coordinator.core.refusals import Reason, Refusal
from coordinator.durable_files import write_durably
from coordinator.errors import ConfigInvalid, CsrInvalid
from coordinator.identity import ROLES, Authority, Caller, Leaf, Subject, node_key_openssh, read_csr
from coordinator.office import Office
from coordinator.store import Store
from coordinator.wire import EnrollOrder

TOKEN_PREFIX = "pmt1."  # noqa: S105 - a format marker, no secret
SECRET_BYTES = 32
ENROLLING = "enrollment"


@dataclass(frozen=True)
class Enrolled:
    """What a new machine gets; it is stored, so that a repeat of the request gets the same."""

    certificate_der: bytes
    site_id: str
    name: str


@dataclass(frozen=True)
class Renewed:
    """A fresh certificate and its end in seconds since 1970."""

    certificate_der: bytes
    expires_at: int


@dataclass(frozen=True)
class TokenTerms:
    """Whom a join token lets in, and the addresses it carries."""

    subject: Subject
    enroll_address: str
    coordinator_address: str
    lifetime_seconds: int


def make_join_token(
    store: Store,
    authority: Authority,
    terms: TokenTerms,
    *,
    now: int,
    entropy: Callable[[int], bytes],
) -> str:
    """Makes a single-use join token, keeps the digest of its secret, and returns it as one string.

    Raises:
        ConfigInvalid: Site, role or name break the naming rules.
    """
    subject = terms.subject
    if subject.role not in ROLES:
        raise ConfigInvalid(f"role {subject.role!r} is not one of {', '.join(ROLES)}")
    if not SLUG.fullmatch(subject.site_id) or not SLUG.fullmatch(subject.name):
        raise ConfigInvalid("site and name must be 1 to 40 of a-z, 0-9 and '-'")
    secret = entropy(SECRET_BYTES)
    record = JoinTokenRecord(
        secret_sha256=hashlib.sha256(secret).digest(),
        site_id=subject.site_id,
        role=subject.role,
        name=subject.name,
        hosts=json.dumps(subject.hosts),
        expires_at=now + terms.lifetime_seconds,
    )
    with store.transaction() as writer:
        writer.add(record)
        writer.note(now, "join token made", f"{subject.site_id}/{subject.role}/{subject.name}")
    content = {
        "enroll": terms.enroll_address,
        "coordinator": terms.coordinator_address,
        "authority": base64.b64encode(authority.der).decode(),
        "secret": base64.b64encode(secret).decode(),
        "site": subject.site_id,
        "role": subject.role,
        "name": subject.name,
    }
    return TOKEN_PREFIX + base64.urlsafe_b64encode(json.dumps(content).encode()).decode()


def enroll(office: Office, order: EnrollOrder) -> Enrolled | Refusal:
    """Exchanges a join token and a signing request for a certificate.

    The token is used up, the machine recorded and the certificate registered in one transaction; an
    older enrolment of the same machine ends with it.
    """
    answer = office.store.get(AnswerRecord, ENROLLING, order.request_id)
    if answer is not None:
        return _first_answer(office, answer, order)
    token = office.store.get(JoinTokenRecord, hashlib.sha256(order.join_secret).digest())
    refusal = _judge_token(token, office.clock())
    if refusal is not None or token is None:
        return refusal or Refusal(Reason.JOIN_TOKEN_UNKNOWN, "no such join token")
    subject = Subject(token.site_id, token.role, token.name, tuple(json.loads(token.hosts)))
    try:
        node_key = node_key_openssh(order.node_public_key_der) if token.role == "node" else ""
        leaf = _issue(office, order.csr_der, subject)
    except CsrInvalid as error:
        return Refusal(Reason.CSR_INVALID, str(error))
    _record_enrolment(office, order, token, leaf=leaf, node_key=node_key)
    write_node_keys(office.store, office.folder / "nodes")
    return Enrolled(leaf.der, token.site_id, token.name)


def _judge_token(token: JoinTokenRecord | None, now: int) -> Refusal | None:
    if token is None:
        return Refusal(Reason.JOIN_TOKEN_UNKNOWN, "no such join token; ask the operator for one")
    if token.used_at:
        return Refusal(Reason.JOIN_TOKEN_USED, "the join token was used; ask for a new one")
    if token.expires_at <= now:
        return Refusal(Reason.JOIN_TOKEN_EXPIRED, "the join token has ended; ask for a new one")
    return None


def _issue(office: Office, csr_der: bytes, subject: Subject) -> Leaf:
    return office.authority.issue(
        read_csr(csr_der),
        subject,
        now=office.clock(),
        lifetime=office.config.certificate_lifetime_seconds,
    )


def _record_enrolment(
    office: Office, order: EnrollOrder, token: JoinTokenRecord, *, leaf: Leaf, node_key: str
) -> None:
    now = office.clock()
    key = (token.site_id, token.role, token.name)
    before = office.store.get(MachineRecord, *key)
    generation = before.generation + 1 if before else 1
    with office.store.transaction() as writer:
        writer.put(replace(token, used_at=now))
        writer.put(MachineRecord(*key, generation, now, node_key=node_key))
        writer.add(CertificateRecord(leaf.serial, *key, generation, leaf.expires_at))
        writer.add(
            AnswerRecord(ENROLLING, order.request_id, order.request_sha256, leaf.der, now),
        )
        writer.note(now, "enrolled", f"{'/'.join(key)} serial {leaf.serial}")


def _first_answer(office: Office, answer: AnswerRecord, order: EnrollOrder) -> Enrolled | Refusal:
    if answer.request_sha256 != order.request_sha256:
        return Refusal(Reason.REQUEST_ID_REUSED, "the request id belongs to another request")
    token = office.store.get(JoinTokenRecord, hashlib.sha256(order.join_secret).digest())
    if token is None:
        return Refusal(Reason.JOIN_TOKEN_UNKNOWN, "no such join token; ask the operator for one")
    write_node_keys(office.store, office.folder / "nodes")
    return Enrolled(answer.response, token.site_id, token.name)


def renew(
    office: Office, caller: Caller, csr_der: bytes, *, answer: Callable[[Renewed], AnswerRecord]
) -> Renewed | Refusal:
    """Issues a fresh certificate for the caller's site, role and name.

    The hosts of a portal stay those of its join token. Older certificates of the machine stay good
    until their own end, so that a renewal whose answer got lost locks nobody out.

    Args:
        office: The desk.
        caller: Whose certificate to renew.
        csr_der: PKCS#10 request.
        answer: Makes the record that a repeat of the request will be answered from.
    """
    machine = machine_of(office, caller)
    tokens = office.store.find(
        JoinTokenRecord, site_id=caller.site_id, role=caller.role, name=caller.name
    )
    used = max((t for t in tokens if t.used_at), key=lambda t: t.used_at, default=None)
    hosts = tuple(json.loads(used.hosts)) if used else ()
    try:
        leaf = _issue(office, csr_der, Subject(caller.site_id, caller.role, caller.name, hosts))
    except CsrInvalid as error:
        return Refusal(Reason.CSR_INVALID, str(error))
    renewed = Renewed(leaf.der, leaf.expires_at)
    record = CertificateRecord(
        leaf.serial, caller.site_id, caller.role, caller.name, machine.generation, leaf.expires_at
    )
    with office.store.transaction() as writer:
        writer.add(record)
        writer.add(answer(renewed))
        writer.note(office.clock(), "renewed", f"{caller.label} serial {leaf.serial}")
    return renewed


def revoke(store: Store, machine_key: tuple[str, str, str], now: int) -> bool:
    """Denies a machine (site, role, name) every further call; False when there is none."""
    machine = store.get(MachineRecord, *machine_key)
    if machine is None:
        return False
    with store.transaction() as writer:
        writer.put(replace(machine, revoked=True))
        writer.note(now, "revoked", "/".join(machine_key))
    return True


def write_node_keys(store: Store, folder: Path) -> None:
    """Makes `<site>.<name>.pub` files say what the store says; the federation registers them.

    Revoked nodes lose their file. Run after each enrolment and at start, it repairs whatever a
    crash between the two left behind.
    """
    folder.mkdir(parents=True, exist_ok=True)
    nodes = [m for m in store.find(MachineRecord, role="node") if not m.revoked and m.node_key]
    wanted = {f"{m.site_id}.{m.name}.pub": m.node_key + "\n" for m in nodes}
    for stale in folder.glob("*.pub"):
        if stale.name not in wanted:
            stale.unlink()
    for file_name, content in wanted.items():
        path = folder / file_name
        if not path.exists() or path.read_text(encoding="ascii") != content:
            write_durably(path, content.encode("ascii"))
