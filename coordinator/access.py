"""Who may call: the peer certificate is looked up on each call, never once per connection."""

from __future__ import annotations

from collections.abc import Collection

from coordinator.core.records import CertificateRecord, MachineRecord
from coordinator.core.refusals import Reason, Refusal
from coordinator.identity import Caller, read_caller
from coordinator.office import Office


def authenticate(office: Office, certificate_pem: bytes | None) -> Caller | Refusal:
    """Returns who calls, from the certificate that TLS has verified.

    A certificate that the coordinator never issued, that has ended, whose machine was revoked or
    was enrolled again since, is refused.
    """
    caller = (
        read_caller(certificate_pem, office.authority.trust_domain) if certificate_pem else None
    )
    record = office.store.get(CertificateRecord, caller.serial) if caller else None
    if caller is None or record is None:
        return Refusal(Reason.CERTIFICATE_UNKNOWN, "the certificate is not known here; enrol again")
    if caller.expires_at <= office.clock():
        return Refusal(Reason.CERTIFICATE_EXPIRED, "the certificate has ended; enrol again")
    machine = office.store.get(MachineRecord, record.site_id, record.role, record.name)
    if machine is None or machine.revoked or machine.generation != record.generation:
        return Refusal(Reason.CERTIFICATE_REVOKED, "the certificate was revoked; ask the operator")
    return caller


def machine_of(office: Office, caller: Caller) -> MachineRecord:
    """Returns the machine of an authenticated caller."""
    machine = office.store.get(MachineRecord, caller.site_id, caller.role, caller.name)
    if machine is None:
        raise LookupError(caller.label)
    return machine


def check_role(caller: Caller, allowed: Collection[str]) -> Refusal | None:
    """Returns a refusal when the caller's role is not among the allowed ones."""
    if caller.role in allowed:
        return None
    return Refusal(Reason.ROLE_FORBIDDEN, f"role {caller.role} may not make this call")
