"""From frames to maps and files."""

import sys

# OpenVINO reports each of its imports to a server where it finds this package. Not on behalf of our users; and
# starts are shorter without.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
