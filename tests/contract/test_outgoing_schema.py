"""No message that leaves a site can hold free text, floats or anything of unbounded shape."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor
from perimeter.v1 import candidate_pb2, enrollment_pb2, grant_pb2, item_pb2, model_pb2

OUTGOING = (candidate_pb2, grant_pb2, model_pb2, enrollment_pb2)
STAYS_INSIDE = {"perimeter.v1.IntakeService"}
LIST = Path(__file__).with_name("outgoing_fields.txt")
TYPES = {
    FieldDescriptor.TYPE_BYTES: "bytes",
    FieldDescriptor.TYPE_BOOL: "bool",
    FieldDescriptor.TYPE_ENUM: "enum",
    FieldDescriptor.TYPE_MESSAGE: "message",
    FieldDescriptor.TYPE_UINT32: "uint32",
    FieldDescriptor.TYPE_UINT64: "uint64",
}


def requests(files: list[FileDescriptor]) -> list[Descriptor]:
    """What callers send: the callers are always machines of a site."""
    services = [service for file in files for service in file.services_by_name.values()]
    return [
        method.input_type
        for service in services
        if service.full_name not in STAYS_INSIDE
        for method in service.methods
    ]


def complaints(message: Descriptor, above: tuple[str, ...] = ()) -> Iterator[str]:
    """Everything about a message, and those inside it, that could carry free content."""
    if message.full_name in above:
        yield f"{message.name} contains itself"
        return
    if not message.full_name.startswith("perimeter."):
        yield f"{message.full_name} is defined elsewhere"
        return
    if message.is_extendable:
        yield f"{message.name} can be extended"
    for field in message.fields:
        said = TYPES.get(field.type)
        known = allowed().get(f"{message.name}.{field.name}")
        if said is None:
            yield f"{message.name}.{field.name} has a type that may not leave"
        elif known is None:
            yield f"{message.name}.{field.name} is not in {LIST.name}"
        elif known[:2] != (str(field.number), said):
            yield f"{message.name}.{field.name} is not what {LIST.name} says"
        if field.message_type is not None:
            if field.message_type.GetOptions().map_entry:
                yield f"{message.name}.{field.name} is a map"
            yield from complaints(field.message_type, (*above, message.full_name))


def allowed() -> dict[str, tuple[str, ...]]:
    lines = [line.split() for line in LIST.read_text().splitlines()]
    return {parts[0]: tuple(parts[1:]) for parts in lines if parts and parts[0] != "#"}


def lint(files: list[FileDescriptor]) -> list[str]:
    return [text for message in requests(files) for text in complaints(message)]


def real_files() -> list[FileDescriptor]:
    return [module.DESCRIPTOR for module in OUTGOING]


def test_every_field_that_can_leave_is_listed_with_its_type_and_bound():
    assert lint(real_files()) == []


def test_the_list_names_no_field_that_is_gone_and_a_bound_for_every_bytes_field():
    real = set()
    waiting = requests(real_files())
    while waiting:
        message = waiting.pop()
        real |= {f"{message.name}.{field.name}" for field in message.fields}
        waiting += [f.message_type for f in message.fields if f.message_type is not None]
    assert set(allowed()) == real
    assert all(len(parts) == 3 for parts in allowed().values())
    assert all(parts[2] != "-" for parts in allowed().values() if parts[1] == "bytes")


def test_items_are_served_by_the_site_alone():
    assert {
        service.full_name for service in item_pb2.DESCRIPTOR.services_by_name.values()
    } == STAYS_INSIDE
    for module in OUTGOING:
        assert item_pb2.DESCRIPTOR not in module.DESCRIPTOR.dependencies


def mutated(change) -> list[FileDescriptor]:
    """The real schema with one change, in a pool of its own."""
    pool = descriptor_pool.DescriptorPool()
    from google.protobuf import any_pb2, struct_pb2, timestamp_pb2

    for module in (timestamp_pb2, any_pb2, struct_pb2):
        plain = descriptor_pb2.FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(plain)
        pool.Add(plain)
    names = []
    for module in (grant_pb2, model_pb2, enrollment_pb2, candidate_pb2):
        plain = descriptor_pb2.FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(plain)
        if module is candidate_pb2:
            plain.dependency.extend(["google/protobuf/any.proto", "google/protobuf/struct.proto"])
            change(plain, next(m for m in plain.message_type if m.name == "ReportPoolRequest"))
        pool.Add(plain)
        names.append(plain.name)
    return [pool.FindFileByName(name) for name in names]


Field = descriptor_pb2.FieldDescriptorProto


def added(kind, **more):
    def change(_file, message):
        message.field.add(name="added", number=99, type=kind, label=Field.LABEL_OPTIONAL, **more)

    return change


def a_map(_file, message):
    entry = message.nested_type.add(name="AddedEntry")
    entry.options.map_entry = True
    for number, name in ((1, "key"), (2, "value")):
        entry.field.add(
            name=name, number=number, type=Field.TYPE_UINT32, label=Field.LABEL_OPTIONAL
        )
    message.field.add(
        name="added", number=99, type=Field.TYPE_MESSAGE, label=Field.LABEL_REPEATED,
        type_name=".perimeter.v1.ReportPoolRequest.AddedEntry",
    )  # fmt: skip


def retyped(_file, message):
    next(f for f in message.field if f.name == "day").type = Field.TYPE_UINT64


def renumbered(_file, message):
    next(f for f in message.field if f.name == "day").number = 98


def a_new_service(file, _message):
    file.message_type.add(name="Upload").field.add(
        name="content", number=1, type=Field.TYPE_BYTES, label=Field.LABEL_OPTIONAL
    )
    file.service.add(name="UploadService").method.add(
        name="Send", input_type=".perimeter.v1.Upload", output_type=".perimeter.v1.Upload"
    )


MESSAGE = Field.TYPE_MESSAGE
MUTATIONS = {
    "string": added(Field.TYPE_STRING),
    "float": added(Field.TYPE_FLOAT),
    "double": added(Field.TYPE_DOUBLE),
    "bytes without a listed length": added(Field.TYPE_BYTES),
    "whole number that is not listed": added(Field.TYPE_UINT32),
    "signed number": added(Field.TYPE_SINT64),
    "fixed number": added(Field.TYPE_FIXED64),
    "any": added(MESSAGE, type_name=".google.protobuf.Any"),
    "struct": added(MESSAGE, type_name=".google.protobuf.Struct"),
    "timestamp": added(MESSAGE, type_name=".google.protobuf.Timestamp"),
    "recursion": added(MESSAGE, type_name=".perimeter.v1.ReportPoolRequest"),
    "map": a_map,
    "changed type": retyped,
    "changed number": renumbered,
    "new service": a_new_service,
}


@pytest.mark.parametrize("name", sorted(MUTATIONS))
def test_each_way_to_widen_the_schema_fails_the_build(name):
    assert lint(mutated(MUTATIONS[name]))


def test_the_copied_schema_without_a_change_passes():
    assert lint(mutated(lambda _file, _message: None)) == []
