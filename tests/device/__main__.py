"""`python -m tests.device`: a JSON object for each journey, in a process of its own."""

import json

from tests.device.journeys import rows

for row in rows():
    print(json.dumps(row), flush=True)
