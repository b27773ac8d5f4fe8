"""An exported network with 8-bit convolutions."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from xray_lightning.onnx_graph import IMAGES

if TYPE_CHECKING:
    import onnx

CALIBRATION = 128  # validation images whose values set the ranges
BATCH = 8
QUANTISED = ("Conv", "Relu", "MaxPool", "Add")  # the head is a small part of the work: it stays in float32


def quantise(graph: "onnx.ModelProto", images: np.ndarray) -> "onnx.ModelProto":
    """The network with weights in int8 for each channel and maps in uint8, their ranges those of `images`.

    Images (N, 1, S, S) uint8. What comes before the first convolution, the head and the softmax stay in float32.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = iter(np.split(images, range(BATCH, len(images), BATCH)))

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self.batches, None)
            return None if batch is None else {IMAGES: batch}

    with TemporaryDirectory() as folder:
        path, prepared = Path(folder) / "int8.onnx", Path(folder) / "prepared.onnx"
        # by way of a file, since it empties what it is given; there is nothing left to fuse
        quant_pre_process(_saved(graph, Path(folder)), prepared, skip_optimization=True, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            path,
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(QUANTISED),
            nodes_to_exclude=_before_first_convolution(graph.graph.node),
            per_channel=True,
            reduce_range=True,  # weights of 7 bits: sums of 8 overflow on processors without VNNI instructions
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        result = onnx.load(path)
    known = {entry.key: entry.value for entry in graph.metadata_props}
    onnx.helper.set_model_props(result, known | {"weights": "int8, by static quantisation"})
    onnx.checker.check_model(result, full_check=True)
    return result


def _saved(graph: "onnx.ModelProto", folder: Path) -> Path:
    path = folder / "float32.onnx"
    path.write_bytes(graph.SerializeToString())
    return path


def _before_first_convolution(nodes: "Sequence[onnx.NodeProto]") -> list[str]:
    """Nodes lie in the order of computation."""
    kinds = [node.op_type for node in nodes]
    first = kinds.index("Conv") if "Conv" in kinds else len(kinds)
    return [node.name for node in nodes[:first]]
