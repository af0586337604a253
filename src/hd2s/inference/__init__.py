"""From frames to maps and files."""

import sys

# OpenVINO reports each of its imports to a server where it finds this package: not on behalf of our users.
# Starts are shorter without, too.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
