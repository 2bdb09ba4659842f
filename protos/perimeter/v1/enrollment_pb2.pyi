import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class EnrollRequest(_message.Message):
    __slots__ = ("request_id", "join_secret", "csr_der", "node_public_key_der")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    JOIN_SECRET_FIELD_NUMBER: _ClassVar[int]
    CSR_DER_FIELD_NUMBER: _ClassVar[int]
    NODE_PUBLIC_KEY_DER_FIELD_NUMBER: _ClassVar[int]
    request_id: bytes
    join_secret: bytes
    csr_der: bytes
    node_public_key_der: bytes
    def __init__(self, request_id: _Optional[bytes] = ..., join_secret: _Optional[bytes] = ..., csr_der: _Optional[bytes] = ..., node_public_key_der: _Optional[bytes] = ...) -> None: ...

class EnrollResponse(_message.Message):
    __slots__ = ("certificate_der", "authority_der", "site_id", "name", "release_public_key", "grant_public_key")
    CERTIFICATE_DER_FIELD_NUMBER: _ClassVar[int]
    AUTHORITY_DER_FIELD_NUMBER: _ClassVar[int]
    SITE_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    RELEASE_PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    GRANT_PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    certificate_der: bytes
    authority_der: bytes
    site_id: str
    name: str
    release_public_key: bytes
    grant_public_key: bytes
    def __init__(self, certificate_der: _Optional[bytes] = ..., authority_der: _Optional[bytes] = ..., site_id: _Optional[str] = ..., name: _Optional[str] = ..., release_public_key: _Optional[bytes] = ..., grant_public_key: _Optional[bytes] = ...) -> None: ...

class RenewCertificateRequest(_message.Message):
    __slots__ = ("request_id", "csr_der")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    CSR_DER_FIELD_NUMBER: _ClassVar[int]
    request_id: bytes
    csr_der: bytes
    def __init__(self, request_id: _Optional[bytes] = ..., csr_der: _Optional[bytes] = ...) -> None: ...

class RenewCertificateResponse(_message.Message):
    __slots__ = ("certificate_der", "expire_time")
    CERTIFICATE_DER_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    certificate_der: bytes
    expire_time: _timestamp_pb2.Timestamp
    def __init__(self, certificate_der: _Optional[bytes] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...
