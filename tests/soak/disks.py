"""Full and read-only disks: one sentence, and with room again the same command gives what an undisturbed one gives."""

import subprocess

from tally import Result
from workshop import contents

TRAIN = "train"
COMMANDS = (TRAIN, "tokenize", "features", "units", "crossval", "export", "manifest")
ROOM = "64m"


class Disks:
    """A small tmpfs; where mounting is not allowed, a limit of the size of files."""

    def __init__(self, shop):
        self.shop = shop
        self.disk = shop.scratch / "disk"
        self.disk.mkdir(exist_ok=True)
        self.mounts = self._mount("size=4k")
        self._unmount()

    def _mount(self, options):
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.disk)]
        try:
            return subprocess.run(command, capture_output=True, check=False).returncode == 0
        except FileNotFoundError:
            return False

    def _remount(self, options):
        subprocess.run(["mount", "-o", f"remount,{options}", str(self.disk)], check=True)

    def _unmount(self):
        if self.mounts:
            subprocess.run(["umount", "--lazy", str(self.disk)], capture_output=True, check=False)

    def attempt(self, random):
        name = random.choice(COMMANDS)
        needed = sum(map(len, contents(self.shop.folder / name).values())) // 1024
        kilobytes = random.randint(4, max(8, needed))
        read_only = self.mounts and random.random() < 0.25
        result, logs = Result(), self.shop.fresh("disk_logs")
        if self.mounts:
            self._mount(f"size={kilobytes}k")
        else:
            self.shop.fresh("disk")
        try:
            if read_only:
                self._remount("ro")
            limits = "" if self.mounts else str(kilobytes * 1024)
            full = self._first(name, logs, limits, result)
            result.tried["read-only disks" if read_only else "full disks" if full else "disks with room"] += 1
            if self.mounts:
                self._remount(f"rw,size={ROOM}")
            self._again(name, logs, result)
        finally:
            self._unmount()
        return result

    def _command(self, name):
        out = self.disk / "out" / name
        if name == TRAIN:
            save_dir = out / "checkpoints"
            return self.shop.training("checkpoint.save_interval_updates=3", f"checkpoint.save_dir={save_dir}"), out
        return self.shop.corpus_commands(out)[name], out

    def _first(self, name, logs, limits, result):
        """Run a command; whether the disk was too small for it."""
        command, _ = self._command(name)
        code = self.shop.run(command, logs, result, allowed=[self.disk, logs], limits=limits)
        result.check_log(logs / "log")
        if code not in (0, 1, 2) or (code == 1 and name != TRAIN):
            result.add("traceback", f"{name} on a full disk ends with {code}, not with 2", logs / "log")
        left = [path.name for path in self.disk.rglob("*") if path.name.endswith(".tmp")]
        if left:
            result.add("lost", f"{name} on a full disk leaves {left}", logs / "log")
        return code != 0

    def _again(self, name, logs, result):
        command, out = self._command(name)
        known = len((logs / "log").read_text(errors="replace"))
        code = self.shop.run(command, logs, result, allowed=[self.disk, logs])
        result.check_log(logs / "log", known)
        if code:
            result.add("lost", f"{name} does not go on with room: exit code {code}", logs / "log")
        elif name == TRAIN:
            self.shop.compare_training(out, TRAIN, result)
        else:
            self.shop.compare_files(out, name, result, logs / "log")
