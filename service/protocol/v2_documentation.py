"""What OpenAPI says of the inference call, whose body is read raw and so not described by a signature."""

from typing import Any

_PARAMETER_VALUE = {"oneOf": [{"type": "string"}, {"type": "number"}, {"type": "boolean"}]}
_DATA = {"type": "array", "items": {}, "description": "Flat, row-major, or nested as the shape; absent when binary"}
_TENSOR_PROPERTIES = {
    "name": {"type": "string"},
    "datatype": {"type": "string", "description": "BOOL, (U)INT8 to (U)INT64, FP16, BF16, FP32, FP64 or BYTES"},
    "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
    "data": _DATA,
    "parameters": {
        "type": "object",
        "properties": {"binary_data_size": {"type": "integer", "minimum": 0}},
        "additionalProperties": _PARAMETER_VALUE,
    },
}

_REQUEST_PARAMETERS = {
    "type": "object",
    "properties": {
        "slo_ms": {
            "type": "number",
            "exclusiveMinimum": 0,
            "description": "This request's latency, in place of the SLO's",
        },
        "slo_first_token_ms": {"type": "number", "exclusiveMinimum": 0, "description": "Of a language model"},
        "slo_token_ms": {"type": "number", "exclusiveMinimum": 0, "description": "Of a language model"},
        "quality_floor": {"type": "number", "minimum": 0, "maximum": 1, "description": "In place of the SLO's"},
        "level": {"type": "number", "minimum": 0, "maximum": 1, "description": "Pins the level, whatever the floor"},
        "timeout": {"type": "integer", "minimum": 1, "description": "Microseconds after which the request is dropped"},
        "priority": {"type": "integer", "minimum": 0, "description": "1 is the most urgent, 0 the default"},
        "binary_data_output": {"type": "boolean", "description": "The outputs' binary_data where they have none"},
    },
    "additionalProperties": _PARAMETER_VALUE,
}

_REQUESTED_OUTPUT = {
    "type": "object",
    "required": ["name"],
    "properties": {
        "name": {"type": "string"},
        "parameters": {
            "type": "object",
            "properties": {
                "binary_data": {"type": "boolean"},
                "classification": {
                    "type": "integer",
                    "minimum": 0,
                    "description": "Return the best n as score:index:label",
                },
            },
        },
    },
}

_REQUEST = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": {"type": "string", "description": "Echoed in the response"},
        "parameters": _REQUEST_PARAMETERS,
        "inputs": {
            "type": "array",
            "minItems": 1,
            "items": {"type": "object", "required": ["name", "datatype", "shape"], "properties": _TENSOR_PROPERTIES},
        },
        "outputs": {"type": "array", "items": _REQUESTED_OUTPUT, "description": "All of them when left out"},
    },
    "example": {
        "id": "1",
        "inputs": [{"name": "image", "datatype": "UINT8", "shape": [1, 28, 28], "data": [0] * 784}],
        "outputs": [{"name": "probabilities", "parameters": {"classification": 3}}],
        "parameters": {"slo_ms": 20},
    },
}

INFER_REQUEST_BODY: dict[str, Any] = {
    "required": True,
    "description": "JSON; or JSON and behind it the binary tensors, with the JSON's bytes in the header"
    " Inference-Header-Content-Length. May be compressed (Content-Encoding: gzip or deflate).",
    "content": {
        "application/json": {"schema": _REQUEST},
        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
    },
}

INFER_RESPONSE: dict[str, Any] = {
    "description": "The outputs, and what was done for them",
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "properties": {
                    "model_name": {"type": "string"},
                    "model_version": {"type": "string"},
                    "id": {"type": "string"},
                    "parameters": {
                        "type": "object",
                        "properties": {
                            "level": {"type": "number", "description": "0 dense, 1 the most that may be skipped"},
                            "skip_rate": {"type": "number", "description": "Skipped channels / channels"},
                            "macs_skipped": {"type": "number", "description": "MACs not done / the dense model's"},
                            "quality": {"type": "number", "description": "Expected agreement with the dense model"},
                            "queue_ms": {"type": "number"},
                            "compute_ms": {"type": "number"},
                            "slo_met": {"type": "boolean"},
                            "slo_attainable": {"type": "boolean", "description": "Whether the quality floor allows it"},
                        },
                    },
                    "outputs": {"type": "array", "items": {"type": "object", "properties": _TENSOR_PROPERTIES}},
                },
            }
        },
        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
    },
}
