"""The gRPC services: check the message, call a handler, translate the answer; no rules here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from perimeter.v1 import (
    candidate_pb2,
    candidate_pb2_grpc,
    enrollment_pb2,
    enrollment_pb2_grpc,
    grant_pb2,
    grant_pb2_grpc,
    model_pb2,
    model_pb2_grpc,
)

from coordinator import enrollment, handlers, histogram_intake, replies, wire
from coordinator.admission import Context, Service, count_message, guarded, key_of_request, refuse
from coordinator.core.entries import GrantState
from coordinator.core.records import AnswerRecord
from coordinator.core.refusals import Refusal
from coordinator.identity import Caller
from coordinator.office import Office

CHUNK_BYTES = 256 * 1024
ANYONE = ("agent", "portal", "node", "operator")


class CandidateService(Service, candidate_pb2_grpc.CandidateServiceServicer):
    """Takes candidates and totals."""

    async def StreamCandidateBatches(  # noqa: N802 - the name in the contract
        self, request_iterator: AsyncIterator[candidate_pb2.CandidateBatch], context: Context
    ) -> AsyncIterator[candidate_pb2.CandidateBatchAck]:
        """Acknowledges each batch once it is durable."""
        async for message in request_iterator:

            def handle(
                office: Office, caller: Caller, message: candidate_pb2.CandidateBatch = message
            ) -> Any:
                return handlers.take_batch(office, caller, wire.parse_batch(message))

            receipt = await self.serve(context, ("agent",), handle, message=message)
            yield candidate_pb2.CandidateBatchAck(
                sequence=receipt.sequence, new_row_count=receipt.new_row_count
            )

    async def ReportPool(  # noqa: N802
        self, request: candidate_pb2.ReportPoolRequest, context: Context
    ) -> candidate_pb2.ReportPoolResponse:
        """Keeps an agent's totals."""

        def handle(office: Office, caller: Caller) -> Any:
            report, key = wire.parse_pool_report(request), key_of_request(caller, request)
            known = handlers.recall(office, key)
            if known is not None:
                return known
            return handlers.take_pool_report(office, caller, report, key)

        await self.serve(context, ("agent",), handle, message=request)
        return candidate_pb2.ReportPoolResponse()

    async def ReportHistogram(  # noqa: N802
        self, request: candidate_pb2.ReportHistogramRequest, context: Context
    ) -> candidate_pb2.ReportHistogramResponse:
        """Keeps the noised counts of an agent's pool; a repeat changes nothing."""

        def handle(office: Office, caller: Caller) -> Any:
            return histogram_intake.take_histogram(office, caller, wire.parse_histogram(request))

        await self.serve(context, ("agent",), handle, message=request)
        return candidate_pb2.ReportHistogramResponse()

    async def ReportSite(  # noqa: N802
        self, request: candidate_pb2.ReportSiteRequest, context: Context
    ) -> candidate_pb2.ReportSiteResponse:
        """Keeps a site's totals."""

        def handle(office: Office, caller: Caller) -> Any:
            report, key = wire.parse_site_report(request), key_of_request(caller, request)
            known = handlers.recall(office, key)
            if known is not None:
                return known
            return handlers.take_site_report(office, caller, report, key)

        await self.serve(context, ("portal",), handle, message=request)
        return candidate_pb2.ReportSiteResponse()


class GrantService(Service, grant_pb2_grpc.GrantServiceServicer):
    """Hands out grants and settles them."""

    async def ListGrants(  # noqa: N802
        self, request: grant_pb2.ListGrantsRequest, context: Context
    ) -> grant_pb2.ListGrantsResponse:
        """Waits up to `wait_seconds` for a first grant of the calling agent."""

        def handle(office: Office, caller: Caller) -> Any:
            wire.check_list_grants(request)
            after = request.after_ledger_sequence
            return handlers.list_grants(office, caller, after=after, page_size=request.page_size)

        loop = asyncio.get_running_loop()
        deadline = loop.time() + request.wait_seconds
        message: grant_pb2.ListGrantsRequest | None = request
        while True:
            # Taken before looking: a grant made in between then sets this very event.
            made = self.desk.grants_made
            found = await self.serve(context, ("agent",), handle, message=message)
            message = None
            left = deadline - loop.time()
            if found or left <= 0:
                grants = [
                    replies.grant_message_of(record, signature) for record, signature in found
                ]
                return grant_pb2.ListGrantsResponse(grants=grants)
            try:
                await asyncio.wait_for(made.wait(), left)
            except TimeoutError:
                continue

    async def RecordOutcomes(  # noqa: N802
        self, request: grant_pb2.RecordOutcomesRequest, context: Context
    ) -> grant_pb2.RecordOutcomesResponse:
        """Settles grants; a repeat gets the first answer."""

        def handle(office: Office, caller: Caller) -> Any:
            reports, key = wire.parse_outcomes(request), key_of_request(caller, request)
            known = handlers.recall(office, key)
            if known is not None:
                return known

            def encode(states: Any) -> bytes:
                pairs: list[tuple[bytes, GrantState | None]] = [
                    (report.grant_id, state) for report, state in zip(reports, states, strict=True)
                ]
                outcomes = [replies.outcome_message(grant_id, state) for grant_id, state in pairs]
                return grant_pb2.RecordOutcomesResponse(outcomes=outcomes).SerializeToString()

            return handlers.record_outcomes(office, caller, reports, key=key, encode=encode)

        answer = await self.serve(context, ("agent", "portal"), handle, message=request)
        return grant_pb2.RecordOutcomesResponse.FromString(answer)


