import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GrantReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    GRANT_REASON_UNSPECIFIED: _ClassVar[GrantReason]
    GRANT_REASON_USEFUL: _ClassVar[GrantReason]
    GRANT_REASON_EXPLORE: _ClassVar[GrantReason]
    GRANT_REASON_OVERLAP: _ClassVar[GrantReason]
    GRANT_REASON_CLASS_FLOOR: _ClassVar[GrantReason]

class OutcomeState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OUTCOME_STATE_UNSPECIFIED: _ClassVar[OutcomeState]
    OUTCOME_STATE_RELEASED: _ClassVar[OutcomeState]
    OUTCOME_STATE_LABELED: _ClassVar[OutcomeState]
    OUTCOME_STATE_ABSTAINED: _ClassVar[OutcomeState]
    OUTCOME_STATE_EXPIRED: _ClassVar[OutcomeState]
    OUTCOME_STATE_DECLINED: _ClassVar[OutcomeState]
    OUTCOME_STATE_REFUSED: _ClassVar[OutcomeState]

class SuggestionVerdict(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SUGGESTION_VERDICT_UNSPECIFIED: _ClassVar[SuggestionVerdict]
    SUGGESTION_VERDICT_STOOD: _ClassVar[SuggestionVerdict]
    SUGGESTION_VERDICT_CORRECTED: _ClassVar[SuggestionVerdict]
GRANT_REASON_UNSPECIFIED: GrantReason
GRANT_REASON_USEFUL: GrantReason
GRANT_REASON_EXPLORE: GrantReason
GRANT_REASON_OVERLAP: GrantReason
GRANT_REASON_CLASS_FLOOR: GrantReason
OUTCOME_STATE_UNSPECIFIED: OutcomeState
OUTCOME_STATE_RELEASED: OutcomeState
OUTCOME_STATE_LABELED: OutcomeState
OUTCOME_STATE_ABSTAINED: OutcomeState
OUTCOME_STATE_EXPIRED: OutcomeState
OUTCOME_STATE_DECLINED: OutcomeState
OUTCOME_STATE_REFUSED: OutcomeState
SUGGESTION_VERDICT_UNSPECIFIED: SuggestionVerdict
SUGGESTION_VERDICT_STOOD: SuggestionVerdict
SUGGESTION_VERDICT_CORRECTED: SuggestionVerdict

class Grant(_message.Message):
    __slots__ = ("grant_id", "campaign_id", "candidate_id", "model_version", "expire_time", "reason", "ledger_sequence", "signature")
    GRANT_ID_FIELD_NUMBER: _ClassVar[int]
    CAMPAIGN_ID_FIELD_NUMBER: _ClassVar[int]
    CANDIDATE_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    LEDGER_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    grant_id: bytes
    campaign_id: bytes
    candidate_id: bytes
    model_version: int
    expire_time: _timestamp_pb2.Timestamp
    reason: GrantReason
    ledger_sequence: int
    signature: bytes
    def __init__(self, grant_id: _Optional[bytes] = ..., campaign_id: _Optional[bytes] = ..., candidate_id: _Optional[bytes] = ..., model_version: _Optional[int] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., reason: _Optional[_Union[GrantReason, str]] = ..., ledger_sequence: _Optional[int] = ..., signature: _Optional[bytes] = ...) -> None: ...

class ListGrantsRequest(_message.Message):
    __slots__ = ("after_ledger_sequence", "page_size", "wait_seconds")
    AFTER_LEDGER_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    WAIT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    after_ledger_sequence: int
    page_size: int
    wait_seconds: int
    def __init__(self, after_ledger_sequence: _Optional[int] = ..., page_size: _Optional[int] = ..., wait_seconds: _Optional[int] = ...) -> None: ...

class ListGrantsResponse(_message.Message):
    __slots__ = ("grants",)
    GRANTS_FIELD_NUMBER: _ClassVar[int]
    grants: _containers.RepeatedCompositeFieldContainer[Grant]
    def __init__(self, grants: _Optional[_Iterable[_Union[Grant, _Mapping]]] = ...) -> None: ...

class Outcome(_message.Message):
    __slots__ = ("grant_id", "state", "suggestion", "decision_seconds", "class_index_plus_one")
    GRANT_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    SUGGESTION_FIELD_NUMBER: _ClassVar[int]
    DECISION_SECONDS_FIELD_NUMBER: _ClassVar[int]
    CLASS_INDEX_PLUS_ONE_FIELD_NUMBER: _ClassVar[int]
    grant_id: bytes
    state: OutcomeState
    suggestion: SuggestionVerdict
    decision_seconds: int
    class_index_plus_one: int
    def __init__(self, grant_id: _Optional[bytes] = ..., state: _Optional[_Union[OutcomeState, str]] = ..., suggestion: _Optional[_Union[SuggestionVerdict, str]] = ..., decision_seconds: _Optional[int] = ..., class_index_plus_one: _Optional[int] = ...) -> None: ...

class RecordOutcomesRequest(_message.Message):
    __slots__ = ("request_id", "outcomes", "padding")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    PADDING_FIELD_NUMBER: _ClassVar[int]
    request_id: bytes
    outcomes: _containers.RepeatedCompositeFieldContainer[Outcome]
    padding: bytes
    def __init__(self, request_id: _Optional[bytes] = ..., outcomes: _Optional[_Iterable[_Union[Outcome, _Mapping]]] = ..., padding: _Optional[bytes] = ...) -> None: ...

class RecordedOutcome(_message.Message):
    __slots__ = ("grant_id", "state")
    GRANT_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    grant_id: bytes
    state: OutcomeState
    def __init__(self, grant_id: _Optional[bytes] = ..., state: _Optional[_Union[OutcomeState, str]] = ...) -> None: ...

class RecordOutcomesResponse(_message.Message):
    __slots__ = ("outcomes",)
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    outcomes: _containers.RepeatedCompositeFieldContainer[RecordedOutcome]
    def __init__(self, outcomes: _Optional[_Iterable[_Union[RecordedOutcome, _Mapping]]] = ...) -> None: ...
