"""What every test shares: one thread a process, so that tests run side by side and give the same figures everywhere."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported; subprocesses inherit it

import torch  # noqa: E402

torch.set_num_threads(1)
