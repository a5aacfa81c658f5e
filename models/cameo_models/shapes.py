"""The parameters of the models as one flat vector: what lies where, how many, and where training starts.

No torch here, so that planning and the coordinator's optimizer need none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from cameo_protocol.errors import Bug
from cameo_protocol.plan import RiskTask, SegmentTask

ModelTask = RiskTask | SegmentTask
Parameters = NDArray[np.float64]

# Half-width of the box in which prototypes start. Features lie in [-1, 1]; a small box keeps every prototype
# in reach of some patients whatever the data, a zero box would never separate.
PROTOTYPE_BOX = 0.1


def parameter_shapes(task: ModelTask, features: int) -> dict[str, tuple[int, ...]]:
    """Parameter name -> shape, in the order in which they lie in the flat vector (= torch's named_parameters)."""
    if features < 1:
        raise Bug("model-features", what="a model needs at least one feature")
    if isinstance(task, SegmentTask):
        return {"prototypes.centres": (task.clusters, features)}
    if task.model == "logistic":
        return {"output.weight": (1, features), "output.bias": (1,)}
    return {
        "hidden.weight": (task.hidden, features),
        "hidden.bias": (task.hidden,),
        "output.weight": (1, task.hidden),
        "output.bias": (1,),
    }


def parameter_count(task: ModelTask, features: int) -> int:
    """Length d of the flat parameter vector: the lanes that this task takes in the secure sum."""
    return sum(math.prod(shape) for shape in parameter_shapes(task, features).values())


def flatten(task: ModelTask, features: int, tensors: Mapping[str, NDArray[np.float64]]) -> Parameters:
    """Name -> array, of the shapes of `parameter_shapes`, into one vector (d,) float64."""
    shapes = parameter_shapes(task, features)
    if tensors.keys() != shapes.keys() or any(tensors[name].shape != shapes[name] for name in shapes):
        raise Bug("model-shape", what="the tensors are not those of the task's model")
    return np.concatenate([np.asarray(tensors[name], dtype=np.float64).ravel() for name in shapes])


def unflatten(task: ModelTask, features: int, params: Parameters) -> dict[str, Parameters]:
    """The inverse of `flatten`; arrays are copies. A vector of another length is a `Bug`."""
    if params.shape != (parameter_count(task, features),):
        raise Bug("model-shape", what=f"{params.size} parameters for a model of {parameter_count(task, features)}")
    tensors: dict[str, Parameters] = {}
    start = 0
    for name, shape in parameter_shapes(task, features).items():
        size = math.prod(shape)
        tensors[name] = np.array(params[start : start + size], dtype=np.float64).reshape(shape)
        start += size
    return tensors


def initial_parameters(task: ModelTask, features: int, seed: int) -> Parameters:
    """Where training starts, (d,) float64: a public function of the plan (task and seed), never of data.

    Logistic: zeros. MLP: weights uniform in ±1/sqrt(inputs), biases 0. Prototypes: uniform in a small box.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    tensors: dict[str, Parameters] = {}
    for name, shape in parameter_shapes(task, features).items():
        if isinstance(task, SegmentTask):
            width = PROTOTYPE_BOX
        elif task.model == "logistic" or name.endswith("bias"):
            width = 0.0
        else:
            width = 1.0 / math.sqrt(shape[1])
        tensors[name] = rng.uniform(-1.0, 1.0, size=shape) * width
    return flatten(task, features, tensors)


def recalibrated(task: RiskTask, features: int, params: Parameters, slope: float, intercept: float) -> Parameters:
    """Parameters (d,) whose logit is slope * logit + intercept; the last, linear layer takes the correction in."""
    tensors = unflatten(task, features, params)
    tensors["output.weight"] *= slope
    tensors["output.bias"] = tensors["output.bias"] * slope + intercept
    return flatten(task, features, tensors)
