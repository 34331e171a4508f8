"""For all tests."""

import signal

# Who starts the tests in the background may have them ignore Ctrl-C, and so what they start: Dagster ends its helpers with that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
