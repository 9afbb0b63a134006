"""What the gateway counts. Labels are bounded: kinds, reasons and outcomes, never jobs."""

from prometheus_client import Counter, Gauge, Histogram

AUTH_FAILURES = Counter("tidemill_gateway_auth_failures_total", "Calls refused for their API key.", ["reason"])
ROWS_APPENDED = Counter("tidemill_gateway_rows_appended_total", "Rows made durable.")
BYTES_APPENDED = Counter("tidemill_gateway_bytes_appended_total", "Bytes of the input segments written.")
SEGMENT_SECONDS = Histogram(
    "tidemill_gateway_segment_seconds", "Seconds from cutting an input segment to its commit in the ledger."
)
SEGMENT_ROWS = Histogram(
    "tidemill_gateway_segment_rows", "Rows of an input segment.", buckets=(1, 8, 64, 256, 1024, 4096, 16384)
)
FRAMES_REFUSED = Counter("tidemill_gateway_frames_refused_total", "Frames refused.", ["reason"])
OPEN_STREAMS = Gauge("tidemill_gateway_open_streams", "Streams open now.", ["kind"])
RESULTS_READ = Counter("tidemill_gateway_results_read_total", "Results sent to readers.", ["order"])