class ModelService(Service, model_pb2_grpc.ModelServiceServicer):
    """Campaigns and bundles on their way to the sites."""

    async def ListCampaigns(  # noqa: N802
        self, request: model_pb2.ListCampaignsRequest, context: Context
    ) -> model_pb2.ListCampaignsResponse:
        """Lists the campaigns of the calling site."""

        def handle(office: Office, caller: Caller) -> Any:
            wire.refuse_unknown(request)
            pairs = handlers.list_campaigns(office, caller)
            return [replies.campaign_message(record, campaign) for record, campaign in pairs]

        campaigns = await self.serve(context, ANYONE, handle, message=request)
        return model_pb2.ListCampaignsResponse(campaigns=campaigns)

    async def GetModelVersion(  # noqa: N802
        self, request: model_pb2.GetModelVersionRequest, context: Context
    ) -> model_pb2.GetModelVersionResponse:
        """Says which version the caller should run."""

        def handle(office: Office, caller: Caller) -> Any:
            wire.check_model_version(request)
            return handlers.model_version(office, caller, request.campaign_id)

        record = await self.serve(context, ANYONE, handle, message=request)
        if record is None:
            return model_pb2.GetModelVersionResponse()
        return model_pb2.GetModelVersionResponse(
            version=record.version, size_bytes=record.size_bytes, bundle_sha256=record.sha256
        )

    async def DownloadBundle(  # noqa: N802
        self, request: model_pb2.DownloadBundleRequest, context: Context
    ) -> AsyncIterator[model_pb2.BundleChunk]:
        """Streams the bundle from an offset."""

        def handle(office: Office, caller: Caller) -> Any:
            wire.check_download(request)
            return handlers.locate_bundle(office, caller, request.campaign_id, request.version)

        path = await self.serve(context, ANYONE, handle, message=request)
        content = await asyncio.to_thread(path.read_bytes)
        for start in range(request.offset, len(content), CHUNK_BYTES):
            yield model_pb2.BundleChunk(content=content[start : start + CHUNK_BYTES])

    async def ReportInstall(  # noqa: N802
        self, request: model_pb2.ReportInstallRequest, context: Context
    ) -> model_pb2.ReportInstallResponse:
        """Keeps what a machine did with a version."""

        def handle(office: Office, caller: Caller) -> Any:
            note = wire.parse_install(request)
            key = key_of_request(caller, request)
            known = handlers.recall(office, key)
            if known is not None:
                return known
            return handlers.take_install(office, caller, note, key)

        await self.serve(context, ANYONE, handle, message=request)
        return model_pb2.ReportInstallResponse()


class IdentityService(Service, enrollment_pb2_grpc.IdentityServiceServicer):
    """Renews certificates of machines that still hold a valid one."""

    async def RenewCertificate(  # noqa: N802
        self, request: enrollment_pb2.RenewCertificateRequest, context: Context
    ) -> enrollment_pb2.RenewCertificateResponse:
        """Issues a fresh certificate for the caller; a repeat gets the first one."""

        def handle(office: Office, caller: Caller) -> Any:
            wire.check_renewal(request)
            key = key_of_request(caller, request)
            known = handlers.recall(office, key)
            if known is not None:
                return known

            def answer(renewed: enrollment.Renewed) -> AnswerRecord:
                response = _renewal(renewed).SerializeToString()
                now = office.clock()
                return AnswerRecord(key.caller, key.request_id, key.sha256, response, now)

            renewed = enrollment.renew(office, caller, request.csr_der, answer=answer)
            if isinstance(renewed, Refusal):
                return renewed
            return _renewal(renewed).SerializeToString()

        answer = await self.serve(context, ANYONE, handle, message=request)
        return enrollment_pb2.RenewCertificateResponse.FromString(answer)


def _renewal(renewed: enrollment.Renewed) -> enrollment_pb2.RenewCertificateResponse:
    return enrollment_pb2.RenewCertificateResponse(
        certificate_der=renewed.certificate_der, expire_time=Timestamp(seconds=renewed.expires_at)
    )


class EnrollmentService(Service, enrollment_pb2_grpc.EnrollmentServiceServicer):
    """Lets new machines in; served without a client certificate."""

    async def Enroll(  # noqa: N802
        self, request: enrollment_pb2.EnrollRequest, context: Context
    ) -> enrollment_pb2.EnrollResponse:
        """Exchanges a join token for a certificate."""

        def handle(office: Office) -> Any:
            count_message(office, request)
            return enrollment.enroll(office, wire.parse_enroll(request))

        enrolled = await guarded(context, lambda: self.desk.ask(handle))
        if isinstance(enrolled, Refusal):
            await refuse(context, enrolled)
        office = self.desk.office
        return enrollment_pb2.EnrollResponse(
            certificate_der=enrolled.certificate_der,
            authority_der=office.authority.der,
            site_id=enrolled.site_id,
            name=enrolled.name,
            release_public_key=office.release_public_key,
            grant_public_key=office.grant_key.public_key().public_bytes_raw(),
        )
