"""Start all threads of a process with it.

Python waits for ever for a new thread that dies for want of memory at its first step, and the event loop with it.
"""

import asyncio
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

# As many as asyncio's own executor may start.
THREADS = min(32, (os.cpu_count() or 1) + 4)


def start_threads() -> None:
    """Give the running event loop an executor whose threads run already, and no thread for each child process."""
    executor = ThreadPoolExecutor(THREADS)
    all_run = threading.Barrier(THREADS + 1)
    for _ in range(THREADS):
        executor.submit(all_run.wait)
    all_run.wait()
    loop = asyncio.get_running_loop()
    loop.set_default_executor(executor)
    if sys.version_info < (3, 12):  # the default from there on
        watcher = asyncio.PidfdChildWatcher()
        watcher.attach_loop(loop)
        asyncio.set_child_watcher(watcher)
