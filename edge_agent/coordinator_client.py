"""What the agent says to the coordinator, call by call. All of it goes through the egress guard."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import grpc
from perimeter.v1 import candidate_pb2, enrollment_pb2, grant_pb2, model_pb2

from edge_agent.egress import Address, EgressGuard, Exchange, GuardedChannel, peer_error
from edge_agent.errors import PeerError
from edge_agent.identity import Identity

_V1 = "perimeter.v1."
_PAGE_SIZE = 500
_DOWNLOAD_SECONDS = 600.0
_STREAM_SECONDS = 600.0


class PendingGrants:
    """A question for grants that stays open at the coordinator.

    Args:
        future: The gRPC call.
    """

    def __init__(self, future: Any) -> None:
        self._future = future

    def on_done(self, wake: Any) -> None:
        """Calls `wake` once an answer or a failure is there."""
        self._future.add_done_callback(lambda _: wake())

    def take(self) -> Sequence[grant_pb2.Grant] | None:
        """Returns the grants, or None while the question is open.

        Raises:
            PeerError: The call failed.
        """
        if not self._future.done():
            return None
        try:
            return list(self._future.result().grants)
        except grpc.RpcError as error:
            raise peer_error(error, "coordinator") from None
        except grpc.FutureCancelledError:
            return []

    def cancel(self) -> None:
        """Withdraws the question."""
        self._future.cancel()


class CoordinatorClient:
    """The coordinator's services as this device uses them.

    Args:
        identity: Names the device and holds the address.
        target: `host:port` that replaces the identity's address, or empty.
        guard: Checks and records what leaves.
        call_seconds: Deadline of an ordinary call.
    """

    def __init__(
        self, identity: Identity, guard: EgressGuard, *, target: str = "", call_seconds: float = 20
    ) -> None:
        self._guard = guard
        self._target = target
        self._seconds = call_seconds
        self._answers_before = 0
        self._channel = self._opened(identity)

    def _opened(self, identity: Identity) -> GuardedChannel:
        credentials = grpc.ssl_channel_credentials(
            identity.authority_pem, identity.key_pem, identity.certificate_pem
        )
        target = self._target or identity.coordinator
        return GuardedChannel(Address("coordinator", target, credentials), self._guard)

    @property
    def answer_count(self) -> int:
        """Answers received so far; grows only while the coordinator is there."""
        return self._answers_before + self._channel.answer_count

    def rebuild(self, identity: Identity) -> None:
        """Opens a channel with a renewed certificate and ends the old one."""
        old, self._channel = self._channel, self._opened(identity)
        self._answers_before += old.answer_count
        old.close()

    def close(self) -> None:
        """Ends the channel."""
        self._channel.close()

    def list_campaigns(self) -> list[model_pb2.Campaign]:
        """Returns the campaigns that the site takes part in."""
        answer = self._channel.call(
            _V1 + "ModelService/ListCampaigns",
            model_pb2.ListCampaignsRequest(),
            model_pb2.ListCampaignsResponse,
            seconds=self._seconds,
        )
        return list(answer.campaigns)

    def model_version(
        self, campaign_id: bytes, installed_version: int
    ) -> model_pb2.GetModelVersionResponse:
        """Returns the version that this device should run."""
        answer: model_pb2.GetModelVersionResponse = self._channel.call(
            _V1 + "ModelService/GetModelVersion",
            model_pb2.GetModelVersionRequest(
                campaign_id=campaign_id, installed_version=installed_version
            ),
            model_pb2.GetModelVersionResponse,
            seconds=self._seconds,
        )
        return answer

    def download(self, campaign_id: bytes, version: int, offset: int) -> Iterator[bytes]:
        """Yields the bundle from an offset on."""
        chunks = self._channel.receive(
            _V1 + "ModelService/DownloadBundle",
            model_pb2.DownloadBundleRequest(
                campaign_id=campaign_id, version=version, offset=offset
            ),
            model_pb2.BundleChunk,
            seconds=_DOWNLOAD_SECONDS,
        )
        for chunk in chunks:
            yield chunk.content

    def report_install(self, report: model_pb2.ReportInstallRequest) -> None:
        """Says what became of a version."""
        self._channel.call(
            _V1 + "ModelService/ReportInstall",
            report,
            model_pb2.ReportInstallResponse,
            seconds=self._seconds,
        )

    def open_candidate_stream(self) -> Exchange:
        """Opens the stream on which each batch is answered by its acknowledgement."""
        return self._channel.exchange(
            _V1 + "CandidateService/StreamCandidateBatches",
            candidate_pb2.CandidateBatchAck,
            seconds=_STREAM_SECONDS,
        )

    def report_histogram(self, report: candidate_pb2.ReportHistogramRequest) -> None:
        """Sends noised counts of a pool."""
        self._channel.call(
            _V1 + "CandidateService/ReportHistogram",
            report,
            candidate_pb2.ReportHistogramResponse,
            seconds=self._seconds,
        )

    def report_pool(self, report: candidate_pb2.ReportPoolRequest) -> None:
        """Sends the totals of a pool."""
        self._channel.call(
            _V1 + "CandidateService/ReportPool",
            report,
            candidate_pb2.ReportPoolResponse,
            seconds=self._seconds,
        )

    def ask_for_grants(self, after: int, wait_seconds: int) -> PendingGrants:
        """Opens a question for grants behind a ledger position."""
        request = grant_pb2.ListGrantsRequest(
            after_ledger_sequence=after, page_size=_PAGE_SIZE, wait_seconds=wait_seconds
        )
        return PendingGrants(
            self._channel.begin(
                _V1 + "GrantService/ListGrants",
                request,
                grant_pb2.ListGrantsResponse,
                seconds=wait_seconds + self._seconds,
            )
        )

    def record_outcomes(
        self, request: grant_pb2.RecordOutcomesRequest
    ) -> list[grant_pb2.RecordedOutcome]:
        """Sends outcomes; returns the state of each grant after the call."""
        answer = self._channel.call(
            _V1 + "GrantService/RecordOutcomes",
            request,
            grant_pb2.RecordOutcomesResponse,
            seconds=self._seconds,
        )
        return list(answer.outcomes)

    def renew(self, request: enrollment_pb2.RenewCertificateRequest) -> bytes:
        """Returns a fresh certificate in DER."""
        answer: enrollment_pb2.RenewCertificateResponse = self._channel.call(
            _V1 + "IdentityService/RenewCertificate",
            request,
            enrollment_pb2.RenewCertificateResponse,
            seconds=self._seconds,
        )
        return answer.certificate_der


__all__ = ["CoordinatorClient", "PeerError", "PendingGrants"]
