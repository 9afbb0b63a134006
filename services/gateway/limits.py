"""Bounds of what the gateway accepts, as the protos state them; those of sampling are in `tidemill.sampling_limits`."""

from datetime import timedelta

MAX_FRAME_BYTES = 4 << 20
# A frame just above the limit is refused by name; what is above this too is refused by gRPC before it is read.
MAX_MESSAGE_BYTES = MAX_FRAME_BYTES + (1 << 20)

MAX_CUSTOM_ID_BYTES = 256
SHOWN_CUSTOM_ID_BYTES = 64
MAX_ROW_ERRORS = 100

MIN_WINDOW = timedelta(minutes=1)
MAX_WINDOW = timedelta(days=30)
DEFAULT_WINDOW = timedelta(hours=24)

MAX_LABELS = 16
MAX_LABEL_KEY_BYTES = 64
MAX_LABEL_VALUE_BYTES = 256
MAX_ORIGIN_RUN_ID_BYTES = 128
MAX_REQUEST_ID_BYTES = 128

# As `EstimateJob` has them.
MAX_EXPECTED_ROWS = 10**10
MAX_EXPECTED_TOKENS_PER_ROW = 10**6

MAX_FAIL_MESSAGE_BYTES = 500
MAX_REPLAY_ROWS = 10_000

RESULT_FRAME_BYTES = 1 << 20
