from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class CandidateBatch(_message.Message):
    __slots__ = ("request_id", "campaign_id", "sequence", "model_version", "code_book_version", "label_schema_digest", "day", "row_count", "candidate_ids", "margins", "top_probabilities", "entropies", "divergence_risk", "predicted_classes", "runner_up_classes", "prototype_classes", "cell_ids", "density_cost", "replaces_older_versions", "padding", "further_counts")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    CAMPAIGN_ID_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    CODE_BOOK_VERSION_FIELD_NUMBER: _ClassVar[int]
    LABEL_SCHEMA_DIGEST_FIELD_NUMBER: _ClassVar[int]
    DAY_FIELD_NUMBER: _ClassVar[int]
    ROW_COUNT_FIELD_NUMBER: _ClassVar[int]
    CANDIDATE_IDS_FIELD_NUMBER: _ClassVar[int]
    MARGINS_FIELD_NUMBER: _ClassVar[int]
    TOP_PROBABILITIES_FIELD_NUMBER: _ClassVar[int]
    ENTROPIES_FIELD_NUMBER: _ClassVar[int]
    DIVERGENCE_RISK_FIELD_NUMBER: _ClassVar[int]
    PREDICTED_CLASSES_FIELD_NUMBER: _ClassVar[int]
    RUNNER_UP_CLASSES_FIELD_NUMBER: _ClassVar[int]
    PROTOTYPE_CLASSES_FIELD_NUMBER: _ClassVar[int]
    CELL_IDS_FIELD_NUMBER: _ClassVar[int]
    DENSITY_COST_FIELD_NUMBER: _ClassVar[int]
    REPLACES_OLDER_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    PADDING_FIELD_NUMBER: _ClassVar[int]
    FURTHER_COUNTS_FIELD_NUMBER: _ClassVar[int]
    request_id: bytes
    campaign_id: bytes
    sequence: int
    model_version: int
    code_book_version: int
    label_schema_digest: bytes
    day: int
    row_count: int
    candidate_ids: bytes
    margins: bytes
    top_probabilities: bytes
    entropies: bytes
    divergence_risk: bytes
    predicted_classes: bytes
    runner_up_classes: bytes
    prototype_classes: bytes
    cell_ids: bytes
    density_cost: bytes
    replaces_older_versions: bool
    padding: bytes
    further_counts: bytes
    def __init__(self, request_id: _Optional[bytes] = ..., campaign_id: _Optional[bytes] = ..., sequence: _Optional[int] = ..., model_version: _Optional[int] = ..., code_book_version: _Optional[int] = ..., label_schema_digest: _Optional[bytes] = ..., day: _Optional[int] = ..., row_count: _Optional[int] = ..., candidate_ids: _Optional[bytes] = ..., margins: _Optional[bytes] = ..., top_probabilities: _Optional[bytes] = ..., entropies: _Optional[bytes] = ..., divergence_risk: _Optional[bytes] = ..., predicted_classes: _Optional[bytes] = ..., runner_up_classes: _Optional[bytes] = ..., prototype_classes: _Optional[bytes] = ..., cell_ids: _Optional[bytes] = ..., density_cost: _Optional[bytes] = ..., replaces_older_versions: bool = ..., padding: _Optional[bytes] = ..., further_counts: _Optional[bytes] = ...) -> None: ...

class CandidateBatchAck(_message.Message):
    __slots__ = ("sequence", "new_row_count")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    NEW_ROW_COUNT_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    new_row_count: int
    def __init__(self, sequence: _Optional[int] = ..., new_row_count: _Optional[int] = ...) -> None: ...

