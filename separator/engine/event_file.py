"""TensorBoard's event files.

torch's SummaryWriter writes them in a thread of its own, which a full disk ends with a traceback
and for good; here the records go through `AppendFile`.
"""

import io
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from separator.engine.append_file import AppendFile


class EventFile:
    """One event file of a run; TensorBoard names the run by the folder.

    Args:
        folder: of the run, or of one line of it below that.
        step: finished steps of the run; TensorBoard is told to forget later ones.
    """

    def __init__(self, folder: Path, step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import SessionLog

        # TensorBoard reads the files of a folder in the order of their names
        seconds, rest = divmod(time.time_ns(), 10**9)
        name = f"events.out.tfevents.{seconds}.{rest:09}.{socket.gethostname()}.{os.getpid()}"
        self.file = AppendFile(folder / name)
        self._write(0, file_version="brain.Event:2")
        self._write(step + 1, session_log=SessionLog(status=SessionLog.START))

    def add_scalars(self, values: Mapping[str, float], step: int) -> None:
        """Write values, numbers by tag, of a step."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        rows = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self._write(step, summary=Summary(value=rows))

    def add_image(self, tag: str, image: Tensor, step: int) -> None:
        """Write an image (3 h w) in [0, 1] of a step under a tag."""
        from torch.utils.tensorboard.summary import image as image_summary

        self._write(step, summary=image_summary(tag, image, dataformats="CHW"))

    def add_audio(self, tag: str, wave: Tensor, step: int, rate: int) -> None:
        """Write a wave (c t) in [-1, 1], at a rate in hertz, of a step under a tag."""
        import soundfile
        from tensorboard.compat.proto.summary_pb2 import Summary

        data = io.BytesIO()
        soundfile.write(data, wave.T.numpy(), rate, format="WAV", subtype="PCM_16")
        audio = Summary.Audio(
            sample_rate=rate,
            num_channels=wave.shape[0],
            length_frames=wave.shape[1],
            encoded_audio_string=data.getvalue(),
            content_type="audio/wav",
        )
        self._write(step, summary=Summary(value=[Summary.Value(tag=tag, audio=audio)]))

    def _write(self, step: int, **content: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        record = io.BytesIO()
        event = Event(wall_time=time.time(), step=step, **content)
        RecordWriter(record).write(event.SerializeToString())
        self.file.write(record.getvalue(), step)
