"""Kills at random moments: the command is given again, and its result must be that of an undisturbed run."""

import os
import signal
import time

from tally import Result

MOST_KILLS = {False: 8, True: 3}  # of one run; short
SIGNALS = [signal.SIGKILL] * 8 + [signal.SIGTERM, signal.SIGINT]
PATIENCE = 30  # seconds until a moment that does not come is now


class After:
    """A number of seconds after the start."""

    def __init__(self, seconds):
        self.end = time.monotonic() + seconds

    def due(self):
        return time.monotonic() > self.end


class Changed:
    """The nth change of a folder's listing: names, and size and time of files."""

    def __init__(self, folder, nth, chosen=lambda name: True):
        self.folder, self.left, self.chosen, self.seen = folder, nth, chosen, None

    def due(self):
        now = {}
        try:
            for entry in os.scandir(self.folder):
                if self.chosen(entry.name):
                    status = entry.stat()
                    now[entry.name] = (status.st_size, status.st_mtime_ns)
        except OSError:  # the folder is not there yet, or a file is gone already
            return False
        if self.seen is not None and now != self.seen:
            self.left -= 1
        self.seen = now
        return self.left <= 0


class Logged:
    """The nth time that a word is logged."""

    def __init__(self, log, word, nth):
        self.log, self.word, self.nth = log, word, nth
        self.start = log.stat().st_size if log.exists() else 0

    def due(self):
        if not self.log.exists():
            return False
        with self.log.open("rb") as file:
            file.seek(self.start)
            return file.read().count(self.word) >= self.nth


def kill_at(shop, job, moment, number, pids, result):
    """Send a signal to some processes of a job at a moment, and wait for all; whether it still ran."""
    begin, known = time.monotonic(), len(job.log())
    asked = begin
    while not moment.due():
        if time.monotonic() - asked > 0.02:  # to ask more often costs the job's time
            asked = time.monotonic()
            if asked - begin > PATIENCE or not job.running():
                break
        time.sleep(0.0005)
    ran = job.running()
    for pid in pids:
        if pid not in job.codes:
            os.kill(pid, number)
    if len(pids) < len(job.pids) and "train_inner" not in job.log()[known:]:
        # Ranks that have not met yet wait for one another, and torchrun ends those that wait for a lost one.
        end = time.monotonic() + 5
        while job.running() and time.monotonic() < end:
            time.sleep(0.05)
        job.kill()
    shop.finish(job, result, limit=60)
    return ran


def temporary(name):
    return not (name.startswith("checkpoint") and name.endswith(".pt"))


class TrainingKills:
    """Training through all stages, in one process or on two ranks."""

    def __init__(self, shop, ranks=1):
        self.shop, self.ranks = shop, ranks
        self.reference = "train" if ranks == 1 else "ranks"

    def attempt(self, random):
        result, folder = Result(), self.shop.fresh(self.reference)
        overrides = [f"checkpoint.save_interval_updates={random.choice([1, 2, 3])}"]
        workers = random.choice([0, 0, 1])
        overrides += [f"dataset.num_workers={workers}"]
        command = self.shop.training(*overrides, ranks=self.ranks)
        for _ in range(MOST_KILLS[self.shop.short]):
            job = self.shop.start(command, folder, self.ranks)
            kind = random.choice(["time", "temporary", "temporary", "save", "update", "stage"])
            pids = job.pids if self.ranks == 1 else random.choice([job.pids, job.pids[:1], job.pids[1:]])
            number = signal.SIGKILL if self.ranks > 1 else random.choice(SIGNALS)
            known = len(job.log())
            if not kill_at(self.shop, job, self._moment(kind, folder, random), number, pids, result):
                break
            result.tried["kills"] += 1
            result.tried["in a save"] += kind in ("temporary", "save")
            if workers == 0 and any(code != -signal.SIGKILL for code in job.codes.values()):
                result.check_log(folder / "log", known)  # not that of a worker whose process was killed
            if result.problems:
                return result
        codes = [job.codes[pid] for pid in job.pids]
        if any(codes):
            known = len(job.log())
            codes = self.shop.finish(self.shop.start(command, folder, self.ranks), result)
            result.check_log(folder / "log", known)
        result.tried["runs"] += 1
        if any(codes):
            result.add("lost", f"a killed run does not go on: exit codes {codes}", folder / "log")
        else:
            self.shop.compare_training(folder, self.reference, result)
        return result

    def _moment(self, kind, folder, random):
        saves, log = folder / "checkpoints", folder / "log"
        if kind == "time":
            return After(random.uniform(0.1, 4))
        if kind == "temporary":
            return Changed(saves, random.randint(1, 8), temporary)
        if kind == "save":
            return Changed(saves, random.randint(1, 12))
        if kind == "update":
            return Logged(log, b"train_inner", random.randint(1, 12))
        return Logged(log, b" begins: ", 1)


class CorpusKills:
    """Commands that write files for a corpus."""

    COMMANDS = ("tokenize", "features", "crossval", "units")

    def __init__(self, shop):
        self.shop = shop

    def attempt(self, random):
        name, result, folder = random.choice(self.COMMANDS), Result(), self.shop.fresh("corpus")
        out = folder / "out" / name
        command = self.shop.corpus_commands(out)[name]
        start = {"folder": folder / "run", "allowed": [folder / "out"]}
        for _ in range(MOST_KILLS[self.shop.short]):
            known = log_length(folder / "run" / "log")
            job = self.shop.start(command, **start)
            moment = Changed(out, random.randint(1, 6))
            if random.random() < 0.5:
                moment = After(random.uniform(0.05, self.shop.duration(name)))
            ran = kill_at(self.shop, job, moment, random.choice(SIGNALS), job.pids, result)
            if job.codes[job.pids[0]] != -signal.SIGKILL:
                result.check_log(job.log_path, known)
            if not ran or result.problems:
                break
            result.tried["kills"] += 1
        known = log_length(job.log_path)
        code = self.shop.run(command, result=result, **start) if any(job.codes.values()) else 0
        result.check_log(job.log_path, known)
        result.tried["runs"] += 1
        if code:
            result.add("lost", f"a killed {name} does not go on: exit code {code}", job.log_path)
        else:
            self.shop.compare_files(out, name, result, job.log_path)
        return result


def log_length(log):
    return len(log.read_text(errors="replace")) if log.exists() else 0