class ReportPoolRequest(_message.Message):
    __slots__ = ("request_id", "campaign_id", "model_version", "day", "class_counts", "top_probability_sum", "top_probability_square_sum", "complete", "padding")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    CAMPAIGN_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    DAY_FIELD_NUMBER: _ClassVar[int]
    CLASS_COUNTS_FIELD_NUMBER: _ClassVar[int]
    TOP_PROBABILITY_SUM_FIELD_NUMBER: _ClassVar[int]
    TOP_PROBABILITY_SQUARE_SUM_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    PADDING_FIELD_NUMBER: _ClassVar[int]
    request_id: bytes
    campaign_id: bytes
    model_version: int
    day: int
    class_counts: bytes
    top_probability_sum: int
    top_probability_square_sum: int
    complete: bool
    padding: bytes
    def __init__(self, request_id: _Optional[bytes] = ..., campaign_id: _Optional[bytes] = ..., model_version: _Optional[int] = ..., day: _Optional[int] = ..., class_counts: _Optional[bytes] = ..., top_probability_sum: _Optional[int] = ..., top_probability_square_sum: _Optional[int] = ..., complete: bool = ..., padding: _Optional[bytes] = ...) -> None: ...

class ReportPoolResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ReportSiteRequest(_message.Message):
    __slots__ = ("request_id", "campaign_id", "day", "label_counts", "label_count", "expert_capacity_count", "median_decision_seconds", "temperature_milli", "calibration_error_milli", "padding")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    CAMPAIGN_ID_FIELD_NUMBER: _ClassVar[int]
    DAY_FIELD_NUMBER: _ClassVar[int]
    LABEL_COUNTS_FIELD_NUMBER: _ClassVar[int]
    LABEL_COUNT_FIELD_NUMBER: _ClassVar[int]
    EXPERT_CAPACITY_COUNT_FIELD_NUMBER: _ClassVar[int]
    MEDIAN_DECISION_SECONDS_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_MILLI_FIELD_NUMBER: _ClassVar[int]
    CALIBRATION_ERROR_MILLI_FIELD_NUMBER: _ClassVar[int]
    PADDING_FIELD_NUMBER: _ClassVar[int]
    request_id: bytes
    campaign_id: bytes
    day: int
    label_counts: bytes
    label_count: int
    expert_capacity_count: int
    median_decision_seconds: int
    temperature_milli: int
    calibration_error_milli: int
    padding: bytes
    def __init__(self, request_id: _Optional[bytes] = ..., campaign_id: _Optional[bytes] = ..., day: _Optional[int] = ..., label_counts: _Optional[bytes] = ..., label_count: _Optional[int] = ..., expert_capacity_count: _Optional[int] = ..., median_decision_seconds: _Optional[int] = ..., temperature_milli: _Optional[int] = ..., calibration_error_milli: _Optional[int] = ..., padding: _Optional[bytes] = ...) -> None: ...

class ReportSiteResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ReportHistogramRequest(_message.Message):
    __slots__ = ("request_id", "campaign_id", "model_version", "label_schema_digest", "day", "cell_count", "epsilon_milli", "noised_counts")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    CAMPAIGN_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    LABEL_SCHEMA_DIGEST_FIELD_NUMBER: _ClassVar[int]
    DAY_FIELD_NUMBER: _ClassVar[int]
    CELL_COUNT_FIELD_NUMBER: _ClassVar[int]
    EPSILON_MILLI_FIELD_NUMBER: _ClassVar[int]
    NOISED_COUNTS_FIELD_NUMBER: _ClassVar[int]
    request_id: bytes
    campaign_id: bytes
    model_version: int
    label_schema_digest: bytes
    day: int
    cell_count: int
    epsilon_milli: int
    noised_counts: bytes
    def __init__(self, request_id: _Optional[bytes] = ..., campaign_id: _Optional[bytes] = ..., model_version: _Optional[int] = ..., label_schema_digest: _Optional[bytes] = ..., day: _Optional[int] = ..., cell_count: _Optional[int] = ..., epsilon_milli: _Optional[int] = ..., noised_counts: _Optional[bytes] = ...) -> None: ...

class ReportHistogramResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
