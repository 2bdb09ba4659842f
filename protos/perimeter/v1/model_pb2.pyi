from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CampaignState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CAMPAIGN_STATE_UNSPECIFIED: _ClassVar[CampaignState]
    CAMPAIGN_STATE_ACTIVE: _ClassVar[CampaignState]
    CAMPAIGN_STATE_PAUSED: _ClassVar[CampaignState]
    CAMPAIGN_STATE_COMPLETED: _ClassVar[CampaignState]

class EgressMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EGRESS_MODE_UNSPECIFIED: _ClassVar[EgressMode]
    EGRESS_MODE_HISTOGRAM: _ClassVar[EgressMode]

class InstallState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    INSTALL_STATE_UNSPECIFIED: _ClassVar[InstallState]
    INSTALL_STATE_INSTALLED: _ClassVar[InstallState]
    INSTALL_STATE_REFUSED: _ClassVar[InstallState]
    INSTALL_STATE_ROLLED_BACK: _ClassVar[InstallState]

class InstallReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    INSTALL_REASON_UNSPECIFIED: _ClassVar[InstallReason]
    INSTALL_REASON_SIGNATURE: _ClassVar[InstallReason]
    INSTALL_REASON_DIGEST: _ClassVar[InstallReason]
    INSTALL_REASON_EXPIRED: _ClassVar[InstallReason]
    INSTALL_REASON_OLDER_VERSION: _ClassVar[InstallReason]
    INSTALL_REASON_MALFORMED: _ClassVar[InstallReason]
    INSTALL_REASON_WARM_UP: _ClassVar[InstallReason]
    INSTALL_REASON_TOO_LARGE: _ClassVar[InstallReason]
CAMPAIGN_STATE_UNSPECIFIED: CampaignState
CAMPAIGN_STATE_ACTIVE: CampaignState
CAMPAIGN_STATE_PAUSED: CampaignState
CAMPAIGN_STATE_COMPLETED: CampaignState
EGRESS_MODE_UNSPECIFIED: EgressMode
EGRESS_MODE_HISTOGRAM: EgressMode
INSTALL_STATE_UNSPECIFIED: InstallState
INSTALL_STATE_INSTALLED: InstallState
INSTALL_STATE_REFUSED: InstallState
INSTALL_STATE_ROLLED_BACK: InstallState
INSTALL_REASON_UNSPECIFIED: InstallReason
INSTALL_REASON_SIGNATURE: InstallReason
INSTALL_REASON_DIGEST: InstallReason
INSTALL_REASON_EXPIRED: InstallReason
INSTALL_REASON_OLDER_VERSION: InstallReason
INSTALL_REASON_MALFORMED: InstallReason
INSTALL_REASON_WARM_UP: InstallReason
INSTALL_REASON_TOO_LARGE: InstallReason

class Campaign(_message.Message):
    __slots__ = ("campaign_id", "name", "state", "label_schema_json", "kind", "view", "candidate_key_salt", "overlap_count", "guideline", "egress", "epsilon_release_milli", "epsilon_total_milli", "equal_rows_max")
    CAMPAIGN_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    LABEL_SCHEMA_JSON_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    VIEW_FIELD_NUMBER: _ClassVar[int]
    CANDIDATE_KEY_SALT_FIELD_NUMBER: _ClassVar[int]
    OVERLAP_COUNT_FIELD_NUMBER: _ClassVar[int]
    GUIDELINE_FIELD_NUMBER: _ClassVar[int]
    EGRESS_FIELD_NUMBER: _ClassVar[int]
    EPSILON_RELEASE_MILLI_FIELD_NUMBER: _ClassVar[int]
    EPSILON_TOTAL_MILLI_FIELD_NUMBER: _ClassVar[int]
    EQUAL_ROWS_MAX_FIELD_NUMBER: _ClassVar[int]
    campaign_id: bytes
    name: str
    state: CampaignState
    label_schema_json: bytes
    kind: str
    view: str
    candidate_key_salt: bytes
    overlap_count: int
    guideline: str
    egress: EgressMode
    epsilon_release_milli: int
    epsilon_total_milli: int
    equal_rows_max: int
    def __init__(self, campaign_id: _Optional[bytes] = ..., name: _Optional[str] = ..., state: _Optional[_Union[CampaignState, str]] = ..., label_schema_json: _Optional[bytes] = ..., kind: _Optional[str] = ..., view: _Optional[str] = ..., candidate_key_salt: _Optional[bytes] = ..., overlap_count: _Optional[int] = ..., guideline: _Optional[str] = ..., egress: _Optional[_Union[EgressMode, str]] = ..., epsilon_release_milli: _Optional[int] = ..., epsilon_total_milli: _Optional[int] = ..., equal_rows_max: _Optional[int] = ...) -> None: ...

class ListCampaignsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListCampaignsResponse(_message.Message):
    __slots__ = ("campaigns",)
    CAMPAIGNS_FIELD_NUMBER: _ClassVar[int]
    campaigns: _containers.RepeatedCompositeFieldContainer[Campaign]
    def __init__(self, campaigns: _Optional[_Iterable[_Union[Campaign, _Mapping]]] = ...) -> None: ...

class GetModelVersionRequest(_message.Message):
    __slots__ = ("campaign_id", "installed_version")
    CAMPAIGN_ID_FIELD_NUMBER: _ClassVar[int]
    INSTALLED_VERSION_FIELD_NUMBER: _ClassVar[int]
    campaign_id: bytes
    installed_version: int
    def __init__(self, campaign_id: _Optional[bytes] = ..., installed_version: _Optional[int] = ...) -> None: ...

class GetModelVersionResponse(_message.Message):
    __slots__ = ("version", "size_bytes", "bundle_sha256")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_SHA256_FIELD_NUMBER: _ClassVar[int]
    version: int
    size_bytes: int
    bundle_sha256: bytes
    def __init__(self, version: _Optional[int] = ..., size_bytes: _Optional[int] = ..., bundle_sha256: _Optional[bytes] = ...) -> None: ...

class DownloadBundleRequest(_message.Message):
    __slots__ = ("campaign_id", "version", "offset")
    CAMPAIGN_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    campaign_id: bytes
    version: int
    offset: int
    def __init__(self, campaign_id: _Optional[bytes] = ..., version: _Optional[int] = ..., offset: _Optional[int] = ...) -> None: ...

class BundleChunk(_message.Message):
    __slots__ = ("content",)
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    content: bytes
    def __init__(self, content: _Optional[bytes] = ...) -> None: ...

class ReportInstallRequest(_message.Message):
    __slots__ = ("request_id", "campaign_id", "version", "state", "reason")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    CAMPAIGN_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    request_id: bytes
    campaign_id: bytes
    version: int
    state: InstallState
    reason: InstallReason
    def __init__(self, request_id: _Optional[bytes] = ..., campaign_id: _Optional[bytes] = ..., version: _Optional[int] = ..., state: _Optional[_Union[InstallState, str]] = ..., reason: _Optional[_Union[InstallReason, str]] = ...) -> None: ...

class ReportInstallResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
