"""Two runs at once in one folder: one is refused in a sentence or both work, and the result is that of one run."""

import time

from tally import Result

COMMANDS = ("train", "tokenize", "features", "crossval", "units", "export")
REFUSED = 2


class Pairs:
    """The same command twice, the second up to three seconds after the first."""

    def __init__(self, shop):
        self.shop = shop

    def attempt(self, random):
        name, result, folder = random.choice(COMMANDS), Result(), self.shop.fresh("pair")
        out = folder / "out" / name
        jobs = []
        for run in (folder / "first", folder / "second"):
            jobs.append(self.shop.start(self._command(name, out), run, allowed=[folder]))
            time.sleep(random.choice([0, 0.1, random.uniform(0, 3)]) * (len(jobs) == 1))
        codes = [self.shop.finish(job, result)[0] for job in jobs]
        logs = [job.log_path for job in jobs]
        for log in logs:
            result.check_log(log)
        result.tried["pairs"] += 1
        if 0 not in codes or not set(codes) <= {0, REFUSED}:
            result.add("lost", f"two of {name} at once end with {codes}", *logs)
        elif name == "train":
            self.shop.compare_training(out, "train", result)
        else:
            self.shop.compare_files(out, name, result, *logs)
        return result

    def _command(self, name, out):
        if name == "train":
            save_dir = out / "checkpoints"
            return self.shop.training("checkpoint.save_interval_updates=3", f"checkpoint.save_dir={save_dir}")
        return self.shop.corpus_commands(out)[name]
