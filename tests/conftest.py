"""What every test relies on."""

import signal

# A shell's background job inherits "ignore SIGINT", and so would every process that a test starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)
