"""What every test relies on."""

import signal

from hypothesis import HealthCheck, settings

# A shell's background job inherits "ignore SIGINT", and so would every process that a test starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says more about the machine than about the code.
settings.register_profile("tidemill", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tidemill")
