from perimeter.v1 import grant_pb2 as _grant_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SampleKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SAMPLE_KIND_UNSPECIFIED: _ClassVar[SampleKind]
    SAMPLE_KIND_TEXT: _ClassVar[SampleKind]
    SAMPLE_KIND_IMAGE: _ClassVar[SampleKind]
    SAMPLE_KIND_SERIES: _ClassVar[SampleKind]
    SAMPLE_KIND_RECORD: _ClassVar[SampleKind]

class UnmaskingAnswer(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    UNMASKING_ANSWER_UNSPECIFIED: _ClassVar[UnmaskingAnswer]
    UNMASKING_ANSWER_SHOWN: _ClassVar[UnmaskingAnswer]
    UNMASKING_ANSWER_REFUSED: _ClassVar[UnmaskingAnswer]
    UNMASKING_ANSWER_GONE: _ClassVar[UnmaskingAnswer]
    UNMASKING_ANSWER_UNKNOWN: _ClassVar[UnmaskingAnswer]
SAMPLE_KIND_UNSPECIFIED: SampleKind
SAMPLE_KIND_TEXT: SampleKind
SAMPLE_KIND_IMAGE: SampleKind
SAMPLE_KIND_SERIES: SampleKind
SAMPLE_KIND_RECORD: SampleKind
UNMASKING_ANSWER_UNSPECIFIED: UnmaskingAnswer
UNMASKING_ANSWER_SHOWN: UnmaskingAnswer
UNMASKING_ANSWER_REFUSED: UnmaskingAnswer
UNMASKING_ANSWER_GONE: UnmaskingAnswer
UNMASKING_ANSWER_UNKNOWN: UnmaskingAnswer

class MaskedSpan(_message.Message):
    __slots__ = ("start", "end", "entity_type")
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    ENTITY_TYPE_FIELD_NUMBER: _ClassVar[int]
    start: int
    end: int
    entity_type: str
    def __init__(self, start: _Optional[int] = ..., end: _Optional[int] = ..., entity_type: _Optional[str] = ...) -> None: ...

class MaskReport(_message.Message):
    __slots__ = ("policy_version", "detector_digest", "level", "spans", "verified")
    POLICY_VERSION_FIELD_NUMBER: _ClassVar[int]
    DETECTOR_DIGEST_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    SPANS_FIELD_NUMBER: _ClassVar[int]
    VERIFIED_FIELD_NUMBER: _ClassVar[int]
    policy_version: str
    detector_digest: bytes
    level: str
    spans: _containers.RepeatedCompositeFieldContainer[MaskedSpan]
    verified: bool
    def __init__(self, policy_version: _Optional[str] = ..., detector_digest: _Optional[bytes] = ..., level: _Optional[str] = ..., spans: _Optional[_Iterable[_Union[MaskedSpan, _Mapping]]] = ..., verified: bool = ...) -> None: ...

class Item(_message.Message):
    __slots__ = ("grant", "kind", "content", "mask_report", "probabilities", "model_version", "prototype_class_plus_one", "margin", "language")
    GRANT_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    MASK_REPORT_FIELD_NUMBER: _ClassVar[int]
    PROBABILITIES_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    PROTOTYPE_CLASS_PLUS_ONE_FIELD_NUMBER: _ClassVar[int]
    MARGIN_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    grant: _grant_pb2.Grant
    kind: SampleKind
    content: bytes
    mask_report: MaskReport
    probabilities: bytes
    model_version: int
    prototype_class_plus_one: int
    margin: int
    language: str
    def __init__(self, grant: _Optional[_Union[_grant_pb2.Grant, _Mapping]] = ..., kind: _Optional[_Union[SampleKind, str]] = ..., content: _Optional[bytes] = ..., mask_report: _Optional[_Union[MaskReport, _Mapping]] = ..., probabilities: _Optional[bytes] = ..., model_version: _Optional[int] = ..., prototype_class_plus_one: _Optional[int] = ..., margin: _Optional[int] = ..., language: _Optional[str] = ...) -> None: ...

class DeliverItemRequest(_message.Message):
    __slots__ = ("request_id", "item")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ITEM_FIELD_NUMBER: _ClassVar[int]
    request_id: bytes
    item: Item
    def __init__(self, request_id: _Optional[bytes] = ..., item: _Optional[_Union[Item, _Mapping]] = ...) -> None: ...

class DeliverItemResponse(_message.Message):
    __slots__ = ("duplicate",)
    DUPLICATE_FIELD_NUMBER: _ClassVar[int]
    duplicate: bool
    def __init__(self, duplicate: bool = ...) -> None: ...

class RecordEgressRequest(_message.Message):
    __slots__ = ("lines",)
    LINES_FIELD_NUMBER: _ClassVar[int]
    lines: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, lines: _Optional[_Iterable[bytes]] = ...) -> None: ...

class RecordEgressResponse(_message.Message):
    __slots__ = ("last_sequence", "last_digest")
    LAST_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    LAST_DIGEST_FIELD_NUMBER: _ClassVar[int]
    last_sequence: int
    last_digest: bytes
    def __init__(self, last_sequence: _Optional[int] = ..., last_digest: _Optional[bytes] = ...) -> None: ...

class Unmasking(_message.Message):
    __slots__ = ("unmasking_id", "grant_id", "placeholder")
    UNMASKING_ID_FIELD_NUMBER: _ClassVar[int]
    GRANT_ID_FIELD_NUMBER: _ClassVar[int]
    PLACEHOLDER_FIELD_NUMBER: _ClassVar[int]
    unmasking_id: bytes
    grant_id: bytes
    placeholder: str
    def __init__(self, unmasking_id: _Optional[bytes] = ..., grant_id: _Optional[bytes] = ..., placeholder: _Optional[str] = ...) -> None: ...

class ListUnmaskingsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListUnmaskingsResponse(_message.Message):
    __slots__ = ("unmaskings",)
    UNMASKINGS_FIELD_NUMBER: _ClassVar[int]
    unmaskings: _containers.RepeatedCompositeFieldContainer[Unmasking]
    def __init__(self, unmaskings: _Optional[_Iterable[_Union[Unmasking, _Mapping]]] = ...) -> None: ...

class AnswerUnmaskingRequest(_message.Message):
    __slots__ = ("unmasking_id", "answer", "words", "device_record")
    UNMASKING_ID_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    WORDS_FIELD_NUMBER: _ClassVar[int]
    DEVICE_RECORD_FIELD_NUMBER: _ClassVar[int]
    unmasking_id: bytes
    answer: UnmaskingAnswer
    words: _containers.RepeatedScalarFieldContainer[str]
    device_record: bytes
    def __init__(self, unmasking_id: _Optional[bytes] = ..., answer: _Optional[_Union[UnmaskingAnswer, str]] = ..., words: _Optional[_Iterable[str]] = ..., device_record: _Optional[bytes] = ...) -> None: ...

class AnswerUnmaskingResponse(_message.Message):
    __slots__ = ("taken",)
    TAKEN_FIELD_NUMBER: _ClassVar[int]
    taken: bool
    def __init__(self, taken: bool = ...) -> None: ...
