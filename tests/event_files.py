"""Reads TensorBoard's event files back: TFRecords, each with its checksums."""

import struct

from tensorboardX.proto.event_pb2 import Event
from tensorboardX.record_writer import masked_crc32c


def events(file):
    """The events of a file, every one of which is whole."""
    data, found = file.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        body, rest = data[12 : 12 + length], data[12 + length :]
        checksums = struct.unpack("<II", data[8:12] + rest[:4])
        assert checksums == (masked_crc32c(data[:8]), masked_crc32c(body)), file
        found.append(Event.FromString(body))
        data = rest[4:]
    return found


def points(workdir):
    """[(tag, step)] -> value, of all files of a run; no point may be there twice."""
    found = {}
    for file in sorted((workdir / "tensorboard").iterdir()):
        first, *others = events(file)
        assert first.file_version == "brain.Event:2"
        for event in others:
            for value in event.summary.value:
                assert (value.tag, event.step) not in found
                found[value.tag, event.step] = value.simple_value
    return found
